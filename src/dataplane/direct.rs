//! Direct server return: for whom, and what the network has to allow.

use crate::model::ForwardingMode;

/// What the network between clients and nodes must allow; kpx cannot see it from a node.
pub const DSR_NEEDS: [&str; 5] = [
    "packets that leave a backend's node with the frontend's address as their source: no check of sources by switch, hypervisor \
     or cloud, no strict reverse path filter between nodes and clients",
    "answers that a firewall or load balancer on the client's way has not seen the requests of, and the reverse",
    "IP in IP between nodes and the backends of others (protocols 4 and 41), which some clouds drop, and nobody outside who can \
     send with a node's address as source",
    "ICMP \"fragmentation needed\" and \"packet too big\" to clients, or 20 (IPv6: 40) bytes more between nodes than to clients: \
     the first packet of a connection and every datagram travel in one more header",
    "routes from the backends' nodes to the clients that do not lead by way of the receiving node",
];

/// Which Services' clients outside are answered directly by the nodes of their backends (direct server return), where
/// externalTrafficPolicy is Cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dsr {
    /// None, and flows that other nodes announce are not taken.
    #[default]
    Off,
    /// Those that ask for it.
    Asked,
    /// All but those that ask for the other way.
    All,
}

impl Dsr {
    /// Whether a frontend is answered directly that asks for this.
    pub(in crate::dataplane) const fn covers(self, asked: Option<ForwardingMode>) -> bool {
        match (self, asked) {
            (Self::Off, _) | (Self::Asked, None) | (_, Some(ForwardingMode::Snat)) => false,
            (Self::All, None) | (Self::Asked | Self::All, Some(ForwardingMode::Dsr)) => true,
        }
    }
}
