//! `kpx snapshot`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde_json::{Map, Value, json};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::Context;
use crate::capture::{self, Entry, Item, Manifest, SnapshotError};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, to_value};

const EXAMPLES: &str = "\
Examples:
  Record this node and its cluster's objects into one file
    $ sudo kpx snapshot node-a.tar.zst --kubeconfig ~/.kube/config

  Look at it elsewhere
    $ kpx inspect services --from node-a.tar.zst

Reading changes nothing: no table is created and no module loaded by looking.
What could not be captured is in capture.json, with the reason.
Exit code 2 says that something failed to be captured that is there.";

/// Arguments of `kpx snapshot`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// A new or empty folder, or a new file ending in .tar.zst
    #[arg(value_name = "DIR|FILE.tar.zst")]
    pub target: PathBuf,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let node = context.node()?;
    let stop = stop_flag()?;
    let progress = context.ui.progress(Some(Item::ALL.len() as u64), "capturing");
    let taken = capture::take(&node, &args.target, &stop, |item| {
        progress.message(format!("capturing {item}"));
        progress.inc(1);
    });
    drop(progress);
    let manifest = match taken {
        Err(e @ SnapshotError::Interrupted) => return Err(Failure::from(e).exit(Exit::Interrupted)),
        Err(e @ SnapshotError::OtherArchive { .. }) => return Err(Failure::from(e).exit(Exit::Usage)),
        taken => taken?,
    };
    let report = SnapshotReport { target: args.target.display().to_string(), manifest };
    context.ui.report(&report)?;
    let failed = report.manifest.items.iter().filter(|e| e.failed).count();
    if failed > 0 {
        context.ui.warn(&format!("{failed} of the items could not be read though they may be there"));
        if !rustix::process::geteuid().is_root() && node.is_live() {
            context.ui.hint("run kpx as root to read everything");
        }
    }
    context.ui.hint(&format!("read it with: kpx inspect services --from {}", report.target));
    Ok(if failed > 0 { Exit::ActOn } else { Exit::Fine })
}

/// Set by Ctrl-C or SIGTERM; a second one ends the process at once.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register_conditional_shutdown(signal, Exit::Interrupted as i32, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Failure::new(format!("cannot handle signals: {e}")))?;
    }
    Ok(stop)
}

struct SnapshotReport {
    target: String,
    manifest: Manifest,
}

impl Report for SnapshotReport {
    fn kind(&self) -> &'static str {
        "SnapshotReport"
    }

    fn items(&self) -> Vec<Value> {
        self.manifest.items.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let Manifest { node, label, taken, kpx_version, .. } = &self.manifest;
        let fields = [
            ("path", json!(self.target)),
            ("node", json!(node)),
            ("label", json!(label)),
            ("taken", json!(taken)),
            ("kpx_version", json!(kpx_version)),
        ];
        fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let headings: &[&'static str] =
            if wide { &["ITEM", "SIZE", "FILE", "SOURCE"] } else { &["ITEM", "SIZE", "FILE"] };
        let mut table = Table::new(headings).right(&["SIZE"]);
        for entry in &self.manifest.items {
            let mut row = vec![Cell::from(entry.item.clone()), size_cell(entry), file_cell(entry)];
            if wide {
                row.push(Cell::from(entry.source.clone()));
            }
            table.row(row);
        }
        let captured = self.manifest.items.iter().filter_map(|e| e.bytes);
        let (count, bytes) = captured.fold((0, 0), |(count, sum), bytes| (count + 1, sum + bytes));
        vec![table.footer(format!(
            "Captured {count} of {} items of {} ({}) in {}",
            self.manifest.items.len(),
            self.manifest.node,
            size(bytes),
            self.target
        ))]
    }

    fn names(&self) -> Vec<String> {
        self.manifest.items.iter().filter(|e| e.bytes.is_some()).map(|e| e.file.clone()).collect()
    }
}

fn size_cell(entry: &Entry) -> Cell {
    match entry.bytes {
        Some(bytes) => Cell::from(size(bytes)),
        None => Cell::toned("-", Tone::Quiet),
    }
}

fn file_cell(entry: &Entry) -> Cell {
    match &entry.absent {
        None => Cell::from(entry.file.clone()),
        Some(reason) if entry.failed => Cell::toned(format!("failed: {reason}"), Tone::Bad),
        Some(reason) => Cell::toned(format!("not captured: {reason}"), Tone::Quiet),
    }
}

/// A size for people, such as `1.2 MiB`.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes() {
        assert_eq!([0, 1023, 1024, 13_140_807, 1 << 31].map(size), ["0 B", "1023 B", "1.0 KiB", "12.5 MiB", "2.0 GiB"]);
    }
}
