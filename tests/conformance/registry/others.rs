//! Tests of Services elsewhere in Kubernetes' list.

use super::super::behaviour::Place::{Outside, PodA, PodB};
use super::super::behaviour::Source::Client;
use super::super::behaviour::Step::{Again, Become, Open};
use super::super::behaviour::To::{ClusterIp, Pod};
use super::super::behaviour::{Behaviour, Section, answers, tcp, udp};
use super::super::edit::Edit;
use super::super::probe::How;
use super::super::state::State::{Edited, Replay};

fn new(id: &'static str, tests: &'static [&'static str], says: &'static str) -> Behaviour {
    Behaviour::new(id, Section::Others, tests, says)
}

pub(super) fn behaviours() -> Vec<Behaviour> {
    vec![
        new(
            "no-snat",
            &["NoSNAT should be able to send traffic between Pods without SNAT"],
            "pods speak as themselves",
        )
        .step(tcp(PodA, Pod("a11")).answers("a11", Client))
        .step(tcp(PodA, Pod("b11")).answers("b11", Client))
        .step(tcp(Outside, Pod("a11")).answers("a11", Client)),
        new(
            "same-zone",
            &["Traffic Distribution: PreferClose", "PreferSameZone"],
            "endpoints of the node's zone are preferred",
        )
        .step(tcp(PodA, ClusterIp("data/zonal:http")).answers("a30 a31 c30 c31", Client))
        .step(tcp(PodA, ClusterIp("data/zonal-close:http")).answers("a30 a31 c30 c31", Client))
        .step(tcp(PodA, ClusterIp("data/topology-auto:http")).answers("a30 a31 c30 c31", Client)),
        new("same-node", &["Traffic Distribution: PreferSameNode"], "endpoints of the node are preferred")
            .step(tcp(PodA, ClusterIp("data/same-node:http")).answers("a30 a31", Client)),
        new(
            "zone-changes",
            &["Traffic Distribution: PreferSameZone"],
            "a node that changes its zone prefers the new one",
        )
        .step(Become(Replay(17)))
        .step(tcp(PodA, ClusterIp("data/zonal:http")).answers("a30 a31 c30 c31", Client))
        .step(Become(Replay(18)))
        .step(tcp(PodA, ClusterIp("data/zonal:http")).answers("b30 b31", Client)),
        new(
            "hints-other-node",
            &["Traffic Distribution: PreferSameZone", "PreferSameNode"],
            "a node of another zone prefers that one, and itself",
        )
        .step(Become(Edited(Edit::Nothing)))
        .step(tcp(PodB, ClusterIp("data/zonal:http")).answers("b30 b31", Client))
        .step(tcp(PodB, ClusterIp("data/same-node:http")).answers("b30 b31", Client)),
        new("no-hints", &["Traffic Distribution: fallback"], "without hints every endpoint is used")
            .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11", Client)),
        new(
            "udp-client-moves",
            &["conntrack: UDP client to ClusterIP Service when the backend pod is replaced"],
            "a client with a fixed source port moves to the new pod",
        )
        .step(Become(Edited(Edit::DnsAt("a12"))))
        .step(Open("flow", udp(PodA, ClusterIp("kube-system/kube-dns:dns")).port(20_053).answers("a12:53", Client)))
        .step(Become(Edited(Edit::DnsAt("b12"))))
        .step(Again("flow", answers("b12:53", Client))),
        new(
            "connected-udp-client-moves",
            &["conntrack: UDP client to ClusterIP Service when the backend pod is replaced"],
            "the same for a connected socket; that of kpx fails, and its owner connects again",
        )
        .step(Become(Edited(Edit::DnsAt("a12"))))
        .step(Open(
            "flow",
            udp(PodA, ClusterIp("kube-system/kube-dns:dns")).how(How::UdpConnected).answers("a12:53", Client),
        ))
        .step(Become(Edited(Edit::DnsAt("b12"))))
        .step(Again("flow", answers("b12:53", Client))),
    ]
}
