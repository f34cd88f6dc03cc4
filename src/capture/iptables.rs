//! The iptables tools of one backend, whatever they are called on this node.

use super::command::{self, CommandError};
use super::item::Variant;
use crate::model::Family;

/// One of the tools that handle whole tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XtablesTool {
    /// `iptables-save`.
    Save,
    /// `iptables-restore`.
    Restore,
}

impl XtablesTool {
    /// The name by which a backend's tool goes beside the other's.
    pub const fn program(self, family: Family, variant: Variant) -> &'static str {
        match (self, family, variant) {
            (Self::Save, Family::V4, Variant::Legacy) => "iptables-legacy-save",
            (Self::Save, Family::V4, Variant::Nft) => "iptables-nft-save",
            (Self::Save, Family::V6, Variant::Legacy) => "ip6tables-legacy-save",
            (Self::Save, Family::V6, Variant::Nft) => "ip6tables-nft-save",
            (Self::Restore, Family::V4, Variant::Legacy) => "iptables-legacy-restore",
            (Self::Restore, Family::V4, Variant::Nft) => "iptables-nft-restore",
            (Self::Restore, Family::V6, Variant::Legacy) => "ip6tables-legacy-restore",
            (Self::Restore, Family::V6, Variant::Nft) => "ip6tables-nft-restore",
        }
    }

    /// The name without the backend in it.
    const fn plain(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Save, Family::V4) => "iptables-save",
            (Self::Save, Family::V6) => "ip6tables-save",
            (Self::Restore, Family::V4) => "iptables-restore",
            (Self::Restore, Family::V6) => "ip6tables-restore",
        }
    }

    /// Runs the tool of this family and backend to its end; gives what it printed, and the command line.
    pub fn run(
        self,
        family: Family,
        variant: Variant,
        args: &[&str],
        stdin: Option<&[u8]>,
    ) -> Result<(Vec<u8>, String), CommandError> {
        let (first, plain) = (self.program(family, variant), self.plain(family));
        let multi = if variant == Variant::Legacy { "xtables-legacy-multi" } else { "xtables-nft-multi" };
        let of_multi = [&[plain], args].concat();
        for (program, args) in [(first, args), (multi, &of_multi), (plain, args)] {
            if program == plain && plain_variant(plain) != Some(variant) {
                continue;
            }
            match command::output(program, args, stdin) {
                Err(CommandError::NotInstalled { .. }) => {}
                result => return result.map(|bytes| (bytes, format!("{program} {}", args.join(" ")))),
            }
        }
        Err(CommandError::NotInstalled { program: first.to_owned() })
    }
}

/// The variant that goes by the plain name here. Before 1.8 there was but one, and it did not say.
fn plain_variant(program: &str) -> Option<Variant> {
    let version = command::output(program, ["-V"], None).ok()?;
    let nft = memchr::memmem::find(&version, b"nf_tables").is_some();
    Some(if nft { Variant::Nft } else { Variant::Legacy })
}
