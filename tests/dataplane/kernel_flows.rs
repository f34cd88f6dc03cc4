//! UDP flows that the kernel's conntrack translated before the switch, with the rule that kube-proxy would have and what
//! the server sees as the judge.

use std::time::Duration;

use kpx::capture::command;
use kpx::dataplane::{KernelFlow, Mode, Reason};
use kpx::model::Protocol;

use super::agent::Agent;
use super::ground::{Ground, cluster_ip, table};
use super::server::Server;

/// Port of the client as the server saw it.
fn seen_port(answer: &str) -> u16 {
    assert!(answer.starts_with("ok from=10.96.0.10:53 a "), "{answer}");
    answer.rsplit(':').next().and_then(|port| port.parse().ok()).expect("the server says whom it sees")
}

/// The port of a new socket that has sent to the frontend through the kernel's rule.
fn kernel_flow(client: &mut Agent, name: &str) -> u16 {
    client.ask(format!("udp {name} 0.0.0.0:0"));
    seen_port(&client.ask(format!("send {name} 10.96.0.10:53")))
}

/// The kernel's UDP flows to the frontend, as conntrack lists them.
fn conntrack() -> Vec<KernelFlow> {
    let text = command::output("conntrack", ["-L", "-p", "udp", "-d", "10.96.0.10"], None).expect("conntrack lists");
    let text = String::from_utf8(text).expect("it is text");
    let flow = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let source = words.iter().find_map(|word| word.strip_prefix("sport="))?;
        Some(KernelFlow {
            frontend: "10.96.0.10:53".parse().ok()?,
            source_port: source.parse().ok()?,
            expires_in: Duration::from_secs(words.get(2)?.parse().ok()?),
        })
    };
    text.lines().filter_map(flow).collect()
}

#[test]
fn a_flow_of_the_kernel_keeps_its_port_and_one_that_is_not_left_alone_does_not() {
    Ground::with(|ground| {
        for program in ["iptables", "conntrack"] {
            if command::run(program, ["--version"], None).is_err() {
                println!("skipped: no {program}");
                return;
            }
        }
        ground.route_frontends();
        let _server = Server::start("a", "10.2.0.1:8080");
        let rule = "-t nat -A OUTPUT -d 10.96.0.10 -p udp --dport 53 -j DNAT --to-destination 10.2.0.1:8080";
        command::output("iptables", rule.split(' '), None).unwrap();
        let mut client = ground.agent();
        let before = kernel_flow(&mut client, "before");
        let stubborn = kernel_flow(&mut client, "stubborn");

        let services = table([cluster_ip("10.96.0.10:53", Protocol::Udp, &["10.2.0.1:8080"])]);
        let mut dataplane = ground.dataplane(&services, Mode::Shadow);
        let during = kernel_flow(&mut client, "during");
        let mut flows = conntrack();
        for port in [before, stubborn, during] {
            assert!(flows.iter().any(|flow| flow.source_port == port), "conntrack has {port}: {flows:?}");
        }
        // What the test is about, left out for one flow: the trap is real.
        flows.retain(|flow| flow.source_port != stubborn);
        dataplane.yield_to(&flows).unwrap();
        dataplane.set_yield_time(Duration::from_mins(2)).unwrap();
        dataplane.set_mode(Mode::Active).unwrap();

        for _ in 0..3 {
            assert_eq!(seen_port(&client.ask("send before 10.96.0.10:53")), before);
            assert_eq!(seen_port(&client.ask("send during 10.96.0.10:53")), during);
        }
        assert_eq!(dataplane.counters().unwrap().of(Reason::Yielded), 6);
        assert_ne!(seen_port(&client.ask("send stubborn 10.96.0.10:53")), stubborn, "two translators on one flow");

        client.ask("udp after 0.0.0.0:0");
        let after = seen_port(&client.ask("send after 10.96.0.10:53"));
        assert!(!conntrack().iter().any(|flow| flow.source_port == after), "translated before conntrack sees it");
        // And back: the flow that is ours stays ours, and keeps its port, until nobody uses it.
        dataplane.set_mode(Mode::Drain).unwrap();
        assert_eq!(seen_port(&client.ask("send after 10.96.0.10:53")), after);
        assert_eq!(seen_port(&client.ask("send before 10.96.0.10:53")), before);
    });
}
