//! TCP sockets of a network namespace, from the text of `/proc/net/tcp` and `tcp6`.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A TCP socket that talks to somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpSocket {
    /// Its own address.
    pub local: SocketAddr,
    /// Whom it talks to.
    pub remote: SocketAddr,
    /// Its state, such as `ESTABLISHED`.
    pub state: &'static str,
}

/// States by their number, from 1 (`include/net/tcp_states.h`).
const STATES: [&str; 12] = [
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
];

/// The sockets of this thread's network namespace that talk to somebody.
pub fn tcp() -> io::Result<Vec<TcpSocket>> {
    let mut found = Vec::new();
    for name in ["tcp", "tcp6"] {
        match fs_err::read_to_string(format!("/proc/thread-self/net/{name}")) {
            Ok(text) => found.extend(parse(&text)),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// The sockets in such a text; listening ones, and lines that are none, are passed over.
pub fn parse(text: &str) -> impl Iterator<Item = TcpSocket> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (endpoint(words.next()?)?, endpoint(words.next()?)?);
        let state = usize::from_str_radix(words.next()?, 16).ok()?;
        let state = STATES.get(state.checked_sub(1)?)?;
        (remote.port() != 0).then_some(TcpSocket { local, remote, state })
    })
}

/// `0B01F40A:1F90`: words of the address as this machine has them in memory, the port as a number.
fn endpoint(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words: Option<Vec<u8>> = (0..address.len() / 8)
        .map(|i| Some(u32::from_str_radix(address.get(i * 8..i * 8 + 8)?, 16).ok()?.to_ne_bytes()))
        .collect::<Option<Vec<_>>>()
        .map(|words| words.concat());
    let words = words?;
    let ip: IpAddr = match (<[u8; 4]>::try_from(&words[..]), <[u8; 16]>::try_from(&words[..])) {
        (Ok(v4), _) => Ipv4Addr::from(v4).into(),
        (_, Ok(v6)) => Ipv6Addr::from(v6).to_canonical(),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::{TcpSocket, parse, tcp};

    #[test]
    fn a_connection_of_ours_is_found_from_both_ends() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("loopback");
        let here = listener.local_addr().expect("bound");
        let client = std::net::TcpStream::connect(here).expect("it listens");
        let there = client.local_addr().expect("connected");
        let found = tcp().expect("procfs");
        for (local, remote) in [(here, there), (there, here)] {
            assert!(found.contains(&TcpSocket { local, remote, state: "ESTABLISHED" }), "{local} → {remote}");
        }
        assert!(found.iter().all(|socket| socket.state != "LISTEN"));
    }

    #[test]
    fn lines_that_are_no_sockets_are_passed_over() {
        for text in [
            "",
            "  sl  local_address rem_address   st",
            "0: 0B01:1 2:3 01",
            "0: 0B01F40A:1F90 0B01F40A:1F90 FF",
            "0: é:1 é:2 1",
        ] {
            assert_eq!(parse(text).count(), 0, "{text}");
        }
    }
}
