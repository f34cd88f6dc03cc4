//! `[sig-network] LoadBalancers`: what of it needs no cloud, since the address is in the Service's status.

use super::super::behaviour::Place::{Listed, NodeA, Outside, PodA, PodB};
use super::super::behaviour::Source::{Client, Node};
use super::super::behaviour::Step::Become;
use super::super::behaviour::To::{ClusterIp, LoadBalancer, NodePort};
use super::super::behaviour::{Behaviour, Expect, Node as At, Section, answers, tcp};
use super::super::edit::Edit;
use super::super::state::State::Edited;
use super::AT_SOCKETS;

fn new(id: &'static str, tests: &'static [&'static str], says: &'static str) -> Behaviour {
    Behaviour::new(id, Section::LoadBalancers, tests, says)
}

pub(super) fn behaviours() -> Vec<Behaviour> {
    vec![
        new("lb-outside", &[], "the address answers the outside")
            .step(tcp(Outside, LoadBalancer("edge/lb-vip:http")).answers("a13 b13", Node))
            .step(tcp(Outside, LoadBalancer("edge/lb-vip:https")).answers("a13:8443 b13:8443", Node)),
        new("lb-inside", &[], "and pods and nodes without leaving the node")
            .step(
                tcp(PodA, LoadBalancer("edge/lb-vip:http"))
                    .answers("a13 b13", Node)
                    .by_design(answers("a13 b13", Client), AT_SOCKETS),
            )
            .step(
                tcp(PodB, LoadBalancer("edge/lb-vip:http"))
                    .answers("a13 b13", Node)
                    .by_design(answers("a13 b13", Client), AT_SOCKETS),
            )
            .step(tcp(NodeA, LoadBalancer("edge/lb-vip:http")).answers("a13 b13", Node)),
        new(
            "lb-no-node-ports",
            &["be able to create LoadBalancer Service without NodePort and change it"],
            "an address without NodePorts answers",
        )
        .step(tcp(Outside, LoadBalancer("edge/lb-no-nodeports:http")).answers("a13 b13", Node)),
        new(
            "lb-local",
            &["ESIPP: work for type=LoadBalancer"],
            "externalTrafficPolicy Local keeps the client's address",
        )
        .step(tcp(Outside, LoadBalancer("edge/lb-local:http")).answers("a13", Client)),
        new("np-local", &["ESIPP: work for type=NodePort"], "at the NodePort too")
            .step(tcp(Outside, NodePort("edge/np-local:http", At::A)).answers("a13", Client)),
        new("np-local-other-node", &["ESIPP: work for type=NodePort"], "on the other node, the endpoint that is there")
            .step(Become(Edited(Edit::Nothing)))
            .step(tcp(Outside, NodePort("edge/np-local:http", At::B)).answers("b13", Client))
            .step(tcp(Outside, NodePort("edge/np-local-none-here:http", At::B)).answers("b23", Client)),
        new(
            "lb-local-from-pods",
            &["ESIPP: work from pods"],
            "pods and the node reach every endpoint at the address, wherever it is",
        )
        .step(tcp(PodA, LoadBalancer("edge/lb-local:http")).answers("a13 b13", Client))
        .step(tcp(NodeA, LoadBalancer("edge/lb-local:http")).answers("a13 b13", Node)),
        new("np-local-from-pods", &["ESIPP: work from pods"], "and at the NodePort")
            .step(tcp(PodA, NodePort("edge/np-local:http", At::A)).answers("a13 b13", Client))
            .step(tcp(NodeA, NodePort("edge/np-local:http", At::A)).answers("a13 b13", Node)),
        new(
            "local-none-here",
            &["ESIPP: only target nodes with endpoints"],
            "without an endpoint on the node the outside gets nothing, its pods all endpoints",
        )
        .step(tcp(Outside, LoadBalancer("edge/lb-local-none-here:http")).expect(Expect::Silence))
        .step(tcp(Outside, NodePort("edge/np-local-none-here:http", At::A)).expect(Expect::Silence))
        .step(tcp(PodA, LoadBalancer("edge/lb-local-none-here:http")).answers("b23 c23", Client)),
        new(
            "lb-source-ranges",
            &["only allow access from service loadbalancer source ranges"],
            "an address outside of the ranges gets nothing at the load balancer's address",
        )
        .step(tcp(Listed, LoadBalancer("edge/lb-sources-dual:http")).answers("a13 b13", Node))
        .step(tcp(Outside, LoadBalancer("edge/lb-sources-dual:http")).expect(Expect::Silence))
        .step(tcp(Outside, NodePort("edge/lb-sources-dual:http", At::A)).answers("a13 b13", Node)),
        new(
            "lb-source-ranges-inside",
            &["only allow access from service loadbalancer source ranges"],
            "for pods too; the ClusterIP is not restricted",
        )
        .step(tcp(PodA, LoadBalancer("edge/lb-sources-dual:http")).expect(Expect::Silence))
        .step(tcp(PodA, ClusterIp("edge/lb-sources-dual:http")).answers("a13 b13", Client)),
        new("lb-proxy-mode", &[], "an address of ipMode Proxy is not served by the node")
            .step(tcp(PodA, LoadBalancer("edge/lb-proxy:http")).expect(Expect::Unserved))
            .step(tcp(PodA, ClusterIp("edge/lb-proxy:http")).answers("a13 b13", Client)),
        new(
            "lb-affinity",
            &["have session affinity work for LoadBalancer service with ESIPP on"],
            "a client inside meets the same endpoint again",
        )
        .step(tcp(PodA, LoadBalancer("edge/lb-affinity:http")).expect(Expect::OneOf("a13 b13", Client))),
    ]
}
