//! iptables, legacy and nft, both families.

use std::path::Path;

use kpx::capture::{Node, NodeOptions, Variant, command};
use kpx::migrate::removal::{Count, Reason, Removal, RemovalError, Restoration, State, remove, restore};
use kpx::model::{Family, KubeVersion};

use super::crowd::crowded;
use super::text::{assert_same, change, is_kube_proxys, load, others, rules_of, saved};
use crate::support::{in_new_netns, privileged, recordings};

/// The recordings of kube-proxy in iptables mode.
pub(super) const VERSIONS: [&str; 5] =
    ["iptables-nft", "iptables-legacy", "v1.30-iptables-nft", "v1.25-iptables-legacy", "v1.23-iptables-nft"];

/// A recorded text, unpacked.
fn recorded(recordings: &Path, version: &str, family: Family) -> String {
    let name = if family == Family::V4 { "iptables-save.txt" } else { "ip6tables-save.txt" };
    let path = recordings.join("small").join(version).join("running").join(name);
    fs_err::read_to_string(path).expect("the recording is there")
}

/// This namespace.
pub(super) fn node() -> Node {
    Node::open(&NodeOptions::default()).expect("the live node")
}

pub(super) fn make_counters() {
    for name in ["ct_state_invalid_dropped_pkts", "localhost_nps_accepted_pkts"] {
        command::output("nfacct", ["add", name], None).expect("the kernel counts");
    }
}

/// Runs `work` in a namespace with a recording's rules of both families among those of others.
fn with_rules<T: Send>(
    recordings: &Path,
    version: &str,
    variant: Variant,
    reference: bool,
    work: impl FnOnce() -> T + Send,
) -> T {
    in_new_netns(|| {
        make_counters();
        for family in Family::BOTH {
            load(variant, family, &crowded(&recorded(recordings, version, family), reference));
        }
        work()
    })
}

fn both(variant: Variant) -> [Vec<String>; 2] {
    Family::BOTH.map(|family| saved(variant, family))
}

/// What a reference to `KUBE-MARK-MASQ` keeps.
const MASQUERADE: [&str; 2] = ["KUBE-MARK-MASQ", "KUBE-POSTROUTING"];

#[test]
fn all_of_kube_proxy_goes_and_comes_back_and_nothing_of_others_moves() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    for version in VERSIONS {
        for variant in Variant::BOTH {
            for (reference, stay) in [(false, &[][..]), (true, &MASQUERADE)] {
                with_rules(&recordings, version, variant, reference, || {
                    let what = format!("{version} in {variant}, reference {reference}");
                    let before = both(variant);
                    let kept = State::read(&node()).expect("the rules can be read");
                    let done = remove(&node(), &kept, None).expect("it goes");
                    let after = both(variant);
                    for (after, before) in after.iter().zip(&before) {
                        assert_same(after, &others(before, stay), &what);
                    }
                    let of_rules = done.iter().filter(|count| count.place.starts_with("iptables-"));
                    let gone: usize = of_rules.map(Count::total).sum();
                    let lines = before.iter().flatten().filter(|line| is_kube_proxys(line, stay));
                    assert_eq!(gone, lines.count(), "{what}: {done:?}");
                    assert_eq!(remove(&node(), &kept, None).expect("nothing is left"), []);

                    restore(&node(), &kept).expect("it comes back");
                    for (now, before) in both(variant).iter().zip(&before) {
                        assert_same(now, before, &what);
                    }
                    assert_eq!(restore(&node(), &kept).expect("all is there"), []);
                });
            }
        }
    }
}

#[test]
fn a_removal_says_all_that_goes_and_what_stays() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "iptables-nft", Variant::Nft, true, || {
        let state = State::read(&node()).expect("the rules can be read");
        let removal = Removal::of(&state, None).expect("it is computed");
        let said = removal.to_string();
        let before = both(Variant::Nft);
        for line in before.iter().flatten().filter(|line| is_kube_proxys(line, &MASQUERADE)) {
            let line = line.trim_end_matches(" -");
            assert!(said.lines().any(|l| l.trim() == line), "{line}");
        }
        let counts = removal.counts();
        assert_eq!((counts[0].place.as_str(), counts[0].numbers["jumps"]), ("iptables-nft IPv4 nat", 2));
        let stays = "iptables-nft IPv4 nat KUBE-MARK-MASQ stays: CNI-HOSTPORT-SETMARK rule 1 refers to it: \
                     -m comment --comment \"CNI portfwd masquerade mark\" -j KUBE-MARK-MASQ";
        assert!(said.lines().any(|l| l == stays), "{said}");
        assert!(removal.kept().iter().any(|k| k.what.ends_with("KUBE-POSTROUTING") && k.reason == Reason::Mark));
    });
}

#[test]
fn chains_that_an_old_kubelet_has_too_stay() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "v1.23-iptables-nft", Variant::Legacy, false, || {
        change(Variant::Legacy, Family::V4, "nat", "-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000");
        let before = saved(Variant::Legacy, Family::V4);
        let kept = State::read(&node()).expect("the rules can be read");
        let stay = ["KUBE-MARK-MASQ", "KUBE-POSTROUTING", "KUBE-MARK-DROP"];
        for kubelet in [None, Some(KubeVersion::v1(26)), Some(KubeVersion::v1(27))] {
            remove(&node(), &kept, kubelet).expect("it goes");
            assert_same(&saved(Variant::Legacy, Family::V4), &others(&before, &stay), "the kubelet's stay");
            restore(&node(), &kept).expect("it comes back");
            assert_same(&saved(Variant::Legacy, Family::V4), &before, "all is back");
        }
        // A newer kubelet has none of them; its drop mark of old is nobody's, and not kube-proxy's.
        remove(&node(), &kept, Some(KubeVersion::v1(28))).expect("it goes");
        let left = others(&before, &["KUBE-MARK-DROP"]);
        assert_same(&saved(Variant::Legacy, Family::V4), &left, "one stays");
    });
}

#[test]
fn a_reference_that_goes_later_takes_its_chain_along() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "iptables-nft", Variant::Nft, true, || {
        let before = both(Variant::Nft);
        let kept = State::read(&node()).expect("the rules can be read");
        remove(&node(), &kept, None).expect("it goes");
        for family in Family::BOTH {
            change(Variant::Nft, family, "nat", "-F CNI-HOSTPORT-SETMARK");
        }
        let done = remove(&node(), &kept, None).expect("what was left goes");
        assert_eq!(done[0].to_string(), "iptables-nft IPv4 nat: 2 chains, 1 jump, 4 rules");
        restore(&node(), &kept).expect("it comes back");
        for (now, before) in both(Variant::Nft).iter().zip(&before) {
            let wanted: Vec<_> =
                before.iter().filter(|line| !line.starts_with("-A CNI-HOSTPORT-SETMARK")).cloned().collect();
            assert_same(now, &wanted, "all but the reference");
        }
    });
}

#[test]
fn others_may_come_and_go_in_between() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    for variant in Variant::BOTH {
        with_rules(&recordings, "iptables-legacy", variant, false, || {
            let before = saved(variant, Family::V4);
            let kept = State::read(&node()).expect("the rules can be read");
            remove(&node(), &kept, None).expect("it goes");
            let changes = [
                "-I INPUT 1 -i first0 -j ACCEPT",
                "-D INPUT -i lo -j ACCEPT",
                "-A INPUT -i last0 -j ACCEPT",
                "-D FORWARD -m comment --comment \"cali:wUHhoiAYhphO9Mso\" -j cali-FORWARD",
                "-I FORWARD 1 -i first0 -j ACCEPT",
                "-F OUTPUT",
                "-A OUTPUT -o only0 -j ACCEPT",
            ];
            change(variant, Family::V4, "filter", &changes.join("\n"));
            let between = saved(variant, Family::V4);
            restore(&node(), &kept).expect("it comes back");
            let now = saved(variant, Family::V4);
            assert_same(&others(&now, &[]), &between, "others are as they were in between");

            let input = |lines| rules_of(lines, "filter", "INPUT");
            let mut wanted = input(&before);
            wanted.insert(0, "-i first0 -j ACCEPT".to_owned());
            wanted.retain(|rule| rule != "-i lo -j ACCEPT");
            wanted.push("-i last0 -j ACCEPT".to_owned());
            assert_same(&input(&now), &wanted, "INPUT");
            // Calico's rule, which all of kube-proxy's were behind of, is gone: they stay before what they were before of.
            let forward = |lines| rules_of(lines, "filter", "FORWARD");
            let mut wanted = forward(&before);
            wanted[0] = "-i first0 -j ACCEPT".to_owned();
            assert_same(&forward(&now), &wanted, "FORWARD");
            // No rule is left that was there: to the head, where kube-proxy itself would put them.
            let mut wanted = rules_of(&before, "filter", "OUTPUT");
            wanted.retain(|rule| rule.contains("KUBE-") && !rule.contains("KUBE-FIREWALL"));
            wanted.push("-o only0 -j ACCEPT".to_owned());
            assert_same(&rules_of(&now, "filter", "OUTPUT"), &wanted, "OUTPUT");
        });
    }
}

#[test]
fn half_done_is_finished_in_either_direction() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    for variant in Variant::BOTH {
        with_rules(&recordings, "v1.30-iptables-nft", variant, false, || {
            let before = both(variant);
            let kept = State::read(&node()).expect("the rules can be read");
            // A crash between two tables: the way back knows one as gone and the others as there.
            let halves = |state: &State| {
                let all = Restoration::of(&kept, state).expect("it is computed");
                all.counts().into_iter().map(|c| c.place).collect::<Vec<_>>()
            };
            assert_eq!(halves(&kept), [""; 0]);
            remove(&node(), &kept, None).expect("it goes");
            let back = |table: &str| {
                let text = before[0].join("\n") + "\n";
                let start = text.find(&format!("*{table}\n")).expect("it has the table");
                let end = start + text[start..].find("COMMIT\n").expect("it ends") + 7;
                load(variant, Family::V4, &text[start..end]);
            };
            back("nat");
            let half = State::read(&node()).expect("the rules can be read");
            let missing = halves(&half);
            let has = |table: &str| missing.contains(&format!("iptables-{variant} IPv4 {table}"));
            assert!(has("filter") && !has("nat"), "{missing:?}");
            remove(&node(), &kept, None).expect("the other half goes");
            for (now, before) in both(variant).iter().zip(&before) {
                assert_same(now, &others(before, &[]), "after a removal that was cut short");
            }
            back("filter");
            // A jump that stands where it was not, as a kube-proxy that was started again would put it.
            let jump = "-m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS";
            change(variant, Family::V4, "filter", &format!("-D INPUT {jump}\n-A INPUT {jump}"));
            restore(&node(), &kept).expect("it comes back");
            for (now, before) in both(variant).iter().zip(&before) {
                assert_same(now, before, "after a restoration that was cut short");
            }
        });
    }
}

#[test]
fn what_was_not_kept_does_not_go() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "iptables-nft", Variant::Nft, false, || {
        let kept = State::read(&node()).expect("the rules can be read");
        change(Variant::Nft, Family::V6, "filter", "-A KUBE-FORWARD -i eth9 -j ACCEPT");
        let before = both(Variant::Nft);
        let error = remove(&node(), &kept, None).expect_err("a rule is new");
        assert_eq!(
            error.to_string(),
            "iptables-nft IPv6 filter KUBE-FORWARD is not as it was kept, so it could not be put back"
        );
        assert_eq!(both(Variant::Nft), before);
    });
}

fn nft(lines: &str) {
    command::output("nft", ["-f", "-"], Some(lines.as_bytes())).expect("nft adds it");
}

#[test]
fn a_table_that_no_tool_shows_is_refused_only_with_kube_proxys_chains_in_it() {
    if !privileged() {
        return;
    }
    in_new_netns(|| {
        change(Variant::Nft, Family::V4, "filter", "-A INPUT -i lo -j ACCEPT");
        nft("add rule ip filter INPUT ct state vmap { established : accept, invalid : drop }\n");
        assert_eq!(saved(Variant::Nft, Family::V4), [""; 0], "the tool leaves the table out");
        let state = State::read(&node()).expect("the rules can be read");
        assert!(Removal::of(&state, None).expect("nothing of kube-proxy is in there").is_empty());
        nft("add chain ip filter KUBE-FORWARD\n");
        let state = State::read(&node()).expect("the rules can be read");
        let error = Removal::of(&state, None).expect_err("a chain of kube-proxy is in there");
        assert!(matches!(error, RemovalError::Unseen(_)), "{error}");
        assert!(error.to_string().contains("table filter holds chains of kube-proxy"), "{error}");
    });
}

#[test]
fn rules_of_others_that_the_tool_shows_in_part_stay_whole() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "v1.30-iptables-nft", Variant::Nft, false, || {
        // Printed as `-j DROP`, without its condition; the chain with a hook of its own is not printed at all.
        nft("insert rule ip filter INPUT ip saddr . ip daddr { 192.0.2.1 . 192.0.2.2 } drop\n\
             add rule ip filter INPUT ip saddr . ip daddr { 192.0.2.3 . 192.0.2.4 } drop\n\
             add chain ip filter own { type filter hook input priority 5; }\n\
             add rule ip filter own ip saddr 192.0.2.9 jump cali-INPUT\n");
        let before = saved(Variant::Nft, Family::V4);
        assert_eq!(rules_of(&before, "filter", "INPUT").first().map(String::as_str), Some("-j DROP"));
        let native = || {
            let text = command::output("nft", ["list", "table", "ip", "filter"], None).expect("nft lists it");
            let text = String::from_utf8(text).expect("text");
            text.lines().filter(|line| line.contains("192.0.2.")).map(str::to_owned).collect::<Vec<_>>()
        };
        let natives = native();
        assert_eq!(natives.len(), 3);
        let kept = State::read(&node()).expect("the rules can be read");
        remove(&node(), &kept, None).expect("it goes");
        assert_same(&saved(Variant::Nft, Family::V4), &others(&before, &[]), "removed");
        assert_eq!(native(), natives);
        restore(&node(), &kept).expect("it comes back");
        assert_same(&saved(Variant::Nft, Family::V4), &before, "restored");
        assert_eq!(native(), natives);
    });
}

#[test]
fn the_state_is_kept_in_files() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    with_rules(&recordings, "iptables-nft", Variant::Nft, false, || {
        let before = both(Variant::Nft);
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("rules");
        State::read(&node()).expect("the rules can be read").keep(&folder).expect("it is written");
        let kept = State::kept(&folder).expect("it is read");
        remove(&node(), &kept, None).expect("it goes");
        // What is kept is what was there first, whatever is kept later.
        State::read(&node()).expect("the rules can be read").keep(&folder).expect("it is left alone");
        restore(&node(), &State::kept(&folder).expect("it is read")).expect("it comes back");
        for (now, before) in both(Variant::Nft).iter().zip(&before) {
            assert_same(now, before, "from files");
        }
        assert!(State::kept(&folder.join("nowhere")).is_err());
    });
}
