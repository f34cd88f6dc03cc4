//! `kpx inspect nat`: which address is replaced by which.

use serde_json::json;

use super::kept::{KeptArgs, Named, duration, endpoint, protocol, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::inspect::entry::Nat;
use crate::kept::Keeper;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  Which flows leave with an address of the node
    $ kpx inspect nat

  What Cilium makes of the source port 43210, as JSON
    $ kpx inspect nat --via cilium --port 43210 -o json";

/// Arguments of `kpx inspect nat`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    kept: KeptArgs,
}

const NAT: Kind = Kind {
    list: "NatList",
    noun: "translation",
    headings: &["REPLACES", "SOURCE", "DESTINATION", "BY", "AGE", "SERVICE"],
    narrow: 5,
    right: &["AGE"],
    whole: &["REPLACES", "SOURCE", "DESTINATION", "BY"],
};

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    show(context, &args.kept, &NAT, Keeper::nat, |entry, named| vec![line(entry, named)])
}

fn line(nat: &Nat, named: &Named) -> Line {
    let protocol = protocol(nat.protocol);
    let item = json!({
        "replaces": nat.kind,
        "protocol": protocol,
        "source": endpoint(nat.source),
        "destination": endpoint(nat.destination),
        "by": endpoint(nat.becomes),
        "age_seconds": nat.age_seconds,
    });
    let cells = vec![
        nat.kind.to_string(),
        nat.source.to_string(),
        format!("{}/{protocol}", nat.destination),
        nat.becomes.to_string(),
        known(nat.age_seconds.map(duration)),
        known(named.label.as_ref()),
    ];
    let name = format!("{}->{}/{protocol}", nat.source, nat.destination);
    Line::entry(name, with_service(nat.service, named, item), cells)
}
