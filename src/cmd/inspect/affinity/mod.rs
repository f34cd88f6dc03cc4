//! `kpx inspect affinity`: which client stays with which backend.

mod rules;

use clap::ValueEnum;
use serde_json::json;

use super::kept::{Filter, KeptArgs, Named, duration, endpoint, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::inspect::entry::{Affinity, Client};
use crate::kept::Keeper;
use crate::source::Via;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Which clients of a Service stay with which backend
    $ kpx inspect affinity --service shop/cart

  Which clients kube-proxy's rules remember on a recorded node
    $ kpx inspect affinity --via iptables --from node-a.tar.zst

  Where one client is kept, whatever the Service, as Cilium has it
    $ kpx inspect affinity --via cilium --address 192.0.2.17";

/// Arguments of `kpx inspect affinity`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Who remembers [default: kpx; Cilium where only its maps are pinned]
    #[arg(long, value_enum, value_name = "SOURCE")]
    via: Option<Memory>,
    #[command(flatten)]
    filter: Filter,
}

/// Who remembers clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Memory {
    /// kpx's own pinned BPF maps
    Ebpf,
    /// Cilium's pinned BPF maps
    Cilium,
    /// Lists of xt_recent, which kube-proxy's iptables rules fill
    Iptables,
    /// Affinity sets of kube-proxy's nftables tables
    Nftables,
    /// Templates of persistent connections of IPVS
    Ipvs,
}

const AFFINITY: Kind = Kind {
    list: "AffinityList",
    noun: "client",
    headings: &["CLIENT", "SERVICE", "BACKEND", "IDLE", "BACKEND-ID", "SERVICE-ID"],
    narrow: 4,
    right: &["IDLE", "BACKEND-ID", "SERVICE-ID"],
    whole: &["CLIENT", "BACKEND"],
};

pub(super) fn run(context: &mut Context, args: Args) -> Result<Exit, Failure> {
    let via = match args.via {
        None => None,
        Some(Memory::Ebpf) => Some(Keeper::Ebpf),
        Some(Memory::Cilium) => Some(Keeper::Cilium),
        Some(Memory::Iptables) => return rules::run(context, Via::Iptables, &args.filter),
        Some(Memory::Nftables) => return rules::run(context, Via::Nftables, &args.filter),
        Some(Memory::Ipvs) => return rules::run(context, Via::Ipvs, &args.filter),
    };
    show(context, &KeptArgs { via, filter: args.filter }, &AFFINITY, Keeper::affinity, |entry, named| {
        vec![line(entry, named)]
    })
}

fn line(entry: &Affinity, named: &Named) -> Line {
    let (address, cookie) = match entry.client {
        Client::Address(ip) => (Some(ip), None),
        Client::Netns(cookie) => (None, Some(cookie)),
    };
    let item = json!({
        "client": address,
        "client_netns": cookie,
        "backend": entry.backend.map(endpoint),
        "backend_id": entry.backend_id,
        "idle_seconds": entry.idle_seconds,
    });
    let cells = vec![
        entry.client.to_string(),
        known(named.label.as_ref()),
        entry.backend.map_or_else(|| format!("gone:{}", entry.backend_id), |backend| backend.to_string()),
        known(entry.idle_seconds.map(duration)),
        entry.backend_id.to_string(),
        entry.service.to_string(),
    ];
    Line::entry(entry.client.to_string(), with_service(Some(entry.service), named, item), cells)
}
