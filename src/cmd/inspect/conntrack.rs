//! `kpx inspect conntrack`: the flows that the packet path knows.

use serde_json::json;

use super::kept::{KeptArgs, Named, duration, endpoint, protocol, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::inspect::entry::Flow;
use crate::kept::Keeper;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Open flows of a Service, looked at again every two seconds
    $ kpx inspect conntrack --service shop/cart --watch

  What Cilium knows of one client's flows, with flags and counters
    $ kpx inspect conntrack --via cilium --address 192.0.2.17 -o wide";

/// Arguments of `kpx inspect conntrack`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    kept: KeptArgs,
}

const FLOWS: Kind = Kind {
    list: "FlowList",
    noun: "flow",
    headings: &["KIND", "SOURCE", "DESTINATION", "BACKEND", "EXPIRES", "PACKETS", "BYTES", "FLAGS", "SERVICE"],
    narrow: 5,
    right: &["EXPIRES", "PACKETS", "BYTES"],
    whole: &["KIND", "SOURCE", "DESTINATION", "BACKEND"],
};

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    show(context, &args.kept, &FLOWS, Keeper::conntrack, |entry, named| vec![line(entry, named)])
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
