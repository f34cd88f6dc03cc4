//! Netlink, asked directly where the tools take long: a synchronous socket, one request or batch at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::{io, panic, thread};

use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use netlink_sys::{Socket, SocketAddr};

use super::kernel::Part;
use crate::error::Hinted;
use crate::failpoint;

/// Why the kernel gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be made or used.
    #[error("cannot speak netlink")]
    Socket(#[source] io::Error),
    /// The kernel refused a request.
    #[error("the kernel refused to tell")]
    Refused(#[source] io::Error),
    /// What was listed changed meanwhile.
    #[error("what was being listed has changed")]
    Changed,
    /// An answer is shorter than it says.
    #[error("the kernel's answer is cut short")]
    Short,
}

impl Hinted for NetlinkError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Refused(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                vec!["run kpx as root".to_owned()]
            }
            Self::Changed => vec!["try again".to_owned()],
            _ => Vec::new(),
        }
    }
}

/// One request: its type and what follows the netlink header.
#[derive(Clone, Debug)]
pub struct Request {
    /// `nlmsg_type`.
    pub kind: u16,
    /// What follows the header.
    pub body: Vec<u8>,
}

impl Request {
    /// A request to a subsystem of netfilter (`nfgenmsg`) without attributes yet.
    pub fn netfilter(subsystem: u8, message: u8, family: u8) -> Self {
        Self { kind: u16::from(subsystem) << 8 | u16::from(message), body: vec![family, 0, 0, 0] }
    }

    /// A request to a family of generic netlink (`genlmsghdr`) without attributes yet.
    pub fn generic(family: u16, command: u8, version: u8) -> Self {
        Self { kind: family, body: vec![command, version, 0, 0] }
    }

    /// Adds an attribute.
    #[must_use]
    pub fn with(mut self, kind: u16, value: &[u8]) -> Self {
        attribute(&mut self.body, kind, value);
        self
    }
}

/// Writes an attribute with its padding.
pub fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = HEADER_OF_ATTRIBUTE + value.len();
    out.extend(u16::try_from(length).expect("attributes of requests are short").to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The attributes of a message, type (without flags) and value; one that is cut short ends the list.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk()?;
        let length = usize::from(u16::from_ne_bytes(*length));
        let kind = u16::from_ne_bytes(*after.first_chunk()?) & NLA_TYPE_MASK;
        let value = rest.get(HEADER_OF_ATTRIBUTE..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

const HEADER: usize = 16;
/// Length of `genlmsghdr`.
pub const GENERIC_HEADER: usize = 4;
const HEADER_OF_ATTRIBUTE: usize = 4;
/// The type without `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`.
const NLA_TYPE_MASK: u16 = 0x3fff;

// linux/netlink.h
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP_INTR: u16 = 0x10;
const NLM_F_DUMP_FILTERED: u16 = 0x20;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;

// linux/genetlink.h
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Room for one datagram: the kernel fills at most 32 KiB in a dump.
const DATAGRAM: usize = 1 << 16;

/// Datagrams received and not read yet, while a table is dumped in parts.
const AHEAD: usize = 16;

/// How often a dump is repeated because its objects changed.
const STEADY_TRIES: usize = 5;

/// Room for the answers to one batch, which all come before the first is read.
const ANSWERS: usize = 4 << 20;

/// A netlink socket in the network namespace of the calling thread.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Netlink {
    /// Opens a socket to nf_tables; `None` where the kernel has none, which asking would load.
    pub fn nf_tables() -> Result<Option<Self>, NetlinkError> {
        if !Part::NfTables.is_there().map_err(NetlinkError::Socket)? {
            return Ok(None);
        }
        let netlink = Self::open(NETLINK_NETFILTER)?;
        // Only the privileged may go beyond the system's limit; they are who may ask nf_tables at all.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&netlink.socket, ANSWERS)
            .map_err(|e| NetlinkError::Socket(e.into()))?;
        Ok(Some(netlink))
    }

    /// Opens a socket to the kernel's IPVS, with the number of its family; `None` where the kernel has none, which asking
    /// would load.
    pub fn ipvs() -> Result<Option<(Self, u16)>, NetlinkError> {
        if !Part::Ipvs.is_there().map_err(NetlinkError::Socket)? {
            return Ok(None);
        }
        let mut netlink = Self::open(NETLINK_GENERIC)?;
        let mut family = None;
        let request = Request::generic(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, 1).with(CTRL_ATTR_FAMILY_NAME, b"IPVS\0");
        netlink.ask(&[request], |_, body| {
            let id = attributes(body.get(GENERIC_HEADER..).unwrap_or_default())
                .find(|(kind, _)| *kind == CTRL_ATTR_FAMILY_ID);
            family = id.and_then(|(_, value)| value.first_chunk()).map(|b| u16::from_ne_bytes(*b)).or(family);
        })?;
        Ok(Some((netlink, family.ok_or(NetlinkError::Short)?)))
    }

    /// Opens a socket to rtnetlink: interfaces, addresses and traffic control.
    pub fn route() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_ROUTE)
    }

    /// Opens a socket to the kernel's connection tracking; `None` where the kernel has none, which asking would load.
    pub fn conntrack() -> Result<Option<Self>, NetlinkError> {
        if !Part::Ctnetlink.is_there().map_err(NetlinkError::Socket)? {
            return Ok(None);
        }
        Self::open(NETLINK_NETFILTER).map(Some)
    }

    /// Opens a socket to netfilter; what is asked for or told is loaded if need be.
    pub(super) fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_NETFILTER)
    }

    /// Opens a socket to the kernel's list of sockets.
    pub fn sockets() -> Result<Self, NetlinkError> {
        Self::open(NETLINK_SOCK_DIAG)
    }

    fn open(protocol: isize) -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(protocol).map_err(NetlinkError::Socket)?;
        socket.bind_auto().map_err(NetlinkError::Socket)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM), sequence: 0 })
    }

    /// What `read` makes of each of all objects of a kind; asked again a few times if they change meanwhile.
    pub fn dump_steady<T>(
        &mut self,
        request: &Request,
        read: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut tries = 0;
        loop {
            let mut found = Vec::new();
            match self.dump(request, |kind, body| found.extend(read(kind, body))) {
                Err(NetlinkError::Changed) if tries < STEADY_TRIES => tries += 1,
                result => return result.map(|()| found),
            }
        }
    }

    /// Asks for all objects of a kind; `each` gets the type and body of each answer.
    pub fn dump(&mut self, request: &Request, mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        self.start_dump(request)?;
        self.receive(1, |message| {
            if !message.is_end() {
                each(message.kind, message.body);
            }
        })
    }

    /// Asks for the disjoint parts of a whole, as many at once as there are sockets, each by a thread of its own; `each` gets the
    /// type and body of each answer, in no order.
    ///
    /// A kernel that does not know how to filter answers the first request with the whole, and what it answers to the others is
    /// not waited for.
    pub fn dump_parts(
        sockets: Vec<Self>,
        parts: &[Request],
        mut each: impl FnMut(u16, &[u8]),
    ) -> Result<(), NetlinkError> {
        let next = AtomicUsize::new(0);
        thread::scope(|scope| {
            let (filled, datagrams) = sync_channel(AHEAD);
            let fill = |socket: Self| {
                let (filled, next) = (filled.clone(), &next);
                scope.spawn(move || socket.fill(parts, next, &filled))
            };
            let threads: Vec<_> = sockets.into_iter().map(fill).collect();
            drop(filled);
            for datagram in datagrams {
                let mut rest = &datagram[..];
                while let Some(message) = Message::next(&mut rest)? {
                    if !message.is_end() {
                        each(message.kind, message.body);
                    }
                }
            }
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
        })
    }

    /// Receives the answers to one part after the other that nobody has asked for yet, until all are, or nobody reads them.
    fn fill(mut self, parts: &[Request], next: &AtomicUsize, filled: &SyncSender<Vec<u8>>) -> Result<(), NetlinkError> {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(part) = parts.get(at) else { return Ok(()) };
            self.start_dump(part)?;
            let mut open = true;
            while open {
                let mut datagram = Vec::with_capacity(DATAGRAM);
                self.socket.recv(&mut datagram, 0).map_err(NetlinkError::Socket)?;
                let mut rest = &datagram[..];
                while let Some(message) = Message::next(&mut rest)? {
                    if message.flags & NLM_F_DUMP_INTR != 0 {
                        return Err(NetlinkError::Changed);
                    }
                    if message.is_end() {
                        open = false;
                        message.refusal().map_or(Ok(()), Err)?;
                    } else if at > 0 && message.flags & NLM_F_DUMP_FILTERED == 0 {
                        return Ok(());
                    }
                }
                if filled.send(datagram).is_err() {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for all objects of a kind and appends the answers, headers and end included, for [`replay`].
    pub fn record(&mut self, request: &Request, out: &mut Vec<u8>) -> Result<(), NetlinkError> {
        self.start_dump(request)?;
        self.receive(1, |message| out.extend(message.whole))
    }

    /// Asks for one object and appends the answer, header included, for [`replay`].
    pub fn record_one(&mut self, request: &Request, out: &mut Vec<u8>) -> Result<(), NetlinkError> {
        let mut bytes = Vec::new();
        write(&mut bytes, request, NLM_F_ACK, self.next());
        self.socket.send(&bytes, 0).map_err(NetlinkError::Socket)?;
        self.receive(1, |message| {
            if !message.is_end() {
                out.extend(message.whole);
            }
        })
    }

    /// Asks for single objects, all at once: keep batches to a hundred answers or so.
    pub fn ask(&mut self, requests: &[Request], mut each: impl FnMut(u16, &[u8])) -> Result<(), NetlinkError> {
        let mut out = Vec::new();
        if requests.is_empty() {
            return Ok(());
        }
        for request in requests {
            write(&mut out, request, NLM_F_ACK, self.next());
        }
        self.socket.send(&out, 0).map_err(NetlinkError::Socket)?;
        self.receive(requests.len(), |message| {
            if !message.is_end() {
                each(message.kind, message.body);
            }
        })
    }

    /// Has single things changed, all at once, and tells what came of each; `create`: what is there already is refused.
    /// Keep batches to a hundred or so.
    pub fn tell(&mut self, requests: &[Request], create: bool) -> Result<Vec<io::Result<()>>, NetlinkError> {
        let (mut out, mut outcomes) = (Vec::new(), Vec::new());
        if requests.is_empty() {
            return Ok(outcomes);
        }
        let flags = NLM_F_ACK | if create { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        for request in requests {
            write(&mut out, request, flags, self.next());
        }
        self.socket.send(&out, 0).map_err(NetlinkError::Socket)?;
        let received = self.receive(requests.len(), |message| {
            if message.is_end() {
                outcomes.push(match message.refusal() {
                    Some(NetlinkError::Refused(error)) => Err(error),
                    _ => Ok(()),
                });
            }
        });
        failpoint::changed();
        // Refusals are among the outcomes.
        match received {
            Err(error) if outcomes.len() < requests.len() => Err(error),
            _ => Ok(outcomes),
        }
    }

    fn next(&mut self) -> u32 {
        self.sequence += 1;
        self.sequence
    }

    fn start_dump(&mut self, request: &Request) -> Result<(), NetlinkError> {
        let mut out = Vec::new();
        write(&mut out, request, NLM_F_DUMP, self.next());
        self.socket.send(&out, 0).map(drop).map_err(NetlinkError::Socket)
    }

    /// Reads until so many requests are answered to the end. The first error is told when all are, so that no answer is
    /// taken for one to a later request.
    fn receive(&mut self, mut open: usize, mut each: impl FnMut(&Message<'_>)) -> Result<(), NetlinkError> {
        let mut error = None;
        while open > 0 {
            self.buffer.clear();
            self.socket.recv(&mut self.buffer, 0).map_err(NetlinkError::Socket)?;
            let mut rest = &self.buffer[..];
            while let Some(message) = Message::next(&mut rest)? {
                if message.flags & NLM_F_DUMP_INTR != 0 {
                    error.get_or_insert(NetlinkError::Changed);
                }
                if message.is_end() {
                    open = open.saturating_sub(1);
                    if let Some(refused) = message.refusal() {
                        error.get_or_insert(refused);
                    }
                }
                each(&message);
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// Name of a network interface.
    pub fn interface(&self, index: u32) -> Option<String> {
        rustix::net::netdevice::index_to_name(&self.socket, index).ok()
    }
}

/// Told when network devices, addresses or qdiscs change in the network namespace of the thread that began to listen.
#[derive(Debug)]
pub struct RouteNews {
    socket: Socket,
    buffer: Vec<u8>,
}

/// `RTMGRP_LINK`, `RTMGRP_TC`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV6_IFADDR` (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x8 | 0x10 | 0x100;

impl RouteNews {
    /// Begins to listen.
    pub fn listen() -> Result<Self, NetlinkError> {
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(NetlinkError::Socket)?;
        socket.bind(&SocketAddr::new(0, GROUPS)).map_err(NetlinkError::Socket)?;
        Ok(Self { socket, buffer: Vec::with_capacity(DATAGRAM) })
    }

    /// Waits until something has changed. What, is for the listener to find out: news may be lost when much changes.
    pub fn wait(&mut self) -> Result<(), NetlinkError> {
        self.buffer.clear();
        match self.socket.recv(&mut self.buffer, 0) {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(NetlinkError::Socket(error)),
            _ => Ok(()),
        }
    }
}

/// What a recording of answers holds, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded<'a> {
    /// Type and body of an answer.
    Answer(u16, &'a [u8]),
    /// All answers to one dump have come.
    End,
}

/// Reads recorded answers, as [`Netlink::record`] appends them or a capture of datagrams holds them.
pub fn replay<'a>(mut bytes: &'a [u8], mut each: impl FnMut(Recorded<'a>)) -> Result<(), NetlinkError> {
    while let Some(message) = Message::next(&mut bytes)? {
        match (message.is_end(), message.refusal()) {
            (_, Some(refused)) => return Err(refused),
            (true, None) => each(Recorded::End),
            (false, None) => each(Recorded::Answer(message.kind, message.body)),
        }
    }
    Ok(())
}

struct Message<'a> {
    kind: u16,
    flags: u16,
    whole: &'a [u8],
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Takes the first message off `rest`; `None` at the end.
    fn next(rest: &mut &'a [u8]) -> Result<Option<Self>, NetlinkError> {
        if rest.is_empty() {
            return Ok(None);
        }
        let message = Self::first(rest).ok_or(NetlinkError::Short)?;
        *rest = rest.get(message.whole.len()..).unwrap_or_default();
        Ok(Some(message))
    }

    fn first(bytes: &'a [u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk()?;
        let (kind, rest) = rest.split_first_chunk()?;
        let (flags, _) = rest.split_first_chunk()?;
        let length = usize::try_from(u32::from_ne_bytes(*length)).ok()?;
        let body = bytes.get(HEADER..length)?;
        // The last message may lack its padding.
        let whole = bytes.get(..length.next_multiple_of(4)).unwrap_or(bytes);
        Some(Self { kind: u16::from_ne_bytes(*kind), flags: u16::from_ne_bytes(*flags), whole, body })
    }

    const fn is_end(&self) -> bool {
        matches!(self.kind, NLMSG_ERROR | NLMSG_DONE)
    }

    /// The error with which a request ended.
    fn refusal(&self) -> Option<NetlinkError> {
        let number = self.body.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
        (self.is_end() && number < 0)
            .then(|| NetlinkError::Refused(io::Error::from_raw_os_error(number.saturating_neg())))
    }
}

fn write(out: &mut Vec<u8>, request: &Request, flags: u16, sequence: u32) {
    let length = u32::try_from(HEADER + request.body.len()).expect("requests are short");
    out.extend(length.to_ne_bytes());
    out.extend(request.kind.to_ne_bytes());
    out.extend((NLM_F_REQUEST | flags).to_ne_bytes());
    out.extend(sequence.to_ne_bytes());
    out.extend(0_u32.to_ne_bytes());
    out.extend(&request.body);
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_as_written() {
        let request = Request::netfilter(10, 13, 2).with(1, b"kube-proxy\0").with(0x8000 | 3, b"");
        assert_eq!((request.kind, request.body.len()), (0x0a0d, 4 + 16 + 4));
        let read: Vec<_> = attributes(&request.body[4..]).collect();
        assert_eq!(read, [(1, &b"kube-proxy\0"[..]), (3, b"")]);
    }

    #[test]
    fn short_answers_end_the_list() {
        assert_eq!(attributes(&[9, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[2, 0, 1, 0]).count(), 0);
        assert!(Message::first(&[20, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
        assert!(Message::first(&[3, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).is_none());
    }
}
