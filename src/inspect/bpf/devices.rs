//! Programs on network interfaces: XDP, tcx, netkit and the filters of clsact.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::objects::{self, BpfError, Known};
use super::owner::Owner;
use super::{names, sys};
use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};

/// A program on a hook of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OnDevice {
    /// The interface's name.
    pub device: String,
    /// Its index.
    pub interface: u32,
    /// The hook.
    pub hook: Hook,
    /// Place among the programs of the hook, from 1: the order in which they run.
    pub order: usize,
    /// The program's id.
    pub program_id: u32,
    /// The program's name.
    pub program: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it is pinned where this dataplane is.
    pub ours: bool,
}

/// A hook of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Hook {
    /// XDP in the driver.
    Xdp,
    /// XDP behind the driver, on socket buffers.
    XdpGeneric,
    /// XDP in the hardware.
    XdpOffload,
    /// tcx, what comes in.
    TcxIngress,
    /// tcx, what goes out.
    TcxEgress,
    /// A filter of the clsact qdisc, what comes in.
    TcIngress,
    /// A filter of the clsact qdisc, what goes out.
    TcEgress,
    /// The side of a netkit pair that the host has.
    NetkitPrimary,
    /// The side of a netkit pair that the pod has.
    NetkitPeer,
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp_generic",
            Self::XdpOffload => "xdp_offload",
            Self::TcxIngress => "tcx_ingress",
            Self::TcxEgress => "tcx_egress",
            Self::TcIngress => "tc_ingress",
            Self::TcEgress => "tc_egress",
            Self::NetkitPrimary => "netkit_primary",
            Self::NetkitPeer => "netkit_peer",
        })
    }
}

/// Hooks that bpf(2) tells about.
const QUERIED: [(Hook, u32); 4] = [
    (Hook::TcxIngress, names::TCX_INGRESS),
    (Hook::TcxEgress, names::TCX_EGRESS),
    (Hook::NetkitPrimary, names::NETKIT_PRIMARY),
    (Hook::NetkitPeer, names::NETKIT_PEER),
];

/// Handles of the two sides of clsact: `TC_H_CLSACT` with `TC_H_MIN_INGRESS` and `TC_H_MIN_EGRESS`.
const FILTERED: [(Hook, u32); 2] = [(Hook::TcIngress, 0xffff_fff2), (Hook::TcEgress, 0xffff_fff3)];

// linux/rtnetlink.h, if_link.h, pkt_cls.h
const RTM_GETLINK: u16 = 18;
const RTM_GETTFILTER: u16 = 46;
const IFLA_IFNAME: u16 = 3;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
/// Program ids in the driver, on socket buffers, in the hardware.
const XDP_PROGRAMS: [(u16, Hook); 3] = [(5, Hook::Xdp), (6, Hook::XdpGeneric), (7, Hook::XdpOffload)];
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_ID: u16 = 11;
/// Sizes of `struct ifinfomsg` and `struct tcmsg`.
const IFINFOMSG: usize = 16;
const TCMSG: usize = 20;

/// An interface as rtnetlink describes it.
#[derive(Debug, PartialEq, Eq)]
struct Interface {
    index: u32,
    name: String,
    xdp: Vec<(Hook, u32)>,
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_ne_bytes(*b))
}

fn interface(body: &[u8]) -> Option<Interface> {
    let index = word(body, 4)?;
    let (mut name, mut xdp) = (String::new(), Vec::new());
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            IFLA_IFNAME => name = super::objects::text(value),
            IFLA_XDP => {
                let parts: BTreeMap<u16, &[u8]> = attributes(value).collect();
                let attached = parts.get(&IFLA_XDP_ATTACHED).is_some_and(|mode| mode.first() != Some(&0));
                let programs = XDP_PROGRAMS.iter().filter_map(|(kind, hook)| Some((*hook, word(parts.get(kind)?, 0)?)));
                xdp.extend(programs.filter(|(_, id)| attached && *id != 0));
            }
            _ => {}
        }
    }
    Some(Interface { index, name, xdp })
}

/// Priority and program id of a filter.
fn filter(body: &[u8]) -> Option<(u32, u32)> {
    let info = word(body, 16)?;
    let parts: BTreeMap<u16, &[u8]> = attributes(body.get(TCMSG..)?).collect();
    if super::objects::text(parts.get(&TCA_KIND)?) != "bpf" {
        return None;
    }
    let options: BTreeMap<u16, &[u8]> = attributes(parts.get(&TCA_OPTIONS)?).collect();
    Some((info >> 16, word(options.get(&TCA_BPF_ID)?, 0)?))
}

fn interfaces(netlink: &mut Netlink) -> Result<Vec<Interface>, NetlinkError> {
    let request = Request { kind: RTM_GETLINK, body: vec![0; IFINFOMSG] };
    netlink.dump_steady(&request, |_, body| interface(body))
}

/// Programs of filters on one side of clsact, in the order of their priorities.
fn filters(netlink: &mut Netlink, interface: u32, parent: u32) -> Result<Vec<u32>, NetlinkError> {
    let mut body = vec![0; TCMSG];
    body[4..8].copy_from_slice(&interface.to_ne_bytes());
    body[12..16].copy_from_slice(&parent.to_ne_bytes());
    let mut found = netlink.dump_steady(&Request { kind: RTM_GETTFILTER, body }, |_, body| filter(body))?;
    found.sort_by_key(|(priority, _)| *priority);
    Ok(found.into_iter().map(|(_, id)| id).collect())
}

/// All programs on the interfaces of this network namespace, by interface and hook. `ours` is the directory of this
/// dataplane's pins.
pub fn devices(ours: &Path) -> Result<Vec<OnDevice>, BpfError> {
    let known = objects::known_programs(ours)?;
    let named = |attached: Attachment| {
        let Known { name, owner, ours } = known.get(&attached.program_id).cloned().unwrap_or_default();
        OnDevice {
            device: attached.device,
            interface: attached.interface,
            hook: attached.hook,
            order: attached.order,
            program_id: attached.program_id,
            program: name,
            owner,
            ours,
        }
    };
    Ok(attachments()?.into_iter().map(named).collect())
}

/// An [`OnDevice`] of which no more is known than what is where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) interface: u32,
    pub(super) device: String,
    pub(super) hook: Hook,
    pub(super) order: usize,
    pub(super) program_id: u32,
}

/// All programs on the interfaces of this network namespace.
pub(super) fn attachments() -> Result<Vec<Attachment>, NetlinkError> {
    let mut netlink = Netlink::route()?;
    let mut found = Vec::new();
    for Interface { index, name, xdp } in interfaces(&mut netlink)? {
        let mut add = |hook: Hook, ids: &[u32]| {
            found.extend(ids.iter().enumerate().map(|(i, id)| Attachment {
                interface: index,
                device: name.clone(),
                hook,
                order: i + 1,
                program_id: *id,
            }));
        };
        for (hook, id) in xdp {
            add(hook, &[id]);
        }
        for (hook, number) in QUERIED {
            // An older kernel has no such hook, an interface may be no netkit, or just gone.
            add(hook, &sys::interface_programs(index, number).unwrap_or_default());
        }
        for (hook, parent) in FILTERED {
            match filters(&mut netlink, index, parent) {
                Ok(ids) => add(hook, &ids),
                Err(NetlinkError::Refused(error)) if gone(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Whether the interface, or the kernel's traffic control, is not there.
fn gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP | libc::ENOENT | libc::EINVAL))
}

#[cfg(test)]
mod tests {
    use super::{Hook, filter, interface};
    use crate::capture::netlink::attribute;

    fn message(size: usize, words: &[(usize, u32)], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = vec![0; size];
        for (at, word) in words {
            body[*at..at + 4].copy_from_slice(&word.to_ne_bytes());
        }
        for (kind, value) in attributes {
            attribute(&mut body, *kind, value);
        }
        body
    }

    fn nested(attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        message(0, &[], attributes)
    }

    #[test]
    fn xdp_programs_are_read_by_their_mode() {
        let xdp = nested(&[(2, vec![4]), (5, 7_u32.to_ne_bytes().to_vec()), (6, 9_u32.to_ne_bytes().to_vec())]);
        let read = interface(&message(16, &[(4, 3)], &[(3, b"eth0\0".to_vec()), (43, xdp)])).expect("an interface");
        assert_eq!((read.index, read.name.as_str()), (3, "eth0"));
        assert_eq!(read.xdp, [(Hook::Xdp, 7), (Hook::XdpGeneric, 9)]);
        let none = nested(&[(2, vec![0])]);
        assert_eq!(interface(&message(16, &[(4, 1)], &[(43, none)])).expect("an interface").xdp, []);
    }

    #[test]
    fn filters_other_than_bpf_are_none_of_ours() {
        let options = nested(&[(11, 42_u32.to_ne_bytes().to_vec())]);
        let of = |kind: &[u8]| filter(&message(20, &[(16, 2 << 16 | 8)], &[(1, kind.to_vec()), (2, options.clone())]));
        assert_eq!(of(b"bpf\0"), Some((2, 42)));
        assert_eq!(of(b"flower\0"), None);
        assert_eq!(filter(&[0; 19]), None);
    }
}
