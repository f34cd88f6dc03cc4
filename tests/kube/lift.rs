//! Objects → table, with expectations derived by hand from the objects.

use std::collections::BTreeMap;

use kpx::inspect::kube::{ConfigSources, KubeError, KubeState, NameGuess, Notice, Raw, Text, read};
use kpx::model::{
    Detector, Exposure, Family, Frontend, KubeVersion, Masquerade, NoBackends, NodePortScope, Policy, ServiceName,
};
use serde_json::{Value, json};

type Flags = BTreeMap<&'static str, &'static str>;

/// Objects and what is told beside them.
struct World {
    services: Vec<Value>,
    slices: Vec<Value>,
    nodes: Vec<Value>,
    addresses: Option<Value>,
    flags: Flags,
    node_name: Option<&'static str>,
    host_name: Option<&'static str>,
}

impl World {
    /// Node `node-a` (zone-1, 192.168.50.11) and what is given, by a kube-proxy of 1.36 with a cluster CIDR.
    fn new(services: Vec<Value>, slices: Vec<Value>) -> Self {
        let flags = Flags::from([("cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"), ("version", "v1.36.2")]);
        let nodes = vec![node("node-a", "192.168.50.11", "fd00:50::11")];
        Self { services, slices, nodes, addresses: None, flags, node_name: Some("node-a"), host_name: None }
    }

    fn read(&self) -> Result<KubeState, KubeError> {
        let list = |kind: &str, items: &[Value]| json!({"kind": kind, "items": items}).to_string().into_bytes();
        let documents = [
            list("ServiceList", &self.services),
            list("EndpointSliceList", &self.slices),
            list("NodeList", &self.nodes),
        ];
        let flags: Vec<_> = self.flags.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let addresses = self.addresses.as_ref().map(|a| a.to_string().into_bytes());
        read(&Raw {
            objects: documents.iter().map(|bytes| Text { bytes, place: "list" }).collect(),
            config: ConfigSources { flags: &flags, ..ConfigSources::default() },
            addresses: addresses.as_deref().map(|bytes| Text { bytes, place: "addresses" }),
            node_name: self.node_name,
            host_name: self.host_name,
        })
    }

    fn state(&self) -> KubeState {
        self.read().expect("objects")
    }
}

fn node(name: &str, v4: &str, v6: &str) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "zone-1"}},
        "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
        "status": {"addresses": [
            {"type": "Hostname", "address": name},
            {"type": "ExternalIP", "address": "198.18.0.1"},
            {"type": "InternalIP", "address": v4},
            {"type": "InternalIP", "address": v6},
        ]},
    })
}

/// A Service `shop/cart` with port `http` 80, patched by `spec`.
fn service(spec: Value) -> Value {
    let mut all = json!({
        "type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"],
        "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
    });
    merge(&mut all, spec);
    json!({"metadata": {"namespace": "shop", "name": "cart"}, "spec": all})
}

fn merge(into: &mut Value, patch: Value) {
    let (Some(map), Value::Object(patch)) = (into.as_object_mut(), patch) else { panic!("objects") };
    map.extend(patch);
}

fn with_ingress(mut service: Value, ingress: Value) -> Value {
    merge(&mut service, json!({"status": {"loadBalancer": {"ingress": ingress}}}));
    service
}

/// A slice of `shop/cart` with port `http` 8080: endpoints by address and node.
fn slice(name: &str, endpoints: &[(&str, &str)]) -> Value {
    let endpoints: Vec<_> = endpoints.iter().map(|(ip, node)| json!({"addresses": [ip], "nodeName": node})).collect();
    let family = if endpoints.iter().any(|e| e["addresses"][0].as_str().is_some_and(|a| a.contains(':'))) {
        "IPv6"
    } else {
        "IPv4"
    };
    json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": "cart"}},
        "addressType": family, "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints,
    })
}

fn two() -> Vec<Value> {
    vec![slice("cart-1", &[("10.244.1.5", "node-a"), ("10.244.2.9", "node-b")])]
}

fn addresses(list: &[kpx::model::Backend]) -> Vec<String> {
    list.iter().map(|b| b.addr().to_string()).collect()
}

fn only(state: &KubeState, exposure: Exposure) -> Frontend {
    let found: Vec<_> = state.table.frontends().iter().filter(|f| f.key.exposure == exposure).collect();
    assert_eq!(found.len(), 1, "{found:#?}");
    found[0].clone()
}

#[test]
fn a_cluster_ip_and_all_that_is_known_of_it() {
    let f = only(&World::new(vec![service(json!({}))], two()).state(), Exposure::ClusterIp);
    assert_eq!(f.key.to_string(), "10.96.0.10:80/TCP");
    assert_eq!(f.display_name(), "shop/cart:http");
    assert_eq!(addresses(&f.cluster), ["10.244.1.5:8080", "10.244.2.9:8080"]);
    assert_eq!(f.cluster.iter().map(|b| b.local).collect::<Vec<_>>(), [Some(true), Some(false)]);
    assert_eq!((f.masquerade, f.no_backends, f.affinity), (Masquerade::OffCluster, None, None));
    assert_eq!(f.origin.to_string(), "Service shop/cart spec.clusterIPs[0] spec.ports[0]");
}

#[test]
fn services_kube_proxy_leaves_alone() {
    let labelled = |label: &str| {
        let mut s = service(json!({}));
        merge(&mut s["metadata"], json!({"labels": {label: ""}}));
        s
    };
    let served = |service: Value, version: &'static str| {
        let mut world = World::new(vec![service], two());
        world.flags.insert("version", version);
        world.state().table.frontends().len()
    };
    assert_eq!(served(service(json!({"clusterIP": "None", "clusterIPs": ["None"]})), "1.36"), 0);
    assert_eq!(served(service(json!({"clusterIP": "", "clusterIPs": null})), "1.36"), 0);
    assert_eq!(served(service(json!({"type": "ExternalName"})), "1.36"), 0);
    for version in ["1.30", "1.36"] {
        assert_eq!(served(labelled("service.kubernetes.io/service-proxy-name"), version), 0, "{version}");
    }
    assert_eq!(served(labelled("service.kubernetes.io/headless"), "1.35"), 0);
    assert_eq!(served(labelled("service.kubernetes.io/headless"), "1.36"), 1);
}

#[test]
fn slices_kube_proxy_leaves_alone() {
    let backends = |slices: Vec<Value>, version: &'static str| {
        let mut world = World::new(vec![service(json!({}))], slices);
        world.flags.insert("version", version);
        addresses(&only(&world.state(), Exposure::ClusterIp).cluster)
    };
    let changed = |path: &str, value: Value| {
        let mut s = two().remove(0);
        *s.pointer_mut(path).expect("a field") = value;
        vec![s]
    };
    let labels = |extra: &str| json!({"kubernetes.io/service-name": "cart", extra: "x"});
    assert!(backends(changed("/metadata/labels", labels("service.kubernetes.io/headless")), "1.36").is_empty());
    let other_proxy = || changed("/metadata/labels", labels("service.kubernetes.io/service-proxy-name"));
    assert_eq!((backends(other_proxy(), "1.35").len(), backends(other_proxy(), "1.36").len()), (0, 2));
    assert!(backends(changed("/metadata/labels", json!({"kubernetes.io/service-name": "other"})), "1.36").is_empty());
    assert!(backends(changed("/metadata/labels", json!(null)), "1.36").is_empty());
    assert!(backends(changed("/metadata/namespace", json!("elsewhere")), "1.36").is_empty());
    assert!(backends(changed("/addressType", json!("FQDN")), "1.36").is_empty());
}

#[test]
fn ports_are_matched_by_name_and_protocol_never_by_number() {
    let backends = |ports: Value| {
        let mut s = two().remove(0);
        s["ports"] = ports;
        let state = World::new(vec![service(json!({}))], vec![s]).state();
        addresses(&only(&state, Exposure::ClusterIp).cluster)
    };
    assert_eq!(backends(json!([{"name": "http", "port": 9}]))[0], "10.244.1.5:9", "TCP where it is not said");
    assert!(backends(json!([{"name": "web", "port": 80}])).is_empty());
    assert!(backends(json!([{"name": "http", "port": 80, "protocol": "UDP"}])).is_empty());
    assert!(backends(json!([{"port": 80}])).is_empty(), "a port without a name is nobody's");
    assert!(backends(json!([{"name": "http"}])).is_empty(), "nor is one without a number");
    assert_eq!(backends(json!([{"name": "http", "port": 1}, {"name": "http", "port": 2}])).len(), 4);
}

#[test]
fn an_unnamed_port_matches_an_empty_name() {
    let mut s = two().remove(0);
    s["ports"] = json!([{"name": "", "port": 8080}]);
    let unnamed = service(json!({"ports": [{"port": 80, "protocol": "TCP"}]}));
    let f = only(&World::new(vec![unnamed], vec![s]).state(), Exposure::ClusterIp);
    assert_eq!((f.port_name.as_deref(), f.cluster.len()), (None, 2));
}

#[test]
fn an_endpoint_in_several_slices_counts_once_and_the_local_one_goes_first() {
    let slices = vec![
        slice("cart-1", &[("10.244.1.5", "node-b"), ("10.244.2.9", "node-b")]),
        slice("cart-2", &[("10.244.1.5", "node-a")]),
    ];
    let local = service(json!({"internalTrafficPolicy": "Local"}));
    let f = only(&World::new(vec![local], slices).state(), Exposure::ClusterIp);
    assert_eq!(addresses(&f.local), ["10.244.1.5:8080"]);
    assert!(f.cluster.is_empty(), "no traffic uses it");
}

#[test]
fn conditions_default_to_ready() {
    let mut s = two().remove(0);
    s["endpoints"][0]["conditions"] = json!({"ready": false});
    let f = only(&World::new(vec![service(json!({}))], vec![s]).state(), Exposure::ClusterIp);
    assert_eq!(addresses(&f.cluster), ["10.244.2.9:8080"]);
}

#[test]
fn only_the_first_address_of_an_endpoint_is_used() {
    let mut s = two().remove(0);
    s["endpoints"][0]["addresses"] = json!(["10.244.1.5", "10.244.1.6"]);
    let f = only(&World::new(vec![service(json!({}))], vec![s]).state(), Exposure::ClusterIp);
    assert_eq!(f.cluster.len(), 2);
}

#[test]
fn each_family_is_computed_alone() {
    let dual = service(json!({
        "type": "NodePort", "clusterIPs": ["10.96.0.10", "fd00:10:96::a"], "externalIPs": ["198.51.100.9", "fd00:198::9"],
        "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
    }));
    let slices = vec![two().remove(0), slice("cart-v6", &[("fd00:10:244:1::5", "node-a")])];
    let state = World::new(vec![dual.clone()], slices).state();
    let of = |family| -> Vec<(Exposure, usize)> {
        let all = state.table.frontends().iter().filter(|f| Family::of(f.key.ip) == family);
        all.map(|f| (f.key.exposure, f.cluster.len())).collect()
    };
    let exposures = [Exposure::NodePort, Exposure::ClusterIp, Exposure::ExternalIp];
    assert_eq!(of(Family::V4), exposures.map(|e| (e, 2)));
    assert_eq!(of(Family::V6), exposures.map(|e| (e, 1)));

    let mut v4_only = dual;
    v4_only["spec"]["clusterIPs"] = json!(["10.96.0.10"]);
    let state = World::new(vec![v4_only], two()).state();
    assert!(state.table.frontends().iter().all(|f| f.key.ip.is_ipv4()), "no ClusterIP in a family, nothing in it");
}

#[test]
fn external_frontends_follow_the_external_policy() {
    let of = |policy: &str| {
        let s = service(json!({
            "type": "LoadBalancer", "externalTrafficPolicy": policy, "healthCheckNodePort": 32000,
            "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
        }));
        World::new(vec![with_ingress(s, json!([{"ip": "203.0.113.5"}]))], two()).state()
    };
    let state = of("Local");
    for exposure in [Exposure::NodePort, Exposure::LoadBalancer] {
        let f = only(&state, exposure);
        assert_eq!((f.external_policy, f.masquerade), (Policy::Local, Masquerade::Never), "{exposure}");
        assert_eq!((f.local.len(), f.cluster.len()), (1, 2), "{exposure}");
    }
    assert!(only(&state, Exposure::ClusterIp).local.is_empty());
    let checks = state.table.health_checks.clone().expect("the API knows them");
    assert_eq!(checks[&32000], [ServiceName { namespace: "shop".to_owned(), name: "cart".to_owned() }].into());

    let state = of("Cluster");
    let f = only(&state, Exposure::LoadBalancer);
    assert_eq!((f.masquerade, f.local.len()), (Masquerade::Always, 0));
    assert_eq!(state.table.health_checks, Some([].into()), "only Local policies have a health check");
}

#[test]
fn a_missing_health_check_port_is_noticed() {
    let s = service(json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}));
    let notices = World::new(vec![s], two()).state().notices;
    assert_eq!(notices, [Notice::NoHealthCheckPort { service: "shop/cart".to_owned() }]);
}

#[test]
fn a_way_of_choosing_backends_that_nobody_knows_is_noticed_and_not_used() {
    let of = |annotation: &str| {
        let mut s = service(json!({}));
        s["metadata"]["annotations"] = json!({ "kpx.dev/backend-selection": annotation });
        World::new(vec![s], two()).state()
    };
    let state = of("magic");
    let noticed = Notice::UnknownChoice {
        service: "shop/cart".to_owned(),
        annotation: "kpx.dev/backend-selection",
        value: "magic".to_owned(),
    };
    assert_eq!(state.notices, [noticed]);
    assert_eq!(only(&state, Exposure::ClusterIp).selection, None);
    assert_eq!(of("maglev").notices, []);
}

#[test]
fn no_backends_here_or_anywhere() {
    let far = || vec![slice("cart-1", &[("10.244.2.9", "node-b")])];
    let verdict = |spec: Value, slices: Vec<Value>| {
        only(&World::new(vec![service(spec)], slices).state(), Exposure::ClusterIp).no_backends
    };
    assert_eq!(verdict(json!({}), vec![]), Some(NoBackends::Reject));
    assert_eq!(verdict(json!({}), far()), None);
    assert_eq!(verdict(json!({"internalTrafficPolicy": "Local"}), far()), Some(NoBackends::Drop));
    assert_eq!(verdict(json!({"internalTrafficPolicy": "Local"}), vec![]), Some(NoBackends::Reject));
}

#[test]
fn load_balancer_addresses_by_mode_and_version() {
    let ingress = json!([
        {"ip": "203.0.113.1"}, {"ip": "203.0.113.2", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.com"},
    ]);
    let served = |version: &'static str| -> Vec<String> {
        let s = with_ingress(service(json!({"type": "LoadBalancer"})), ingress.clone());
        let mut world = World::new(vec![s], two());
        world.flags.insert("version", version);
        let state = world.state();
        let lb = state.table.frontends().iter().filter(|f| f.key.exposure == Exposure::LoadBalancer);
        lb.map(|f| f.key.ip.to_string()).collect()
    };
    assert_eq!(served("1.36"), ["203.0.113.1", "203.0.113.2"]);
    assert_eq!(served("1.29"), ["203.0.113.1", "203.0.113.2", "203.0.113.3"]);
}

#[test]
fn source_ranges_by_family_and_the_address_itself_where_they_hold_the_node() {
    let sources = |ranges: Value, version: &'static str| -> Vec<String> {
        let s = service(json!({
            "type": "LoadBalancer", "loadBalancerSourceRanges": ranges, "externalIPs": ["198.51.100.9"],
        }));
        let mut world = World::new(vec![with_ingress(s, json!([{"ip": "203.0.113.5"}]))], two());
        world.flags.insert("version", version);
        let state = world.state();
        assert!(only(&state, Exposure::ExternalIp).sources.is_empty(), "for load balancers only");
        only(&state, Exposure::LoadBalancer).sources.iter().map(ToString::to_string).collect()
    };
    assert_eq!(sources(json!([" 198.51.100.7/24 ", "fd00::/8"]), "1.36"), ["198.51.100.0/24"]);
    assert_eq!(sources(json!(["192.168.50.0/24"]), "1.36"), ["192.168.50.0/24", "203.0.113.5/32"]);
    assert_eq!(sources(json!(["192.168.50.0/24"]), "1.27"), ["192.168.50.0/24"], "it compared with bindAddress");
    assert!(sources(json!(["fd00::/8"]), "1.36").is_empty(), "no range of the family: unrestricted");
}

#[test]
fn affinity() {
    let of = |spec: Value| only(&World::new(vec![service(spec)], two()).state(), Exposure::ClusterIp).affinity;
    assert_eq!(of(json!({"sessionAffinity": "None"})), None);
    assert_eq!(of(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
    let config = json!({"clientIP": {"timeoutSeconds": 90}});
    assert_eq!(of(json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": config})), Some(90));
}

#[test]
fn the_external_policy_counts_where_there_is_outside_traffic() {
    let of = |spec: Value| World::new(vec![service(spec)], two()).state();
    let plain = of(json!({"externalTrafficPolicy": "Local"}));
    assert_eq!(only(&plain, Exposure::ClusterIp).external_policy, Policy::Cluster);
    let external = of(json!({"externalTrafficPolicy": "Local", "externalIPs": ["198.51.100.9"]}));
    assert_eq!(only(&external, Exposure::ExternalIp).external_policy, Policy::Local);
}

#[test]
fn masquerade_of_cluster_ips_by_configuration() {
    let of = |flags: &[(&'static str, &'static str)]| {
        let mut world = World::new(vec![service(json!({}))], two());
        world.flags = flags.iter().copied().chain([("version", "1.36")]).collect();
        let state = world.state();
        (only(&state, Exposure::ClusterIp).masquerade, state.table.v4.detector)
    };
    let net = |net: &str| Detector::Cidr(net.parse().expect("a network"));
    let cidr = ("cluster-cidr", "10.244.0.0/16");
    assert_eq!(of(&[cidr]), (Masquerade::OffCluster, net("10.244.0.0/16")));
    assert_eq!(of(&[("cluster-cidr", "fd00::/48")]), (Masquerade::Never, Detector::None), "none of the family");
    let mode = |mode| ("detect-local-mode", mode);
    assert_eq!(of(&[mode("NodeCIDR")]), (Masquerade::OffCluster, net("10.244.1.0/24")));
    let bridge = of(&[mode("BridgeInterface"), ("pod-bridge-interface", "cni0")]);
    assert_eq!(bridge, (Masquerade::OffCluster, Detector::Interface("cni0".to_owned())));
    assert_eq!(of(&[cidr, ("masquerade-all", "true")]).0, Masquerade::Always);
    assert_eq!(of(&[]).1, Detector::Unknown, "nothing says");
}

#[test]
fn where_node_ports_are_served() {
    let links = json!([
        {"ifname": "lo", "addr_info": [{"local": "127.0.0.1"}, {"local": "::1"}]},
        {"ifname": "eth0", "addr_info": [{"local": "192.168.50.11"}, {"local": "10.9.0.1"}, {"local": "fe80::1"}, {"local": "fd00:50::11"}]},
    ]);
    let scope = |given: &'static str, links: Option<&Value>, localhost: bool| {
        let mut world = World::new(vec![], vec![]);
        world.flags.insert("nodeport-addresses", given);
        world.flags.insert("iptables-localhost-nodeports", if localhost { "true" } else { "false" });
        world.addresses = links.cloned();
        let table = world.state().table;
        (table.v4.node_ports.to_string(), table.v6.node_ports.to_string())
    };
    let every = |v4: &str| (v4.to_owned(), "every address but loopback".to_owned());
    assert_eq!(scope("", Some(&links), true), every("every address, loopback too"));
    assert_eq!(scope("", Some(&links), false), every("every address but loopback"));
    assert_eq!(scope("10.0.0.0/8", Some(&links), true), every("10.9.0.1"), "the other family stays open");
    assert_eq!(scope("0.0.0.0/0,10.0.0.0/8", Some(&links), true), every("every address, loopback too"));
    assert_eq!(scope("127.0.0.0/8,10.0.0.0/8", Some(&links), true).0, "10.9.0.1, 127.0.0.1");
    assert_eq!(scope("127.0.0.0/8,10.0.0.0/8", Some(&links), false).0, "10.9.0.1");
    assert_eq!(scope("::/1,fe80::/10,fd00::/8", Some(&links), true).1, "fd00:50::11");
    assert_eq!(scope("primary", Some(&links), true), ("192.168.50.11".to_owned(), "fd00:50::11".to_owned()));
    assert_eq!(scope("192.168.0.0/16", None, true).0, "192.168.50.11", "by the Node object");
}

#[test]
fn node_ports_of_unknown_addresses_are_left_open() {
    let mut world = World::new(vec![], vec![]);
    world.nodes.clear();
    world.flags.insert("nodeport-addresses", "10.0.0.0/8");
    let state = world.state();
    assert_eq!(state.table.v4.node_ports, NodePortScope::Unknown);
    assert_eq!(state.notices, [Notice::NodeMissing { name: "node-a".to_owned() }, Notice::AddressesUnknown]);
}

#[test]
fn which_node_this_is() {
    let named = |nodes: Vec<Value>, host: Option<&'static str>, links: Option<Value>| {
        let mut world = World::new(vec![], vec![]);
        (world.nodes, world.node_name, world.host_name, world.addresses) = (nodes, None, host, links);
        world.read().map(|state| (state.node_name, state.notices))
    };
    let pair = || vec![node("node-a", "192.168.50.11", "fd00:50::11"), node("node-b", "192.168.50.12", "fd00:50::12")];
    let here = || Some(json!([{"addr_info": [{"local": "192.168.50.12"}]}]));
    let guessed = |name: &str, by| vec![Notice::NameGuessed { name: name.to_owned(), by }];

    assert_eq!(named(pair(), Some("Node-A"), here()).expect("the host's name"), ("node-a".to_owned(), vec![]));
    let by_address = named(pair(), Some("ip-10-0-0-1"), here()).expect("the host's address");
    assert_eq!(by_address, ("node-b".to_owned(), guessed("node-b", NameGuess::Address)));
    let alone = named(pair().split_off(1), None, None).expect("the only node");
    assert_eq!(alone, ("node-b".to_owned(), guessed("node-b", NameGuess::OnlyNode)));
    let Err(KubeError::NameUnknown { nodes }) = named(pair(), None, None) else { panic!("two nodes, no clue") };
    assert_eq!(nodes, ["node-a", "node-b"]);
}

#[test]
fn an_unknown_version_is_the_kubelets_or_the_newest() {
    let mut world = World::new(vec![], vec![]);
    world.flags.remove("version");
    let assumed = |version, from_kubelet| vec![Notice::VersionAssumed { version, from_kubelet }];
    assert_eq!(world.state().notices, assumed(KubeVersion::LATEST, false));
    let info = json!({"kubeletVersion": "v1.29.4", "kubeProxyVersion": "", "architecture": "", "bootID": "",
        "containerRuntimeVersion": "", "kernelVersion": "", "machineID": "", "operatingSystem": "", "osImage": "", "systemUUID": ""});
    merge(&mut world.nodes[0]["status"], json!({"nodeInfo": info}));
    assert_eq!(world.state().notices, assumed(KubeVersion::v1(29), true));
}

#[test]
fn values_the_api_server_would_not_let_in_name_object_and_field() {
    let refused = |spec: Value, slices: Vec<Value>| {
        let error = World::new(vec![service(spec)], slices).read().expect_err("a malformed object");
        std::error::Error::source(&error).expect("the field").to_string()
    };
    insta::assert_snapshot!(refused(json!({"clusterIPs": ["10.96.0"]}), vec![]), @"Service shop/cart: field spec.clusterIPs[0]: no IP address");
    insta::assert_snapshot!(refused(json!({"ports": [{"port": 70000}]}), vec![]), @"Service shop/cart: field spec.ports[0].port: no port number");
    insta::assert_snapshot!(refused(json!({"ports": [{"port": 1, "protocol": "ICMP"}]}), vec![]), @"Service shop/cart: field spec.ports[0].protocol: none of TCP, UDP, SCTP");
    insta::assert_snapshot!(refused(json!({"internalTrafficPolicy": "Nearby"}), vec![]), @"Service shop/cart: field spec.internalTrafficPolicy: neither Cluster nor Local");
    insta::assert_snapshot!(refused(json!({"loadBalancerSourceRanges": ["10.0.0.0/8", "all"]}), vec![]), @"Service shop/cart: field spec.loadBalancerSourceRanges[1]: no network");
    insta::assert_snapshot!(refused(json!({}), vec![slice("cart-1", &[("10.244.1", "node-a")])]), @"EndpointSlice shop/cart-1: field endpoints[0].addresses[0]: no IP address");
    let mut mixed = slice("cart-1", &[("10.244.1.5", "node-a")]);
    mixed["endpoints"][0]["addresses"] = json!(["fd00::1"]);
    insta::assert_snapshot!(refused(json!({}), vec![mixed]), @"EndpointSlice shop/cart-1: field endpoints[0].addresses[0]: not of the slice's addressType");
}

#[test]
fn services_without_slices_or_slices_without_services_are_no_world() {
    let services = json!({"kind": "ServiceList", "items": []}).to_string();
    let raw = Raw { objects: vec![Text { bytes: services.as_bytes(), place: "services" }], ..Raw::default() };
    let error = read(&raw).expect_err("no EndpointSlices");
    assert_eq!(error.to_string(), "no EndpointSlices to read: there are none in services");
}
