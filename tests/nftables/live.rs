//! Reading a live namespace, into which nft loaded recorded tables: the same as reading nft's JSON of them.

use kpx::inspect::nftables::{Ruleset, Statement, lift, parse, read_live};
use kpx::model::Family;

use crate::capture::network::Netns;
use crate::iptables::text;
use crate::support;

use super::samples;

/// What [`read_live`] finds in a namespace.
fn live(namespace: &Netns) -> Ruleset {
    namespace.inside(|| read_live().unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e))))
}

/// What does not change when tables are loaded anew: all but the kernel's numbers and the time that runs.
fn lasting(mut ruleset: Ruleset) -> Ruleset {
    for table in [&mut ruleset.v4, &mut ruleset.v6].into_iter().flatten() {
        for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
            rule.handle = 0;
        }
        for element in table.sets.values_mut().flat_map(|set| &mut set.elements) {
            element.expires = None;
        }
    }
    ruleset
}

fn assert_same(a: &Ruleset, b: &Ruleset) {
    for family in Family::BOTH {
        let (a, b) = (a.table(family).expect("a table"), b.table(family).expect("a table"));
        for (name, chain) in &a.chains {
            assert_eq!(Some(chain), b.chains.get(name), "{family} {name}");
        }
        for (name, set) in &a.sets {
            assert_eq!(Some(set), b.sets.get(name), "{family} {name}");
        }
    }
    assert_eq!(a, b);
}

#[test]
fn the_kernel_tells_what_nft_prints() {
    if !support::privileged() {
        return;
    }
    for sample in samples() {
        let netns = Netns::new();
        assert!(live(&netns).is_empty(), "nothing is there yet");
        netns.run("nft", &["-f", "-"], text(&sample.join("nft-ruleset.txt")).as_deref());
        let by_tool = parse(netns.run("nft", &["-j", "list", "ruleset"], None).as_bytes()).expect("nft's JSON");
        let ours = live(&netns);
        assert_same(&lasting(ours.clone()), &lasting(by_tool));
        let recorded = super::ruleset_of(&sample);
        assert_same(&lasting(ours.clone()), &lasting(recorded.clone()));
        let (live, recorded) = (lift(&ours), lift(&recorded));
        assert_eq!(live.table.frontends(), recorded.table.frontends());
        assert_eq!(live.notices.len(), recorded.notices.len());
    }
}

/// Words that kube-proxy uses in other configurations, and foreign ones, which must not be taken for its own.
const OTHERS: &str = r#"
table ip kube-proxy {
    chain known {
        type filter hook forward priority 5; policy drop;
        iifname "cni*" accept
        iifname != "cbr0" ip daddr != 127.0.0.0/8 drop
        iif "lo" return
        fib daddr type local ip saddr { 10.0.0.0/24, 10.0.1.0/24, 192.0.2.7 } drop
        ip saddr != { 192.0.2.1, 192.0.2.2 } drop
        ip saddr 0.0.0.0/0 drop
        ip daddr 10.96.0.0/12 reject
        meta mark set meta mark | 0x00000008 comment "a mark"
        numgen random mod 3 vmap { 0 : drop, 2 : accept }
        numgen random mod 70 vmap { MANY }
    }
    chain unknown {
        counter packets 0 bytes 0 drop
        tcp flags syn drop
        ip saddr 10.0.0.1-10.0.0.2 drop
        reject with tcp reset
        ct state established accept
    }
    counter extra { packets 0 bytes 0 }
}
table inet other {
    chain c {
        ip saddr 10.0.0.1 drop
    }
}
"#;

#[test]
fn other_rules_are_read_alike_or_as_unknown() {
    if !support::privileged() {
        return;
    }
    let netns = Netns::new();
    let many: Vec<_> = (0..70).map(|number| format!("{number} : accept")).collect();
    netns.run("nft", &["-f", "-"], Some(OTHERS.replace("MANY", &many.join(", ")).as_bytes()));
    let by_tool = parse(netns.run("nft", &["-j", "list", "ruleset"], None).as_bytes()).expect("nft's JSON");
    let ours = live(&netns);
    let (ours, by_tool) = (ours.v4.expect("a table"), by_tool.v4.expect("a table"));
    assert_eq!(ours.chains["known"], by_tool.chains["known"]);
    for chain in [&ours.chains["unknown"], &by_tool.chains["unknown"]] {
        assert_eq!(chain.rules.len(), 5);
        for rule in &chain.rules {
            let other = |statement: &Statement| matches!(statement, Statement::Other(_));
            assert!(rule.statements.iter().any(other), "{rule:?}");
        }
    }
    assert_eq!((ours.others, by_tool.others), (vec!["object extra".to_owned()], vec!["counter extra".to_owned()]));
    assert!(!ours.chains.contains_key("c"));
}
