//! The hooks of sockets, tried with traffic: each rewrites an address that nobody has, and the server says whether it came.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::Duration;

use fs_err as fs;

use super::kernel::returns;
use super::{Trials, Tried};
use crate::inspect::bpf::sys::trial::{self, instruction};
use crate::model::Family;

// linux/bpf.h
const CGROUP_SOCK: u32 = 9;
const CGROUP_SOCK_ADDR: u32 = 18;
/// Offsets in `struct bpf_sock_addr`.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;

/// A hook of one family.
struct Hook {
    name: &'static str,
    number: u32,
    family: Family,
}

const fn hook(name: &'static str, number: u32, family: Family) -> Hook {
    Hook { name, number, family }
}

use Family::{V4, V6};

const CONNECT: [Hook; 2] = [hook("connect4", 10, V4), hook("connect6", 11, V6)];
const BIND: [Hook; 2] = [hook("post-bind4", 12, V4), hook("post-bind6", 13, V6)];
const SENDMSG: [Hook; 2] = [hook("sendmsg4", 14, V4), hook("sendmsg6", 15, V6)];
const RECVMSG: [Hook; 2] = [hook("recvmsg4", 19, V4), hook("recvmsg6", 20, V6)];
const GETPEER: [Hook; 2] = [hook("getpeername4", 29, V4), hook("getpeername6", 30, V6)];

const PORT: u16 = 53;
const WAIT: Duration = Duration::from_secs(2);

/// An address of nobody (RFC 5737, RFC 3849).
const fn nobody(family: Family) -> SocketAddr {
    match family {
        V4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), PORT),
        V6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), PORT),
    }
}

const fn loopback(family: Family) -> SocketAddr {
    match family {
        V4 => SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
        V6 => SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0),
    }
}

/// A program that writes an address over the one of a call, and lets the call go on.
fn rewrites(to: SocketAddr) -> Vec<u64> {
    let octets = match to.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let start = if to.is_ipv4() { USER_IP4 } else { USER_IP6 };
    let (chunks, _) = octets.as_chunks::<4>();
    let words = (start..).step_by(4).zip(chunks.iter().copied());
    let port = u32::from(to.port().to_be()).to_ne_bytes();
    let mut program = Vec::new();
    for (offset, word) in words.chain([(USER_PORT, port)]) {
        program.push(instruction(0xb4, 2, 0, 0, i32::from_ne_bytes(word)));
        program.push(instruction(0x63, 1, 2, offset, 0));
    }
    program.extend(returns(1));
    program
}

fn load(hook: &Hook, program: &[u64]) -> io::Result<OwnedFd> {
    let kind = if hook.name.starts_with("post-bind") { CGROUP_SOCK } else { CGROUP_SOCK_ADDR };
    trial::load(kind, hook.number, program)
}

/// Loads a program for each hook: where that fails, no traffic is needed to know.
pub(super) fn load_all(trials: &mut Trials) {
    for hook in CONNECT.iter().chain(&BIND).chain(&SENDMSG).chain(&RECVMSG).chain(&GETPEER) {
        let tried = match load(hook, &returns(1)) {
            Ok(_) => Tried::unknown("a program for it loads, but could not be tried with traffic"),
            Err(error) => Tried::refused("a program for it loaded", &error),
        };
        trials.insert(hook.name.to_owned(), tried);
    }
}

/// Moves this process into the cgroup and tries each hook with traffic there.
pub(super) fn try_all(trials: &mut Trials, cgroup: Result<&Path, &str>) {
    let entered = cgroup.map_err(str::to_owned).and_then(|path| enter(path).map_err(|e| e.to_string()));
    let cgroup = match entered {
        Ok(cgroup) => cgroup,
        Err(reason) => {
            trials.insert("cgroup-link".to_owned(), Tried::unknown(format!("no cgroup to try it in: {reason}")));
            return;
        }
    };
    let link = load(&CONNECT[0], &returns(1))
        .and_then(|program| trial::link_to_cgroup(&program, cgroup.as_fd(), CONNECT[0].number));
    trials.insert("cgroup-link".to_owned(), Tried::of("a program linked to a cgroup", link));
    let mut hooks = |all: &[Hook; 2], attempt: &dyn Fn(&Place<'_>) -> io::Result<Tried>| {
        for hook in all {
            // What does not load is answered, and what must not load cannot be.
            if trials.get(hook.name).is_some_and(|tried| !tried.reason.starts_with("a program for it loads")) {
                continue;
            }
            let place = Place { cgroup: cgroup.as_fd(), family: hook.family, hook };
            let tried = attempt(&place).unwrap_or_else(|error| match error.raw_os_error() {
                Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT) if hook.family == V6 => {
                    Tried::unknown("IPv6 is off here")
                }
                _ => Tried::refused("traffic through the hook", &error),
            });
            trials.insert(hook.name.to_owned(), tried);
        }
    };
    hooks(&CONNECT, &connect);
    hooks(&BIND, &bind);
    hooks(&SENDMSG, &sendmsg);
    hooks(&RECVMSG, &recvmsg);
    hooks(&GETPEER, &getpeername);
}

fn enter(cgroup: &Path) -> io::Result<fs::File> {
    fs::write(cgroup.join("cgroup.procs"), "0")?;
    fs::File::open(cgroup)
}

/// Where a hook is tried.
struct Place<'p> {
    cgroup: std::os::fd::BorrowedFd<'p>,
    family: Family,
    hook: &'p Hook,
}

impl Place<'_> {
    /// Hooks a program in until the link is dropped.
    fn hooked(&self, hook: &Hook, program: &[u64]) -> io::Result<OwnedFd> {
        load(hook, program).and_then(|program| trial::link_to_cgroup(&program, self.cgroup, hook.number))
    }

    fn of<'h>(&self, hooks: &'h [Hook; 2]) -> &'h Hook {
        &hooks[usize::from(self.family == V6)]
    }

    /// Connects to nobody, and comes to a server by the connect hook.
    fn connected(&self) -> io::Result<(TcpStream, SocketAddr, SocketAddr)> {
        let server = TcpListener::bind(loopback(self.family))?;
        let at = server.local_addr()?;
        let _hooked = self.hooked(self.of(&CONNECT), &rewrites(at))?;
        let client = TcpStream::connect_timeout(&nobody(self.family), WAIT)?;
        let (_, seen) = server.accept()?;
        Ok((client, at, seen))
    }
}

fn connect(place: &Place<'_>) -> io::Result<Tried> {
    let (client, at, seen) = place.connected()?;
    let nobody = nobody(place.family);
    Ok(if seen == client.local_addr()? {
        Tried::works(format!("a connect to {nobody} came to the server at {at}"))
    } else {
        Tried::lacks(format!("a connect to {nobody} did not come to the server at {at}"))
    })
}

fn getpeername(place: &Place<'_>) -> io::Result<Tried> {
    let (client, at, _) = place.connected()?;
    let nobody = nobody(place.family);
    let _hooked = place.hooked(place.hook, &rewrites(nobody))?;
    let told = client.peer_addr()?;
    Ok(if told == nobody {
        Tried::works(format!("a socket connected to {at} says that its peer is {nobody}"))
    } else {
        Tried::lacks(format!("a socket says that its peer is {told}, not {nobody}"))
    })
}

fn bind(place: &Place<'_>) -> io::Result<Tried> {
    let free = UdpSocket::bind(loopback(place.family))?.local_addr()?;
    let _hooked = place.hooked(place.hook, &returns(0))?;
    Ok(match UdpSocket::bind(free) {
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => Tried::works("the hook refused a port to a socket"),
        Err(error) => Tried::refused("a port refused", &error),
        Ok(_) => Tried::lacks("a port that the hook refuses was given to a socket"),
    })
}

/// A server and an unconnected client, with a limit to waiting.
fn pair(family: Family) -> io::Result<(UdpSocket, UdpSocket)> {
    let (server, client) = (UdpSocket::bind(loopback(family))?, UdpSocket::bind(loopback(family))?);
    for socket in [&server, &client] {
        socket.set_read_timeout(Some(WAIT))?;
    }
    Ok((server, client))
}

fn sendmsg(place: &Place<'_>) -> io::Result<Tried> {
    let (server, client) = pair(place.family)?;
    let _hooked = place.hooked(place.hook, &rewrites(server.local_addr()?))?;
    let nobody = nobody(place.family);
    client.send_to(b"to nobody", nobody)?;
    let mut room = [0; 16];
    let (length, from) = server.recv_from(&mut room)?;
    Ok(if room[..length] == *b"to nobody" && from == client.local_addr()? {
        Tried::works(format!("a datagram to {nobody} came to the server at {}", server.local_addr()?))
    } else {
        Tried::lacks(format!("a datagram to {nobody} did not come to the server"))
    })
}

fn recvmsg(place: &Place<'_>) -> io::Result<Tried> {
    let (server, client) = pair(place.family)?;
    let nobody = nobody(place.family);
    let _hooked = place.hooked(place.hook, &rewrites(nobody))?;
    server.send_to(b"an answer", client.local_addr()?)?;
    let (_, from) = client.recv_from(&mut [0; 16])?;
    Ok(if from == nobody {
        Tried::works(format!("an answer of {} came as one of {nobody}", server.local_addr()?))
    } else {
        Tried::lacks(format!("an answer came as one of {from}, not of {nobody}"))
    })
}
