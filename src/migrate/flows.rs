//! UDP flows that the kernel's rules translate now, read from `/proc/net/nf_conntrack`.
//!
//! A UDP socket that already talks to a Service through the rules must go on doing so: were its next datagram translated
//! at the socket, conntrack would see a second mapping onto one reply tuple and change the source port that the backend
//! knows. Such flows are put into the dataplane's yield map before the hooks become active.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use crate::inspect::conntrack;
use crate::model::Protocol;

/// A UDP flow whose destination is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UdpFlow {
    /// Source address of the socket.
    pub client: SocketAddr,
    /// The destination that the client used: a frontend.
    pub frontend: SocketAddr,
    /// Who answers: a backend.
    pub backend: SocketAddr,
    /// How long conntrack keeps it if nothing more is sent.
    pub expires_in: Duration,
}

/// The translated UDP flows in the text of `/proc/net/nf_conntrack`.
pub fn parse(text: &[u8]) -> BTreeSet<UdpFlow> {
    let translated = conntrack::parse(text).filter(|e| e.protocol == Protocol::Udp && e.destination != e.answers);
    let flow = |entry: conntrack::Entry| UdpFlow {
        client: entry.client,
        frontend: entry.destination,
        backend: entry.answers,
        expires_in: entry.expires_in,
    };
    translated.map(flow).collect()
}

/// How long after its last datagram conntrack keeps a UDP flow, from the text of `sysctl -a`: the longer of
/// `nf_conntrack_udp_timeout` and `nf_conntrack_udp_timeout_stream`, or the kernel's default where neither is known.
pub fn udp_time(sysctls: &[u8]) -> Duration {
    const DEFAULT: Duration = Duration::from_mins(2);
    let text = String::from_utf8_lossy(sysctls);
    let seconds = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let known = ["net.netfilter.nf_conntrack_udp_timeout", "net.netfilter.nf_conntrack_udp_timeout_stream"];
        known.contains(&name.trim()).then(|| value.trim().parse().ok())?
    });
    seconds.max().map_or(DEFAULT, Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDED: &[u8] = b"ipv4     2 tcp      6 86398 ESTABLISHED src=192.168.50.1 dst=192.168.50.11 sport=44564 dport=30080 src=10.244.2.13 dst=192.168.50.11 sport=8080 dport=41333 [ASSURED] mark=0 zone=0 use=2
ipv4     2 udp      17 6 src=10.244.1.11 dst=10.96.0.10 sport=32950 dport=53 src=10.244.1.12 dst=10.244.1.11 sport=53 dport=32950 mark=0 zone=0 use=2
ipv6     10 udp      17 6 src=fd00:0010:0244:0001:0000:0000:0000:0011 dst=fd00:0010:0096:0000:0000:0000:0000:000a sport=53137 dport=53 src=fd00:0010:0244:0001:0000:0000:0000:0012 dst=fd00:0010:0244:0001:0000:0000:0000:0011 sport=53 dport=53137 mark=0 zone=0 use=2
ipv4     2 udp      17 6 src=192.168.50.11 dst=10.96.0.10 sport=56813 dport=53 src=10.244.1.12 dst=10.244.1.1 sport=53 dport=40269 mark=0 zone=0 use=2
ipv4     2 udp      17 29 src=10.244.1.11 dst=10.244.1.12 sport=5000 dport=53 [UNREPLIED] src=10.244.1.12 dst=10.244.1.11 sport=53 dport=5000 mark=0 zone=0 use=2
";

    #[test]
    fn recorded_entries_give_the_translated_udp_flows() {
        let flow = |client: &str, frontend: &str, backend: &str| UdpFlow {
            client: client.parse().unwrap(),
            frontend: frontend.parse().unwrap(),
            backend: backend.parse().unwrap(),
            expires_in: Duration::from_secs(6),
        };
        let expected = BTreeSet::from([
            flow("10.244.1.11:32950", "10.96.0.10:53", "10.244.1.12:53"),
            flow("192.168.50.11:56813", "10.96.0.10:53", "10.244.1.12:53"),
            flow("[fd00:10:244:1::11]:53137", "[fd00:10:96::a]:53", "[fd00:10:244:1::12]:53"),
        ]);
        assert_eq!(parse(RECORDED), expected);
    }

    #[test]
    fn the_longer_of_the_two_times_counts() {
        let text =
            b"net.netfilter.nf_conntrack_udp_timeout = 30\nnet.netfilter.nf_conntrack_udp_timeout_stream = 300\n";
        assert_eq!(udp_time(text), Duration::from_mins(5));
        assert_eq!(udp_time(b""), Duration::from_mins(2));
    }

    #[test]
    fn broken_lines_are_passed_over() {
        for cut in 0..RECORDED.len() {
            assert!(parse(&RECORDED[..cut]).is_subset(&parse(RECORDED)), "cut at {cut}");
        }
        assert_eq!(
            parse(b"ipv4 2 udp 17 6 src=1.2.3.4 dst=5.6.7.8 sport=99999 dport=1 src=a dst=b\n"),
            BTreeSet::new()
        );
    }
}
