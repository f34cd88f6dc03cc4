//! What kpx does not do yet: the suite fails when one of these passes, so that none stays here by mistake.

const PACKETS: &str = "traffic that no socket of the node's cgroup sends is not translated yet";
const EXPOSED: &str = "only ClusterIPs are translated at sockets yet";
const AFFINITY: &str = "sockets have no affinity yet";
const DROPS: &str = "what is to be dropped is left to the rules yet";

/// Behaviours by id, and why.
pub(super) const PENDING: &[(&str, &str)] = &[
    ("node-port", PACKETS),
    ("node-port-both-protocols", PACKETS),
    ("external-ip", PACKETS),
    ("node-port-on-loopback", EXPOSED),
    ("terminating-local", PACKETS),
    ("terminating-cluster-exposed", PACKETS),
    ("external-name-to-node-port", PACKETS),
    ("affinity", AFFINITY),
    ("affinity-node-port", PACKETS),
    ("affinity-switched", AFFINITY),
    ("affinity-ends", AFFINITY),
    ("no-endpoints-udp", "a pod's datagrams are left to the rules where a refusal is due"),
    ("sctp", "SCTP stays with the rules"),
    ("pod-node-port-http", EXPOSED),
    ("pod-node-port-udp", EXPOSED),
    ("node-node-port-http", EXPOSED),
    ("node-node-port-udp", EXPOSED),
    ("unseen-pod-service", PACKETS),
    ("large-node-port", PACKETS),
    ("affinity-http", AFFINITY),
    ("affinity-udp", AFFINITY),
    ("node-port-udp", PACKETS),
    ("update-node-port-http", PACKETS),
    ("connected-udp-client-moves", "a connected UDP socket stays with its endpoint until it connects again"),
    ("lb-outside", PACKETS),
    ("lb-inside", EXPOSED),
    ("lb-no-node-ports", PACKETS),
    ("lb-local", PACKETS),
    ("np-local", PACKETS),
    ("lb-local-from-pods", EXPOSED),
    ("np-local-from-pods", EXPOSED),
    ("local-none-here", PACKETS),
    ("lb-source-ranges", PACKETS),
    ("lb-affinity", AFFINITY),
    ("no-endpoints-exposed", PACKETS),
    ("internal-local", DROPS),
    ("internal-local-host", DROPS),
    ("lb-source-ranges-inside", DROPS),
];
