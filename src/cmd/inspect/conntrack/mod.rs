//! `kpx inspect conntrack`: the kernel's flows counted, or those that a dataplane's packet path knows.

mod kernel;

use clap::ValueEnum;
use serde_json::json;

use super::kept::{Filter, KeptArgs, Named, duration, endpoint, protocol, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::dataplane::Dataplane;
use crate::inspect::cilium;
use crate::inspect::entry::Flow;
use crate::kept::Keeper;
use crate::source::Places;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Flows to Services: those of kpx's packet path where that is attached, else those of the kernel
    $ kpx inspect conntrack

  Which Services have how many flows in the kernel's table, and how full that is
    $ kpx inspect conntrack --via kernel

  Which backends they go to, in a recorded node
    $ kpx inspect conntrack --by backend --from node-a.tar.zst

  Who translates: nf_nat by its rules, or somebody else, such as IPVS
    $ kpx inspect conntrack --by nat -o json

  What Cilium knows of one client's flows, with flags and counters
    $ kpx inspect conntrack --via cilium --address 192.0.2.17 -o wide";

/// Arguments of `kpx inspect conntrack`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Whose table to read [default: kpx's where its packet path is attached; Cilium's where only its maps are pinned; else
    /// the kernel's, and always with --from, --by or --names]
    #[arg(long, value_enum, value_name = "SOURCE")]
    via: Option<Table>,
    #[command(flatten)]
    counting: kernel::Counting,
    #[command(flatten)]
    filter: Filter,
}

/// Who keeps flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Table {
    /// The kernel's connection tracking
    Kernel,
    /// kpx's own pinned BPF maps
    Ebpf,
    /// Cilium's pinned BPF maps
    Cilium,
}

const FLOWS: Kind = Kind {
    list: "FlowList",
    noun: "flow",
    headings: &["KIND", "SOURCE", "DESTINATION", "BACKEND", "EXPIRES", "PACKETS", "BYTES", "FLAGS", "SERVICE"],
    narrow: 5,
    right: &["EXPIRES", "PACKETS", "BYTES"],
    whole: &["KIND", "SOURCE", "DESTINATION", "BACKEND"],
};

pub(super) fn run(context: &mut Context, args: Args) -> Result<Exit, Failure> {
    let places = context.globals.places();
    let table = match args.via {
        Some(table) => table,
        None if context.globals.from.is_some() || args.counting.is_given() => Table::Kernel,
        None => carrier(&places),
    };
    if args.via.is_none() && table == Table::Ebpf {
        context.ui.note("kpx's packet path is attached: these are its flows; those of the kernel: --via kernel");
    }
    let via = match table {
        Table::Kernel => return kernel::run(context, &args.counting, &args.filter),
        Table::Ebpf => Keeper::Ebpf,
        Table::Cilium => Keeper::Cilium,
    };
    let kept = KeptArgs { via: Some(via), filter: args.filter };
    show(context, &kept, &FLOWS, Keeper::conntrack, |entry, named| vec![line(entry, named)])
}

/// Who carries flows to Services on this node, as far as can be seen: what cannot be read is no reason to tell less.
fn carrier(places: &Places) -> Table {
    if !places.kpx.pins.is_dir() {
        return if cilium::is_there(&places.cilium).unwrap_or(false) { Table::Cilium } else { Table::Kernel };
    }
    let attached = Dataplane::adopt(&places.kpx).ok().flatten().and_then(|found| found.device_numbers().ok());
    if attached.is_some_and(|devices| !devices.is_empty()) { Table::Ebpf } else { Table::Kernel }
}

fn line(flow: &Flow, named: &Named) -> Line {
    let protocol = protocol(flow.protocol);
    let item = json!({
        "kind": flow.kind,
        "protocol": protocol,
        "source": endpoint(flow.source),
        "destination": endpoint(flow.destination),
        "backend": flow.backend.map(endpoint),
        "packets": flow.packets,
        "bytes": flow.bytes,
        "expires_seconds": flow.expires_seconds,
        "flags": flow.flags,
    });
    let expires = flow.expires_seconds.map(|seconds| match u64::try_from(seconds) {
        Ok(left) => duration(left),
        Err(_) => "over".to_owned(),
    });
    let cells = vec![
        flow.kind.to_owned(),
        flow.source.to_string(),
        format!("{}/{protocol}", flow.destination),
        known(flow.backend),
        known(expires),
        known(flow.packets),
        known(flow.bytes),
        flow.flags.join(","),
        known(named.label.as_ref()),
    ];
    let name = format!("{}->{}/{protocol}", flow.source, flow.destination);
    Line::entry(name, with_service(flow.service, named, item), cells)
}
