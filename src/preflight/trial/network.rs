//! What is tried in a network namespace: hooks of devices, and what the kernel's own tables take over netlink.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use netlink_sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr as NetlinkAddr};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::kernel::{SCHED_CLS, returns};
use super::{Trials, Tried};
use crate::capture::netlink::{Request, attribute};
use crate::inspect::bpf::sys::trial::{self, instruction};

/// What is tried here.
pub(super) const NAMES: &[&str] =
    &["tcx", "clsact", "xdp-generic", "xdp-native", "dsr", "sock-destroy", "ctnetlink-nat", "nft-inet-nat"];

/// The loopback device of a new namespace.
const LOOPBACK: u32 = 1;

// linux/netlink.h
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;

/// Moves this process, which has one thread, into a new network namespace.
#[expect(unsafe_code, reason = "rustix calls it unsafe for the sake of flags that are not used here")]
pub(super) fn unshare() -> io::Result<()> {
    // SAFETY: a network namespace of its own takes no file descriptor or memory from anybody.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(Into::into)
}

/// Messages of a request, sent together; the first refusal is the result.
fn ask(protocol: isize, requests: &[(Request, u16)]) -> io::Result<()> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&NetlinkAddr::new(0, 0))?;
    let mut out = Vec::new();
    let mut answers = 0;
    for (number, (request, flags)) in (1_u32..).zip(requests) {
        let length = u32::try_from(16 + request.body.len()).map_err(io::Error::other)?;
        out.extend(length.to_ne_bytes());
        out.extend(request.kind.to_ne_bytes());
        out.extend((REQUEST | flags).to_ne_bytes());
        out.extend(number.to_ne_bytes());
        out.extend([0; 4]);
        out.extend(&request.body);
        out.resize(out.len().next_multiple_of(4), 0);
        answers += usize::from(flags & ACK != 0);
    }
    rustix::net::sockopt::set_socket_timeout(
        &socket,
        rustix::net::sockopt::Timeout::Recv,
        Some(std::time::Duration::from_secs(5)),
    )?;
    socket.send(&out, 0)?;
    while answers > 0 {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while let Some((length, kind)) = head(rest) {
            // NLMSG_ERROR carries zero, or a negative errno.
            if kind == 2 {
                let code = rest.get(16..20).and_then(|b| b.first_chunk()).map_or(0, |b| i32::from_ne_bytes(*b));
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                answers = answers.saturating_sub(1);
            }
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}

/// Length and type of the first message.
fn head(bytes: &[u8]) -> Option<(usize, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    (length >= 16).then_some((length, kind))
}

/// `struct ifinfomsg`.
fn device(index: u32, up: bool) -> Vec<u8> {
    let flag = u32::from(up).to_ne_bytes();
    [[0; 4], index.to_ne_bytes(), flag, flag].concat()
}

// linux/rtnetlink.h
const RTM_NEWLINK: u16 = 16;
const RTM_NEWQDISC: u16 = 36;
const RTM_NEWTFILTER: u16 = 44;

pub(super) fn loopback_up() -> io::Result<()> {
    ask(NETLINK_ROUTE, &[(Request { kind: RTM_NEWLINK, body: device(LOOPBACK, true) }, ACK)])
}

pub(super) fn try_all(trials: &mut Trials) {
    let mut add = |name: &str, tried: Tried| drop(trials.insert(name.to_owned(), tried));
    add("tcx", tcx());
    add("clsact", Tried::of("a filter attached to clsact on a device", clsact()));
    add("xdp-generic", Tried::of("a program attached before the stack", xdp(LOOPBACK, XDP_GENERIC)));
    add(
        "xdp-native",
        match veth() {
            Ok(index) => Tried::of("a program attached in a driver (veth)", xdp(index, XDP_NATIVE)),
            Err(error) => Tried::unknown(format!("no veth device to try it on: {error}")),
        },
    );
    add("dsr", wraps());
    add("sock-destroy", sock_destroy().unwrap_or_else(|e| Tried::refused("a connection of its own ended", &e)));
    add("ctnetlink-nat", Tried::of("a flow with its translation put into conntrack", conntrack()));
    add("nft-inet-nat", Tried::of("a nat chain made in a table of family inet", nft_nat()));
}

/// `BPF_TCX_INGRESS`.
const TCX_INGRESS: u32 = 46;

fn tcx() -> Tried {
    let linked =
        trial::load(SCHED_CLS, 0, &returns(0)).and_then(|program| trial::link(&program, LOOPBACK, TCX_INGRESS, 0));
    Tried::of("a program linked to a device", linked)
}

const TC_H_CLSACT: u32 = 0xffff_fff1;
/// Ingress of clsact.
const TC_H_INGRESS: u32 = 0xffff_fff2;

/// `struct tcmsg`.
fn tc(handle: u32, parent: u32, info: u32) -> Vec<u8> {
    [[0; 4], LOOPBACK.to_ne_bytes(), handle.to_ne_bytes(), parent.to_ne_bytes(), info.to_ne_bytes()].concat()
}

fn clsact() -> io::Result<()> {
    use std::os::fd::AsRawFd as _;
    let program = trial::load(SCHED_CLS, 0, &returns(0))?;
    let qdisc = Request { kind: RTM_NEWQDISC, body: tc(0xffff_0000, TC_H_CLSACT, 0) }.with(1, b"clsact\0");
    let mut options = Vec::new();
    attribute(&mut options, 6, &program.as_raw_fd().to_ne_bytes()); // TCA_BPF_FD
    attribute(&mut options, 7, b"kpx\0"); // TCA_BPF_NAME
    attribute(&mut options, 8, &1_u32.to_ne_bytes()); // TCA_BPF_FLAGS: act directly
    let all = u32::from(0x0003_u16.to_be()); // ETH_P_ALL
    let filter =
        Request { kind: RTM_NEWTFILTER, body: tc(0, TC_H_INGRESS, 1 << 16 | all) }.with(1, b"bpf\0").with(2, &options);
    ask(NETLINK_ROUTE, &[(qdisc, ACK | CREATE | EXCLUSIVE), (filter, ACK | CREATE | EXCLUSIVE)])
}

/// A program that puts an IP header of this length in front of a packet's own, takes it off again, and returns zero or the
/// first refusal.
fn wrap(length: i32, flag: i32) -> Vec<u64> {
    const ADJUST_ROOM: i32 = 50;
    const ADJ_ROOM_MAC: i32 = 1;
    let call = |length, flag| {
        [
            instruction(0xbf, 1, 6, 0, 0),
            instruction(0xb7, 2, 0, 0, length),
            instruction(0xb7, 3, 0, 0, ADJ_ROOM_MAC),
            instruction(0xb7, 4, 0, 0, flag),
            instruction(0x85, 0, 0, 0, ADJUST_ROOM),
        ]
    };
    let (keep, exit) = (instruction(0xbf, 6, 1, 0, 0), instruction(0x95, 0, 0, 0, 0));
    let unless_zero = instruction(0x55, 0, 0, 5, 0);
    [&[keep][..], &call(length, flag), &[unless_zero], &call(-length, 0), &[exit]].concat()
}

/// Puts headers on made-up packets of both families, and takes them off.
fn wraps() -> Tried {
    // BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 and _IPV6, with the first bytes of the packets, from their EtherTypes on.
    for (length, flag, head) in [(20, 2, [8, 0, 0x45]), (40, 4, [0x86, 0xdd, 0x60])] {
        let mut packet = [0; 128];
        packet[12..15].copy_from_slice(&head);
        let program = trial::load(SCHED_CLS, 0, &wrap(length, flag));
        match program.and_then(|program| trial::run(&program, &packet)) {
            Ok(0) => {}
            Ok(code) => {
                return Tried::lacks(format!(
                    "a header of {length} bytes put on a packet: error {}",
                    code.cast_signed()
                ));
            }
            Err(error) => return Tried::refused("a header put on a packet", &error),
        }
    }
    Tried::works("headers put on made-up packets and taken off (IPv4, IPv6)")
}

/// `BPF_PROG_TYPE_XDP`, `BPF_XDP`, and the modes.
const XDP: u32 = 6;
const XDP_HOOK: u32 = 37;
const XDP_GENERIC: u32 = 2;
const XDP_NATIVE: u32 = 4;

fn xdp(index: u32, mode: u32) -> io::Result<()> {
    let program = trial::load(XDP, XDP_HOOK, &returns(2))?;
    trial::link(&program, index, XDP_HOOK, mode).map(drop)
}

/// Makes a pair of veth devices, and gives the index of one.
fn veth() -> io::Result<u32> {
    const NUMBER: u32 = 77;
    let mut info = Vec::new();
    attribute(&mut info, 1, b"veth\0");
    let request = Request { kind: RTM_NEWLINK, body: device(NUMBER, false) }.with(3, b"kpx0\0").with(18, &info);
    ask(NETLINK_ROUTE, &[(request, ACK | CREATE | EXCLUSIVE)])?;
    Ok(NUMBER)
}

/// Connects, asks the kernel to end that connection, and looks at the client.
fn sock_destroy() -> io::Result<Tried> {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(server.local_addr()?)?;
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (client.local_addr()?, client.peer_addr()?) else {
        return Ok(Tried::unknown("no IPv4 here"));
    };
    // struct inet_diag_req_v2: family, protocol, extensions, states, then inet_diag_sockid without a cookie.
    let mut body = vec![2, 6, 0, 0];
    body.extend(u32::MAX.to_ne_bytes());
    body.extend(from.port().to_be_bytes());
    body.extend(to.port().to_be_bytes());
    for ip in [from.ip(), to.ip()] {
        body.extend(ip.octets());
        body.extend([0; 12]);
    }
    body.extend([0; 4]);
    body.extend([0xff; 8]);
    ask(NETLINK_SOCK_DIAG, &[(Request { kind: 21, body }, ACK)])?;
    Ok(match client.take_error()? {
        Some(error) if error.raw_os_error() == Some(libc::ECONNABORTED) => {
            Tried::works("a connection of its own was ended")
        }
        other => Tried::lacks(format!("a connection of its own was to be ended, and says {other:?}")),
    })
}

const CTA_NAT_DST: u16 = 13;
/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;

fn nested(kind: u16, parts: &[(u16, &[u8])]) -> Vec<u8> {
    let mut inner = Vec::new();
    for (part, value) in parts {
        attribute(&mut inner, *part, value);
    }
    let mut out = Vec::new();
    attribute(&mut out, kind | NESTED, &inner);
    out
}

/// Puts a UDP flow with a translated destination into conntrack (linux/netfilter/nfnetlink_conntrack.h).
fn conntrack() -> io::Result<()> {
    let tuple = |kind, source: [u8; 4], destination: [u8; 4], ports: [u16; 2]| {
        let ip = nested(1, &[(1, &source), (2, &destination)]);
        let [source, destination] = ports.map(u16::to_be_bytes);
        let protocol = nested(2, &[(1, &[17]), (2, &source), (3, &destination)]);
        let mut out = Vec::new();
        attribute(&mut out, kind | NESTED, &[ip, protocol].concat());
        out
    };
    let (client, service, backend) = ([10, 0, 0, 1], [10, 0, 0, 2], [10, 0, 0, 3]);
    let nat = {
        let protocol = nested(3, &[(1, &8053_u16.to_be_bytes()), (2, &8053_u16.to_be_bytes())]);
        let mut inner = Vec::new();
        attribute(&mut inner, 1, &backend);
        attribute(&mut inner, 2, &backend);
        inner.extend(protocol);
        let mut out = Vec::new();
        attribute(&mut out, CTA_NAT_DST | NESTED, &inner);
        out
    };
    let mut request = Request::netfilter(1, 0, 2);
    request.body.extend(tuple(1, client, service, [4000, 53]));
    request.body.extend(tuple(2, service, client, [53, 4000]));
    request.body.extend(nat);
    let request = request.with(7, &30_u32.to_be_bytes()).with(3, &8_u32.to_be_bytes()); // CTA_TIMEOUT, CTA_STATUS: confirmed
    ask(NETLINK_NETFILTER, &[(request, ACK | CREATE | EXCLUSIVE)])
}

/// Makes a table of family inet with a nat chain, in one batch (linux/netfilter/nf_tables.h).
fn nft_nat() -> io::Result<()> {
    const INET: u8 = 1;
    const NF_TABLES: u8 = 10;
    let edge = |kind| Request { kind, body: vec![0, 0, 0, NF_TABLES] };
    let table = Request::netfilter(NF_TABLES, 0, INET).with(1, b"kpx_trial\0");
    let mut chain = Request::netfilter(NF_TABLES, 3, INET).with(1, b"kpx_trial\0").with(3, b"nat\0");
    let priority = (-100_i32).to_be_bytes();
    chain.body.extend(nested(4, &[(1, &0_u32.to_be_bytes()), (2, &priority)])); // NFTA_CHAIN_HOOK: prerouting
    let chain = chain.with(7, b"nat\0"); // NFTA_CHAIN_TYPE
    ask(NETLINK_NETFILTER, &[(edge(16), 0), (table, ACK | CREATE), (chain, ACK | CREATE), (edge(17), 0)])
}
