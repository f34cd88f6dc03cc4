//! Clients that kube-proxy's rules remember, as `kpx inspect affinity` lists them; and how long rules take to load.

#![expect(clippy::disallowed_types, reason = "tests run the program and its oracles themselves")]

use std::process::Command;

use serde_json::Value;

use super::folder::Folder;
use super::live::Namespace;
use crate::support::privileged;

fn kpx(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_kpx")).args(args).args(["-o", "json"]).output().expect("it runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {error}"))
}

#[test]
fn a_recorded_list_is_named_by_the_service_and_backend_of_its_chain() {
    let node = Folder::iptables();
    let rules = node.read("iptables-save.txt");
    let remembers = |line: &&str| line.contains("\"shop/session:http") && line.contains("--rcheck");
    let rule = rules.lines().find(remembers).expect("the Service has affinity");
    let list = rule.rsplit(' ').next().expect("a target");
    // What the rules themselves say of that chain.
    let dnat = rules.lines().find(|l| l.contains(&format!("-A {list} ")) && l.contains("--to-destination"));
    let backend = dnat.and_then(|l| l.rsplit(' ').next()).expect("its chain translates");
    node.write(
        "xt_recent.txt",
        &format!(
            "# jiffies 4296745746 hz 250 limit 100\n{list} src=10.244.2.7 ttl: 64 last_seen: 4296743246 oldest_pkt: 1 4296743246\n\
             KUBE-SEP-AAAAAAAAAAAAAAAA src=10.0.0.9 ttl: 64 last_seen: 4296745746 oldest_pkt: 1 4296745746\n"
        ),
    );
    let from = node.folder().display().to_string();
    let document = kpx(&["inspect", "affinity", "--via", "iptables", "--from", &from]);
    assert_eq!((&document["kind"], &document["total"]), (&"AffinityList".into(), &2.into()), "{document:#}");
    let items = document["items"].as_array().expect("a list");
    let known = items.iter().find(|item| item["client"] == "10.244.2.7").expect("it is listed");
    let (ip, port) = backend.rsplit_once(':').expect("a port");
    assert_eq!((&known["service"], &known["idle_seconds"]), (&"shop/session".into(), &10.into()), "{known:#}");
    assert_eq!(known["backend"]["ip"], ip);
    assert_eq!(known["backend"]["port"].to_string(), port);
    let stale = items.iter().find(|item| item["client"] == "10.0.0.9").expect("it is listed");
    assert_eq!((&stale["service"], &stale["backend"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_live_list_is_read_as_the_kernel_has_it() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("recent");
    node.sh(
        "ip link set lo up; iptables-nft -A INPUT -m recent --name KUBE-SEP-AAAAAAAAAAAAAAAA --set; ping -c1 127.0.0.1",
    );
    let document = kpx(&["inspect", "affinity", "--via", "iptables", "--netns", node.name()]);
    let item = &document["items"][0];
    assert_eq!(
        (&item["client"], &item["place"]),
        (&"127.0.0.1".into(), &"KUBE-SEP-AAAAAAAAAAAAAAAA".into()),
        "{document:#}"
    );
    // Without the kernel's clock the time is not told.
    assert!(item["idle_seconds"].is_null() || item["idle_seconds"].as_u64().is_some_and(|s| s < 120), "{item:#}");
}

#[test]
fn a_load_is_measured_apart_from_the_node() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("measure");
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/iptables/v1.36-nft-ipv6.txt");
    node.sh(&format!("grep -v nfacct {rules} | ip6tables-nft-restore"));
    let saved = || node.output("ip6tables-nft-save | grep -v '^#'");
    let before = saved();
    let document = kpx(&["audit", "iptables", "--measure", "--netns", node.name()]);
    assert_eq!(saved(), before, "measuring changes nothing");
    let loads = document["loads"].as_array().expect("it was measured");
    let load = loads.iter().find(|load| load["tool"] == "ip6tables-nft-restore").expect("these rules were loaded");
    let count = before.lines().filter(|line| line.starts_with("-A ")).count();
    assert_eq!(load["rules"], count, "{load:#}");
    for time in ["first_seconds", "again_seconds"] {
        assert!(load[time].as_f64().is_some_and(|seconds| seconds > 0.0), "{load:#}");
    }
    assert!(document["xtables_lock"]["holders"].is_array(), "{}", document["xtables_lock"]);
}

#[test]
fn sets_of_nftables_are_named_by_the_chain_that_asks_them() {
    let node = Folder::nftables("v1.36");
    let document = kpx(&["inspect", "affinity", "--via", "nftables", "--from", &node.folder().display().to_string()]);
    let ruleset: Value = serde_json::from_str(&node.read("nft-ruleset.json")).expect("JSON");
    // What nft itself lists: sets by the name of the endpoint, clients with the seconds they are kept on.
    let mut wanted = Vec::new();
    for set in ruleset["nftables"].as_array().expect("a list").iter().filter_map(|object| object.get("set")) {
        let name = set["name"].as_str().expect("a name");
        let Some((service, endpoint)) = name.strip_prefix("affinity-").and_then(|name| name.split_once("__")) else {
            continue;
        };
        let service = service.split_once('-').expect("a hash").1.rsplitn(3, '/').last().expect("a Service");
        let (ip, port) = endpoint.split_once('/').expect("a port");
        for element in set["elem"].as_array().into_iter().flatten() {
            let left = element["elem"]["expires"].as_u64().expect("a time-out");
            let idle = set["timeout"].as_u64().expect("a time-out") - left;
            wanted.push(format!(
                "{} {service} {ip}:{port} {idle} {name}",
                element["elem"]["val"].as_str().expect("a client")
            ));
        }
    }
    assert!(wanted.len() > 1, "the recording remembers clients");
    let told = document["items"].as_array().expect("a list").iter().map(|item| {
        let [client, service, place] = ["client", "service", "place"].map(|key| item[key].as_str().unwrap_or("-"));
        let backend = &item["backend"];
        format!(
            "{client} {service} {}:{} {} {place}",
            backend["ip"].as_str().unwrap_or("-"),
            backend["port"],
            item["idle_seconds"]
        )
    });
    let mut told: Vec<String> = told.collect();
    wanted.sort();
    told.sort();
    assert_eq!(told, wanted);
}

#[test]
fn templates_of_ipvs_are_named_by_their_virtual_service() {
    let Some(root) = crate::support::recordings() else { return };
    let world = root.join("small/ipvs/running");
    let copy = Folder::copy_of(&world);
    // One more client: of a NodePort, 192.168.50.11:30180, which ipvsadm calls persistent for 120 seconds.
    let connections = copy.read("proc-net-ip_vs_conn.txt");
    copy.write(
        "proc-net-ip_vs_conn.txt",
        &(connections + "TCP C0A83263 0000 C0A8320B 75E4 0AF4020E 1F90 ASSURED       100\n"),
    );
    let (from, api) = (copy.folder().display().to_string(), root.join("small/api").display().to_string());
    let args =
        ["inspect", "affinity", "--via", "ipvs", "--from", &from, "--services-from", &api, "--node-name", "node-a"];
    let document = kpx(&args);
    let told: Vec<String> = document["items"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|item| {
            let backend = &item["backend"];
            let ip = backend["ip"].as_str().expect("an address");
            format!("{} {}:{}", item["client"].as_str().expect("a client"), ip, backend["port"])
        })
        .collect();
    // The oracle: templates are what ipvsadm lists with port 0.
    let listed = fs_err::read_to_string(world.join("ipvsadm-Lnc.txt")).expect("recorded");
    let template = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let client = words.get(3)?.strip_suffix(":0")?;
        Some(format!("{client} {}", words.get(5)?))
    };
    let mut wanted: Vec<String> = listed.lines().filter_map(template).collect();
    assert!(!wanted.is_empty(), "the recording remembers clients");
    wanted.push("192.168.50.99 10.244.2.14:8080".to_owned());
    let sorted = |mut list: Vec<String>| {
        list.sort();
        list
    };
    assert_eq!(sorted(told), sorted(wanted), "{document:#}");
    let named = |client: &str| {
        let item = document["items"].as_array().expect("a list").iter().find(|item| item["client"] == client);
        let item = item.expect("it is listed");
        (item["service"].as_str().unwrap_or("-").to_owned(), item["idle_seconds"].as_u64())
    };
    // Whose 10.102.4.201 is, the objects say.
    let services: Value =
        serde_json::from_str(&fs_err::read_to_string(root.join("small/api/services.json")).expect("recorded"))
            .expect("JSON");
    let of = |wanted: &dyn Fn(&Value) -> bool| {
        let meta =
            &services["items"].as_array().expect("a list").iter().find(|service| wanted(service)).expect("it is there")
                ["metadata"];
        format!("{}/{}", meta["namespace"].as_str().expect("a name"), meta["name"].as_str().expect("a name"))
    };
    assert_eq!(named("10.244.1.12").0, of(&|service| service["spec"]["clusterIP"] == "10.102.4.201"));
    let node_port = |service: &Value| {
        service["spec"]["ports"].as_array().is_some_and(|ports| ports.iter().any(|p| p["nodePort"] == 30180))
    };
    assert_eq!(named("192.168.50.99"), (of(&node_port), Some(20)));
}

#[test]
fn loads_of_legacy_rules_and_of_rules_that_ask_sets_are_measured() {
    if !privileged() {
        return;
    }
    let node = Namespace::new("legacy");
    node.sh("ipset create KUBE-CLUSTER-IP hash:ip,port; ipset add KUBE-CLUSTER-IP 10.96.0.1,tcp:443
         iptables-legacy -t nat -A PREROUTING -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
         iptables-nft -t nat -A PREROUTING -m set ! --match-set KUBE-CLUSTER-IP dst,dst -j RETURN");
    let state = || node.output("iptables-legacy-save; iptables-nft-save; ipset save");
    let plain = |text: String| text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    let before = plain(state());
    let document = kpx(&["audit", "iptables", "--measure", "--netns", node.name()]);
    assert_eq!(plain(state()), before, "measuring changes nothing");
    for tool in ["iptables-legacy-restore", "iptables-nft-restore"] {
        let load = document["loads"].as_array().expect("it was measured").iter().find(|load| load["tool"] == tool);
        let load = load.unwrap_or_else(|| panic!("{tool}: {}", document["loads"]));
        assert_eq!((&load["rules"], &load["problem"]), (&1.into(), &Value::Null), "{load:#}");
        assert!(load["first_seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{load:#}");
    }
}

#[test]
fn loads_of_recorded_rules_of_ipvs_mode_are_measured() {
    let Some(root) = crate::support::recordings().filter(|_| privileged()) else { return };
    let node = Folder::copy_of(&root.join("small/ipvs/running"));
    // This match needs a kernel with IPVS; those by sets do not.
    for file in ["iptables-save.txt", "ip6tables-save.txt"] {
        assert!(node.read(file).contains("-m set --match-set KUBE-"), "{file} asks sets");
        node.without(file, "-m ipvs");
    }
    let document = kpx(&["audit", "iptables", "--measure", "--from", &node.folder().display().to_string()]);
    let loads = document["loads"].as_array().expect("it was measured");
    assert_eq!(loads.len(), 2, "{loads:#?}");
    assert!(loads.iter().all(|load| load["problem"].is_null() && load["again_seconds"].is_number()), "{loads:#?}");
}
