//! Foreign bytes: damaged recordings give errors or fewer entries, never a panic.

use kpx::capture::netlink::{Request, attribute};
use kpx::inspect::conntrack::{Form, Limits, Stats, decode, parse_line, read_recorded};
use proptest::prelude::*;

/// One entry as ctnetlink tells it: a UDP flow to a Service.
pub(crate) fn message() -> Vec<u8> {
    let nested = |parts: &[(u16, Vec<u8>)]| {
        let mut out = Vec::new();
        for (kind, value) in parts {
            attribute(&mut out, *kind, value);
        }
        out
    };
    let tuple = |source: [u8; 4], destination: [u8; 4], ports: [u16; 2]| {
        let ip = nested(&[(1, source.to_vec()), (2, destination.to_vec())]);
        let ports = ports.map(|p| p.to_be_bytes().to_vec());
        let proto = nested(&[(1, vec![17]), (2, ports[0].clone()), (3, ports[1].clone())]);
        nested(&[(1, ip), (2, proto)])
    };
    let body = Request::netfilter(1, 0, 2)
        .with(1, &tuple([10, 0, 0, 1], [10, 96, 0, 10], [4000, 53]))
        .with(2, &tuple([10, 244, 0, 6], [10, 0, 0, 1], [5353, 4000]))
        .with(3, &0x2a_u32.to_be_bytes())
        .with(7, &29_u32.to_be_bytes())
        .body;
    let length = u32::try_from(body.len() + 16).expect("short");
    let header = [length.to_ne_bytes(), [0, 1, 2, 0], [1, 0, 0, 0], [0; 4]].concat();
    [header, body].concat()
}

#[test]
fn a_message_cut_anywhere_is_an_error_or_no_entry() {
    let whole = message();
    let (entries, form) = super::entries(&whole);
    assert_eq!((entries.len(), form), (1, Form::Netlink));
    assert_eq!(entries[0].reply.source, "10.244.0.6:5353".parse().expect("an address"));
    assert_eq!(entries[0].timeout, Some(29));
    for cut in 6..whole.len() {
        assert!(read_recorded(&whole[..cut], |_| panic!("half an entry at {cut}")).is_err(), "cut at {cut}");
    }
}

#[test]
fn lines_that_are_none_are_passed_over() {
    for line in [
        "",
        "ipv4",
        "ipv4 2",
        "# conntrack -L -o extended",
        "ipv4 2 udp 17 6 src=1.2.3.4 dst=5.6.7.8 sport=99999 dport=1 src=a dst=b",
        "ipv4 2 udp 17 6 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2 [UNREPLIED]",
    ] {
        assert_eq!(parse_line(line), None, "{line}");
    }
}

proptest! {
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = read_recorded(&bytes, |_| {});
        let _ = decode(0x0100, &bytes);
        let _ = (Stats::parse(&bytes), Limits::parse(&bytes).changed());
    }

    #[test]
    fn a_byte_changed(at in 0_usize..180, byte in any::<u8>()) {
        let mut bytes = message();
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read_recorded(&bytes, |_| {});
    }

    #[test]
    fn any_words(line in "(ipv4 2 )?(tcp|udp|icmp|[a-z]+) [0-9]{1,3} [0-9]{0,12} ?([A-Z_]+ )?((src|dst|sport|dport|mark|packets|[a-z]+)=[0-9a-f.:]{0,12} |\\[[A-Z]+\\] ){0,12}") {
        let _ = parse_line(&line);
    }
}
