//! kube-proxy's configuration from each of its sources, and which one is believed.

use std::time::Duration;

use kpx::inspect::kube::{
    ConfigError, ConfigSources, DetectLocal, NodePortAddress, Notice, ProxyConfig, ProxyMode, Source, Text,
};
use kpx::model::{Family, KubeVersion};

use super::worlds::file;
use crate::support::recordings;

const CONFIGZ: &str = r#"{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration","clusterCIDR":"10.1.0.0/16",
    "detectLocalMode":"ClusterCIDR","nodePortAddresses":null,"hostnameOverride":"Node-A",
    "iptables":{"masqueradeBit":15,"masqueradeAll":true,"localhostNodePorts":false},
    "conntrack":{"maxPerCore":0,"min":0,"tcpEstablishedTimeout":"1h0m0s","tcpCloseWaitTimeout":"0s"}}}"#;

const LOG: &str = r#"I1123 15:00:46.015204   16345 flags.go:64] FLAG: --cluster-cidr="10.2.0.0/16,fd00:2::/48"
I1123 15:00:46.015204   16345 flags.go:64] FLAG: --config=""
I1123 15:00:46.015204   16345 flags.go:64] FLAG: --hostname-override="node-b"
I1123 15:00:46.015204   16345 flags.go:64] FLAG: --nodeport-addresses="[10.0.0.0/8,fd00::/16]"
I1123 15:00:46.015204   16345 flags.go:64] FLAG: --feature-gates="A=true,B=false"
I1123 15:00:46.243159   16345 server.go:539] "Version info" version="v1.27.3"
"#;

const CONFIG_MAP: &str = r#"{"kind":"ConfigMap","metadata":{"name":"kube-proxy"},"data":{
    "kubeconfig.conf":"apiVersion: v1\nkind: Config\n",
    "config.conf":"apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nclusterCIDR: 10.3.0.0/16\nmode: \"\"\ndetectLocalMode: InterfaceNamePrefix\ndetectLocal:\n  interfaceNamePrefix: cali\nnodePortAddresses: [primary]\niptables:\n  masqueradeBit: null\nfeatureGates:\n  SomeGate: true\n"}}"#;

fn text<'a>(bytes: &'a str, place: &'a str) -> Text<'a> {
    Text { bytes: bytes.as_bytes(), place }
}

fn read(sources: &ConfigSources<'_>) -> (ProxyConfig, Vec<Notice>) {
    ProxyConfig::read(sources).expect("a configuration")
}

#[test]
fn nothing_known_means_defaults_and_a_notice() {
    let (config, notices) = read(&ConfigSources::default());
    assert_eq!(notices, [Notice::NoConfiguration]);
    assert_eq!(config.cluster_cidrs.source, Source::Default);
    assert_eq!((config.mode.value, config.masquerade_bit.value), (ProxyMode::Iptables, 14));
    assert!(config.localhost_node_ports.value && !config.masquerade_all.value);
    assert_eq!(config.conntrack.value.tcp_established, Duration::from_hours(24));
}

#[test]
fn its_answer_goes_before_its_log_and_that_before_its_config_map() {
    let (configz, log, map) = (Some(text(CONFIGZ, "configz")), Some(text(LOG, "log")), Some(text(CONFIG_MAP, "map")));
    let all = ConfigSources { configz, log, config_map: map, ..ConfigSources::default() };
    let (config, notices) = read(&all);
    assert!(notices.is_empty());
    let cidr = |config: &ProxyConfig| config.cluster_cidrs.value.of(Family::V4).map(|net| net.to_string());
    assert_eq!(cidr(&config).as_deref(), Some("10.1.0.0/16"));
    assert_eq!(config.cluster_cidrs.source.to_string(), "configz");
    assert_eq!(config.hostname_override.value.as_deref(), Some("node-a"));
    assert!(config.node_port_addresses.value.is_empty(), "null in the answer is known to be empty");
    assert!(config.masquerade_all.value && !config.localhost_node_ports.value);
    assert_eq!(config.masquerade_bit.value, 15);
    assert_eq!(config.version.value, Some(KubeVersion::v1(27)));
    assert_eq!(config.version.source, Source::Log { place: "log".to_owned(), line: 6 });
    let conntrack = config.conntrack.value;
    assert_eq!((conntrack.max_per_core, conntrack.tcp_close_wait), (0, Duration::ZERO));

    let (config, _) = read(&ConfigSources { configz: None, ..all });
    assert_eq!(cidr(&config).as_deref(), Some("10.2.0.0/16"));
    assert_eq!(config.cluster_cidrs.source.to_string(), "log:1");
    assert_eq!(config.cluster_cidrs.value.of(Family::V6).map(|n| n.to_string()).as_deref(), Some("fd00:2::/48"));
    assert_eq!(config.node_port_addresses.value.len(), 2);
    assert_eq!(config.feature_gates.value, [("A".to_owned(), true), ("B".to_owned(), false)].into());

    let (config, _) = read(&ConfigSources { configz: None, log: None, ..all });
    assert_eq!(cidr(&config).as_deref(), Some("10.3.0.0/16"));
    assert_eq!(config.detect_local.value, DetectLocal::InterfaceNamePrefix("cali".to_owned()));
    assert_eq!(config.node_port_addresses.value, [NodePortAddress::Primary]);
    assert_eq!((config.mode.value, config.masquerade_bit.value), (ProxyMode::Iptables, 14));
    assert_eq!(config.feature_gates.value, [("SomeGate".to_owned(), true)].into());
}

#[test]
fn flags_beside_a_configuration_file_have_no_effect_but_the_host_name() {
    let log = LOG.replace("--config=\"\"", "--config=\"/var/lib/kube-proxy/config.conf\"");
    let (config, _) = read(&ConfigSources {
        log: Some(text(&log, "log")),
        config_map: Some(text(CONFIG_MAP, "map")),
        ..ConfigSources::default()
    });
    assert_eq!(config.cluster_cidrs.source.to_string(), "map");
    assert_eq!(config.hostname_override.value.as_deref(), Some("node-b"));
    assert_eq!(config.feature_gates.source.to_string(), "map");
}

#[test]
fn of_several_starts_in_one_log_the_last_counts() {
    let twice = format!("{LOG}{}", LOG.replace("10.2.0.0/16", "10.9.0.0/16"));
    let (config, _) = read(&ConfigSources { log: Some(text(&twice, "log")), ..ConfigSources::default() });
    assert_eq!(config.cluster_cidrs.value.v4.map(|n| n.to_string()).as_deref(), Some("10.9.0.0/16"));
    assert_eq!(config.cluster_cidrs.source.to_string(), "log:7");
}

#[test]
fn the_operator_fills_in_and_never_overrule_in_silence() {
    let flags = [("cluster-cidr", "10.7.0.0/16,10.8.0.0/16"), ("version", "1.25"), ("feature-gates", "A=true")];
    let flags = flags.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let (config, notices) = read(&ConfigSources { flags: &flags, ..ConfigSources::default() });
    assert_eq!(config.cluster_cidrs.source, Source::Given { flag: "cluster-cidr".to_owned() });
    assert_eq!(config.version.value, Some(KubeVersion::v1(25)));
    assert!(config.feature_gates.value["A"]);
    assert_eq!(notices, [Notice::ClusterCidrUnused("10.8.0.0/16".parse().expect("a network"))]);

    let (config, notices) =
        read(&ConfigSources { configz: Some(text(CONFIGZ, "configz")), flags: &flags, ..ConfigSources::default() });
    assert_eq!(config.cluster_cidrs.source.to_string(), "configz");
    let overruled = Source::Answer { place: "configz".to_owned() };
    assert_eq!(notices, [Notice::FlagOverruled { setting: "clusterCIDR", source: overruled }]);

    let unknown = [("cluster-cidrs".to_owned(), "10.7.0.0/16".to_owned())];
    let refused = ProxyConfig::read(&ConfigSources { flags: &unknown, ..ConfigSources::default() });
    assert!(matches!(refused, Err(ConfigError::UnknownFlag { flag }) if flag == "cluster-cidrs"));
}

#[test]
fn the_metrics_tell_the_version_and_the_gates_in_effect() {
    let metrics = "kubernetes_build_info{build_date=\"x\",git_version=\"v1.30.5\",major=\"1\"} 1\n\
                   kubernetes_feature_enabled{name=\"ServiceTrafficDistribution\",stage=\"ALPHA\"} 0\n\
                   kubernetes_feature_enabled{name=\"Other\",stage=\"\"} 1\n";
    let (config, _) = read(&ConfigSources {
        metrics: Some(text(metrics, "m")),
        log: Some(text(LOG, "log")),
        ..ConfigSources::default()
    });
    assert_eq!(config.version.value, Some(KubeVersion::v1(30)));
    assert!(!config.feature_gates.value["ServiceTrafficDistribution"]);
    assert!(config.feature_gates.value["Other"]);
}

#[test]
fn nftables_mode_has_a_masquerade_setting_of_its_own() {
    let map = "kind: KubeProxyConfiguration\nmode: nftables\nnftables: {masqueradeAll: true, masqueradeBit: 9}\niptables: {masqueradeAll: false}\n";
    let (config, _) = read(&ConfigSources { config_map: Some(text(map, "map")), ..ConfigSources::default() });
    assert_eq!(
        (config.mode.value, config.masquerade_all.value, config.masquerade_bit.value),
        (ProxyMode::Nftables, true, 9)
    );
}

#[test]
fn values_kube_proxy_would_not_take_are_errors_with_their_place() {
    let refused = |log: &str| {
        let sources = ConfigSources { log: Some(text(log, "log")), ..ConfigSources::default() };
        ProxyConfig::read(&sources).expect_err("a bad value").to_string()
    };
    insta::assert_snapshot!(refused(&LOG.replace("10.2.0.0/16", "10.2.0.0")), @r#"log:1: clusterCIDR is "10.2.0.0,fd00:2::/48": no network such as 10.0.0.0/8"#);
    insta::assert_snapshot!(refused("x] FLAG: --detect-local-mode=\"BridgeInterface\"\n"), @r#"default: detectLocal.bridgeInterface is "": detectLocalMode needs it"#);
    insta::assert_snapshot!(refused("x] FLAG: --iptables-masquerade-bit=\"32\"\n"), @r#"log:1: iptables.masqueradeBit is "32": no bit of a 32-bit mark"#);
    insta::assert_snapshot!(refused("x] FLAG: --nodeport-addresses=\"[here]\"\n"), @r#"log:1: nodePortAddresses is "[here]": neither `primary` nor networks such as 10.0.0.0/8"#);

    let syntax = ConfigSources { configz: Some(text("<html>", "configz")), ..ConfigSources::default() };
    assert!(matches!(
        ProxyConfig::read(&syntax),
        Err(ConfigError::NoConfiguration { .. } | ConfigError::Syntax { .. })
    ));
    let other = ConfigSources {
        config_map: Some(text(r#"{"kind":"ConfigMap","data":{"a":"b"}}"#, "map")),
        ..ConfigSources::default()
    };
    assert!(matches!(ProxyConfig::read(&other), Err(ConfigError::NoConfiguration { .. })));
}

#[test]
fn every_recorded_answer_agrees_with_the_log_beside_it() {
    let Some(root) = recordings() else { return };
    for world in [
        "iptables-nft",
        "iptables-legacy",
        "v1.30-iptables-nft",
        "v1.25-iptables-legacy",
        "v1.23-iptables-nft",
        "nftables",
        "ipvs-strict-arp",
    ] {
        let dir = root.join("small").join(world).join("running");
        let (configz, log) = (file(&dir.join("configz.json")), file(&dir.join("kube-proxy.log")));
        let of = |bytes: &'static str, which: &Option<Vec<u8>>| (bytes, which.clone().expect("a recording"));
        let ((_, configz), (_, log)) = (of("configz", &configz), of("log", &log));
        let answer = read(&ConfigSources {
            configz: Some(Text { bytes: &configz, place: "configz" }),
            ..ConfigSources::default()
        })
        .0;
        let flags =
            read(&ConfigSources { log: Some(Text { bytes: &log, place: "log" }), ..ConfigSources::default() }).0;
        let told = |c: &ProxyConfig| {
            (
                (c.mode.value.clone(), c.cluster_cidrs.value, c.detect_local.value.clone()),
                (c.masquerade_all.value, c.masquerade_bit.value, c.localhost_node_ports.value),
                (c.hostname_override.value.clone(), c.bind_address.value, c.conntrack.value),
            )
        };
        assert_eq!(told(&answer), told(&flags), "{world}");
        assert_eq!(answer.hostname_override.value.as_deref(), Some("node-a"), "{world}");
    }
}
