//! `[sig-network] Services should …`

use kpx::model::Family;

use super::super::behaviour::Place::{NodeA, NodeB, Outside, Own, PodA, PodB};
use super::super::behaviour::Source::{Client, Node};
use super::super::behaviour::Step::{Again, Become, Forgets, Open, Programmed, Restart};
use super::super::behaviour::To::{ClusterIp, External, LoadBalancer, Loopback, NodePort};
use super::super::behaviour::{Behaviour, Expect, Node as At, Section, answers, tcp, udp};
use super::super::edit::Edit;
use super::super::probe::How;
use super::super::state::State::{Edited, Node as Recorded, Replay};
use super::AT_SOCKETS;

const EPERM: i32 = 1;

fn new(id: &'static str, tests: &'static [&'static str], says: &'static str) -> Behaviour {
    Behaviour::new(id, Section::Services, tests, says)
}

pub(super) fn behaviours() -> Vec<Behaviour> {
    [cluster_ip(), changes(), exposed(), unready(), affinity(), labels(), refused(), local(), ports()].concat()
}

fn cluster_ip() -> Vec<Behaviour> {
    vec![
        new(
            "cluster-ip",
            &["serve a basic endpoint from pods", "provide secure master service"],
            "every ready endpoint answers pods of both nodes and the nodes",
        )
        .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11", Client))
        .step(tcp(PodB, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11", Client))
        .step(tcp(NodeA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11", Node))
        .step(tcp(NodeB, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11", Node)),
        new("multiport", &["serve multiport endpoints from pods"], "each port leads to its own target port")
            .step(tcp(PodA, ClusterIp("shop/frontend-dual:https")).answers("a11:8443 b11:8443 c11:8443", Client))
            .step(tcp(PodA, ClusterIp("shop/cart:http")).answers("a22 b22", Client))
            .step(tcp(PodA, ClusterIp("shop/cart:grpc")).answers("a22:9090 b22:9090", Client)),
        new(
            "source-kept",
            &["preserve source pod IP for traffic thru service cluster IP"],
            "address and port of a pod reach endpoints of both nodes unchanged",
        )
        .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client))
        .step(tcp(PodA, ClusterIp("edge/np:http")).port(20_001).answers("a13 b13", Client))
        .step(udp(PodA, ClusterIp("kube-system/kube-dns:dns")).port(20_002).answers("a12:53 b12:53", Client)),
        new("hairpin", &["allow pods to hairpin back to themselves through services"], "a pod reaches itself").step(
            tcp(Own, ClusterIp("edge/np:http"))
                .expect(Expect::Answers(vec![("a13", Node), ("b13", Client)]))
                .by_design(answers("a13 b13", Client), AT_SOCKETS),
        ),
    ]
}

fn changes() -> Vec<Behaviour> {
    vec![
        new(
            "endpoints-follow",
            &["serve a basic endpoint from pods"],
            "a pod that turns unready gets no new connection, and one again when it is ready",
        )
        .step(Become(Replay(2)))
        .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11 c50", Client))
        .step(Become(Replay(3)))
        .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 c11 c50", Client))
        .step(Become(Replay(4)))
        .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11 c50", Client)),
        new(
            "ports-updated",
            &["be updated after adding or deleting ports"],
            "a port that moves answers at the new number and no longer at the old one",
        )
        .step(Become(Replay(4)))
        .step(tcp(PodA, ClusterIp("shop/cart:https")).answers("a22:8443 b22:8443 c22:8443", Client))
        .step(Become(Replay(5)))
        .step(tcp(PodA, ClusterIp("shop/cart:https")).answers("a22:8443 b22:8443 c22:8443", Client))
        .step(tcp(PodA, ClusterIp("shop/cart:https")).before().expect(Expect::Unserved).by_design(
            Expect::Refused,
            "iptables rules send another port of a ClusterIP on; kpx refuses it, as kube-proxy's nftables mode does",
        )),
        new(
            "up-and-down",
            &["be able to up and down services", "work after the service has been recreated"],
            "a removed Service stops answering, others go on, and it answers again when it is recreated",
        )
        .step(Become(Replay(10)))
        .step(Open("other", tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client)))
        .step(Become(Replay(11)))
        .step(tcp(PodA, ClusterIp("shop-staging/frontend:http")).before().expect(Expect::Unserved))
        .step(tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11 c50", Client))
        .step(Again("other", answers("a13 b13", Client)))
        .step(Become(Replay(12)))
        .step(tcp(PodA, ClusterIp("shop-staging/frontend:http")).answers("b21 c21", Client))
        .step(Again("other", answers("a13 b13", Client))),
        new(
            "restart",
            &["work after restarting kube-proxy", "work after restarting apiserver"],
            "flows and new connections go on while the proxy, or the API, is gone and comes back",
        )
        .step(Become(Recorded))
        .step(Open("flow", tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client)))
        .step(Open("datagrams", udp(PodA, ClusterIp("kube-system/kube-dns:dns")).answers("a12:53 b12:53", Client)))
        .step(Restart)
        .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client))
        .step(Become(Recorded))
        .step(Again("flow", answers("a13 b13", Client)))
        .step(Again("datagrams", answers("a12:53 b12:53", Client)))
        .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client)),
        new(
            "external-name-to-cluster-ip",
            &["be able to change the type from ExternalName to ClusterIP"],
            "the new ClusterIP is served",
        )
        .step(Become(Replay(14)))
        .step(tcp(PodA, ClusterIp("data/external-name-with-port:pg")).answers("a30 a31 b30 b31 c30 c31", Client)),
        new(
            "external-name-to-node-port",
            &["be able to change the type from ExternalName to NodePort"],
            "ClusterIP and NodePort open",
        )
        .step(Become(Edited(Edit::ExternalNameToNodePort)))
        .step(tcp(PodA, ClusterIp("data/external-name-with-port:pg")).answers("b33:5432", Client))
        .step(tcp(Outside, NodePort("data/external-name-with-port:pg", At::A)).answers("b33:5432", Node)),
        new(
            "to-external-name",
            &[
                "be able to change the type from ClusterIP to ExternalName",
                "be able to change the type from NodePort to ExternalName",
                "release NodePorts on delete",
            ],
            "ClusterIP and NodePort stop",
        )
        .step(Become(Edited(Edit::NodePortToExternalName)))
        .step(tcp(PodA, ClusterIp("edge/np:http")).before().expect(Expect::Unserved))
        .step(tcp(Outside, NodePort("edge/np:http", At::A)).before().expect(Expect::Refused)),
    ]
}

fn exposed() -> Vec<Behaviour> {
    vec![
        new(
            "node-port",
            &["be able to create a functioning NodePort service"],
            "every node's address answers the outside, and the ClusterIP the pods",
        )
        .step(tcp(Outside, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
        .step(tcp(Outside, NodePort("edge/np:http", At::B)).answers("a13 b13", Node))
        .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client)),
        new(
            "external-ip",
            &["be possible to connect to a service via ExternalIP when the external IP is not assigned to a node"],
            "an external IP leads pods and the node to the endpoints",
        )
        .step(
            tcp(PodA, External("edge/ext-ip:http"))
                .answers("a13 b13", Node)
                .by_design(answers("a13 b13", Client), AT_SOCKETS),
        )
        .step(tcp(NodeA, External("edge/ext-ip:http")).answers("a13 b13", Node)),
        new(
            "external-ip-outside",
            &["be possible to connect to a service via ExternalIP when the external IP is not assigned to a node"],
            "and the outside",
        )
        .step(tcp(Outside, External("edge/ext-ip:http")).answers("a13 b13", Node)),
        new(
            "node-port-both-protocols",
            &["be able to update service type to NodePort listening on same port number but different protocols"],
            "TCP and UDP on one NodePort number are two ports",
        )
        .step(tcp(Outside, NodePort("edge/sip:sip-tcp", At::A)).answers("a25:5060 b25:5060", Node))
        .step(udp(Outside, NodePort("edge/sip:sip", At::A)).answers("a25:5060 b25:5060", Node)),
        new("node-port-on-loopback", &["localhost NodePorts"], "the node reaches NodePorts at 127.0.0.1")
            .only(Family::V4)
            .step(tcp(NodeA, Loopback("edge/np:http")).answers("a13 b13", Node)),
        new("node-port-on-loopback-v6", &["localhost NodePorts"], "and not at ::1, where nothing listens")
            .only(Family::V6)
            .step(tcp(NodeA, Loopback("edge/np:http")).expect(Expect::Refused)),
    ]
}

fn unready() -> Vec<Behaviour> {
    vec![
        new(
            "publish-not-ready",
            &[
                "create endpoints for unready pods",
                "be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is true",
            ],
            "unready pods are served where publishNotReadyAddresses says so",
        )
        .step(tcp(PodA, ClusterIp("data/db-notready-ok:pg")).answers("a33:5432 b33:5432", Client)),
        new(
            "not-ready-left-out",
            &["not be able to connect to terminating and unready endpoints if PublishNotReadyAddresses is false"],
            "unready pods get nothing, though they listen",
        )
        .step(tcp(PodA, ClusterIp("data/db-ready-only:pg")).answers("a33:5432", Client)),
        new(
            "terminating-cluster",
            &["fallback to terminating endpoints when there are no ready endpoints with internalTrafficPolicy=Cluster"],
            "serving endpoints that terminate are used when there are no others",
        )
        .step(tcp(PodA, ClusterIp("data/draining:http")).answers("a26 a27 b26 b27", Client)),
        new(
            "terminating-local",
            &[
                "fallback to local terminating endpoints when there are no ready endpoints with \
                 externalTrafficPolicy=Local",
            ],
            "with a Local policy, those of this node",
        )
        .step(tcp(Outside, NodePort("data/draining:http", At::A)).answers("a26 a27", Client)),
        new(
            "terminating-cluster-exposed",
            &["fallback to terminating endpoints when there are no ready endpoints with externallTrafficPolicy=Cluster"],
            "at a NodePort too",
        )
        .step(Become(Edited(Edit::DrainingTheOtherWay)))
        .step(tcp(Outside, NodePort("data/draining:http", At::A)).answers("a26 a27 b26 b27", Node)),
        new(
            "terminating-local-internal",
            &[
                "fallback to local terminating endpoints when there are no ready endpoints with \
                 internalTrafficPolicy=Local",
            ],
            "with a Local policy at the ClusterIP, those of this node",
        )
        .step(Become(Edited(Edit::DrainingTheOtherWay)))
        .step(tcp(PodA, ClusterIp("data/draining:http")).answers("a26 a27", Client)),
        new(
            "terminating-dead",
            &["be rejected for evicted pods (no endpoints exist)"],
            "endpoints that terminate and no longer serve are none",
        )
        .step(tcp(PodA, ClusterIp("data/draining-dead:http")).expect(Expect::Refused)),
    ]
}

fn affinity() -> Vec<Behaviour> {
    vec![
        new(
            "affinity",
            &["have session affinity work for service with type clusterIP"],
            "a client meets the same endpoint again",
        )
        .step(tcp(PodA, ClusterIp("shop/session:http")).expect(Expect::OneOf("a14 b14", Client)))
        .step(tcp(NodeA, ClusterIp("shop/session:http")).expect(Expect::OneOf("a14 b14", Node))),
        new(
            "affinity-node-port",
            &["have session affinity work for service with type NodePort"],
            "a client outside meets the same endpoint again",
        )
        .step(tcp(Outside, NodePort("shop/session-short:http", At::A)).expect(Expect::OneOf("a14 b14", Node))),
        new(
            "affinity-switched",
            &[
                "be able to switch session affinity for service with type clusterIP",
                "be able to switch session affinity for service with type NodePort",
            ],
            "affinity that is switched off holds nobody any more",
        )
        .step(Become(Replay(12)))
        .step(tcp(PodA, ClusterIp("shop/session:http")).expect(Expect::OneOf("a14 b14", Client)))
        .step(Become(Replay(13)))
        .step(tcp(PodA, ClusterIp("shop/session:http")).answers("a14 b14", Client))
        .step(Become(Replay(12)))
        .step(tcp(PodA, ClusterIp("shop/session:http")).expect(Expect::OneOf("a14 b14", Client))),
        new(
            "affinity-ends",
            &["have session affinity timeout work for service with type clusterIP"],
            "a client that was silent for longer than timeoutSeconds may meet another endpoint",
        )
        .step(Become(Edited(Edit::ShortAffinity)))
        .step(Forgets(tcp(PodA, ClusterIp("shop/session-short:http")).answers("a14 b14", Client))),
        new(
            "affinity-ends-node-port",
            &["have session affinity timeout work for service with type NodePort"],
            "the same from outside",
        )
        .step(Become(Edited(Edit::ShortAffinity)))
        .step(Forgets(tcp(Outside, NodePort("shop/session-short:http", At::A)).answers("a14 b14", Node))),
    ]
}

fn labels() -> Vec<Behaviour> {
    vec![
        new(
            "service-proxy-name",
            &["implement service.kubernetes.io/service-proxy-name"],
            "a Service of another proxy is not served, and is when the label goes",
        )
        .step(Become(Replay(14)))
        .step(tcp(PodA, ClusterIp("shop/itp-local:http")).answers("a11", Client))
        .step(Become(Replay(15)))
        .step(tcp(PodA, ClusterIp("shop/itp-local:http")).before().expect(Expect::Unserved))
        .step(Become(Replay(16)))
        .step(tcp(PodA, ClusterIp("shop/itp-local:http")).answers("a11", Client)),
        new(
            "headless-label",
            &["implement service.kubernetes.io/headless"],
            "since 1.36 the label counts at EndpointSlices: a Service that alone bears it is served",
        )
        .step(tcp(PodA, ClusterIp("data/headless-label:http")).answers("a30 a31 b30 b31 c30 c31", Client)),
    ]
}

fn refused() -> Vec<Behaviour> {
    vec![
        new("no-endpoints", &["be rejected when no endpoints exist"], "connections are refused at once, not dropped")
            .step(tcp(PodA, ClusterIp("data/no-endpoints:http")).expect(Expect::Refused))
            .step(tcp(NodeA, ClusterIp("data/no-endpoints:http")).expect(Expect::Refused)),
        new(
            "no-endpoints-udp",
            &["be rejected when no endpoints exist"],
            "datagrams are answered with port unreachable",
        )
        .step(udp(PodA, ClusterIp("data/no-endpoints:udp")).how(How::UdpConnected).expect(Expect::Refused))
        .step(udp(NodeA, ClusterIp("data/no-endpoints:udp")).expect(Expect::Error(EPERM))),
        new(
            "no-endpoints-exposed",
            &["be rejected when no endpoints exist"],
            "the same at NodePorts and load balancers' addresses",
        )
        .step(tcp(PodA, LoadBalancer("edge/lb-empty:http")).expect(Expect::Refused))
        .step(tcp(NodeA, LoadBalancer("edge/lb-empty:http")).expect(Expect::Unserved).by_design(
            Expect::Refused,
            "iptables rules look at what comes in, not at the node's own traffic to a load balancer's address, and send \
             it on; kpx refuses it, as kube-proxy's nftables mode does",
        ))
        .step(tcp(NodeA, NodePort("data/no-endpoints-np:http", At::A)).expect(Expect::Refused)),
        new("no-endpoints-outside", &["be rejected when no endpoints exist"], "for the outside too")
            .step(tcp(Outside, LoadBalancer("edge/lb-empty:http")).expect(Expect::Refused))
            .step(tcp(Outside, NodePort("data/no-endpoints-np:http", At::A)).expect(Expect::Refused)),
        new(
            "evicted",
            &["be rejected for evicted pods (no endpoints exist)"],
            "when the last endpoint goes, connections are refused",
        )
        .step(Become(Replay(8)))
        .step(tcp(PodA, ClusterIp("data/single:http")).answers("b41", Client))
        .step(Become(Replay(9)))
        .step(tcp(PodA, ClusterIp("data/single:http")).expect(Expect::Refused)),
    ]
}

fn local() -> Vec<Behaviour> {
    vec![
        new(
            "internal-local",
            &["respect internalTrafficPolicy=Local Pod to Pod"],
            "only the endpoint of the same node answers",
        )
        .step(tcp(PodA, ClusterIp("shop/itp-local:http")).answers("a11", Client)),
        new(
            "internal-local-other-node",
            &["respect internalTrafficPolicy=Local Pod to Pod"],
            "on the other node, the endpoint that is there",
        )
        .step(Become(Edited(Edit::Nothing)))
        .step(tcp(PodB, ClusterIp("shop/itp-local:http")).answers("b11", Client))
        .step(tcp(PodB, ClusterIp("shop-staging/itp-local-none-here:http")).answers("b21", Client)),
        new(
            "internal-local-none-here",
            &["respect internalTrafficPolicy=Local Pod to Pod"],
            "without one nothing does, to pods and to the node",
        )
        .step(tcp(NodeA, ClusterIp("shop-staging/itp-local-none-here:http")).expect(Expect::Silence))
        .step(tcp(PodA, ClusterIp("shop-staging/itp-local-none-here:http")).expect(Expect::Silence)),
        new(
            "internal-local-host",
            &["respect internalTrafficPolicy=Local Pod (hostNetwork: true) to Pod"],
            "the same from the node's own network",
        )
        .step(tcp(NodeA, ClusterIp("shop/itp-local:http")).answers("a11", Node)),
        new(
            "internal-local-to-host",
            &["respect internalTrafficPolicy=Local Pod and Node, to Pod (hostNetwork: true)"],
            "the same to an endpoint in the node's own network",
        )
        .step(tcp(PodA, ClusterIp("kube-system/node-exporter:metrics")).answers("node-a:9100", Client))
        .step(tcp(NodeA, ClusterIp("kube-system/node-exporter:metrics")).answers("node-a:9100", Node)),
    ]
}

fn ports() -> Vec<Behaviour> {
    vec![
        new(
            "both-protocols",
            &[
                "serve endpoints on same port and different protocols",
                "serve endpoints on same port and different protocol for internal traffic on Type LoadBalancer",
            ],
            "TCP and UDP on one port number are two ports",
        )
        .step(tcp(PodA, ClusterIp("kube-system/kube-dns:dns-tcp")).answers("a12:53 b12:53", Client))
        .step(udp(PodA, ClusterIp("kube-system/kube-dns:dns")).answers("a12:53 b12:53", Client)),
        new(
            "sctp",
            &["allow creating a basic SCTP service with pod and endpoints"],
            "an SCTP Service is programmed (nothing is sent, the test kernel has no SCTP)",
        )
        .step(Programmed(ClusterIp("edge/diameter:diameter")))
        .step(Programmed(NodePort("edge/diameter:diameter", At::A))),
        new(
            "named-target-ports",
            &["support named targetPorts that resolve to different ports on different endpoints"],
            "each endpoint is reached at its own port number",
        )
        .only(Family::V4)
        .step(tcp(PodA, ClusterIp("data/manual:http")).answers("a22 192.0.2.80 a22:8081 b22:8081", Client)),
    ]
}
