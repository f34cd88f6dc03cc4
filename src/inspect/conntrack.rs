//! The kernel's conntrack entries, from the text of `/proc/net/nf_conntrack`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::model::Protocol;

/// A flow of a transport protocol that Services have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its state, such as `ESTABLISHED`; `None` where the protocol has none.
    pub state: Option<String>,
    /// Who opened it.
    pub client: SocketAddr,
    /// Where the client sends to.
    pub destination: SocketAddr,
    /// Who answers: another than the destination if that is translated.
    pub answers: SocketAddr,
    /// How long it is kept if nothing more is sent.
    pub expires_in: Duration,
}

/// The flows; other lines, broken ones and a last line without its end are passed over.
pub fn parse(text: &[u8]) -> impl Iterator<Item = Entry> {
    let lines = text.split_inclusive(|b| *b == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    lines.filter_map(|line| parse_line(std::str::from_utf8(line).ok()?))
}

/// `ipv4 2 tcp 6 86398 ESTABLISHED src=… dst=… sport=… dport=… [UNREPLIED] src=… dst=… sport=… dport=… mark=0 …`.
///
/// `conntrack -L -o extended` prints the same fields in the same order.
fn parse_line(line: &str) -> Option<Entry> {
    let mut words = line.split_ascii_whitespace();
    let family = words.next()?;
    if !matches!(family, "ipv4" | "ipv6") || words.next().is_none() {
        return None;
    }
    words.next()?;
    let protocol = Protocol::from_number(words.next()?.parse().ok()?)?;
    let seconds = words.next()?.parse().ok()?;
    let mut state = None;
    let (mut src, mut dst, mut sport, mut dport) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for word in words {
        let Some((key, value)) = word.split_once('=') else {
            if src.is_empty() {
                state = Some(word.to_owned());
            }
            continue;
        };
        match key {
            "src" => src.push(address(value)?),
            "dst" => dst.push(address(value)?),
            "sport" => sport.push(value.parse::<u16>().ok()?),
            "dport" => dport.push(value.parse::<u16>().ok()?),
            _ => {}
        }
    }
    let end = |ips: &[IpAddr], ports: &[u16], i: usize| Some(SocketAddr::new(*ips.get(i)?, *ports.get(i)?));
    Some(Entry {
        protocol,
        state,
        client: end(&src, &sport, 0)?,
        destination: end(&dst, &dport, 0)?,
        answers: end(&src, &sport, 1)?,
        expires_in: Duration::from_secs(seconds),
    })
}

/// The kernel prints IPv6 addresses with all their noughts; an IPv4-mapped one is an IPv4 address.
fn address(text: &str) -> Option<IpAddr> {
    text.parse().ok().map(|ip: IpAddr| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn translated_flows_have_their_state_and_who_answers() {
        let text = b"ipv4     2 tcp      6 86398 ESTABLISHED src=192.168.50.1 dst=192.168.50.11 sport=44564 dport=30080 src=10.244.2.13 dst=192.168.50.11 sport=8080 dport=41333 [ASSURED] mark=0 zone=0 use=2
ipv4     2 icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1 mark=0 zone=0 use=2
ipv4     2 udp      17 6 src=10.244.1.11 dst=10.96.0.10 sport=32950 dport=53 [UNREPLIED] src=10.244.1.12 dst=10.244.1.11 sport=53 dport=32950 mark=0 zone=0 use=2
";
        let found: Vec<String> = parse(text)
            .map(|e| {
                format!("{} {:?} {} {} {} {:?}", e.protocol, e.state, e.client, e.destination, e.answers, e.expires_in)
            })
            .collect();
        assert_eq!(
            found,
            [
                "TCP Some(\"ESTABLISHED\") 192.168.50.1:44564 192.168.50.11:30080 10.244.2.13:8080 86398s",
                "UDP None 10.244.1.11:32950 10.96.0.10:53 10.244.1.12:53 6s",
            ]
        );
    }
}
