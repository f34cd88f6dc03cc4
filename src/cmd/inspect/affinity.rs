//! `kpx inspect affinity`: which client stays with which backend.

use serde_json::json;

use super::kept::{KeptArgs, Named, duration, endpoint, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::inspect::entry::{Affinity, Client};
use crate::kept::Keeper;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Which clients of a Service stay with which backend
    $ kpx inspect affinity --service shop/cart

  Where one client is kept, whatever the Service, as Cilium has it
    $ kpx inspect affinity --via cilium --address 192.0.2.17";

/// Arguments of `kpx inspect affinity`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    kept: KeptArgs,
}

const AFFINITY: Kind = Kind {
    list: "AffinityList",
    noun: "client",
    headings: &["CLIENT", "SERVICE", "BACKEND", "IDLE", "BACKEND-ID", "SERVICE-ID"],
    narrow: 4,
    right: &["IDLE", "BACKEND-ID", "SERVICE-ID"],
    whole: &["CLIENT", "BACKEND"],
};

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    show(context, &args.kept, &AFFINITY, Keeper::affinity, |entry, named| vec![line(entry, named)])
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
