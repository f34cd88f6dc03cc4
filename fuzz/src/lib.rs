//! What foreign bytes go through, one function for each parser: no bytes make it panic, loop or take memory without bound.
//!
//! The targets in `fuzz_targets/` try them for as long as somebody lets them, kpx's own tests (`tests/hostile.rs`) for a moment.

use kpx::capture::netlink::replay;
use kpx::inspect::btf::{Btf, Hint, Shape};
use kpx::inspect::conntrack::{self, Census, read_recorded};
use kpx::inspect::ipset::{self, Sets};
use kpx::inspect::iptables;
use kpx::inspect::ipvs::{self, Addresses, State};
use kpx::inspect::nftables;
use kpx::model::{Protocol, ServiceTable, TrafficSource};
use kpx::path::{Around, Packet, through_iptables, through_ipvs, through_nftables};

/// A packet to follow through whatever rules there are.
fn packet() -> Packet {
    Packet {
        origin: TrafficSource::Outside,
        source: Some([203, 0, 113, 9].into()),
        destination: ([10, 96, 0, 10], 53).into(),
        protocol: Protocol::Udp,
        interface: Some("eth0".to_owned()),
    }
}

/// Bytes as `iptables-save`: what is accepted prints back the same, is lifted, and packets are followed through it.
pub fn iptables_save(text: &[u8]) {
    let Ok(dump) = iptables::parse(text) else { return };
    let printed = dump.to_bytes();
    let again = iptables::parse(&printed).expect("what was printed parses");
    // Only leading zeros of counters are not kept: iptables-save never prints them.
    assert_eq!(again.to_bytes(), printed);
    assert_eq!(dump.tables().len(), again.tables().len());
    for (a, b) in dump.tables().iter().zip(again.tables()) {
        assert_eq!((a.name(), a.chains(), a.rules()), (b.name(), b.chains(), b.rules()));
    }
    iptables::lift(Some(&dump), Some(&again));
    through_iptables(&dump, &Sets::new(), &packet(), &Around::default());
    through_ipvs(Some(&dump), &State::default(), &ServiceTable::default(), &packet(), &Around::default());
}

/// Bytes as `nft -j list ruleset`: kube-proxy's tables, those of others, and packets followed through them.
pub fn nft(json: &[u8]) {
    let _ = nftables::others(json);
    let Ok(ruleset) = nftables::parse(json) else { return };
    let lifted = nftables::lift(&ruleset);
    assert!(!ruleset.is_empty() || lifted.table.frontends().is_empty());
    through_nftables(&ruleset, &packet(), &Around::default());
}

/// Bytes as `ipset save`.
pub fn ipset(text: &[u8]) {
    let Ok(sets) = ipset::parse(text) else { return };
    for (name, set) in &sets {
        assert!(!name.is_empty() && !set.kind.is_empty());
        set.entries.iter().for_each(|entry| assert!(!entry.to_string().contains(' ')));
    }
    let state = State { sets, ..State::default() };
    assert!(state.lift(&mut Vec::new()).frontends().is_empty());
}

/// Bytes as IPVS's answers, as its table of connections and as addresses.
pub fn ipvs(bytes: &[u8]) {
    ipvs::parse_connections(bytes);
    let _ = Addresses::parse(bytes);
    let Ok(ipvs) = ipvs::decode(bytes) else { return };
    let state = State { ipvs, ..State::default() };
    // Without sets and addresses nothing is kube-proxy's.
    assert!(state.lift(&mut Vec::new()).frontends().is_empty());
    through_ipvs(None, &state, &ServiceTable::default(), &packet(), &Around::default());
}

/// Bytes as a recorded connection tracking table, or as its statistics.
pub fn conntrack(bytes: &[u8]) {
    let table = ServiceTable::default();
    let mut census = Census::new(&table);
    let _ = read_recorded(bytes, |entry| census.add(entry));
    let _ = conntrack::decode(0x0100, bytes);
    let _ = replay(bytes, |_| {});
    let _ = (conntrack::Stats::parse(bytes), conntrack::Limits::parse(bytes).changed());
    assert!(census.of_services() == 0 && census.translations().values().sum::<u64>() == census.total());
}

/// Bytes as BTF; the last 64 are taken for a value of its first types.
pub fn btf(bytes: &[u8]) {
    let (btf, value) = bytes.split_at(bytes.len().saturating_sub(64));
    let Ok(btf) = Btf::parse(btf) else { return };
    for id in 0..64 {
        for hint in [Hint::None, Hint::Network] {
            let Some(shape) = Shape::of(&btf, id, hint) else { continue };
            let mut text = String::new();
            shape.text(value, &mut text);
            shape.json(value);
        }
    }
}
