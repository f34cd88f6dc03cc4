//! Putting the recorded rules into the node's namespace, with the real tools, in the order that they need.
//!
//! A rule that names an nfacct object or an ipset can only be loaded when that is there (kube-proxy 1.32 and later makes
//! two nfacct objects): these come first. Everything here runs inside the node's namespace.

use std::collections::BTreeSet;
use std::path::Path;

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

use super::LabError;
use crate::capture::{Node, NodeOptions, Variant, command};
use crate::migrate::removal::{State, restore};
use crate::model::Family;

/// What stands for iptables-legacy's lock: that of the machine is for its own rules, and kube-proxy gives up after waiting five
/// seconds for it.
const LOCK: &str = "/dev/null";

/// The rules of one family and variant, as `iptables-save` printed them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Family.
    pub family: Family,
    /// Variant.
    pub variant: Variant,
    /// The text.
    pub text: Vec<u8>,
}

/// Makes these the rules of the thread's network namespace, with the nfacct objects that they name.
pub fn load(rules: &[Rules]) -> Result<(), LabError> {
    make_nfacct(&rules.iter().flat_map(Rules::nfacct).collect())?;
    rules.iter().try_for_each(|rules| rules.restore(&rules.text))
}

impl Rules {
    /// The restore program for these.
    pub const fn program(&self) -> &'static str {
        match (self.family, self.variant) {
            (Family::V4, Variant::Legacy) => "iptables-legacy-restore",
            (Family::V4, Variant::Nft) => "iptables-nft-restore",
            (Family::V6, Variant::Legacy) => "ip6tables-legacy-restore",
            (Family::V6, Variant::Nft) => "ip6tables-nft-restore",
        }
    }

    /// The names of nfacct objects that the rules want, in order.
    pub(super) fn nfacct(&self) -> BTreeSet<String> {
        let finder = memchr::memmem::Finder::new(b"--nfacct-name ");
        finder
            .find_iter(&self.text)
            .filter_map(|at| {
                let rest = &self.text[at + "--nfacct-name ".len()..];
                let word = rest.split(|b| b" \n".contains(b)).find(|word| !word.is_empty())?;
                String::from_utf8(word.to_vec()).ok()
            })
            .collect()
    }

    /// Whether kube-proxy's endpoint chains are among them.
    pub(super) fn serve(&self) -> bool {
        memchr::memmem::find(&self.text, b"\n:KUBE-SEP-").is_some()
    }

    /// Restores these, or a part of their text.
    pub(super) fn restore(&self, text: &[u8]) -> Result<(), LabError> {
        let lock = format!("XTABLES_LOCKFILE={LOCK}");
        command::output("env", [&lock, self.program(), "--counters", "--wait", "10"], Some(text))?;
        Ok(())
    }
}

/// Makes tables that nft has listed, in the thread's network namespace.
pub(super) fn load_tables(listing: &str) -> Result<(), LabError> {
    if !listing.is_empty() {
        command::output("nft", ["-f", "-"], Some(listing.as_bytes()))?;
    }
    Ok(())
}

/// Makes the virtual services of a recorded node and all that is around them, in the thread's network namespace.
pub(super) fn load_ipvs(state: &State) -> Result<(), LabError> {
    // Where it is built in there is nothing to load.
    let _ = command::run("modprobe", ["ip_vs"], None)?;
    if !Path::new("/proc/thread-self/net/ip_vs").exists() {
        return Err(LabError::Unsupported {
            reason: "it is of ipvs mode, and this machine's kernel has no IPVS (ip_vs)",
        });
    }
    restore(&Node::open(&NodeOptions::default())?, state)?;
    Ok(())
}

/// Restores ipsets, in the thread's network namespace.
pub fn restore_ipsets(saved: &[u8]) -> Result<(), LabError> {
    if !saved.iter().all(u8::is_ascii_whitespace) {
        command::output("ipset", ["restore", "-exist"], Some(saved))?;
    }
    Ok(())
}

/// `NFNL_SUBSYS_ACCT` and `NFNL_MSG_ACCT_NEW` of linux/netfilter/nfnetlink.h and nfnetlink_acct.h.
const ACCT_NEW: u16 = 7 << 8;
/// `NFACCT_NAME`.
const ATTR_NAME: u16 = 1;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE`.
const FLAGS: u16 = 0x001 | 0x004 | 0x400;

/// Makes nfacct objects; one that is there already stays.
pub(super) fn make_nfacct(names: &BTreeSet<String>) -> Result<(), LabError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    for name in names {
        make_one(&socket, name).map_err(|source| LabError::Nfacct { name: name.clone(), source })?;
    }
    Ok(())
}

fn make_one(socket: &Socket, name: &str) -> std::io::Result<()> {
    socket.send(&nfacct_message(name), 0)?;
    let mut answer = Vec::with_capacity(4096);
    socket.recv(&mut answer, 0)?;
    // The error number follows the 16 bytes of the header, negative, in the host's byte order; 0 acknowledges.
    let code = answer.get(16..20).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
    match -code {
        0 => Ok(()),
        code if code == rustix::io::Errno::EXIST.raw_os_error() || code == rustix::io::Errno::BUSY.raw_os_error() => {
            Ok(())
        }
        code => Err(std::io::Error::from_raw_os_error(code)),
    }
}

fn nfacct_message(name: &str) -> Vec<u8> {
    let attribute = 4 + name.len() + 1;
    let padded = attribute.next_multiple_of(4);
    let mut message = Vec::with_capacity(20 + padded);
    message.extend((20 + padded as u32).to_ne_bytes());
    message.extend(ACCT_NEW.to_ne_bytes());
    message.extend(FLAGS.to_ne_bytes());
    message.extend([0; 8]);
    // nfgenmsg: no family, version 0, no resource.
    message.extend([0; 4]);
    message.extend((attribute as u16).to_ne_bytes());
    message.extend(ATTR_NAME.to_ne_bytes());
    message.extend(name.as_bytes());
    message.resize(20 + padded, 0);
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfacct_names_are_found_behind_their_two_spaces() {
        let text = b"*filter\n-A KUBE-FORWARD -m nfacct --nfacct-name  ct_state_invalid_dropped_pkts -j DROP\n\
                     -A KUBE-NODEPORTS -m nfacct --nfacct-name  localhost_nps_accepted_pkts -j KUBE-EXT-X\nCOMMIT\n";
        let rules = Rules { family: Family::V4, variant: Variant::Nft, text: text.to_vec() };
        let names: Vec<_> = rules.nfacct().into_iter().collect();
        assert_eq!(names, ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"]);
    }

    #[test]
    fn the_netlink_message_is_padded_and_counts_itself() {
        let message = nfacct_message("abc");
        assert_eq!(message.len(), 28);
        assert_eq!(u32::from_ne_bytes(message[..4].try_into().unwrap()), 28);
        assert_eq!(&message[24..], b"abc\0");
    }
}
