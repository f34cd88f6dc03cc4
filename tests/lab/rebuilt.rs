//! What of a snapshot becomes a node again: rules and tables of others, networks without a bridge; and what cannot is named.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use flate2::read::GzDecoder;
use kpx::lab::{Lab, LeftOut, Spec};
use serde_json::{Value, json};

use super::{KPX, name, rules, run, spec, traffic, world};
use crate::support::{privileged, recordings};

/// A copy of the recorded world.
fn copy() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for entry in fs_err::read_dir(world()).expect("the world is there") {
        let path = entry.expect("an entry").path();
        fs_err::copy(&path, folder.path().join(path.file_name().expect("a name"))).expect("it is copied");
    }
    folder
}

fn edit(folder: &Path, file: &str, change: impl FnOnce(String) -> String) {
    let path = folder.join(file);
    let text = fs_err::read_to_string(&path).expect("it is there");
    fs_err::write(path, change(text)).expect("it is written");
}

fn up(spec: &Spec) -> Lab {
    Lab::up(spec, Path::new(KPX)).expect("the lab comes up")
}

fn on_node(lab: &Lab, words: &[&str]) -> String {
    run("ip", &[&["netns", "exec", &lab.names().node()], words].concat())
}

fn whats(left: &[LeftOut]) -> Vec<&str> {
    left.iter().map(|left| left.what.as_str()).collect()
}

/// nft's own listing of the table, where it was recorded and where it is rebuilt.
#[test]
fn tables_of_others_are_the_recorded_ones_and_older_than_kube_proxys() {
    let Some(recordings) = recordings() else { return };
    if !privileged() {
        return;
    }
    let from = recordings.join("stale/docker-flannel-nftables");
    let objects = crate::kube::worlds::objects_of_stale(&recordings);
    let spec = spec(&name("site"), &from, Some(objects.path().to_owned()));
    assert!(spec.rules_summary().contains("nftables: table inet site"), "{}", spec.rules_summary());
    let lab = up(&spec);
    let recorded = fs_err::read_to_string(from.join("nft-ruleset.txt")).expect("recorded");
    let table = |text: &str| {
        let start = text.find("table inet site {").expect("the table is there");
        let end = start + text[start..].find("\n}\n").expect("it ends");
        // nft 1.0.6 does not say comments of tables and chains in JSON; and counters go on from where they were.
        let lines = text[start..end].lines().filter(|line| !line.trim_start().starts_with("comment \""));
        lines.map(|line| line.split(" packets ").next().unwrap_or(line).to_owned()).collect::<Vec<_>>()
    };
    let there = on_node(&lab, &["nft", "list", "ruleset"]);
    assert_eq!(table(&there), table(&recorded));
    assert!(there.find("table inet site") < there.find("table ip kube-proxy"), "in the order in which they were made");
    assert_eq!(whats(lab.left_out()), ["traffic by SCTP: edge/diameter:diameter"]);
}

/// Extensions and kinds of sets that nobody has: the rest is as it was recorded, and these are named with the tool's reason.
#[test]
fn what_this_machine_cannot_hold_is_left_out_by_name() {
    if !privileged() {
        return;
    }
    let folder = copy();
    edit(folder.path(), "iptables-save.txt", |text| {
        let filter = text.find("*filter").expect("a filter table");
        let at = filter + text[filter..].find("\n[").expect("a rule") + 1;
        let rules = "[0:0] -A FORWARD -m nosuchmatch --nosuch 1 -j ACCEPT\n\
                     [0:0] -A FORWARD -m set --match-set nowhere src -j DROP\n\
                     [0:0] -A INPUT -m set --match-set here src -j ACCEPT\n";
        format!("{}{rules}{}", &text[..at], &text[at..])
    });
    let sets = "create here hash:ip family inet hashsize 1024 maxelem 65536\nadd here 10.1.2.3\n\
                create nowhere hash:nosuch family inet\n";
    edit(folder.path(), "ipset-save.txt", |_| sets.to_owned());
    let lab = up(&spec(&name("less"), folder.path(), None));
    let left = lab.left_out();
    let what = whats(left);
    assert!(what.contains(&"ipset nowhere"), "{left:?}");
    let of = |part: &str| {
        let found = left.iter().find(|left| left.what.contains(part));
        found.unwrap_or_else(|| panic!("{part}: {left:?}")).clone()
    };
    let of_match = of("-m nosuchmatch");
    assert!(of_match.what.starts_with("1 rule of iptables-nft IPv4 in FORWARD"), "{of_match:?}");
    assert!(of_match.why.contains("nosuchmatch"), "{of_match:?}");
    assert!(of("--match-set nowhere").why.contains("nowhere"), "{left:?}");
    assert_eq!(what.len(), 4, "{left:?}");
    let there = on_node(&lab, &["iptables-nft-save", "-c"]);
    let expected = fs_err::read_to_string(folder.path().join("iptables-save.txt")).expect("it is there");
    let kept: Vec<&str> = expected.lines().filter(|l| !l.contains("nosuch") && !l.contains("nowhere")).collect();
    assert_eq!(rules(&there), rules(&kept.join("\n")));
    assert!(there.contains("--match-set here src"));
    assert!(on_node(&lab, &["ipset", "save"]).contains("add here 10.1.2.3"));
}

/// A machine that lacks what kube-proxy's rules need can rehearse nothing.
#[test]
fn kube_proxys_own_rules_are_never_left_out() {
    if !privileged() {
        return;
    }
    let folder = copy();
    edit(folder.path(), "iptables-save.txt", |text| {
        text.replacen("-m statistic --mode random", "-m nosuchmatch --nosuch 1 -m statistic --mode random", 1)
    });
    let error = Lab::up(&spec(&name("none"), folder.path(), None), Path::new(KPX)).expect_err("it cannot be rebuilt");
    let text = error.to_string();
    assert!(text.starts_with("this machine cannot hold kube-proxy's rules: "), "{text}");
    assert!(text.contains("nosuchmatch") && text.contains("-A KUBE-"), "{text}");
}

/// Addresses of the node's endpoints, by the recorded objects.
fn pods() -> BTreeSet<IpAddr> {
    let packed = fs_err::File::open(world().join("endpointslices.json.gz")).expect("recorded");
    let slices: Value = serde_json::from_reader(GzDecoder::new(packed)).expect("JSON");
    let endpoints =
        slices["items"].as_array().expect("a list").iter().filter_map(|slice| slice["endpoints"].as_array());
    let here = endpoints.flatten().filter(|endpoint| endpoint["nodeName"] == "node-a");
    let addresses = here.filter_map(|endpoint| endpoint["addresses"][0].as_str()?.parse().ok());
    addresses.filter(|ip: &IpAddr| ip.to_string().starts_with("10.244.1.") || ip.is_ipv6()).collect()
}

/// As with Calico and the plug-ins of clouds: no bridge, an interface and a route for each pod, some of them known from the API
/// alone, and other nodes' pods behind a tunnel that filters by the reverse path.
fn without_a_bridge() -> tempfile::TempDir {
    let folder = copy();
    edit(folder.path(), "ip-addr.json", |text| {
        let mut links: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        links.retain(|link| link["ifname"] == "lo" || link["ifname"] == "eth0");
        let tunnel = [("10.244.1.0", 32), ("fd00:10:244:1::", 128)];
        let tunnel = tunnel.map(|(ip, length)| json!({ "local": ip, "prefixlen": length, "scope": "global" }));
        links.push(json!({
            "ifname": "vxlan.calico", "flags": ["UP"], "mtu": 1450, "linkinfo": { "info_kind": "vxlan" },
            "address": "66:3d:0c:01:02:03", "addr_info": tunnel,
        }));
        for number in 0..3 {
            links.push(json!({
                "ifname": format!("cali{number}"), "flags": ["UP"], "mtu": 1450, "linkinfo": { "info_kind": "veth" },
                "addr_info": [],
            }));
        }
        json!(links).to_string()
    });
    edit(folder.path(), "ip-route.json", |text| {
        let mut routes: Vec<Value> = serde_json::from_str(&text).expect("JSON");
        routes.retain(|route| route["dev"] != "cni0");
        for route in &mut routes {
            let to = route["dst"].as_str().unwrap_or_default().to_owned();
            if to.starts_with("10.244.") || to.starts_with("fd00:10:244:") {
                route["dev"] = "vxlan.calico".into();
                route["gateway"] = to.split('/').next().into();
            }
        }
        for (number, ip) in pods().into_iter().enumerate() {
            if number % 3 != 2 {
                routes.push(json!({ "dst": ip, "dev": format!("cali{}", number % 2), "scope": "link" }));
            }
        }
        json!(routes).to_string()
    });
    edit(folder.path(), "sysctl.txt", |text| {
        format!("{text}net.ipv4.conf.all.rp_filter = 1\nnet.ipv4.conf.vxlan/calico.rp_filter = 1\n")
    });
    folder
}

#[test]
fn a_node_that_routes_to_each_pod_is_rebuilt() {
    if !privileged() {
        return;
    }
    let folder = without_a_bridge();
    let mut lab = up(&spec(&name("route"), folder.path(), None));
    let pod = pods().into_iter().next().expect("it has pods").to_string();
    let route = on_node(&lab, &["ip", "route", "get", &pod]);
    assert!(route.contains("dev cali0"), "{route}");
    let other = on_node(&lab, &["ip", "route", "get", "10.244.2.13"]);
    assert!(other.contains("dev vxlan.calico"), "{other}");
    let links = on_node(&lab, &["ip", "link", "show", "vxlan.calico"]);
    assert!(links.contains("mtu 1450"), "{links}");
    let left: Vec<String> = lab.left_out().iter().map(|left| left.what.clone()).collect();
    for part in ["interface vxlan.calico (vxlan)", "an interface for each pod of the node"] {
        assert!(left.iter().any(|what| what == part), "{part}: {left:?}");
    }
    let report = traffic(&mut lab, Duration::from_secs(2), |_| {});
    assert!(report.clean(), "{:#?}", report.troubles);
    assert!(report.flows_total > 60 && report.probes_total > 3, "{report:?}");
}

/// There and back on such a node.
#[test]
fn a_node_that_routes_to_each_pod_goes_there_and_back() {
    if !privileged() {
        return;
    }
    let folder: PathBuf = without_a_bridge().keep();
    let from = folder.display().to_string();
    let name = name("calico");
    let output = super::program_of(KPX)
        .args(["migrate", "rehearse", "--name", &name, "--hold", "1", "--rate", "150", "-o", "json", "--from", &from])
        .output()
        .expect("kpx starts");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    assert_eq!(output.status.code(), Some(0), "{}{report:#}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(report["lossless"], true);
    fs_err::remove_dir_all(folder).expect("it is removed");
}
