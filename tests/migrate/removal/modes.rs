//! nftables mode and ipvs mode: tables, sets, counters, virtual services and the device.

use std::collections::BTreeSet;
use std::path::Path;

use kpx::capture::{Node, NodeOptions, Variant, command};
use kpx::migrate::removal::{Removal, Restoration, State, remove, restore};
use kpx::model::Family;

use super::rules::{make_counters, node};
use super::text::{assert_same, change, load, saved};
use crate::support::{in_new_netns, privileged, recordings};

fn tool(program: &str, args: &[&str]) -> String {
    let output = command::output(program, args, None).unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(output).expect("text")
}

fn feed(program: &str, args: &[&str], text: &str) {
    command::output(program, args, Some(text.as_bytes())).unwrap_or_else(|e| panic!("{e}"));
}

/// A table of somebody else, with a chain of a name that kube-proxy has too.
const SITE: &str = "table inet site {\n\tchain services {\n\t\ttype filter hook input priority filter; policy accept;\n\
                    \t\ttcp dport 22 accept\n\t}\n}\n";

/// The whole ruleset, line by line, without how long elements stay, and the tables in the order of their names.
fn ruleset() -> Vec<String> {
    let text = tool("nft", &["-s", "list", "ruleset"]);
    let mut tables: Vec<String> = text.split("\n}\n").map(str::to_owned).collect();
    tables.sort();
    let unaged = |line: &str| {
        let mut parts = line.split(" expires ");
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |line, rest| line + rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric()))
    };
    tables.iter().flat_map(|table| table.lines()).map(unaged).collect()
}

#[test]
fn tables_of_nftables_mode_go_and_come_back() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    for version in ["nftables", "v1.30-nftables"] {
        let recorded = fs_err::read_to_string(recordings.join("small").join(version).join("running/nft-ruleset.txt"));
        in_new_netns(|| {
            feed("nft", &["-f", "-"], SITE);
            let without = ruleset();
            feed("nft", &["-f", "-"], &recorded.expect("the recording is there"));
            let before = ruleset();
            assert!(before.iter().any(|line| line.contains("affinity-")) && before.len() > without.len() + 1000);
            let folder = tempfile::tempdir().expect("a folder");
            let folder = folder.path().join("kept");
            State::read(&node()).expect("it can be read").keep(&folder).expect("it is written");
            let kept = State::kept(&folder).expect("it is read");

            let done = remove(&node(), &kept, None).expect("it goes");
            assert_same(&ruleset(), &without, version);
            let places: Vec<_> = done.iter().map(|count| count.place.as_str()).collect();
            assert_eq!(places, ["nftables ip kube-proxy", "nftables ip6 kube-proxy"]);
            let listed = |what: &str| before.iter().filter(|l| l.starts_with(&format!("\t{what} "))).count();
            let counted = |what: &str| done.iter().filter_map(|count| count.numbers.get(what)).sum::<usize>();
            // The other's table has a chain as well.
            assert_eq!(
                (counted("chains") + 1, counted("sets"), counted("maps")),
                (listed("chain"), listed("set"), listed("map"))
            );

            restore(&node(), &kept).expect("it comes back");
            assert_same(&ruleset(), &before, version);
            assert_eq!(restore(&node(), &kept).expect("all is there"), []);
            // What is there but not as it was is replaced.
            feed("nft", &["-f", "-"], "flush chain ip kube-proxy services\ndelete table ip6 kube-proxy\n");
            restore(&node(), &kept).expect("it comes back");
            assert_same(&ruleset(), &before, version);
            // And what was not kept does not go.
            feed("nft", &["-f", "-"], "add element ip kube-proxy cluster-ips { 10.96.99.99 }\n");
            let error = remove(&node(), &kept, None).expect_err("an address is new");
            assert!(
                error.to_string().starts_with("kube-proxy's nftables table of IPv4 is not as it was kept"),
                "{error}"
            );
        });
    }
}

/// All sets, in order.
fn sets() -> BTreeSet<String> {
    tool("ipset", &["save"]).lines().map(str::to_owned).collect()
}

fn recorded_ipvs(recordings: &Path) -> std::path::PathBuf {
    recordings.join("small/ipvs/running")
}

#[test]
fn rules_and_sets_of_ipvs_mode_go_and_come_back() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    let read =
        |file: &str| fs_err::read_to_string(recorded_ipvs(&recordings).join(file)).expect("the recording is there");
    for variant in Variant::BOTH {
        in_new_netns(|| {
            feed("ipset", &["restore"], "create site hash:ip family inet\nadd site 192.0.2.1\n");
            let others = sets();
            feed("ipset", &["restore"], &read("ipset-save.txt"));
            for (family, file) in Family::BOTH.into_iter().zip(["iptables-save.txt", "ip6tables-save.txt"]) {
                // The running kernel has no IPVS to match.
                let rules: Vec<_> = read(file).lines().map(str::to_owned).filter(|l| !l.contains("-m ipvs")).collect();
                load(variant, family, &(rules.join("\n") + "\n"));
            }
            let rules = || Family::BOTH.map(|family| saved(variant, family));
            let (before, sets_before) = (rules(), sets());
            assert!(sets_before.len() > others.len() + 300);
            let kept = State::read(&node()).expect("it can be read");

            // Somebody's rule and somebody's set use two of kube-proxy's.
            change(variant, Family::V6, "filter", "-A INPUT -m set --match-set KUBE-6-CLUSTER-IP dst,dst -j ACCEPT");
            feed("ipset", &["restore"], "create list list:set\nadd list KUBE-LOOP-BACK\n");
            let said = Removal::of(&State::read(&node()).expect("it can be read"), None).expect("computed").to_string();
            for set in ["KUBE-6-CLUSTER-IP", "KUBE-LOOP-BACK"] {
                assert!(said.contains(&format!("ipset {set} stays: something that stays uses it")), "{said}");
            }
            remove(&node(), &kept, None).expect("it goes");
            let left: Vec<_> = sets().into_iter().filter(|line| line.starts_with("create")).collect();
            let names: Vec<_> = left.iter().map(|line| line.split(' ').nth(1).expect("a name")).collect();
            assert_eq!(names, ["KUBE-6-CLUSTER-IP", "KUBE-LOOP-BACK", "list", "site"]);

            change(variant, Family::V6, "filter", "-D INPUT -m set --match-set KUBE-6-CLUSTER-IP dst,dst -j ACCEPT");
            feed("ipset", &["restore"], "destroy list\n");
            remove(&node(), &kept, None).expect("the rest goes");
            assert_eq!(sets(), others);
            for lines in rules() {
                let odd = lines.iter().find(|line| line.contains("KUBE-") && !line.contains("KUBE-FIREWALL"));
                assert_eq!(odd, None, "nothing of kube-proxy is left");
            }

            restore(&node(), &kept).expect("it comes back");
            assert_eq!(sets(), sets_before);
            for (now, before) in rules().iter().zip(&before) {
                assert_same(now, before, "the rules of ipvs mode");
            }
            // A set that lost an entry gets it back.
            feed("ipset", &["restore"], "del KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n");
            restore(&node(), &kept).expect("it comes back");
            assert_eq!(sets(), sets_before);
        });
    }
}

#[test]
fn virtual_services_of_kube_proxy_are_told_as_ipvsadm_lists_them() {
    let Some(recordings) = recordings() else { return };
    let from = Some(recorded_ipvs(&recordings));
    let recorded = Node::open(&NodeOptions { from, ..NodeOptions::default() }).expect("the recording opens");
    let then = State::read(&recorded).expect("it can be read");
    // ipvsadm says `-A -t 10.96.0.1:443 -s rr` and `-a -t 10.96.0.1:443 -r 192.168.50.2:6443 -m -w 1`.
    let listed = fs_err::read_to_string(recorded_ipvs(&recordings).join("ipvsadm-Sn.txt")).expect("it is there");
    let wanted: BTreeSet<String> = listed
        .lines()
        .map(|line| {
            let words: Vec<_> = line.split(' ').collect();
            let protocol = match words[1] {
                "-t" => "TCP",
                "-u" => "UDP",
                _ => "SCTP",
            };
            let value = |option: &str| words.iter().position(|w| *w == option).map(|at| words[at + 1]);
            if words[0] == "-A" {
                return format!("-A {}/{protocol} -s {}", words[2], value("-s").expect("a scheduler"));
            }
            let (server, weight) = (value("-r").expect("a server"), value("-w").expect("a weight"));
            format!("-a {}/{protocol} -r {server} -w {weight}", words[2])
        })
        .collect();
    assert!(wanted.len() > 900);
    let back = Restoration::of(&then, &State::default()).expect("computed").to_string();
    let told = |text: &str, prefixes: &[&str]| -> BTreeSet<String> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| prefixes.iter().any(|p| line.starts_with(p)) && line.contains('/'))
            .map(str::to_owned)
            .collect()
    };
    let of_ipvs = |line: &String| ["/TCP", "/UDP", "/SCTP"].iter().any(|protocol| line.contains(protocol));
    let found: BTreeSet<String> = told(&back, &["-A ", "-a "]).into_iter().filter(of_ipvs).collect();
    assert_eq!(found, wanted);

    let away = Removal::of(&then, None).expect("computed").to_string();
    let gone: BTreeSet<String> = told(&away, &["-D "]).into_iter().filter(of_ipvs).collect();
    let services =
        wanted.iter().filter_map(|line| line.strip_prefix("-A ")?.split(' ').next().map(|s| format!("-D {s}")));
    assert_eq!(gone, services.collect());
    // The device, with the addresses that `ip` lists on it.
    let listed = fs_err::read_to_string(recorded_ipvs(&recordings).join("ip-addr.json")).expect("it is there");
    let links: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let device = links.as_array().expect("a list").iter().find(|l| l["ifname"] == "kube-ipvs0").expect("the device");
    let global = device["addr_info"].as_array().expect("a list").iter().filter(|a| a["scope"] == "global");
    let mut wanted: BTreeSet<String> = global
        .map(|a| format!("addr add {}/{} dev kube-ipvs0", a["local"].as_str().expect("text"), a["prefixlen"]))
        .collect();
    wanted.insert(format!("link add kube-ipvs0 address {} type dummy", device["address"].as_str().expect("text")));
    assert_eq!(wanted.len(), 91);
    let found: BTreeSet<_> =
        back.lines().map(str::trim).filter(|l| l.contains("kube-ipvs0") && !l.starts_with("device")).collect();
    assert_eq!(found, wanted.iter().map(String::as_str).collect());
    assert!(away.lines().any(|line| line.trim() == "link del kube-ipvs0"));
}

#[test]
fn counters_go_and_come_back_unless_others_use_them() {
    if !privileged() {
        return;
    }
    let names = || -> BTreeSet<String> {
        let listed = tool("nfacct", &["list"]);
        listed.lines().filter_map(|l| Some(l.split(" = ").last()?.trim_end_matches(';').to_owned())).collect()
    };
    in_new_netns(|| {
        make_counters();
        tool("nfacct", &["add", "site"]);
        let before = names();
        assert_eq!(before.len(), 3);
        let kept = State::read(&node()).expect("it can be read");
        let uses = "INPUT -m nfacct --nfacct-name localhost_nps_accepted_pkts -j ACCEPT";
        change(Variant::Legacy, Family::V4, "filter", &format!("-A {uses}"));
        remove(&node(), &kept, None).expect("it goes");
        assert_eq!(names(), ["localhost_nps_accepted_pkts", "site"].map(str::to_owned).into());
        change(Variant::Legacy, Family::V4, "filter", &format!("-D {uses}"));
        remove(&node(), &kept, None).expect("it goes");
        assert_eq!(names(), ["site".to_owned()].into());
        restore(&node(), &kept).expect("it comes back");
        assert_eq!(names(), before);
    });
}

#[test]
fn sysctls_are_put_back() {
    if !privileged() {
        return;
    }
    in_new_netns(|| {
        let path = "/proc/sys/net/ipv4/conf/all/route_localnet";
        let value = || fs_err::read_to_string(path).expect("it is there");
        fs_err::write(path, "1").expect("an own namespace's can be set");
        let kept = State::read(&node()).expect("it can be read");
        remove(&node(), &kept, None).expect("nothing is there to go");
        assert_eq!(value(), "1\n", "a removal leaves it");
        fs_err::write(path, "0").expect("an own namespace's can be set");
        let done = restore(&node(), &kept).expect("it comes back");
        assert_eq!((value().as_str(), done[0].to_string().as_str()), ("1\n", "sysctls: 1 value"));
    });
}
