//! IPVS's own connection table: the text of `/proc/net/ip_vs_conn`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::model::Protocol;

/// One connection, or the memory of a persistent client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Protocol.
    pub protocol: Protocol,
    /// Client. Its port is 0 in a template, which binds a client to a server.
    pub client: SocketAddr,
    /// What the client asked for.
    pub virtual_address: SocketAddr,
    /// Who serves.
    pub server: SocketAddr,
    /// State, such as `ESTABLISHED`.
    pub state: String,
    /// Seconds until it goes if no packet comes.
    pub expires: u32,
}

impl Connection {
    /// Whether it is the memory of a persistent client.
    pub const fn is_template(&self) -> bool {
        self.client.port() == 0
    }
}

/// The connections in a text; the heading and lines that are none are passed over.
pub fn parse(text: &[u8]) -> Vec<Connection> {
    text.split(|b| *b == b'\n').filter_map(|line| parse_line(std::str::from_utf8(line).ok()?)).collect()
}

/// `TCP C0A8320C BE32 C0A8320B 7580 0AF4020D 1F90 ESTABLISHED     890`, IPv6 addresses with all their noughts.
fn parse_line(line: &str) -> Option<Connection> {
    let mut words = line.split_ascii_whitespace();
    let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let name = words.next()?;
    let protocol = protocol.into_iter().find(|p| p.to_string() == name)?;
    let mut address = || {
        let ip = words.next()?;
        let ip = if ip.contains(':') {
            IpAddr::V6(ip.parse().ok()?)
        } else {
            IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(ip, 16).ok()?))
        };
        Some(SocketAddr::new(ip, u16::from_str_radix(words.next()?, 16).ok()?))
    };
    let (client, virtual_address, server) = (address()?, address()?, address()?);
    let (state, expires) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
    Some(Connection { protocol, client, virtual_address, server, state, expires })
}
