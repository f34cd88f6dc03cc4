//! The hash in the names of kube-proxy's chains (Kubernetes 1.2 to 1.36, `pkg/proxy/iptables`).

use sha2::{Digest, Sha256};

/// Length of the hash in a chain's name.
pub const HASH_LEN: usize = 16;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/// Hash of the parts' concatenation: the first 16 characters of the base32 (RFC 4648, upper case) of its SHA-256.
///
/// A Service's chains (`SVC`, `SVL`, `EXT`, `FW`, and the old `XLB`) hash `namespace/name:port` (without `:port` for an unnamed
/// port) and the lower-case protocol; an endpoint's chain (`SEP`) has `ip:port` (`[ip]:port` for IPv6) behind them.
pub fn chain_hash(parts: &[&[u8]]) -> [u8; HASH_LEN] {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update(part);
    }
    let digest = hasher.finalize();
    let mut out = [0; HASH_LEN];
    // Five bytes make eight characters.
    for (five, eight) in digest.chunks_exact(5).zip(out.chunks_exact_mut(8)) {
        let bits = five.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        for (i, character) in eight.iter_mut().enumerate() {
            *character = ALPHABET[(bits >> (35 - 5 * i)) as usize & 31];
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(parts: &[&str]) -> String {
        let parts: Vec<_> = parts.iter().map(|p| p.as_bytes()).collect();
        String::from_utf8(chain_hash(&parts).to_vec()).expect("ASCII")
    }

    #[test]
    fn hashes_of_public_clusters() {
        assert_eq!(hash(&["default/kubernetes:https", "tcp"]), "NPX46M4PTMTKRN6Y");
        assert_eq!(hash(&["kube-system/kube-dns:dns", "udp"]), "TCOU7JCQXEZGVUNU");
        assert_eq!(hash(&["kube-system/kube-dns:dns-tcp", "tcp"]), "ERIFXISQEP7F7OF4");
        assert_eq!(hash(&["kube-system/kube-dns:metrics", "tcp"]), "JD5MR3NA4I4DYORP");
        assert_eq!(hash(&["default/nginx", "tcp"]), "2CMXP7HKUVJN7L6M");
        assert_eq!(hash(&["kube-system/kube-dns:dns", "udp", "100.96.0.3:53"]), "ONT5M3GKZCUX63CA");
    }

    #[test]
    fn agrees_with_another_base32() {
        let digest = Sha256::digest(b"ns/svc:porttcp");
        let whole = base32::encode(base32::Alphabet::Rfc4648 { padding: false }, &digest);
        assert_eq!(hash(&["ns/svc:port", "tcp"]), whole[..HASH_LEN]);
    }
}
