//! `kpx version`.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::Context;
use crate::ui::{Exit, Failure, Report, Table};

const EXAMPLES: &str = "\
Examples:
  What a bug report should say
    $ kpx version

  The version alone, for a script
    $ kpx version -o json | jq -r '.items[0].version'";

/// The oldest kernel whose facilities kpx needs: links of cgroup programs (5.7), getpeername hooks and per-socket
/// storage in them (5.8).
const KERNEL_FLOOR: &str = "5.8";

/// Arguments of `kpx version`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {}

pub(super) fn run(context: &mut Context, _args: &Args) -> Result<Exit, Failure> {
    context.ui.report(&Version)?;
    Ok(Exit::Fine)
}

/// SHA-256 of the eBPF object in this program, as `sha256sum ebpf/kpx.bpf.o` prints it.
fn object_hash() -> String {
    let hash = Sha256::digest(include_bytes!("../../ebpf/kpx.bpf.o"));
    hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

struct Version;

impl Version {
    /// Field, value.
    fn facts() -> Vec<(&'static str, Option<String>)> {
        vec![
            ("version", Some(env!("CARGO_PKG_VERSION").to_owned())),
            ("commit", option_env!("KPX_COMMIT").map(str::to_owned)),
            ("object_sha256", Some(object_hash())),
            ("layout_version", Some(kpx_abi::LAYOUT_VERSION.to_string())),
            ("kernel_floor", Some(KERNEL_FLOOR.to_owned())),
        ]
    }
}

impl Report for Version {
    fn kind(&self) -> &'static str {
        "Version"
    }

    fn items(&self) -> Vec<Value> {
        vec![Value::Object(Self::facts().into_iter().map(|(field, value)| (field.to_owned(), json!(value))).collect())]
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut table = Table::new(&["FIELD", "VALUE"]);
        for (field, value) in Self::facts() {
            table.row([field.to_owned(), value.unwrap_or_default()]);
        }
        vec![table]
    }

    fn names(&self) -> Vec<String> {
        vec![format!("kpx {}", env!("CARGO_PKG_VERSION"))]
    }
}
