//! Which bits of the mark are free on a node: two are needed, one for packets that the filter is to let through, one for
//! packets that the kernel's conntrack is not to see.

use serde::{Deserialize, Serialize};

use crate::inspect::iptables;

/// The bits that kpx sets aside, one each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub struct Marks {
    /// Packets of Services that kube-proxy's rules let through; see [`crate::dataplane::Dataplane::set_accept_mark`].
    pub accept: u32,
    /// Packets of flows that were taken over; see [`crate::dataplane::Dataplane::set_unseen_mark`].
    pub unseen: u32,
}

impl Default for Marks {
    /// The best choice of a node without rules that use marks.
    fn default() -> Self {
        Self { accept: CHOICE[0], unseen: CHOICE[1] }
    }
}

/// Bits that are somebody's on many nodes, whether or not a rule of this one says so: kube-proxy's and the kubelet's (0x4000,
/// 0x8000), Cilium's (0x0f00), Calico's (0xffff0000, which has Weave's and Tailscale's in it), the AWS CNI's (0x80).
const OWNED: u32 = 0xffff_0000 | 0x4000 | 0x8000 | 0x0f00 | 0x80;

/// The bits to choose from, best first: seldom used ones.
const CHOICE: [u32; 9] = [0x2000, 0x1000, 0x40, 0x20, 0x10, 0x8, 0x4, 0x2, 0x1];

impl Marks {
    /// Two bits that nobody uses; `None` where there are none.
    pub fn choose(used: u32) -> Option<Self> {
        let mut free = CHOICE.into_iter().filter(|bit| (used | OWNED) & bit == 0);
        Some(Self { accept: free.next()?, unseen: free.next()? })
    }
}

/// Options of iptables that take a mark, of packets or of connections (which are copied to packets), and its mask.
const OPTIONS: [&[u8]; 10] = [
    b"--mark",
    b"--set-mark",
    b"--set-xmark",
    b"--and-mark",
    b"--or-mark",
    b"--xor-mark",
    b"--nfmask",
    b"--ctmask",
    b"--save-mark",
    b"--tproxy-mark",
];

/// Bits that the rules of an iptables-save text match or set; 0 of a text that cannot be parsed, which others report.
pub(super) fn of_iptables(text: &[u8]) -> u32 {
    let Ok(dump) = iptables::parse(text) else { return 0 };
    let mut used = 0;
    for rule in dump.tables().iter().flat_map(iptables::Table::rules) {
        let mut words = rule.words().peekable();
        while let Some(word) = words.next() {
            if OPTIONS.contains(&word.raw()) {
                used |= words.peek().map_or(0, |value| bits(&value.text()));
            }
        }
    }
    used
}

/// Bits that the rules of `nft -j list …` match or set.
pub(super) fn of_nftables(json: &[u8]) -> u32 {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(json) else { return 0 };
    let items = document.get("nftables").and_then(serde_json::Value::as_array);
    let rules = items.into_iter().flatten().filter_map(|item| item.get("rule"));
    let statements = rules.filter_map(|rule| rule.get("expr")?.as_array()).flatten();
    statements.filter(|s| s.to_string().contains(r#""key":"mark""#)).map(numbers).fold(0, |all, bits| all | bits)
}

/// Whether `nft -j list …` has a chain at hook forward whose policy is to drop.
pub(super) fn forward_drops(json: &[u8]) -> bool {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(json) else { return false };
    let items = document.get("nftables").and_then(serde_json::Value::as_array);
    let mut chains = items.into_iter().flatten().filter_map(|item| item.get("chain"));
    chains.any(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
}

fn numbers(value: &serde_json::Value) -> u32 {
    use serde_json::Value;
    match value {
        Value::Number(number) => number.as_u64().and_then(|n| u32::try_from(n).ok()).map_or(0, meant),
        Value::Array(list) => list.iter().map(numbers).fold(0, |all, bits| all | bits),
        Value::Object(map) => map.values().map(numbers).fold(0, |all, bits| all | bits),
        _ => 0,
    }
}

/// Bits that `ip -j rule` goes by.
pub(super) fn of_routing(json: &[u8]) -> u32 {
    let Ok(rules) = serde_json::from_slice::<Vec<serde_json::Value>>(json) else { return 0 };
    let word = |rule: &serde_json::Value, name: &str| rule.get(name)?.as_str().map(bits);
    rules.iter().map(|r| word(r, "fwmark").unwrap_or(0) | word(r, "fwmask").unwrap_or(0)).fold(0, |all, b| all | b)
}

/// `0x4000/0x4000`, `0x1`, `16384`.
fn bits(text: &str) -> u32 {
    let one = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    };
    text.split('/').filter_map(one).map(meant).fold(0, |all, bits| all | bits)
}

/// What a number says of bits: a mask of nearly all of them means those that it lacks.
const fn meant(number: u32) -> u32 {
    if number.count_ones() > 24 { !number } else { number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_rules_are_not_chosen() {
        let text = b"*mangle\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -m mark --mark 0x2000/0x2000 -j ACCEPT\n\
                     -A PREROUTING -j MARK --set-xmark 0x40/0xffffffff\n\
                     -A PREROUTING -m comment --comment \"--mark 0x1000\" -j CONNMARK --restore-mark --nfmask 0xf --ctmask 0xf\n\
                     COMMIT\n";
        assert_eq!(of_iptables(text), 0x204f);
        assert_eq!(Marks::choose(of_iptables(text)), Some(Marks { accept: 0x1000, unseen: 0x20 }));
        assert_eq!(Marks::choose(0), Some(Marks { accept: 0x2000, unseen: 0x1000 }));
        assert_eq!(Marks::choose(0x307f & !0x8), None, "one is not enough");
    }

    #[test]
    fn bits_of_nftables_and_of_routing_rules() {
        let nft = br#"{"nftables":[{"metainfo":{}},{"rule":{"expr":[
            {"match":{"op":"==","left":{"&":[{"meta":{"key":"mark"}},4096]},"right":4096}},{"counter":{"packets":8192,"bytes":1}},
            {"mangle":{"key":{"meta":{"key":"mark"}},"value":{"&":[{"meta":{"key":"mark"}},4294967263]}}}]}}]}"#;
        assert_eq!(of_nftables(nft), 0x1020);
        assert_eq!(of_routing(br#"[{"priority":0,"fwmark":"0x10","fwmask":"0x18"},{"priority":9}]"#), 0x18);
        assert_eq!((of_nftables(b"x"), of_routing(b"{"), of_iptables(b"-A X\n")), (0, 0, 0));
    }
}
