//! Whether kube-proxy's rules stand, what the programs are told of it, and what stays with the rules.

use kpx::capture::command;
use kpx::inspect::standing::{Standing, standing};
use kpx::model::Family;

use super::api::{service, slice};
use super::rig::{Rig, metrics};
use crate::dataplane::ground::Ground;

fn run(line: &str) {
    let (program, args) = line.split_once(' ').expect("a command");
    command::output(program, args.split(' '), None).unwrap_or_else(|error| panic!("{line}: {error}"));
}

/// Tables that the kernel has in this namespace, of every kind.
fn tables() -> String {
    let read = |path: &str| fs_err::read_to_string(path).unwrap_or_default();
    let nft = command::output("nft", ["list", "tables"], None).expect("nft lists");
    let legacy = ["ip_tables_names", "ip6_tables_names"].map(|name| read(&format!("/proc/thread-self/net/{name}")));
    String::from_utf8(nft).expect("text") + &legacy.concat()
}

#[test]
fn rules_are_found_wherever_they_stand_and_asking_makes_nothing() {
    Ground::with(|_| {
        let empty = tables();
        assert_eq!(standing().expect("the kernel tells"), []);
        assert_eq!(tables(), empty);
        for (make, unmake, expected) in [
            ("iptables-nft -t nat -N KUBE-SERVICES", "iptables-nft -t nat -X KUBE-SERVICES", Standing::Nft(Family::V4)),
            (
                "ip6tables-nft -t nat -N KUBE-SERVICES",
                "ip6tables-nft -t nat -X KUBE-SERVICES",
                Standing::Nft(Family::V6),
            ),
            (
                "iptables-legacy -t nat -N KUBE-SERVICES",
                "iptables-legacy -t nat -X KUBE-SERVICES",
                Standing::Legacy(Family::V4),
            ),
            (
                "ip6tables-legacy -t nat -N KUBE-SERVICES",
                "ip6tables-legacy -t nat -X KUBE-SERVICES",
                Standing::Legacy(Family::V6),
            ),
            ("nft add table ip kube-proxy", "nft delete table ip kube-proxy", Standing::Nftables(Family::V4)),
            ("nft add table ip6 kube-proxy", "nft delete table ip6 kube-proxy", Standing::Nftables(Family::V6)),
        ] {
            run(make);
            assert_eq!(standing().expect("the kernel tells"), [expected], "{make}");
            run(unmake);
            // The tables stay, and chains of others in them are none of kube-proxy's.
            assert_eq!(standing().expect("the kernel tells"), [], "{unmake}");
        }
        run("iptables-nft -t nat -N KUBE-SERVICES-OF-OTHERS");
        run("iptables-legacy -t nat -N MY-KUBE-SERVICE");
        assert_eq!(standing().expect("the kernel tells"), []);
    });
}

#[test]
fn programs_refuse_only_where_no_rules_do() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        run("iptables-nft -t nat -N KUBE-SERVICES");
        let _agent = rig.start();
        rig.until_healthy();
        let gone = || {
            let options = &rig.dump("kpx_config")[0]["formatted"]["value"]["options"];
            options.as_u64().or_else(|| options["__0"].as_u64()).map(|bits| bits & 1)
        };
        assert!(metrics().contains("kpx_rules_stand 1"));
        assert_eq!(gone(), Some(0), "{:?}", rig.dump("kpx_config"));
        run("iptables-nft -t nat -X KUBE-SERVICES");
        rig.until("they are gone", || gone() == Some(1));
        rig.until("it is told", || metrics().contains("kpx_rules_stand 0"));
        run("iptables-nft -t nat -N KUBE-SERVICES");
        rig.until("they are back", || gone() == Some(0));
    });
}

/// Flows of datagrams that the rules carried before stay theirs, at sockets and at devices.
#[test]
fn flows_of_standing_rules_stay_with_them() {
    Ground::with(|ground| {
        let rig = Rig::new(ground);
        run("iptables-nft -t nat -N KUBE-SERVICES");
        rig.api.put(service("dns", "10.96.0.10", 53, "UDP"));
        rig.api.put(slice("dns", "dns-1", 53, "UDP", &["10.244.0.1"]));
        let flow = |port: u16, to: &str| {
            run(&format!(
                "conntrack -I -p udp -t 60 -s 10.2.0.9 -d {to} --sport {port} --dport 53 \
                 --reply-src 10.244.0.1 --reply-dst 10.2.0.9 --reply-port-src 53 --reply-port-dst {port}"
            ));
        };
        flow(1000, "10.96.0.10");
        flow(1001, "10.96.0.77");
        let _agent = rig.start();
        rig.until_healthy();
        assert_eq!(rig.dump("kpx_yield").len(), 1, "{:?}", rig.dump("kpx_yield"));
        let flows = rig.dump("kpx_conntrack");
        let left: Vec<_> = flows.iter().filter(|flow| flow["formatted"]["value"]["role"] == 5).collect();
        assert_eq!(left.len(), 1, "{flows:?}");
        assert_eq!(left[0]["formatted"]["key"]["sport"].as_u64(), Some(u64::from(1000_u16.to_be())));
        assert!(rig.log().contains("their flows of datagrams stay theirs"));
        rig.until("maps are counted", || {
            let text = metrics();
            text.contains("kpx_map_entries{map=\"kpx_conntrack\"} 1\n")
                && text.contains("kpx_map_entries{map=\"kpx_yield\"} 1\n")
                && text.contains("kpx_map_entries{map=\"kpx_backends\"} 1\n")
                && text.contains("kpx_map_size{map=\"kpx_conntrack\"} 524288\n")
        });
    });
}
