//! Whatever bytes the small readers get: a state or an error, never a panic, and no more memory than the bytes themselves call for.
//! The targets in `fuzz/` try the same entry points for longer.

use kpx::inspect::btf::{Btf, Hint, Shape};
use kpx::inspect::ipset;
use kpx::inspect::recent::Recent;
use kpx::inspect::sysctl::Sysctls;
use proptest::prelude::*;

const SETS: &str = "create KUBE-CLUSTER-IP hash:ip,port family inet hashsize 1024 maxelem 65536\n\
                    add KUBE-CLUSTER-IP 10.96.0.1,tcp:443\ncreate KUBE-6-X hash:ip,port,net family inet6\n\
                    add KUBE-6-X fd00::1,udp:53,fd00::/64 timeout 5\ncreate P bitmap:port range 0-65535\nadd P 30080\n";
const RECENT: &str = "# jiffies 4296745746 hz 250 limit 100\n\
                      KUBE-SEP-A src=10.0.0.3 ttl: 64 last_seen: 4296743246 oldest_pkt: 1 4296743246\n";

/// A text with some of its bytes replaced, dropped or repeated.
fn damaged(text: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec(
        (any::<prop::sample::Index>(), 0_usize..8, prop::collection::vec(any::<u8>(), 0..8)),
        0..6,
    );
    edits.prop_map(move |edits| {
        let mut bytes = text.as_bytes().to_vec();
        for (at, cut, put) in edits {
            let start = at.index(bytes.len() + 1);
            let end = (start + cut).min(bytes.len());
            bytes.splice(start..end, put);
        }
        bytes
    })
}

proptest! {
    #[test]
    fn ipsets(bytes in damaged(SETS)) {
        if let Ok(sets) = ipset::parse(&bytes) {
            let entries: usize = sets.values().map(|set| set.entries.len()).sum();
            prop_assert!(entries <= bytes.len());
        }
    }

    #[test]
    fn lists_of_clients(bytes in damaged(RECENT)) {
        let recent = Recent::parse(&bytes);
        prop_assert!(recent.clients.len() <= bytes.len());
        prop_assert_eq!(recent.by_list().values().sum::<usize>(), recent.clients.len());
    }

    #[test]
    fn sysctls(bytes in damaged("net.ipv4.ip_forward = 1\nnet.netfilter.nf_conntrack_max = 262144\n")) {
        let sysctls = Sysctls::parse(&bytes);
        let text = sysctls.get("net.ipv4.ip_forward");
        prop_assert_eq!(sysctls.number("net.ipv4.ip_forward"), text.and_then(|text| text.parse().ok()));
    }

    #[test]
    fn types(mut bytes in prop::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        if header {
            // The magic number, version and length of a real header, so that what follows is looked at.
            bytes.splice(0..0, [0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 64, 0, 0, 0]);
        }
        if let Ok(btf) = Btf::parse(&bytes) {
            for id in 0..32 {
                if let Some(shape) = Shape::of(&btf, id, Hint::None) {
                    let mut text = String::new();
                    shape.text(&bytes, &mut text);
                    shape.json(&bytes);
                }
            }
        }
    }
}
