//! Cilium's maps, made with its layouts and pinned, as kpx lifts them.
//!
//! What the bytes mean is Cilium's: each map here is written as `bpf/lib/common.h` lays it out, field by field.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use super::raw::{ARRAY, Bpffs, HASH, LPM_TRIE, LRU_HASH, Map, Types};
use crate::cli::environment::{Run, finish, kpx, project};
use crate::cli::schema;
use crate::support;

const OBJECTS: &str = "tests/data/lab/node";
const TCP: u8 = 6;
const UDP: u8 = 17;
const ANY: u8 = 0;

/// Bytes of an IPv4 address.
fn v4(text: &str) -> [u8; 4] {
    text.parse::<Ipv4Addr>().expect("an address").octets()
}

/// `struct lb4_key`.
fn key(address: &str, port: u16, slot: u16, protocol: u8, scope: u8) -> Vec<u8> {
    [&v4(address)[..], &port.to_be_bytes(), &slot.to_ne_bytes(), &[protocol, scope, 0, 0]].concat()
}

/// `struct lb4_service`: backend id or affinity, count, id, flags, quarantined slots.
fn service(union: u32, count: u16, id: u16, flags: u16, quarantined: u16) -> Vec<u8> {
    [
        &union.to_ne_bytes()[..],
        &count.to_ne_bytes(),
        &id.to_be_bytes(),
        &flags.to_le_bytes(),
        &quarantined.to_ne_bytes(),
    ]
    .concat()
}

/// `struct ipv4_ct_tuple`.
fn tuple(daddr: &str, saddr: &str, dport: u16, sport: u16, protocol: u8, flags: u8) -> Vec<u8> {
    [&v4(daddr)[..], &v4(saddr), &dport.to_be_bytes(), &sport.to_be_bytes(), &[protocol, flags]].concat()
}

/// A directory of Cilium's pins. Maps live as long as their pins.
struct Cilium {
    bpffs: Bpffs,
}

impl Cilium {
    fn new() -> Option<Self> {
        support::privileged().then(|| Self { bpffs: Bpffs::new() })
    }

    fn map(&self, name: &str, kind: u32, key: usize, value: usize, entries: &[(Vec<u8>, Vec<u8>)]) {
        let map = Map::new(kind, name, key, value, 256, Types::default());
        for (key, value) in entries {
            map.put(key, value);
        }
        map.pin(&self.bpffs.path(name));
    }

    fn services(&self, entries: &[(Vec<u8>, Vec<u8>)]) {
        self.map("cilium_lb4_services_v2", HASH, 12, 12, entries);
    }

    /// Backends by id: address, port, protocol, state.
    fn backends(&self, all: &[(u32, &str, u16, u8, u8)]) {
        let entry = |(id, address, port, protocol, state): &(u32, &str, u16, u8, u8)| {
            let value = [&v4(address)[..], &port.to_be_bytes(), &[*protocol, *state, 0, 0, 0, 0]].concat();
            (id.to_ne_bytes().to_vec(), value)
        };
        self.map("cilium_lb4_backends_v3", HASH, 4, 12, &all.iter().map(entry).collect::<Vec<_>>());
    }

    fn run(&self, args: &[&str]) -> Run {
        self.kpx(&[&["inspect"], args].concat())
    }

    fn kpx(&self, args: &[&str]) -> Run {
        let mut command = kpx();
        command.args(args).arg("--cilium-pins").arg(self.bpffs.path(""));
        command.args(["--node-name", "node-a", "--services-from"]).arg(project(OBJECTS));
        // Nowhere is a dataplane of kpx.
        command.arg("--bpffs").arg(self.bpffs.path("kpx"));
        finish(&mut command)
    }

    fn items(&self, args: &[&str]) -> Vec<Value> {
        let run = self.run(&[args, &["-o", "json"]].concat());
        assert_eq!(run.code, 0, "{}", run.err);
        let document: Value = serde_json::from_str(&run.out).expect("JSON");
        schema::conforms(&document);
        document["items"].as_array().expect("items").clone()
    }
}

/// The addresses of a list of backends.
fn addresses(list: &Value) -> Vec<&str> {
    list.as_array().expect("a list").iter().map(|backend| backend["ip"].as_str().expect("text")).collect()
}

#[test]
fn services_of_both_key_protocols_are_lifted() {
    let Some(cilium) = Cilium::new() else { return };
    cilium.backends(&[
        (1, "10.244.1.11", 8080, TCP, 0),
        (2, "10.244.2.11", 8080, TCP, 0),
        (3, "10.244.3.53", 53, UDP, 1),
    ]);
    cilium.services(&[
        // Since 1.17: the protocol is in the key.
        (key("10.96.0.20", 80, 0, TCP, 0), service(3600, 2, 7, 0x10, 0)),
        (key("10.96.0.20", 80, 1, TCP, 0), service(1, 0, 7, 0, 0)),
        (key("10.96.0.20", 80, 2, TCP, 0), service(2, 0, 7, 0, 0)),
        // Up to 1.16: it is not, but the backends have it.
        (key("10.96.0.53", 53, 0, ANY, 0), service(0, 1, 8, 0, 0)),
        (key("10.96.0.53", 53, 1, ANY, 0), service(3, 0, 8, 0, 0)),
        (key("10.96.0.99", 443, 0, ANY, 0), service(0, 0, 9, 0, 0)),
    ]);
    let found = cilium.items(&["services", "--via", "cilium"]);
    let brief: Vec<Value> = found.iter().map(|f| json!([f["ip"], f["port"], f["protocol"], f["kind"]])).collect();
    assert_eq!(
        brief,
        [
            json!(["10.96.0.20", 80, "TCP", "ClusterIP"]),
            json!(["10.96.0.53", 53, "UDP", "ClusterIP"]),
            json!(["10.96.0.99", 443, "TCP", "ClusterIP"]),
        ]
    );
    assert_eq!(addresses(&found[0]["backends"]), ["10.244.1.11", "10.244.2.11"]);
    assert_eq!(
        (&found[0]["affinity_seconds"], &found[0]["from"]),
        (&json!(3600), &json!("map cilium_lb4_services_v2 service 7"))
    );
    assert_eq!(
        (&found[1]["backends"][0]["state"], &found[1]["backends"][0]["port"]),
        (&json!("terminating"), &json!(53))
    );
    assert_eq!((&found[2]["no_backends"], &found[2]["backends"]), (&json!("reject"), &json!([])));
    let told = cilium.run(&["services", "--via", "cilium"]).err;
    assert!(told.contains("no protocol is recorded for 10.96.0.99:443; TCP is assumed"), "{told}");
}

#[test]
fn scopes_node_ports_quarantine_and_source_ranges_are_lifted() {
    let Some(cilium) = Cilium::new() else { return };
    cilium.backends(&[
        (1, "10.244.1.11", 8080, TCP, 0),
        (2, "10.244.2.11", 8080, TCP, 0),
        (3, "10.244.3.11", 8080, TCP, 2),
    ]);
    let (load_balancer, external_local, two_scopes, ranges, node_port) = (0x20, 0x04, 0x2000, 0x80, 0x02);
    let flags = load_balancer | external_local | two_scopes | ranges;
    cilium.services(&[
        // From outside one local backend and a quarantined one, from inside two.
        (key("203.0.113.9", 443, 0, TCP, 0), service(0, 1, 5, flags, 1)),
        (key("203.0.113.9", 443, 1, TCP, 0), service(1, 0, 5, 0, 0)),
        (key("203.0.113.9", 443, 2, TCP, 0), service(3, 0, 5, 0x4000, 0)),
        (key("203.0.113.9", 443, 0, TCP, 1), service(0, 2, 5, flags, 0)),
        (key("203.0.113.9", 443, 1, TCP, 1), service(1, 0, 5, 0, 0)),
        (key("203.0.113.9", 443, 2, TCP, 1), service(2, 0, 5, 0, 0)),
        // A NodePort: the wildcard, and an address of the node.
        (key("0.0.0.0", 30080, 0, TCP, 0), service(0, 1, 6, node_port, 0)),
        (key("0.0.0.0", 30080, 1, TCP, 0), service(2, 0, 6, 0, 0)),
        (key("192.168.50.11", 30080, 0, TCP, 0), service(0, 1, 6, node_port, 0)),
        (key("192.168.50.11", 30080, 1, TCP, 0), service(2, 0, 6, 0, 0)),
        // A slot that names nobody.
        (key("10.96.0.7", 80, 0, TCP, 0), service(0, 1, 11, 0, 0)),
        (key("10.96.0.7", 80, 1, TCP, 0), service(77, 0, 11, 0, 0)),
    ]);
    let range = |prefix: u32, id: u16, net: &str| {
        ([&(32 + prefix).to_ne_bytes()[..], &id.to_be_bytes(), &[0, 0], &v4(net)].concat(), vec![0])
    };
    cilium.map("cilium_lb4_source_range", LPM_TRIE, 12, 1, &[range(24, 5, "198.51.100.0"), range(8, 99, "10.0.0.0")]);

    let run = cilium.run(&["services", "--via", "cilium", "-o", "json"]);
    let document: Value = serde_json::from_str(&run.out).expect("JSON");
    let at = |ip: &str| {
        let all = document["items"].as_array().expect("items");
        let found: Vec<&Value> = all.iter().filter(|item| item["ip"] == ip).collect();
        assert_eq!(found.len(), 1, "{ip} is one frontend");
        found[0].clone()
    };
    let balanced = at("203.0.113.9");
    assert_eq!((&balanced["kind"], &balanced["external_traffic_policy"]), (&json!("LoadBalancer"), &json!("Local")));
    assert_eq!(addresses(&balanced["local_backends"]), ["10.244.1.11"], "the quarantined one is not used");
    assert_eq!(addresses(&balanced["backends"]), ["10.244.1.11", "10.244.2.11"]);
    assert_eq!((&balanced["source_ranges"], &balanced["masquerade"]), (&json!(["198.51.100.0/24"]), &json!("never")));
    let node_port = at("0.0.0.0");
    assert_eq!((&node_port["kind"], &node_port["masquerade"]), (&json!("NodePort"), &json!("off-cluster")));
    assert_eq!(document["node"]["IPv4"]["node_port_addresses"], "192.168.50.11");
    assert_eq!(document["notices"][0]["code"], "missing-backend");
    let backends = cilium.run(&["backends", "--via", "cilium", "--address", "10.244.2.11", "-o", "name"]);
    assert_eq!(backends.out, "10.244.2.11:8080/TCP\n");
}

#[test]
fn a_packet_meets_the_entries_of_its_frontend_and_backend() {
    let Some(cilium) = Cilium::new() else { return };
    cilium.backends(&[(1, "10.244.1.11", 8080, TCP, 0), (2, "10.244.2.11", 8080, TCP, 0)]);
    let (load_balancer, external_local, two_scopes, ranges) = (0x20, 0x04, 0x2000, 0x80);
    let flags = load_balancer | external_local | two_scopes | ranges;
    cilium.services(&[
        (key("203.0.113.9", 443, 0, TCP, 0), service(0, 1, 5, flags, 0)),
        (key("203.0.113.9", 443, 1, TCP, 0), service(1, 0, 5, 0, 0)),
        (key("203.0.113.9", 443, 0, TCP, 1), service(0, 2, 5, flags, 0)),
        (key("203.0.113.9", 443, 1, TCP, 1), service(1, 0, 5, 0, 0)),
        (key("203.0.113.9", 443, 2, TCP, 1), service(2, 0, 5, 0, 0)),
        (key("10.96.0.99", 443, 0, TCP, 0), service(0, 0, 9, 0, 0)),
    ]);
    let range = |prefix: u32, id: u16, net: &str| {
        ([&(32 + prefix).to_ne_bytes()[..], &id.to_be_bytes(), &[0, 0], &v4(net)].concat(), vec![0])
    };
    cilium.map("cilium_lb4_source_range", LPM_TRIE, 12, 1, &[range(24, 5, "198.51.100.0")]);
    let ways = |args: &[&str]| -> Vec<(String, String)> {
        let run = cilium.kpx(&[&["path", "--via", "cilium", "-o", "json"], args].concat());
        let document: Value = serde_json::from_str(&run.out).unwrap_or_else(|e| panic!("{e}: {}", run.err));
        schema::conforms(&document);
        let way = |way: &Value| {
            let end = way["backend"].as_str().or_else(|| way["end"].as_str()).expect("an end").to_owned();
            let at = |step: &Value| step["at"].as_str().expect("a place").to_owned();
            (end, way["steps"].as_array().expect("steps").iter().map(at).collect::<Vec<_>>().join(", "))
        };
        document["items"][0]["ways"].as_array().expect("ways").iter().map(way).collect()
    };
    let (services, backends) = ("cilium_lb4_services_v2 203.0.113.9:443/TCP", "cilium_lb4_backends_v3");
    let of_client = |ip: &str| format!("{services} slot 0, cilium_lb4_source_range service 5, {ip}");
    assert_eq!(
        ways(&["--from-ip", "198.51.100.7", "203.0.113.9:443"]),
        [("10.244.1.11:8080".to_owned(), format!("{}, {services} slot 1, {backends} 1", of_client("198.51.100.7")))]
    );
    assert_eq!(
        ways(&["--from-ip", "192.0.2.1", "203.0.113.9:443"]),
        [("dropped".to_owned(), format!("{}, lookup", of_client("192.0.2.1")))]
    );
    // A socket of the node asks the entry for inside.
    let inside = ways(&["203.0.113.9:443"]);
    assert!(inside[0].1.contains(&format!("{services} slot 0, {services} inside slot 0, ")), "{inside:?}");
    assert_eq!(
        ways(&["10.96.0.99:443"]),
        [("refused".to_owned(), "cilium_lb4_services_v2 10.96.0.99:443/TCP slot 0, lookup".to_owned())]
    );
}

#[test]
fn affinity_flows_and_translations_are_shown_with_the_backends() {
    let Some(cilium) = Cilium::new() else { return };
    cilium.backends(&[(1, "10.244.1.11", 8080, TCP, 0)]);
    cilium.services(&[
        (key("10.96.0.20", 80, 0, TCP, 0), service(3600, 1, 7, 0x10, 0)),
        (key("10.96.0.20", 80, 1, TCP, 0), service(1, 0, 7, 0, 0)),
    ]);
    let client = |bytes: [u8; 8], cookie: u8| [&bytes[..], &7_u16.to_be_bytes(), &[cookie, 0], &[0; 4]].concat();
    let used = [&1_u64.to_ne_bytes()[..], &1_u32.to_ne_bytes(), &[0; 4]].concat();
    let cookie = if cfg!(target_endian = "big") { 0x80 } else { 1 };
    cilium.map(
        "cilium_lb4_affinity",
        LRU_HASH,
        16,
        16,
        &[(client([192, 0, 2, 17, 0, 0, 0, 0], 0), used.clone()), (client(4711_u64.to_ne_bytes(), cookie), used)],
    );
    let entry = |backend: u64, lifetime: u32, flags: u16, id: u16| {
        let mut bytes = vec![0; 8];
        bytes.extend([backend, 12, 3400].iter().flat_map(|n| n.to_ne_bytes()));
        bytes.extend(lifetime.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend(id.to_be_bytes());
        bytes.resize(56, 0);
        bytes
    };
    cilium.map(
        "cilium_ct4_global",
        LRU_HASH,
        14,
        56,
        &[
            // Addresses are the wrong way round in the key of a flow ...
            (tuple("192.0.2.17", "10.244.1.11", 8080, 43210, TCP, 0), entry(0, 1, 1 << 4, 7)),
            // ... and ports in that of a frontend.
            (tuple("10.96.0.20", "192.0.2.17", 43210, 80, TCP, 4), entry(1, u32::MAX, 0, 7)),
        ],
    );
    let nat = [&[0; 32][..], &v4("192.168.50.11"), &40_000_u16.to_be_bytes(), &[0; 2]].concat();
    cilium.map(
        "cilium_snat_v4_external",
        LRU_HASH,
        14,
        40,
        &[(tuple("10.244.1.11", "192.0.2.17", 8080, 43210, TCP, 0), nat)],
    );

    let affinity = cilium.items(&["affinity"]);
    let brief: Vec<Value> =
        affinity.iter().map(|a| json!([a["client"], a["client_netns"], a["backend"], a["service_id"]])).collect();
    let backend = json!({ "ip": "10.244.1.11", "port": 8080 });
    assert_eq!(brief.len(), 2, "Cilium's are read where only they are there");
    assert!(brief.contains(&json!(["192.0.2.17", null, backend, 7])), "{brief:?}");
    assert!(brief.contains(&json!([null, 4711, backend, 7])), "{brief:?}");

    let flows = cilium.items(&["conntrack", "--via", "cilium"]);
    assert_eq!(flows.len(), 2);
    let of = |kind: &str| flows.iter().find(|flow| flow["kind"] == kind).expect("there is one").clone();
    let (out, service) = (of("out"), of("service"));
    let client = json!({ "ip": "192.0.2.17", "port": 43210 });
    assert_eq!((&out["source"], &out["destination"], &out["flags"]), (&client, &backend, &json!(["seen-non-syn"])));
    assert_eq!((&service["source"], &service["backend"]), (&client, &backend));
    assert_eq!(service["destination"], json!({ "ip": "10.96.0.20", "port": 80 }));
    assert_eq!(
        (&service["packets"], &service["bytes"], &service["expires_seconds"]),
        (&json!(12), &json!(3400), &Value::Null)
    );
    assert!(out["expires_seconds"].as_i64().is_some_and(|left| left < 0), "{out}");
    assert_eq!(cilium.items(&["conntrack", "--address", "10.96.0.20", "--port", "80"]).len(), 1);
    assert_eq!(cilium.items(&["conntrack", "--limit", "1"]).len(), 1);

    let nat = cilium.items(&["nat"]);
    assert_eq!((&nat[0]["replaces"], &nat[0]["source"]), (&json!("source"), &client));
    assert_eq!(nat[0]["by"], json!({ "ip": "192.168.50.11", "port": 40000 }));
}

#[test]
fn maglev_tables_are_counted() {
    let Some(cilium) = Cilium::new() else { return };
    cilium.backends(&[(1, "10.244.1.11", 8080, TCP, 0), (2, "10.244.2.11", 8080, TCP, 0)]);
    cilium.services(&[(key("10.96.0.20", 80, 0, TCP, 0), service(0, 0, 7, 0, 0))]);
    let table = || Map::new(ARRAY, "maglev_inner", 4, 7 * 4, 1, Types::default());
    let (outer, inner) = (Map::of_maps("cilium_lb4_magl", 2, 8, &table()), table());
    let ids: Vec<u8> = [1_u32, 2, 1, 1, 2, 1, 2].iter().flat_map(|id| id.to_ne_bytes()).collect();
    inner.put(&0_u32.to_ne_bytes(), &ids);
    outer.put_map(&7_u16.to_be_bytes(), &inner);
    outer.pin(&cilium.bpffs.path("cilium_lb4_maglev"));
    let shares = cilium.items(&["maglev"]);
    let brief: Vec<Value> = shares.iter().map(|s| json!([s["backend"]["ip"], s["slots"], s["table_slots"]])).collect();
    assert_eq!(brief, [json!(["10.244.1.11", 4, 7]), json!(["10.244.2.11", 3, 7])]);
}

#[test]
fn without_cilium_there_is_an_error_that_says_so() {
    let Some(cilium) = Cilium::new() else { return };
    let none = cilium.run(&["services", "--via", "cilium"]);
    assert_eq!((none.out.as_str(), none.code), ("", 1));
    assert!(
        none.err.starts_with("error: no maps of Cilium are pinned in ") && none.err.contains("hint: "),
        "{}",
        none.err
    );
    cilium.services(&[(key("10.96.0.20", 80, 0, TCP, 0), service(0, 0, 7, 0, 0))]);
    let none = cilium.run(&["conntrack", "--via", "cilium"]);
    assert!(none.err.starts_with("error: Cilium keeps no conntrack in "), "{}", none.err);
}
