//! Closes sockets whose backend has gone.
//!
//! A socket that a hook has connected to a backend keeps that backend. TCP notices that it has gone after many minutes of
//! silence, connected UDP never. Sockets that connected to the same address by themselves are left alone: what a hook has
//! done with a socket is in the storage that it left there. For TCP the kernel tells that storage along with its list of
//! sockets. For UDP it does not (Linux 6.18), so it is read through a copy of the descriptor of the socket's owner.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use kpx_abi::Peer;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

use super::namespaces;
use super::watched::Look;
use crate::capture::netlink::{Netlink, NetlinkError, Request, attribute, attributes};
use crate::capture::netns::{self, NetnsError};
use crate::inspect::bpf::sys;
use crate::model::Protocol;

// linux/sock_diag.h, linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const INET_DIAG_REQ_SK_BPF_STORAGES: u16 = 2;
const SK_DIAG_BPF_STORAGE_REQ_MAP_FD: u16 = 1;
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
const NESTED: u16 = 0x8000;
/// `struct inet_diag_msg`, and the part of it that says which socket it is.
const MESSAGE: usize = 72;
const ID: std::ops::Range<usize> = 4..52;
const INODE: std::ops::Range<usize> = 68..72;
/// Established, half-open and half-closed; UDP sockets that are connected count as established.
const STATES: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];

/// Sockets closed in one batch.
const BATCH: usize = 64;

/// Whether a socket of this protocol is stale that was to go to the one address and has been sent to the other.
pub(super) type IsStale<'a> = dyn Fn(Protocol, SocketAddr, SocketAddr) -> bool + Sync + 'a;

/// Why sockets are not looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketsError {
    /// The kernel does not tell.
    #[error("sockets cannot be listed or closed")]
    Netlink(#[from] NetlinkError),
    /// A namespace cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Processes cannot be listed, or the map not be opened.
    #[error("the sockets of this node's processes cannot be found")]
    Find(#[from] io::Error),
}

/// Closes the stale sockets of this network namespace and of all others that a process is in; how many, by protocol.
///
/// `is_stale` is asked of sockets that the kernel has told already. `peers` is the pinned map with what the hooks have left at
/// each connected socket. What some namespaces refuse comes back beside the count.
pub(super) fn close(
    look: &Look,
    is_stale: &IsStale<'_>,
    peers: &Path,
) -> (BTreeMap<Protocol, usize>, Vec<SocketsError>) {
    // A thread of its own enters the namespaces, since none comes back without leave.
    std::thread::scope(|scope| scope.spawn(|| close_everywhere(look, is_stale, peers)).join()).unwrap_or_default()
}

fn close_everywhere(
    look: &Look,
    is_stale: &IsStale<'_>,
    peers: &Path,
) -> (BTreeMap<Protocol, usize>, Vec<SocketsError>) {
    let mut closed = BTreeMap::new();
    let mut refused = Vec::new();
    let namespaces = namespaces::find().unwrap_or_else(|error| {
        refused.push(error.into());
        Vec::new()
    });
    let mut udp = Vec::new();
    for path in namespaces {
        match Place::enter(&path).and_then(|mut place| {
            if look.concerns(Protocol::Tcp) {
                *closed.entry(Protocol::Tcp).or_default() += place.close_tcp(is_stale, peers)?;
            }
            if look.concerns(Protocol::Udp) {
                place.find_udp()?;
                udp.push(place);
            }
            Ok(())
        }) {
            Ok(()) => {}
            // A process that has ended meanwhile takes its namespace along.
            Err(SocketsError::Netns(error)) if error.is_gone() => {}
            Err(error) => refused.push(error),
        }
    }
    if udp.iter().any(|place| !place.udp.is_empty()) {
        match descriptors() {
            Ok(owners) => {
                for place in &mut udp {
                    match place.close_udp(&owners, is_stale, peers) {
                        Ok(count) => *closed.entry(Protocol::Udp).or_default() += count,
                        Err(error) => refused.push(error),
                    }
                }
            }
            Err(error) => refused.push(error.into()),
        }
    }
    closed.retain(|_, count| *count > 0);
    (closed, refused)
}

/// A network namespace to look at. The socket stays in it, wherever the thread goes.
struct Place {
    netlink: Netlink,
    /// Connected UDP sockets: inode, and the request that closes it.
    udp: Vec<(u32, Request)>,
}

impl Place {
    fn enter(path: &Path) -> Result<Self, SocketsError> {
        netns::enter(&path.display().to_string())?;
        Ok(Self { netlink: Netlink::sockets()?, udp: Vec::new() })
    }

    fn close_tcp(&mut self, is_stale: &IsStale<'_>, peers: &Path) -> Result<usize, SocketsError> {
        let peers = sys::obj_get(peers)?;
        let mut stale = Vec::new();
        for family in FAMILIES {
            let mut body = request(family, Protocol::Tcp, &[0; ID.end - ID.start]);
            let mut storages = Vec::new();
            attribute(&mut storages, SK_DIAG_BPF_STORAGE_REQ_MAP_FD, &peers.as_raw_fd().to_ne_bytes());
            attribute(&mut body, NESTED | INET_DIAG_REQ_SK_BPF_STORAGES, &storages);
            self.netlink.dump(&Request { kind: SOCK_DIAG_BY_FAMILY, body }, |_, body| {
                if let Some((sent_to, backend)) = storage(body).and_then(ends)
                    && is_stale(Protocol::Tcp, sent_to, backend)
                {
                    stale.push(destroy(family, Protocol::Tcp, body));
                }
            })?;
        }
        self.close(&stale)
    }

    fn find_udp(&mut self) -> Result<(), SocketsError> {
        for family in FAMILIES {
            let body = request(family, Protocol::Udp, &[0; ID.end - ID.start]);
            let found = &mut self.udp;
            self.netlink.dump(&Request { kind: SOCK_DIAG_BY_FAMILY, body }, |_, body| {
                let inode = body.get(INODE).and_then(|bytes| bytes.first_chunk()).map(|b| u32::from_ne_bytes(*b));
                found.extend(inode.map(|inode| (inode, destroy(family, Protocol::Udp, body))));
            })?;
        }
        Ok(())
    }

    fn close_udp(
        &mut self,
        owners: &HashMap<u32, (Pid, i32)>,
        is_stale: &IsStale<'_>,
        peers: &Path,
    ) -> Result<usize, SocketsError> {
        let Some(peers) = sys::Table::<u32, Peer>::open(peers)? else { return Ok(0) };
        let judge = |inode: &u32| {
            let (pid, number) = owners.get(inode)?;
            // The process may have ended, or closed it.
            let process = pidfd_open(*pid, PidfdFlags::empty()).ok()?;
            let socket = pidfd_getfd(process, *number, PidfdGetfdFlags::empty()).ok()?;
            let peer = peers.get(&u32::try_from(socket.as_raw_fd()).ok()?).ok()??;
            let (sent_to, backend) = ends(peer)?;
            Some(is_stale(Protocol::Udp, sent_to, backend))
        };
        let stale = self.udp.drain(..).filter(|(inode, _)| judge(inode) == Some(true));
        let stale: Vec<Request> = stale.map(|(_, request)| request).collect();
        self.close(&stale)
    }

    /// Each socket is named with its cookie: another one in its place would not be closed.
    fn close(&mut self, sockets: &[Request]) -> Result<usize, SocketsError> {
        for batch in sockets.chunks(BATCH) {
            match self.netlink.ask(batch, |_, _| {}) {
                // Some have been closed meanwhile.
                Err(NetlinkError::Refused(error)) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(sockets.len())
    }
}

/// A process and a descriptor of it for each socket, by inode.
fn descriptors() -> io::Result<HashMap<u32, (Pid, i32)>> {
    let number = |name: &OsStr| name.to_str()?.parse::<i32>().ok();
    let mut found = HashMap::new();
    for process in fs_err::read_dir("/proc")?.flatten() {
        let Some(pid) = number(&process.file_name()).and_then(Pid::from_raw) else { continue };
        // Processes end all the time.
        let Ok(descriptors) = fs_err::read_dir(process.path().join("fd")) else { continue };
        for descriptor in descriptors.flatten() {
            let Ok(target) = fs_err::read_link(descriptor.path()) else { continue };
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let (Some(inode), Some(number)) = (inode, number(&descriptor.file_name())) {
                found.insert(inode, (pid, number));
            }
        }
    }
    Ok(found)
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, protocol: Protocol, id: &[u8]) -> Vec<u8> {
    let mut body = vec![family, protocol.number(), 0, 0];
    body.extend(STATES.to_ne_bytes());
    body.extend(id);
    body
}

/// The request that closes the socket of an answer.
fn destroy(family: u8, protocol: Protocol, answer: &[u8]) -> Request {
    let id = answer.get(ID).unwrap_or(&[0; ID.end - ID.start]);
    Request { kind: SOCK_DESTROY, body: request(family, protocol, id) }
}

/// What a hook has left at the socket of an answer.
fn storage(answer: &[u8]) -> Option<Peer> {
    let inside = |bytes, wanted: u16| attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let storages = inside(answer.get(MESSAGE..)?, INET_DIAG_SK_BPF_STORAGES)?;
    let value = inside(inside(storages, SK_DIAG_BPF_STORAGE)?, SK_DIAG_BPF_STORAGE_MAP_VALUE)?;
    let (frontend, rest) = value.split_first_chunk()?;
    let (backend, rest) = rest.split_first_chunk()?;
    let (frontend_port, rest) = rest.split_first_chunk()?;
    Some(Peer {
        frontend: *frontend,
        backend: *backend,
        frontend_port: u16::from_ne_bytes(*frontend_port),
        backend_port: u16::from_ne_bytes(*rest.first_chunk()?),
    })
}

/// Where a socket was to go, and where a hook has sent it; `None` if none has.
fn ends(peer: Peer) -> Option<(SocketAddr, SocketAddr)> {
    let end = |addr, port| SocketAddr::new(Ipv6Addr::from(addr).to_canonical(), u16::from_be(port));
    (peer.backend_port != 0).then(|| (end(peer.frontend, peer.frontend_port), end(peer.backend, peer.backend_port)))
}

/// Where the hooks leave what they have done with connected sockets.
pub(super) fn peers(pins: &Path) -> PathBuf {
    pins.join("maps").join(kpx_abi::map_name::PEERS)
}
