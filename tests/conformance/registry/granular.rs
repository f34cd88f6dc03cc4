//! `[sig-network] Networking Granular Checks: Services should …`

use super::super::behaviour::Place::{NodeA, Outside, Own, PodA, Unseen, UnseenOwn};
use super::super::behaviour::Source::{Client, Node};
use super::super::behaviour::Step::{Again, Become, Open};
use super::super::behaviour::To::{ClusterIp, External, LoadBalancer, NodePort};
use super::super::behaviour::{Behaviour, Expect, Node as At, Section, answers, tcp, udp};
use super::super::edit::Edit;
use super::super::probe::How;
use super::super::state::State::{Edited, Replay};
use super::AT_SOCKETS;

fn new(id: &'static str, tests: &'static [&'static str], says: &'static str) -> Behaviour {
    Behaviour::new(id, Section::Granular, tests, says)
}

pub(super) fn behaviours() -> Vec<Behaviour> {
    [who(), unseen(), updates(), rest()].concat()
}

fn who() -> Vec<Behaviour> {
    vec![
        new("pod-service-http", &["function for pod-Service: http"], "a pod reaches all endpoints of a ClusterIP")
            .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client)),
        new("pod-node-port-http", &["function for pod-Service: http"], "a pod reaches all endpoints of a NodePort")
            .step(
                tcp(PodA, NodePort("edge/np:http", At::A))
                    .answers("a13 b13", Node)
                    .by_design(answers("a13 b13", Client), AT_SOCKETS),
            ),
        new("pod-other-node-port", &["function for pod-Service: http"], "and of the other node's")
            .step(tcp(PodA, NodePort("edge/np:http", At::B)).answers("a13 b13", Node)),
        new("pod-service-udp", &["function for pod-Service: udp"], "the same with datagrams, connected or not")
            .step(udp(PodA, ClusterIp("edge/sip:sip")).answers("a25:5060 b25:5060", Client))
            .step(udp(PodA, ClusterIp("edge/sip:sip")).how(How::UdpConnected).answers("a25:5060 b25:5060", Client)),
        new("pod-node-port-udp", &["function for pod-Service: udp"], "and at the NodePort").step(
            udp(PodA, NodePort("edge/sip:sip", At::A))
                .answers("a25:5060 b25:5060", Node)
                .by_design(answers("a25:5060 b25:5060", Client), AT_SOCKETS),
        ),
        new("node-service-http", &["function for node-Service: http"], "the node reaches all endpoints of a ClusterIP")
            .step(tcp(NodeA, ClusterIp("edge/np:http")).answers("a13 b13", Node)),
        new("node-node-port-http", &["function for node-Service: http"], "and of its NodePort")
            .step(tcp(NodeA, NodePort("edge/np:http", At::A)).answers("a13 b13", Node)),
        new("node-other-node-port", &["function for node-Service: http"], "and of the other node's")
            .step(tcp(NodeA, NodePort("edge/np:http", At::B)).answers("a13 b13", Node)),
        new("node-service-udp", &["function for node-Service: udp"], "the same with datagrams")
            .step(udp(NodeA, ClusterIp("edge/sip:sip")).answers("a25:5060 b25:5060", Node))
            .step(udp(NodeA, ClusterIp("edge/sip:sip")).how(How::UdpConnected).answers("a25:5060 b25:5060", Node)),
        new("node-node-port-udp", &["function for node-Service: udp"], "and at the NodePort")
            .step(udp(NodeA, NodePort("edge/sip:sip", At::A)).answers("a25:5060 b25:5060", Node)),
        new("endpoint-service", &["function for endpoint-Service: http"], "an endpoint reaches all, itself among them")
            .step(
                tcp(Own, ClusterIp("edge/ext-ip:http"))
                    .expect(Expect::Answers(vec![("a13", Node), ("b13", Client)]))
                    .by_design(answers("a13 b13", Client), AT_SOCKETS),
            ),
        new(
            "same-selector",
            &["function for multiple endpoint-Services with same selector"],
            "several Services lead to the same pods",
        )
        .step(tcp(PodA, ClusterIp("edge/np:http")).answers("a13 b13", Client))
        .step(tcp(PodA, ClusterIp("edge/np-local:http")).answers("a13 b13", Client))
        .step(tcp(PodA, ClusterIp("edge/lb-vip:http")).answers("a13 b13", Client)),
        new(
            "host-network-endpoints",
            &["function for service endpoints using hostNetwork"],
            "endpoints in the node's own network answer",
        )
        .step(tcp(PodA, ClusterIp("kube-system/node-exporter:metrics")).answers("node-a:9100", Client)),
    ]
}

/// Pods that are outside of the cgroup, as those of a sandboxed runtime are: nothing but their packets is seen.
fn unseen() -> Vec<Behaviour> {
    vec![
        new(
            "unseen-pod-service",
            &["function for pod-Service: http", "function for pod-Service: udp"],
            "a pod whose sockets no hook sees reaches all endpoints, as itself",
        )
        .step(tcp(Unseen, ClusterIp("edge/np:http")).answers("a13 b13", Client))
        .step(tcp(Unseen, ClusterIp("edge/np:http")).port(20_003).answers("a13 b13", Client))
        .step(udp(Unseen, ClusterIp("edge/sip:sip")).answers("a25:5060 b25:5060", Client))
        .step(udp(Unseen, ClusterIp("edge/sip:sip")).how(How::UdpConnected).answers("a25:5060 b25:5060", Client)),
        new(
            "unseen-pod-exposed",
            &["function for pod-Service: http", "function for pod-Service: udp"],
            "at NodePorts, external IPs and load balancers' addresses, as the node",
        )
        .step(tcp(Unseen, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
        .step(udp(Unseen, NodePort("edge/sip:sip", At::A)).answers("a25:5060 b25:5060", Node))
        .step(tcp(Unseen, External("edge/ext-ip:http")).answers("a13 b13", Node))
        .step(tcp(Unseen, LoadBalancer("edge/lb-vip:http")).answers("a13 b13", Node)),
        new("unseen-pod-local", &["ESIPP: work from pods"], "where the policy is Local, every endpoint, as itself")
            .step(tcp(Unseen, LoadBalancer("edge/lb-local:http")).answers("a13 b13", Client))
            .step(tcp(Unseen, NodePort("edge/np-local:http", At::A)).answers("a13 b13", Client)),
        new(
            "unseen-endpoint",
            &["function for endpoint-Service: http", "allow pods to hairpin back to themselves through services"],
            "an endpoint whose sockets no hook sees reaches itself, masqueraded, and the other as itself",
        )
        .step(tcp(UnseenOwn, ClusterIp("edge/np:http")).expect(Expect::Answers(vec![("a13", Node), ("b13", Client)]))),
        new("unseen-no-endpoints", &["be rejected when no endpoints exist"], "refused at once")
            .step(tcp(Unseen, ClusterIp("data/no-endpoints:http")).expect(Expect::Refused))
            .step(udp(Unseen, ClusterIp("data/no-endpoints:udp")).how(How::UdpConnected).expect(Expect::Refused)),
        new("unseen-affinity", &["function for client IP based session affinity: http"], "sticky")
            .step(tcp(Unseen, ClusterIp("shop/session-short:http")).expect(Expect::OneOf("a14 b14", Client)))
            .step(tcp(Unseen, NodePort("shop/session-short:http", At::A)).expect(Expect::OneOf("a14 b14", Node))),
        new(
            "unseen-large",
            &["be able to handle large requests: http", "be able to handle large requests: udp"],
            "300 kB over TCP and 8 kB in one datagram come back",
        )
        .step(tcp(Unseen, ClusterIp("edge/np:http")).how(How::TcpLarge).answers("a13 b13", Client))
        .step(udp(Unseen, ClusterIp("edge/sip:sip")).how(How::UdpLarge).answers("a25:5060 b25:5060", Client)),
        new("unseen-source-ranges", &["only allow access from service loadbalancer source ranges"], "dropped")
            .step(tcp(Unseen, LoadBalancer("edge/lb-sources-dual:http")).expect(Expect::Silence)),
        new("outside-cluster-ip", &[], "whoever routes a ClusterIP to a node from outside reaches it, as the node")
            .step(tcp(Outside, ClusterIp("edge/np:http")).answers("a13 b13", Node)),
    ]
}

fn updates() -> Vec<Behaviour> {
    vec![
        new("update-endpoints-http", &["update endpoints: http"], "a deleted pod gets no new connection")
            .step(Become(Replay(8)))
            .step(tcp(PodA, ClusterIp("data/single:http")).answers("b41", Client))
            .step(Become(Replay(9)))
            .step(tcp(PodA, ClusterIp("data/single:http")).expect(Expect::Refused)),
        new("update-endpoints-flow", &["update endpoints: http"], "a TCP flow to a pod that turns unready goes on")
            .step(Become(Replay(2)))
            .step(Open("flow", tcp(PodA, ClusterIp("shop/frontend-dual:http")).answers("a11 b11 c11 c50", Client)))
            .step(Become(Replay(3)))
            .step(Again("flow", answers("a11 b11 c11 c50", Client)))
            .step(Become(Replay(9)))
            .step(Again("flow", answers("a11 b11 c11 c50", Client))),
        new("update-endpoints-udp", &["update endpoints: udp"], "the endpoint that is gone gets no new datagram")
            .step(Become(Edited(Edit::DnsAt("a12"))))
            .step(udp(PodA, ClusterIp("kube-system/kube-dns:dns")).answers("a12:53", Client))
            .step(Become(Edited(Edit::DnsAt("b12"))))
            .step(udp(PodA, ClusterIp("kube-system/kube-dns:dns")).answers("b12:53", Client)),
        new("update-node-port-inside", &["update nodePort: http"], "a NodePort that moves is gone at the old number")
            .step(Become(Replay(5)))
            .step(tcp(NodeA, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
            .step(Become(Replay(6)))
            .step(tcp(NodeA, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
            .step(tcp(NodeA, NodePort("edge/np:http", At::A)).before().expect(Expect::Refused)),
        new("update-node-port-outside", &["update nodePort: http"], "for the outside too")
            .step(Become(Replay(5)))
            .step(tcp(Outside, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
            .step(Become(Replay(6)))
            .step(tcp(Outside, NodePort("edge/np:http", At::A)).answers("a13 b13", Node))
            .step(tcp(Outside, NodePort("edge/np:http", At::A)).before().expect(Expect::Refused)),
    ]
}

fn rest() -> Vec<Behaviour> {
    vec![
        new(
            "affinity-http",
            &["function for client IP based session affinity: http"],
            "sticky at ClusterIP and NodePort",
        )
        .step(tcp(PodA, ClusterIp("shop/session-short:http")).expect(Expect::OneOf("a14 b14", Client)))
        .step(tcp(NodeA, NodePort("shop/session-short:http", At::A)).expect(Expect::OneOf("a14 b14", Node))),
        new(
            "affinity-udp",
            &["function for client IP based session affinity: udp"],
            "datagrams of new sockets meet the same endpoint again",
        )
        .step(Become(Edited(Edit::DnsAffinity)))
        .step(udp(PodA, ClusterIp("kube-system/kube-dns:dns")).expect(Expect::OneOf("a12:53 b12:53", Client))),
        new("large-http", &["be able to handle large requests: http"], "300 kB come back as they were sent")
            .step(tcp(PodA, ClusterIp("edge/np:http")).how(How::TcpLarge).answers("a13 b13", Client))
            .step(tcp(NodeA, ClusterIp("edge/np:http")).how(How::TcpLarge).answers("a13 b13", Node)),
        new("large-udp", &["be able to handle large requests: udp"], "8 kB in one datagram come back")
            .step(udp(PodA, ClusterIp("edge/sip:sip")).how(How::UdpLarge).answers("a25:5060 b25:5060", Client))
            .step(udp(NodeA, ClusterIp("edge/sip:sip")).how(How::UdpLarge).answers("a25:5060 b25:5060", Node)),
        new(
            "large-node-port",
            &["be able to handle large requests: http", "be able to handle large requests: udp"],
            "the same through a NodePort, from outside",
        )
        .step(tcp(Outside, NodePort("edge/np:http", At::A)).how(How::TcpLarge).answers("a13 b13", Node))
        .step(udp(Outside, NodePort("edge/sip:sip", At::A)).how(How::UdpLarge).answers("a25:5060 b25:5060", Node)),
        new("node-port-udp", &["support basic nodePort: udp functionality"], "a UDP NodePort answers the outside")
            .step(udp(Outside, NodePort("edge/sip:sip", At::A)).answers("a25:5060 b25:5060", Node))
            .step(udp(Outside, NodePort("edge/sip:sip", At::B)).answers("a25:5060 b25:5060", Node)),
    ]
}
