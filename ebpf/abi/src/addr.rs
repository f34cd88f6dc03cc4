//! Addresses in the one form that all maps use.

/// An address in network byte order; IPv4 as `::ffff:a.b.c.d`, so that one map serves both families and v4-mapped sockets.
pub type Addr = [u8; 16];

/// The third word of a v4-mapped address.
const MAPPED: u32 = u32::from_ne_bytes([0, 0, 0xff, 0xff]);

/// First half of a stand-in for an address: of `100::/64`, the prefix to be discarded (RFC 6666), no client can be.
const STAND_IN: u64 = u64::from_ne_bytes([1, 0, 0, 0, 0, 0, 0, 0]);

/// The address as two words.
#[inline(always)]
const fn halves(addr: &Addr) -> (u64, u64) {
    (word(addr, 0), word(addr, 8))
}

#[inline(always)]
const fn word(addr: &Addr, at: usize) -> u64 {
    let half =
        [addr[at], addr[at + 1], addr[at + 2], addr[at + 3], addr[at + 4], addr[at + 5], addr[at + 6], addr[at + 7]];
    u64::from_ne_bytes(half)
}

/// Whether both are the same; without a function call, which a comparison of slices is.
#[inline(always)]
pub const fn same(a: &Addr, b: &Addr) -> bool {
    let (a, b) = (halves(a), halves(b));
    a.0 == b.0 && a.1 == b.1
}

/// Whether it is an IPv4 address.
#[inline(always)]
pub const fn is_v4(addr: &Addr) -> bool {
    let third = u32::from_ne_bytes([addr[8], addr[9], addr[10], addr[11]]);
    halves(addr).0 == 0 && third == MAPPED
}

/// The unspecified address of the same family: the address of a NodePort.
#[inline(always)]
pub const fn unspecified(addr: &Addr) -> Addr {
    if is_v4(addr) { [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0] } else { [0; 16] }
}

/// Whether it is in `127.0.0.0/8` or `::1`: then it is an address of the sender's own network namespace.
#[inline(always)]
pub const fn is_loopback(addr: &Addr) -> bool {
    if is_v4(addr) { addr[12] == 127 } else { same(addr, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]) }
}

/// The address by which `kpx_addresses` knows it: `127.0.0.1` for all of `127.0.0.0/8`, itself for any other.
#[inline(always)]
pub const fn owner(addr: &Addr) -> Addr {
    if is_v4(addr) && addr[12] == 127 { [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1] } else { *addr }
}

/// A stand-in for the address of a client that is known by its network namespace's cookie only.
#[inline(always)]
pub const fn stand_in(cookie: u64) -> Addr {
    let low = cookie.to_be_bytes();
    [1, 0, 0, 0, 0, 0, 0, 0, low[0], low[1], low[2], low[3], low[4], low[5], low[6], low[7]]
}

/// Whether it is such a stand-in.
#[inline(always)]
pub const fn is_stand_in(addr: &Addr) -> bool {
    halves(addr).0 == STAND_IN
}

/// A number that every node computes alike for a flow, evenly distributed; ports in network byte order.
#[inline(always)]
pub const fn flow_hash(client: &Addr, client_port: u16, addr: &Addr, port: u16, proto: u8) -> u32 {
    let (c, a) = (halves(client), halves(addr));
    let ports = (u16::from_be(client_port) as u64) << 32 | (u16::from_be(port) as u64) << 16 | proto as u64;
    let mut hash = mix(u64::from_be(c.0), ports);
    hash = mix(hash, u64::from_be(c.1));
    hash = mix(hash, u64::from_be(a.0));
    (mix(hash, u64::from_be(a.1)) >> 32) as u32
}

/// One round of the finalizer of SplitMix64.
#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    let mixed = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(text: &str) -> Addr {
        text.parse::<Ipv4Addr>().unwrap().to_ipv6_mapped().octets()
    }

    fn v6(text: &str) -> Addr {
        text.parse::<Ipv6Addr>().unwrap().octets()
    }

    #[test]
    fn families_are_told_apart() {
        assert!(is_v4(&v4("10.0.0.1")) && is_v4(&v4("0.0.0.0")));
        assert!(!is_v4(&v6("::1")) && !is_v4(&v6("::")) && !is_v4(&v6("fd00::ffff:a00:1")));
        assert_eq!(unspecified(&v4("10.0.0.1")), v4("0.0.0.0"));
        assert_eq!(unspecified(&v6("fd00::1")), v6("::"));
    }

    #[test]
    fn all_of_the_loopback_network_is_one_address() {
        assert_eq!(owner(&v4("127.8.8.8")), v4("127.0.0.1"));
        assert_eq!(owner(&v4("126.8.8.8")), v4("126.8.8.8"));
        assert_eq!(owner(&v6("::1")), v6("::1"));
        assert!(is_loopback(&v4("127.8.8.8")) && is_loopback(&v6("::1")));
        assert!(!is_loopback(&v4("126.8.8.8")) && !is_loopback(&v6("::7f00:1")));
    }

    #[test]
    fn a_stand_in_is_no_address_of_anybody() {
        assert!(is_stand_in(&stand_in(0)) && is_stand_in(&stand_in(u64::MAX)));
        assert_ne!(stand_in(1), stand_in(2));
        assert!(!is_stand_in(&v4("1.0.0.0")) && !is_stand_in(&v6("100:0:0:1::")));
    }

    #[test]
    fn a_flow_hashes_evenly_and_every_part_of_it_counts() {
        let hash =
            |client: &str, from: u16, to: u16| flow_hash(&v4(client), from.to_be(), &v4("10.96.0.1"), to.to_be(), 6);
        let mut shares = [0_u32; 16];
        for port in 0..16_000 {
            shares[(hash("10.244.1.7", port, 80) >> 28) as usize] += 1;
        }
        assert!(shares.iter().all(|share| (850..1150).contains(share)), "{shares:?}");
        let one = hash("10.244.1.7", 4000, 80);
        assert!(
            [hash("10.244.1.8", 4000, 80), hash("10.244.1.7", 4001, 80), hash("10.244.1.7", 4000, 81)]
                .iter()
                .all(|h| *h != one)
        );
        assert_eq!(one, 2_904_973_087, "the same on every machine");
    }
}
