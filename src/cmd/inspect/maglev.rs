//! `kpx inspect maglev`: how the slots of Maglev tables are shared.

use serde_json::{Value, json};

use super::kept::{KeptArgs, Named, endpoint, show, with_service};
use super::listing::{Kind, Line, known};
use crate::cmd::Context;
use crate::inspect::entry::{Maglev, Share};
use crate::kept::Keeper;
use crate::ui::{Exit, Failure};

const EXAMPLES: &str = "\
Examples:
  The share of each backend in the tables of a namespace
    $ kpx inspect maglev -n shop

  The tables that Cilium has, as JSON
    $ kpx inspect maglev --via cilium -o json";

/// Arguments of `kpx inspect maglev`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    kept: KeptArgs,
}

const TABLES: Kind = Kind {
    list: "MaglevTableList",
    noun: "table",
    headings: &["SERVICE", "LIST", "BACKEND", "SLOTS", "SHARE", "BACKEND-ID", "SERVICE-ID"],
    narrow: 5,
    right: &["SLOTS", "SHARE", "BACKEND-ID", "SERVICE-ID"],
    whole: &["BACKEND"],
};

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    show(context, &args.kept, &TABLES, Keeper::maglev, |table, named| {
        table.shares.iter().map(|share| line(table, share, named)).collect()
    })
}

fn line(table: &Maglev, share: &Share, named: &Named) -> Line {
    let item: Value = json!({
        "list": table.list,
        "table_slots": table.slots,
        "backend": share.backend.map(endpoint),
        "backend_id": share.backend_id,
        "slots": share.slots,
    });
    let percent = share.slots as f64 * 100.0 / table.slots.max(1) as f64;
    let cells = vec![
        known(named.label.as_ref()),
        table.list.to_owned(),
        share.backend.map_or_else(|| format!("gone:{}", share.backend_id), |backend| backend.to_string()),
        share.slots.to_string(),
        format!("{percent:.1}%"),
        share.backend_id.to_string(),
        table.service.to_string(),
    ];
    let label = known(named.label.as_ref());
    Line::entry(label, with_service(Some(table.service), named, item), cells)
}
