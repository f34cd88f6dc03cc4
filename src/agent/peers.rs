//! The nodes of the cluster, as direct server return has to know them: whose announcements are believed, and which of them
//! answer for their backends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;

use crate::dataplane::{AddressFlags, NetworkFlags};

/// The label by which an operator says that a node's agent takes flows that others announce, and that the network lets it
/// answer: `kpx.dev/dsr: "true"`.
pub(super) const LABEL: &str = "kpx.dev/dsr";

/// One node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Peer {
    /// Its addresses inside of the cluster.
    pub(super) addresses: BTreeSet<IpAddr>,
    /// Where its pods are.
    pub(super) pods: BTreeSet<IpNet>,
    /// Whether it is labelled as one that answers.
    pub(super) answers: bool,
}

impl Peer {
    /// What a Node says. What cannot be read of it says nothing.
    pub(super) fn of(node: &Node) -> Self {
        let listed = node.status.as_ref().and_then(|status| status.addresses.as_deref()).unwrap_or_default();
        let internal = listed.iter().filter(|address| address.type_ == "InternalIP");
        let spec = node.spec.as_ref();
        let first = spec.and_then(|spec| spec.pod_cidr.as_ref());
        let all = spec.and_then(|spec| spec.pod_cidrs.as_deref()).unwrap_or_default();
        let label = node.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL));
        Self {
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            pods: all.iter().chain(first).filter_map(|net| net.parse::<IpNet>().ok()).map(|net| net.trunc()).collect(),
            answers: label.is_some_and(|value| value == "true"),
        }
    }
}

/// Adds the addresses by which the nodes know each other.
pub(super) fn add_addresses<'a>(peers: impl Iterator<Item = &'a Peer>, addresses: &mut BTreeMap<IpAddr, AddressFlags>) {
    for address in peers.flat_map(|peer| &peer.addresses) {
        let flags = addresses.entry(*address).or_default();
        *flags = flags.with(AddressFlags::NODE, true);
    }
}

/// Adds the networks of nodes that answer. The longest prefix is what counts: a network within another one is what that is, too.
pub(super) fn add_networks<'a>(others: impl Iterator<Item = &'a Peer>, networks: &mut BTreeMap<IpNet, NetworkFlags>) {
    for net in others.filter(|peer| peer.answers).flat_map(|peer| &peer.pods) {
        let flags = networks.entry(*net).or_default();
        *flags = flags.with(NetworkFlags::DIRECT, true);
    }
    let wider: Vec<(IpNet, NetworkFlags)> = networks
        .iter()
        .filter(|(_, flags)| flags.has(NetworkFlags::POD) || flags.has(NetworkFlags::SERVICE))
        .map(|(net, flags)| (*net, *flags))
        .collect();
    for (net, flags) in networks.iter_mut().filter(|(_, flags)| flags.has(NetworkFlags::DIRECT)) {
        for (_, outer) in wider.iter().filter(|(outer, _)| outer != net && outer.contains(net)) {
            let inherits = outer.with(NetworkFlags::DIRECT, false);
            *flags = flags.with(inherits, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(label: &str) -> Peer {
        let node = json!({
            "metadata": { "name": "b", "labels": { LABEL: label } },
            "spec": { "podCIDR": "10.244.2.0/24", "podCIDRs": ["10.244.2.0/24", "fd44:2::/64", "nonsense"] },
            "status": { "addresses": [
                { "type": "InternalIP", "address": "192.0.2.2" },
                { "type": "InternalIP", "address": "fd77::2" },
                { "type": "ExternalIP", "address": "198.51.100.2" },
                { "type": "Hostname", "address": "b" },
            ] },
        });
        Peer::of(&serde_json::from_value(node).expect("a Node"))
    }

    #[test]
    fn a_node_is_what_its_object_says() {
        let peer = node("true");
        assert!(peer.answers && !node("no").answers);
        assert_eq!(peer.addresses, ["192.0.2.2", "fd77::2"].map(|ip| ip.parse().expect("an address")).into());
        assert_eq!(peer.pods, ["10.244.2.0/24", "fd44:2::/64"].map(|net| net.parse().expect("a network")).into());
        assert_eq!(Peer::of(&Node::default()), Peer::default());
    }

    #[test]
    fn networks_of_nodes_that_answer_stay_networks_of_pods() {
        let net = |text: &str| text.parse::<IpNet>().expect("a network");
        let base =
            BTreeMap::from([(net("10.244.0.0/16"), NetworkFlags::POD), (net("10.96.0.0/12"), NetworkFlags::SERVICE)]);
        let mut networks = base.clone();
        add_networks([&node("true")].into_iter(), &mut networks);
        assert_eq!(networks.len(), 4);
        assert_eq!(networks[&net("10.244.2.0/24")], NetworkFlags::POD.with(NetworkFlags::DIRECT, true));
        assert_eq!(networks[&net("fd44:2::/64")], NetworkFlags::DIRECT);
        assert_eq!(networks[&net("10.244.0.0/16")], NetworkFlags::POD);
        let mut networks = base.clone();
        add_networks([&node("no")].into_iter(), &mut networks);
        assert_eq!(networks, base);
        let mut addresses = BTreeMap::from([("192.0.2.2".parse().expect("an address"), AddressFlags::LOCAL)]);
        add_addresses([&node("no")].into_iter(), &mut addresses);
        let flags: Vec<AddressFlags> = addresses.into_values().collect();
        assert_eq!(flags, [AddressFlags::LOCAL.with(AddressFlags::NODE, true), AddressFlags::NODE]);
    }
}
