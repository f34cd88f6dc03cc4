//! What load balancers, the kubelet and dashboards are told.

use serde_json::{Value, json};

use super::api::{node, service, slice};
use super::rig::{Rig, ask, health};
use crate::dataplane::ground::Ground;

#[test]
fn a_node_that_is_about_to_go_is_not_eligible_and_alive() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let _agent = rig.start();
        rig.until_healthy();
        let (_, head, body) = ask("127.0.0.1:10256", "/healthz").expect("an answer");
        assert!(
            head.contains("content-type: application/json\r\n") && head.contains("x-content-type-options: nosniff")
        );
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&body["nodeEligible"], &body["healthy"]), (&json!(true), &json!(true)));
        for key in ["lastUpdated", "currentTime"] {
            body[key].as_str().expect("a time").parse::<jiff::Timestamp>().expect("a time");
        }
        let mut leaving = node();
        leaving["spec"]["taints"] = json!([{ "key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule" }]);
        rig.api.put(leaving);
        rig.until("not eligible", || health("/healthz").is_some_and(|(status, _)| status == 503));
        assert_eq!(health("/healthz").expect("an answer").1["nodeEligible"], json!(false));
        assert_eq!(health("/livez").expect("an answer").0, 200);
        rig.api.put(node());
        rig.until_healthy();
        let mut leaving = node();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-11-23T15:01:14Z");
        rig.api.put(leaving);
        rig.until("not eligible", || health("/healthz").is_some_and(|(status, _)| status == 503));
        assert_eq!(ask("127.0.0.1:10256", "/").expect("an answer").0, 404);
    });
}

#[test]
fn health_check_ports_count_the_ready_endpoints_of_this_node() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let mut balanced = service("lb", "10.96.0.20", 80, "TCP");
        balanced["spec"]["type"] = json!("LoadBalancer");
        balanced["spec"]["externalTrafficPolicy"] = json!("Local");
        balanced["spec"]["healthCheckNodePort"] = json!(32_100);
        balanced["spec"]["ports"][0]["nodePort"] = json!(30_100);
        rig.api.put(balanced.clone());
        let here = ["10.244.0.1@node-a", "10.244.0.2@node-a", "10.244.1.1@node-b"];
        rig.api.put(slice("lb", "lb-1", 80, "TCP", &here));
        let _agent = rig.start();
        rig.until_healthy();
        let counted = |count: &str| {
            let answer = ask("127.0.0.1:32100", "/any/path")?;
            answer.1.contains(&format!("x-load-balancing-endpoint-weight: {count}\r\n")).then_some((answer.0, answer.2))
        };
        rig.until("two endpoints", || counted("2").is_some());
        let (status, body) = counted("2").expect("an answer");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        let expected = json!({
            "service": { "namespace": "ns", "name": "lb" }, "localEndpoints": 2, "serviceProxyHealthy": true,
        });
        assert_eq!((status, body), (200, expected));
        // Terminating endpoints carry traffic, and no load balancer should send more.
        let mut terminating = slice("lb", "lb-1", 80, "TCP", &here);
        for i in [0, 1] {
            terminating["endpoints"][i]["conditions"] = json!({ "ready": false, "serving": true, "terminating": true });
        }
        rig.api.put(terminating);
        rig.until("none", || counted("0").is_some());
        assert_eq!(counted("0").expect("an answer").0, 503);
        balanced["spec"]["externalTrafficPolicy"] = json!("Cluster");
        rig.api.put(balanced);
        rig.until("nobody listens", || ask("127.0.0.1:32100", "/").is_none());
    });
}

#[test]
fn dashboards_find_the_names_they_know() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        let metrics = || ask("127.0.0.1:10249", "/metrics").map(|answer| answer.2).unwrap_or_default();
        let has = |line: &str| {
            rig.until(line, || metrics().lines().any(|l| l.starts_with(line)));
        };
        has("kubeproxy_sync_proxy_rules_endpoint_changes_total 1");
        has("kubeproxy_sync_proxy_rules_last_timestamp_seconds 1");
        has("kubeproxy_sync_proxy_rules_duration_seconds_count");
        has("kubeproxy_proxy_healthz_total{code=\"200\"}");
        has("kpx_event_to_map_seconds_bucket");
        has("kpx_objects{kind=\"Service\"} 1");
        has("kpx_frontends{by=\"maps\"} 1");
        assert!(metrics().ends_with("# EOF\n"));
        assert_eq!(ask("127.0.0.1:10249", "/proxyMode").map(|answer| answer.2), Some("ebpf".to_owned()));
    });
}

#[test]
fn a_port_that_is_taken_is_waited_for() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let proxy = std::net::TcpListener::bind("0.0.0.0:10256").expect("the port is free");
        let _agent = rig.start();
        rig.until("it is told", || rig.log().contains("cannot listen on 0.0.0.0:10256"));
        drop(proxy);
        rig.until_healthy();
    });
}
