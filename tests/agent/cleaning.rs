//! What still leads to backends that have gone is ended, and nothing else.

use std::net::TcpListener;

use kpx::capture::command;

use super::api::{service, slice};
use super::rig::Rig;
use crate::dataplane::ground::Ground;
use crate::dataplane::server::Server;

/// Puts a UDP flow into the kernel's conntrack, as a rule of kube-proxy would have.
fn insert(port: u16, to: &str, to_port: u16, backend: &str) {
    let line = format!(
        "-I -p udp -t 600 -s 10.2.0.9 -d {to} --sport {port} --dport {to_port} \
         --reply-src {backend} --reply-dst 10.2.0.9 --reply-port-src 53 --reply-port-dst {port}"
    );
    command::output("conntrack", line.split(' '), None).expect("the entry can be made");
}

/// Source ports of the UDP flows in the kernel's conntrack that lead from there.
fn flows() -> Vec<u16> {
    let list = command::output("conntrack", ["-L", "-p", "udp", "-s", "10.2.0.9"], None).expect("conntrack lists");
    let list = String::from_utf8(list).expect("text");
    let port = |line: &str| line.split("sport=").nth(1)?.split(' ').next()?.parse().ok();
    let mut ports: Vec<u16> = list.lines().filter_map(port).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn stale_udp_flows_of_the_kernel_are_ended() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        let mut dns = service("dns", "10.96.0.10", 53, "UDP");
        dns["spec"]["type"] = "NodePort".into();
        dns["spec"]["ports"][0]["nodePort"] = 30_053.into();
        rig.api.put(dns);
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1", "10.244.0.2"]));
        insert(1000, "10.96.0.10", 53, "10.244.0.9");
        let _agent = rig.start();
        // What was stale when the agent came, is looked for once.
        rig.until("the old flow is ended", || flows().is_empty());
        insert(1001, "10.96.0.10", 53, "10.244.0.1");
        insert(1002, "10.96.0.10", 53, "10.244.0.2");
        insert(1003, "10.2.0.1", 30_053, "10.244.0.2");
        // Other hosts' ports of the same number, and other ports of the same address.
        insert(1004, "198.51.100.7", 30_053, "198.51.100.7");
        insert(1005, "10.96.0.10", 54, "10.244.0.2");
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1"]));
        rig.until("the stale flows are ended", || flows() == [1001, 1004, 1005]);
    });
}

#[test]
fn connections_end_with_their_endpoint_and_not_before() {
    Ground::with(|ground| {
        let listener = TcpListener::bind("127.0.0.1:8080").expect("the port is free");
        let rig = Rig::new(ground);
        rig.api.put(service("web", "10.96.0.10", 80, "TCP"));
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let cgroup = ground.paths.cgroup.join("cgroup.procs");
        let connect = |to: &str| {
            let line = format!("echo $$ > {}; exec 3<>/dev/tcp/{to}; exec cat <&3", cgroup.display());
            let client = command::start("bash", ["-c", &line]).expect("bash starts");
            (client, listener.accept().expect("it connects"))
        };
        let (mut by_service, _held) = connect("10.96.0.10/80");
        let (mut direct, _held_too) = connect("127.0.0.1/8080");
        let mut leaving = slice("web", "web-1", 8080, "TCP", &["127.0.0.1"]);
        leaving["endpoints"][0]["conditions"] = serde_json::json!({ "ready": false, "serving": false });
        rig.api.put(leaving);
        rig.until("no backend", || rig.backends().is_empty());
        std::thread::sleep(std::time::Duration::from_secs(3));
        assert!(by_service.try_wait().expect("a child").is_none(), "an endpoint that is not ready may finish");
        rig.api.put(slice("web", "web-1", 8080, "TCP", &["127.0.0.2"]));
        rig.until("the connection ends", || by_service.try_wait().expect("a child").is_some());
        assert!(direct.try_wait().expect("a child").is_none(), "nobody has translated this one");
        direct.kill().expect("it can be killed");
        direct.wait().expect("it ends");
    });
}

#[test]
fn sockets_whose_backend_has_gone_are_closed_and_no_others() {
    Ground::with(|ground| {
        let (_a, _b) = (Server::start("a", "127.0.0.1:8080"), Server::start("b", "127.0.0.2:8080"));
        let rig = Rig::new(ground);
        rig.api.put(service("dns", "10.96.0.10", 53, "UDP"));
        rig.api.put(slice("dns", "dns-1", 8080, "UDP", &["127.0.0.1"]));
        let _agent = rig.start();
        rig.until_healthy();
        let mut client = ground.agent();
        for (name, to) in [("service", "10.96.0.10:53"), ("direct", "127.0.0.1:8080")] {
            client.ask(format!("udp {name} 0.0.0.0:0"));
            assert_eq!(client.ask(format!("connect {name} {to}")), "ok");
            assert!(client.ask(format!("exchange {name}")).contains(" a "));
        }
        rig.api.put(slice("dns", "dns-1", 8080, "UDP", &["127.0.0.2"]));
        rig.until("the socket is closed", || rig.log().contains("sockets closed whose backend has gone"));
        let told = client.ask("exchange service");
        assert!(
            told == format!("err {}", libc::EDESTADDRREQ) || told == format!("err {}", libc::ECONNABORTED),
            "{told}"
        );
        assert!(client.ask("exchange direct").contains(" a "), "nobody has translated this one");
        client.ask("close service");
        client.ask("udp service 0.0.0.0:0");
        client.ask("connect service 10.96.0.10:53");
        assert!(client.ask("exchange service").contains(" b "));
    });
}
