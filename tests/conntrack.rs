//! Connection tracking: recorded worlds in both forms, and a live namespace with the conntrack tool as the oracle.

mod damage;
mod live;

use std::path::PathBuf;

pub(crate) use self::damage::message;
use kpx::inspect::conntrack::{Census, Entry, Form, Nat, Translator, read_recorded};
use kpx::model::ServiceTable;

use crate::cli::schema::conforms;
use crate::support;

fn entries(bytes: &[u8]) -> (Vec<Entry>, Form) {
    let mut entries = Vec::new();
    let form = read_recorded(bytes, |entry| entries.push(*entry)).expect("a whole recording");
    (entries, form)
}

fn small() -> Option<PathBuf> {
    Some(support::recordings()?.join("small"))
}

/// What both forms of one table tell, in one order. Time-outs run and two dumps are not one moment.
fn told(entries: &[Entry]) -> Vec<String> {
    let line = |e: &Entry| format!("{} {:?} {:?} {} {} {}", e.protocol, e.original, e.reply, e.phase(), e.mark, e.zone);
    let mut lines: Vec<String> = entries.iter().map(line).collect();
    lines.sort();
    lines
}

#[test]
fn the_messages_and_the_texts_tell_the_same() {
    let Some(small) = small() else { return };
    for world in ["ipvs", "ipvs-strict-arp", "ipvs-kernel-6.12"] {
        let read = |name: &str| entries(&fs_err::read(small.join(world).join("running").join(name)).expect("recorded"));
        let (messages, form) = read("netlink-conntrack.bin");
        assert_eq!(form, Form::Netlink);
        for name in ["nf_conntrack.txt", "conntrack-L.txt"] {
            let (text, form) = read(name);
            assert_eq!(form, Form::Text);
            // TIME_WAIT entries went while the recordings were made, one after the other.
            let gone = told(&text).iter().filter(|line| !told(&messages).contains(line)).count();
            assert!(gone <= 3, "{world} {name}: {gone} of {} lines are not among the messages", text.len());
            let new = told(&messages).iter().filter(|line| !told(&text).contains(line)).count();
            assert!(
                new <= 5 && messages.len() > 20,
                "{world} {name}: {new} of {} messages are no lines",
                messages.len()
            );
        }
    }
}

#[test]
fn ipvs_is_told_apart_from_nf_nat() {
    let Some(small) = small() else { return };
    let table = ServiceTable::default();
    let mut census = Census::new(&table);
    let bytes = fs_err::read(small.join("ipvs/running/netlink-conntrack.bin")).expect("recorded");
    read_recorded(&bytes, |entry| census.add(entry)).expect("whole");
    let by_nat: Vec<_> = census.translations().keys().copied().collect();
    // Destinations are IPVS's; masquerading, where there is some, is nf_nat's all the same.
    assert_eq!(
        by_nat,
        [(Nat::None, None), (Nat::Destination, Some(Translator::Other)), (Nat::Both, Some(Translator::Other))]
    );
}

#[test]
fn entries_are_counted_by_service() {
    let Some(small) = small() else { return };
    let screen = |by: &str| {
        let from = small.join("iptables-nft/running").display().to_string();
        let api = small.join("api").display().to_string();
        crate::cli::environment::run(&[
            "inspect",
            "conntrack",
            "--from",
            &from,
            "--services-from",
            &api,
            "--by",
            by,
            "-o",
            "json",
        ])
        .out
    };
    let document: serde_json::Value = serde_json::from_str(&screen("service")).expect("JSON");
    conforms(&document);
    // `grep -c dst=10.96.0.10.*dport=53` and the like in nf_conntrack.txt.
    let flows = |service: &str, ip: &str| {
        let items = document["items"].as_array().expect("a list");
        items
            .iter()
            .find(|i| i["service"] == service && i["ip"] == ip)
            .map(|i| (i["flows"].as_u64(), i["open"].as_u64()))
    };
    let text = fs_err::read_to_string(small.join("iptables-nft/running/nf_conntrack.txt")).expect("recorded");
    let lines = |pattern: &[&str]| {
        let all = text.lines().filter(|line| pattern.iter().all(|p| line.contains(p)));
        Some(all.count() as u64)
    };
    let dns = lines(&["dst=10.96.0.10 ", "dport=53 ", "udp"]);
    assert_eq!(flows("kube-system/kube-dns", "10.96.0.10"), Some((dns, dns)));
    let node_port = lines(&["dst=192.168.50.11 ", " dport=30080 "]);
    let open = lines(&["dst=192.168.50.11 ", " dport=30080 ", "ESTABLISHED"]);
    assert_eq!(flows("edge/np", "0.0.0.0"), Some((node_port, open)));
    assert_eq!(document["entries"].as_u64(), Some(text.lines().count() as u64));
    assert_eq!(document["max"], 262_144);
    for by in ["backend", "state", "nat"] {
        let document: serde_json::Value = serde_json::from_str(&screen(by)).expect("JSON");
        conforms(&document);
        assert!(document["items"].as_array().is_some_and(|items| items.len() > 2), "{by}");
    }
}

#[test]
fn udp_flows_to_backends_that_are_gone_are_named() {
    let Some(small) = small() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let recorded = fs_err::read_to_string(small.join("iptables-nft/running/nf_conntrack.txt")).expect("recorded");
    // The DNS server that answered 10.244.1.11 over IPv4 is another one now.
    let gone =
        recorded.replace("src=10.244.1.12 dst=10.244.1.11 sport=53 ", "src=10.244.9.9 dst=10.244.1.11 sport=53 ");
    assert_ne!(gone, recorded, "a flow to change");
    fs_err::write(folder.path().join("nf_conntrack.txt"), gone).expect("written");
    let (from, api) = (folder.path().display().to_string(), small.join("api").display().to_string());
    let args =
        ["inspect", "conntrack", "--from", &from, "--services-from", &api, "--node-name", "node-a", "-o", "json"];
    let document: serde_json::Value = serde_json::from_str(&crate::cli::environment::run(&args).out).expect("JSON");
    conforms(&document);
    assert_eq!(document["stuck_udp_flows"], 1);
    let stuck = &document["stuck_udp"][0];
    assert_eq!((&stuck["service"], &stuck["backend"]), (&"kube-system/kube-dns".into(), &"10.244.9.9:53".into()));
    let dns = document["items"]
        .as_array()
        .and_then(|items| items.iter().find(|i| i["ip"] == "10.96.0.10" && i["port"] == 53));
    assert_eq!(dns.map(|i| &i["stray"]), Some(&1.into()));
}
