//! SCTP's checksum (RFC 9260, appendix A) when the ports change: a CRC, and no BPF helper knows it.
//!
//! A CRC is linear: the checksums of two packets of one length differ by the CRC of their difference, which here is four
//! bytes at the front and zeros behind them. A zero byte is a multiplication by x⁸ modulo the polynomial, so any number of them
//! is one multiplication by a power that comes by squaring.

/// The polynomial of CRC32C, lowest power in the highest bit, as in all numbers here.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// `x^(8 · 2^k)` modulo the polynomial.
const POWERS: [u32; 16] = {
    let mut powers = [0; 16];
    // x⁸.
    let mut power = 1 << 23;
    let mut k = 0;
    while k < powers.len() {
        powers[k] = power;
        power = product(power, power);
        k += 1;
    }
    powers
};

/// The product modulo the polynomial; without branches, so that the verifier has one way through it.
#[inline(always)]
const fn product(a: u32, mut b: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 32;
    while bit > 0 {
        bit -= 1;
        sum ^= b & 0_u32.wrapping_sub((a >> bit) & 1);
        b = (b >> 1) ^ (POLYNOMIAL & 0_u32.wrapping_sub(b & 1));
    }
    sum
}

/// What the checksum (read as little endian) has to be combined with by XOR when the first four bytes of a packet
/// change, and `behind` bytes come after them.
#[inline(always)]
pub const fn checksum_change(from: [u8; 4], to: [u8; 4], behind: u16) -> u32 {
    // The four bytes themselves: x³².
    let mut change = product(u32::from_le_bytes(from) ^ u32::from_le_bytes(to), POWERS[2]);
    let mut k = 0;
    while k < POWERS.len() {
        if behind & 1 << k != 0 {
            change = product(change, POWERS[k]);
        }
        k += 1;
    }
    change
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn crc32c(bytes: &[u8]) -> u32 {
        let mut crc = u32::MAX;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = (crc >> 1) ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn the_yardstick_is_right() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC32C");
    }

    proptest! {
        #[test]
        fn other_ports_change_the_checksum_by_as_much(
            ports: [u8; 4],
            others: [u8; 4],
            rest in prop::collection::vec(any::<u8>(), 0..3000),
        ) {
            let sum = |front: [u8; 4]| crc32c(&front.iter().chain(&rest).copied().collect::<Vec<_>>());
            let behind = u16::try_from(rest.len()).unwrap();
            prop_assert_eq!(sum(ports) ^ checksum_change(ports, others, behind), sum(others));
        }
    }
}
