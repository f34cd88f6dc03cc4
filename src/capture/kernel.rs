//! What the running kernel has, learnt without loading anything.
//!
//! A netlink request to a subsystem that is absent makes the kernel load its module, so the tools must not run before
//! this has been asked.

use std::io::{self, BufReader};
use std::path::Path;
use std::sync::OnceLock;

use fs_err as fs;

/// A part of the kernel that a tool would load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    NfTables,
    Nfacct,
    IpSet,
    Ctnetlink,
    Ipvs,
}

impl Part {
    const ALL: [Self; 5] = [Self::NfTables, Self::Nfacct, Self::IpSet, Self::Ctnetlink, Self::Ipvs];

    pub(super) const fn module(self) -> &'static str {
        match self {
            Self::NfTables => "nf_tables",
            Self::Nfacct => "nfnetlink_acct",
            Self::IpSet => "ip_set",
            Self::Ctnetlink => "nf_conntrack_netlink",
            Self::Ipvs => "ip_vs",
        }
    }

    /// A function of it that no configuration inlines: exported, or reached through a pointer.
    const fn symbol(self) -> &'static [u8] {
        match self {
            Self::NfTables => b"nft_do_chain",
            Self::Nfacct => b"nfnl_acct_find_get",
            Self::IpSet => b"ip_set_test",
            Self::Ctnetlink => b"ctnetlink_get_conntrack",
            Self::Ipvs => b"ip_vs_conn_put",
        }
    }

    /// Whether it is there now, as a module or built in.
    pub(super) fn is_there(self) -> io::Result<bool> {
        static BUILT_IN: OnceLock<Result<[bool; 5], io::ErrorKind>> = OnceLock::new();
        if Path::new("/sys/module").join(self.module()).exists() {
            return Ok(true);
        }
        match BUILT_IN.get_or_init(|| scan().map_err(|e| e.kind())) {
            Ok(found) => Ok(found[Self::ALL.iter().position(|p| *p == self).expect("ALL has every part")]),
            Err(kind) => Err((*kind).into()),
        }
    }
}

/// Built-in parts have no folder in /sys/module unless they have parameters: the symbol table knows them all.
fn scan() -> io::Result<[bool; 5]> {
    find(BufReader::with_capacity(1 << 16, fs::File::open("/proc/kallsyms")?))
}

fn find(mut symbols: impl io::BufRead) -> io::Result<[bool; 5]> {
    let mut found = [false; 5];
    let mut line = Vec::new();
    while !found.iter().all(|f| *f) {
        line.clear();
        if symbols.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        let name = line.split(u8::is_ascii_whitespace).nth(2).unwrap_or_default();
        for (part, found) in Part::ALL.iter().zip(&mut found) {
            *found |= name == part.symbol();
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_name_the_parts() {
        let table = "0000000000000000 T nft_do_chain_ipv4\n\
                     0000000000000000 T nft_do_chain\t[nf_tables]\n\
                     0000000000000000 t ctnetlink_get_conntrack\n\nrubbish\n";
        assert_eq!(find(table.as_bytes()).expect("reads"), [true, false, false, true, false]);
    }
}
