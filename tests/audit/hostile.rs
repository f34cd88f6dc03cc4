//! Whatever bytes the smallest readers get: a state, never a panic, and no more memory than the bytes themselves call for.

use kpx::inspect::recent::Recent;
use kpx::inspect::sysctl::Sysctls;
use proptest::prelude::*;

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
}
