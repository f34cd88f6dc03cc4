//! ipvs mode on a kernel that has it: virtual services, servers, the device, sets, rules and sysctls. The oracles are ipvsadm,
//! ipset, ip and iptables-save.

use std::fmt::Write as _;
use std::path::Path;

use kpx::capture::{Variant, command};
use kpx::inspect::standing::{Standing, standing};
use kpx::migrate::removal::{RemovalError, State, remove, restore};
use kpx::model::Family;
use serde_json::Value;

use super::rules::node;
use super::text::{assert_same, load, saved};
use crate::support::{in_new_netns, privileged, recordings};

fn tool(program: &str, args: &[&str]) -> String {
    let output = command::output(program, args, None).unwrap_or_else(|e| panic!("{e}"));
    String::from_utf8(output).expect("text")
}

fn feed(program: &str, args: &[&str], text: &str) {
    command::output(program, args, Some(text.as_bytes())).unwrap_or_else(|e| panic!("{e}"));
}

/// Of somebody else: a virtual service at an address of the node, one by mark, a set, a rule with it.
const OTHERS: &str = "\
-A -t 192.168.50.11:9 -s wlc -p 60
-a -t 192.168.50.11:9 -r 10.244.1.13:8080 -m -w 7
-A -f 7 -s rr
-a -f 7 -r 10.244.1.13:0 -g -w 1
";
const THEIR_SET: &str = "create site hash:ip family inet\nadd site 192.0.2.1\n";
const THEIR_RULES: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\nCOMMIT\n";

/// Recorded devices with their addresses, as dummies.
fn devices(recorded: &Path, names: &[&str]) -> String {
    let json = fs_err::read(recorded.join("ip-addr.json")).expect("the recording is there");
    let links: Vec<Value> = serde_json::from_slice(&json).expect("JSON");
    let mut lines = String::new();
    for link in links.iter().filter(|link| names.iter().any(|name| link["ifname"] == *name)) {
        let name = link["ifname"].as_str().expect("a name");
        let mac = link["address"].as_str().expect("an address");
        let _ = writeln!(lines, "link add {name} address {mac} type dummy");
        let global = link["addr_info"].as_array().expect("a list").iter().filter(|a| a["scope"] == "global");
        for address in global {
            let local = address["local"].as_str().expect("text");
            let _ = writeln!(lines, "addr add {local}/{} dev {name}", address["prefixlen"]);
        }
    }
    lines
}

/// Everything that other tools say of IPVS mode, in their order but for that of hashes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    services: Vec<String>,
    sets: Vec<String>,
    addresses: Value,
    rules: [Vec<String>; 2],
    sysctls: String,
}

fn seen() -> Seen {
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let mut addresses: Value = serde_json::from_str(&tool("ip", &["-j", "-d", "addr"])).expect("JSON");
    for link in addresses.as_array_mut().expect("a list") {
        // A device that is made anew gets the next number.
        link.as_object_mut().expect("an object").remove("ifindex");
    }
    Seen {
        services: sorted(tool("ipvsadm", &["-Sn"])),
        sets: sorted(tool("ipset", &["save"])),
        addresses,
        rules: Family::BOTH.map(|family| saved(Variant::Nft, family)),
        sysctls: tool("sysctl", &["net.ipv4.vs", "net.ipv4.ip_forward", "net.ipv4.conf.all.arp_ignore"]),
    }
}

fn device(seen: &Seen) -> Option<&Value> {
    seen.addresses.as_array().expect("a list").iter().find(|link| link["ifname"] == "kube-ipvs0")
}

#[test]
fn a_node_of_ipvs_mode_is_emptied_and_put_back() {
    let (true, Some(recordings)) = (privileged(), recordings()) else { return };
    let recorded = recordings.join("small/ipvs/running");
    let read = |file: &str| fs_err::read_to_string(recorded.join(file)).expect("the recording is there");
    in_new_netns(|| {
        if let Err(error) = command::output("ipvsadm", ["-Ln"], None) {
            println!("skipped: no IPVS here ({error})");
            return;
        }
        feed("ipset", &["restore"], THEIR_SET);
        feed("ip", &["-batch", "-"], &devices(&recorded, &["eth0", "cni0"]));
        feed("ipvsadm", &["-R"], OTHERS);
        for family in Family::BOTH {
            load(Variant::Nft, family, THEIR_RULES);
        }
        let theirs = seen();

        feed("ip", &["-batch", "-"], &devices(&recorded, &["kube-ipvs0"]));
        feed("ipset", &["restore"], &read("ipset-save.txt"));
        for (family, file) in Family::BOTH.into_iter().zip(["iptables-save.txt", "ip6tables-save.txt"]) {
            load(Variant::Nft, family, &read(file));
        }
        feed("ipvsadm", &["-R"], &read("ipvsadm-Sn.txt"));
        for (name, value) in [("conntrack", "1"), ("expire_nodest_conn", "1"), ("expire_quiescent_template", "1")] {
            fs_err::write(format!("/proc/sys/net/ipv4/vs/{name}"), value).expect("an own namespace's can be set");
        }
        let before = seen();
        assert!(before.services.len() > 968 && before.sets.len() > 400, "{before:#?}");
        assert!(standing().expect("it tells").contains(&Standing::Ipvs));
        let kept = State::read(&node()).expect("it can be read");
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("kept");
        kept.keep(&folder).expect("it is written");
        let kept = State::kept(&folder).expect("it is read");

        remove(&node(), &kept, None).expect("it goes");
        let without = seen();
        assert_same(&without.services, &theirs.services, "virtual services of others");
        assert_same(&without.sets, &theirs.sets, "sets of others");
        assert_eq!(device(&without), None);
        assert_eq!(without.sysctls, before.sysctls, "what serves next needs forwarding too");
        let odd = without.rules.iter().flatten().find(|l| l.contains("KUBE-") && !l.contains("KUBE-FIREWALL"));
        assert_eq!(odd, None, "nothing of kube-proxy is left");
        assert_eq!(standing().expect("it tells"), []);
        assert_eq!(remove(&node(), &kept, None).expect("nothing is there"), []);

        // What serves meanwhile, or somebody, sets a sysctl.
        fs_err::write("/proc/sys/net/ipv4/vs/conntrack", "0").expect("an own namespace's can be set");
        restore(&node(), &kept).expect("it comes back");
        same(&seen(), &before);
        assert_eq!(restore(&node(), &kept).expect("all is there"), []);

        // Part of it gone, as where a run was killed.
        feed("ipvsadm", &["-R"], "-D -t 10.96.0.1:443\n-e -u 10.96.0.10:53 -r 10.244.1.12:53 -m -w 0\n");
        tool("ip", &["addr", "del", "10.96.0.10/32", "dev", "kube-ipvs0"]);
        feed("ipset", &["restore"], "del KUBE-CLUSTER-IP 10.96.0.1,tcp:443\n");
        restore(&node(), &kept).expect("it comes back");
        let partly = seen();
        assert_same(&partly.services, &before.services, "virtual services");
        assert_same(&partly.sets, &before.sets, "sets");
        remove(&node(), &kept, None).expect("it goes again");
        assert_eq!(seen(), without);
        restore(&node(), &kept).expect("it comes back again");
        same(&seen(), &before);

        // And what was not kept does not go.
        feed("ipvsadm", &["-R"], "-A -t 10.96.0.1:4443 -s rr\n");
        let error = remove(&node(), &kept, None).expect_err("a virtual service is new");
        assert!(matches!(&error, RemovalError::NotKept { what } if what.contains("10.96.0.1:4443")), "{error}");
        assert!(device(&seen()).is_some(), "nothing has gone");
    });
}

#[track_caller]
fn same(found: &Seen, wanted: &Seen) {
    assert_same(&found.services, &wanted.services, "virtual services");
    assert_same(&found.sets, &wanted.sets, "sets");
    assert_eq!(device(found), device(wanted));
    for (found, wanted) in found.rules.iter().zip(&wanted.rules) {
        assert_same(found, wanted, "rules");
    }
    assert_eq!(found, wanted);
}
