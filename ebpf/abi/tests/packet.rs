//! Headers as they stand on the wire.

use kpx_abi::packet::{Extent, Kind, Packet, parse, proto, signal};
use proptest::prelude::*;

/// An IPv4 header with options, then `payload`.
fn ipv4(protocol: u8, place: u16, options: usize, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45 + u8::try_from(options).expect("few"), 0];
    bytes.extend(u16::try_from(20 + options * 4 + payload.len()).expect("short").to_be_bytes());
    bytes.extend([0x12, 0x34]);
    bytes.extend(place.to_be_bytes());
    bytes.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    bytes.extend(vec![1; options * 4]);
    bytes.extend(payload);
    bytes
}

/// An IPv6 header whose first next header is `next`, then `payload`.
fn ipv6(next: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0];
    bytes.extend(u16::try_from(payload.len()).expect("short").to_be_bytes());
    bytes.extend([next, 64]);
    bytes.extend([0xfd; 16]);
    bytes.extend([0xfc; 16]);
    bytes.extend(payload);
    bytes
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    bytes[..4].copy_from_slice(&[0x04, 0x01, 0, 80]);
    bytes[13] = flags;
    bytes
}

fn read(bytes: &[u8], ipv6: bool) -> Option<Packet> {
    parse(bytes, 0, ipv6, Extent::Full)
}

#[test]
fn ports_are_found_behind_options_and_extension_headers() {
    for options in [0, 1, 10] {
        let found = read(&ipv4(proto::TCP, 0, options, &tcp(2)), false).unwrap();
        assert_eq!((found.kind, found.transport), (Kind::Whole, 20 + 4 * u32::try_from(options).unwrap()));
        assert_eq!((u16::from_be(found.tuple.sport), u16::from_be(found.tuple.dport)), (1025, 80));
        assert_eq!(found.signals, signal::OPENS);
        assert_eq!(found.length, 20 + 4 * u32::try_from(options).unwrap() + 20);
    }
    // Hop-by-hop options of 16 bytes, a routing header of 8, an authentication header of 24.
    let mut payload = vec![43, 1];
    payload.extend([0; 14]);
    payload.extend([51, 0, 0, 0, 0, 0, 0, 0]);
    payload.extend([6, 4]);
    payload.extend([0; 22]);
    payload.extend(tcp(0x10));
    let found = read(&ipv6(0, &payload), true).unwrap();
    assert_eq!((found.kind, found.transport, found.tuple.proto), (Kind::Whole, 40 + 48, proto::TCP));
    assert_eq!(found.signals, signal::CARRIES);
    // More extension headers than are followed.
    let mut payload = Vec::new();
    for _ in 0..9 {
        payload.extend([60, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert_eq!(read(&ipv6(60, &payload), true).unwrap().kind, Kind::Other);
}

#[test]
fn fragments_are_told_apart() {
    let kind = |place| read(&ipv4(proto::UDP, place, 0, &[4, 1, 0, 53, 0, 8, 0, 0]), false).unwrap();
    assert_eq!((kind(0).kind, kind(0).fragment), (Kind::Whole, 0));
    assert_eq!(kind(0x4000).kind, Kind::Whole, "may not be fragmented, and is not");
    assert_eq!(kind(0x2000).kind, Kind::FirstFragment);
    assert_eq!((kind(185).kind, kind(185).tuple.sport), (Kind::LaterFragment, 0));
    assert_eq!(kind(0x2000).fragment_key(), kind(185).fragment_key());
    let six = |place: u16| {
        let mut payload = vec![proto::UDP, 0];
        payload.extend(place.to_be_bytes());
        payload.extend([1, 2, 3, 4, 4, 1, 0, 53, 0, 8, 0, 0]);
        read(&ipv6(44, &payload), true).unwrap()
    };
    assert_eq!(six(0).kind, Kind::Whole);
    assert_eq!((six(1).kind, six(1).transport), (Kind::FirstFragment, 48));
    assert_eq!(six(0x5a9).kind, Kind::LaterFragment);
    assert_eq!(six(1).fragment_key(), six(0x5a9).fragment_key());
}

#[test]
fn icmp_errors_are_told_from_other_icmp() {
    let four = |kind| read(&ipv4(proto::ICMP, 0, 0, &[kind, 0, 0, 0]), false).unwrap().kind;
    assert_eq!([3, 11, 12].map(four), [Kind::Error; 3]);
    assert_eq!([0, 8, 5].map(four), [Kind::Other; 3]);
    let six = |kind| read(&ipv6(proto::ICMPV6, &[kind, 0, 0, 0]), true).unwrap().kind;
    assert_eq!([1, 2, 3, 4].map(six), [Kind::Error; 4]);
    assert_eq!([128, 129, 135, 136, 137].map(six), [Kind::Other; 5]);
    // What it quotes may end eight bytes into the transport header.
    let quoted = ipv4(proto::TCP, 0, 0, &tcp(2)[..8]);
    assert_eq!(read(&quoted, false), None);
    assert_eq!(parse(&quoted[..], 0, false, Extent::Quoted).unwrap().kind, Kind::Whole);
}

#[test]
fn transport_headers_tell_the_life_of_a_flow() {
    let signals = |flags| read(&ipv4(proto::TCP, 0, 0, &tcp(flags)), false).unwrap().signals;
    let expected = [
        (0x02, signal::OPENS),
        (0xc2, signal::OPENS),
        (0x12, signal::ANSWERS),
        (0x10, signal::CARRIES),
        (0x11, signal::FINISHES),
        (0x14, signal::RESETS),
        (0x04, signal::RESETS),
    ];
    for (flags, signal) in expected {
        assert_eq!(signals(flags), signal, "{flags:#x}");
    }
    let sctp = |chunk| {
        let mut payload = vec![0; 16];
        payload[12] = chunk;
        read(&ipv4(proto::SCTP, 0, 0, &payload), false).unwrap().signals
    };
    assert_eq!([1, 0, 6, 14].map(sctp), [signal::OPENS, signal::CARRIES, signal::RESETS, signal::FINISHES]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..120), ipv6: bool, at in 0..130_u32) {
        for extent in [Extent::Full, Extent::Quoted] {
            let _ = parse(&bytes[..], at, ipv6, extent);
        }
    }

    #[test]
    fn a_packet_cut_short_is_not_understood(cut in 0..40_usize) {
        prop_assert_eq!(read(&ipv4(proto::TCP, 0, 0, &tcp(2))[..cut.min(33)], false), None);
    }
}
