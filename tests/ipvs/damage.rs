//! A recorded node with one thing wrong: the difference names it.

use std::path::Path;

use kpx::capture::Item;
use serde_json::Value;

use super::{bytes, diff, small};

/// The messages of a recording, headers included.
fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut list = Vec::new();
    while let Some(length) = bytes.first_chunk().map(|b| u32::from_ne_bytes(*b) as usize) {
        let (message, rest) = bytes.split_at(length.next_multiple_of(4));
        list.push(message.to_vec());
        bytes = rest;
    }
    list
}

fn is_end(message: &[u8]) -> bool {
    message[4] == 3
}

/// Position of `needle` in a message.
fn find(message: &[u8], needle: &[u8]) -> Option<usize> {
    message.windows(needle.len()).position(|window| window == needle)
}

/// Address and port of a service, as attributes hold them.
fn service_key(ip: [u8; 4], port: u16) -> Vec<u8> {
    let mut key = ip.to_vec();
    key.extend([0; 12]);
    key.extend([6, 0, 4, 0]);
    key.extend(port.to_be_bytes());
    key
}

/// Recordings as files: the node of `ipvs/running`, with IPVS and one other file replaced.
struct Copy(tempfile::TempDir);

impl Copy {
    fn of(small: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for entry in fs_err::read_dir(small.join("ipvs/running")).expect("recorded") {
            let path = entry.expect("listed").path();
            let target = folder.path().join(path.file_name().expect("a file has a name"));
            // What was recorded is read-only, and so would be its copy.
            fs_err::write(target, fs_err::read(&path).expect("read")).expect("written");
        }
        Self(folder)
    }

    /// Changes the messages of IPVS.
    fn messages(&self, small: &Path, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
        let mut list = messages(&bytes(&small.join("ipvs/running"), Item::Ipvs));
        change(&mut list);
        fs_err::write(self.0.path().join("netlink-ipvs.bin"), list.concat()).expect("written");
    }

    fn text(&self, file: &str, change: impl FnOnce(String) -> String) {
        let path = self.0.path().join(file);
        let text = fs_err::read_to_string(&path).expect("recorded");
        let changed = change(text.clone());
        assert_ne!(changed, text, "{file} has what is to change");
        fs_err::write(path, changed).expect("written");
    }

    fn diff(&self, small: &Path) -> Value {
        let run = diff(self.0.path(), small);
        assert_eq!(run.code, 2, "{}{}", run.out, run.err);
        serde_json::from_str(&run.out).expect("JSON")
    }
}

fn has_notice(document: &Value, code: &str, text: &str) -> bool {
    let notices = document["b"]["notices"].as_array().expect("a list");
    notices.iter().any(|n| n["code"] == code && n["text"].as_str().is_some_and(|t| t.contains(text)))
}

/// ClusterIP of shop/frontend in the recordings: three endpoints.
const FRONTEND: ([u8; 4], u16) = ([10, 108, 140, 169], 80);

/// Index of the first message about the servers of the service at position `service` of the list of services.
fn servers_of(list: &[Vec<u8>], service: usize) -> usize {
    let ends: Vec<usize> = list.iter().enumerate().filter(|(_, m)| is_end(m)).map(|(i, _)| i).collect();
    ends[service] + 1
}

/// Index of the message of a service, and its position among services.
fn service(list: &[Vec<u8>]) -> (usize, usize) {
    let key = service_key(FRONTEND.0, FRONTEND.1);
    let first = list.iter().position(|m| m.get(16) == Some(&1)).expect("a first service");
    let at = list.iter().position(|m| m.get(16) == Some(&1) && find(m, &key).is_some()).expect("it is listed");
    (at, at - first)
}

#[test]
fn a_deleted_server_is_named() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    node.messages(&small, |list| {
        let (_, position) = service(list);
        let at = servers_of(list, position);
        list.remove(at);
    });
    let document = node.diff(&small);
    assert_eq!(document["items"].as_array().map(Vec::len), Some(1), "{document:#}");
    let item = &document["items"][0];
    assert_eq!((&item["service"], &item["fields"][0]["field"]), (&"shop/frontend".into(), &"backends".into()));
    assert!(item["fields"][0]["a"].as_str().is_some_and(|a| a.contains("only here: 10.244.")), "{item:#}");
}

#[test]
fn a_wrong_weight_is_named() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    node.messages(&small, |list| {
        let (_, position) = service(list);
        let at = servers_of(list, position);
        // The attribute IPVS_DEST_ATTR_WEIGHT: length 8, type 4.
        let weight = find(&list[at], &[8, 0, 4, 0, 1, 0, 0, 0]).expect("it has a weight");
        list[at][weight + 4] = 5;
    });
    let document = node.diff(&small);
    assert_eq!(document["items"][0]["service"], "shop/frontend");
    assert!(document["items"][0]["fields"][0]["b"].as_str().is_some_and(|b| b.contains("(weight 5)")), "{document:#}");
    assert!(has_notice(&document, "weight", "10.108.140.169:80/TCP has weight 5"), "{document:#}");
}

#[test]
fn a_missing_service_is_named() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    node.messages(&small, |list| {
        let (at, position) = service(list);
        let servers = servers_of(list, position);
        let end = servers + list[servers..].iter().position(|m| is_end(m)).expect("the list ends");
        list.drain(servers..=end);
        list.remove(at);
    });
    let document = node.diff(&small);
    assert_eq!(document["items"].as_array().map(Vec::len), Some(1), "{document:#}");
    assert_eq!(
        (&document["items"][0]["difference"], &document["items"][0]["service"]),
        (&"only-in-a".into(), &"shop/frontend".into())
    );
    assert!(has_notice(&document, "no-virtual-service", "KUBE-CLUSTER-IP holds 10.108.140.169,tcp:80"));
    assert!(has_notice(&document, "idle-address", "10.108.140.169 is on kube-ipvs0"));
}

#[test]
fn a_missing_member_is_named() {
    let Some(small) = small() else { return };
    let without = |line: &str| {
        let node = Copy::of(&small);
        node.text("ipset-save.txt", |text| text.replace(&format!("{line}\n"), ""));
        node.diff(&small)
    };
    let refused = without("add KUBE-CLUSTER-IP 10.108.140.169,tcp:80");
    assert_eq!(refused["items"][0]["service"], "shop/frontend");
    assert!(has_notice(&refused, "no-set-member", "10.108.140.169:80/TCP"), "{refused:#}");

    let masqueraded = without("add KUBE-LOAD-BALANCER-LOCAL 203.0.113.14,tcp:80");
    assert_eq!(masqueraded["items"][0]["fields"][0]["field"], "masquerade", "{masqueraded:#}");

    let open = without("add KUBE-LOAD-BALANCER-SOURCE-CIDR 203.0.113.13,tcp:80,198.51.100.0/24");
    assert_eq!(open["items"][0]["fields"][0]["field"], "source_ranges", "{open:#}");

    let health = without("add KUBE-HEALTH-CHECK-NODE-PORT 32066");
    assert_eq!(
        (&health["items"][0]["difference"], &health["items"][0]["port"]),
        (&"health-check".into(), &32066.into())
    );
}

#[test]
fn a_missing_address_and_an_odd_node_port_are_named() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    node.text("ip-addr.json", |text| text.replace("\"local\":\"10.108.140.169\"", "\"local\":\"10.108.140.1\""));
    let document = node.diff(&small);
    assert_eq!(document["items"][0]["difference"], "only-in-a", "{document:#}");
    assert!(has_notice(&document, "no-address", "10.108.140.169:80/TCP"), "{document:#}");

    let node = Copy::of(&small);
    node.messages(&small, |list| {
        // One address of NodePort 30080 keeps its service and loses a server.
        let key = service_key([192, 168, 50, 11], 30080);
        let first = list.iter().position(|m| m.get(16) == Some(&1)).expect("a first service");
        let at = list.iter().position(|m| m.get(16) == Some(&1) && find(m, &key).is_some()).expect("it is listed");
        let servers = servers_of(list, at - first);
        list.remove(servers);
    });
    let document = node.diff(&small);
    assert!(has_notice(&document, "uneven-node-port", ":30080/TCP"), "{document:#}");
}

#[test]
fn missing_and_unknown_rules_are_told() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    let masquerade = "-m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE";
    node.text("iptables-save.txt", |text| {
        let kept = text.lines().filter(|line| !line.ends_with(masquerade)).collect::<Vec<_>>().join("\n");
        kept.replacen(
            "[3:180] -A KUBE-SERVICES",
            "[0:0] -A KUBE-SERVICES -d 10.9.9.9/32 -j DROP\n[3:180] -A KUBE-SERVICES",
            1,
        ) + "\n"
    });
    let state = super::state(node.0.path());
    let told: Vec<String> = state.notices.iter().map(|n| format!("{}: {n}", n.code())).collect();
    assert_eq!(
        told,
        [
            "unknown-rule: IPv4 nat KUBE-SERVICES rule 2: -A KUBE-SERVICES -d 10.9.9.9/32 -j DROP is no rule of kube-proxy in IPVS mode",
            "missing-rule: IPv4 nat: no rule -A KUBE-POSTROUTING -m set --match-set KUBE-LOOP-BACK dst,dst,src -j MASQUERADE",
        ]
    );
}

#[test]
fn services_of_others_are_told_apart() {
    let Some(small) = small() else { return };
    let node = Copy::of(&small);
    node.messages(&small, |list| {
        let (at, _) = service(list);
        let mut foreign = list[at].clone();
        let ip = find(&foreign, &FRONTEND.0).expect("its address");
        foreign[ip..ip + 4].copy_from_slice(&[192, 0, 2, 80]);
        // Behind all others, so that the lists of servers stay with theirs; it has none.
        let end = list.iter().position(|m| is_end(m)).expect("the list ends");
        list.insert(end, foreign);
    });
    let state = super::state(node.0.path());
    let told: Vec<String> = state.notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        ["192.0.2.80:80/TCP is not kube-proxy's, which deletes it when it next syncs: no excludeCIDRs keep it"]
    );
    assert!(state.table.frontends().iter().all(|f| f.key.ip != std::net::IpAddr::from([192, 0, 2, 80])));
}
