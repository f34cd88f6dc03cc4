//! What a reader of IPVS must be told besides the ServiceTable.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::sets::KubeSet;
use super::state::{Forward, Virtual};
use crate::model::{Family, Origin};

/// Something that the ServiceTable alone does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A virtual service that is not kube-proxy's: its address is on no device of kube-proxy's and in none of its sets.
    Foreign {
        /// The virtual service.
        service: Virtual,
        /// Whether kube-proxy's `ipvs.excludeCIDRs` keep it; `None` where that is not known.
        excluded: Option<bool>,
    },
    /// A virtual service of kube-proxy that is in none of its sets: KUBE-IPVS-FILTER refuses new connections to it.
    NoMember {
        /// The virtual service.
        service: Virtual,
    },
    /// A member of a set without its virtual service.
    NoService {
        /// Family of the set.
        family: Family,
        /// The set.
        set: KubeSet,
        /// The member.
        member: String,
    },
    /// The address of a virtual service is on no device: no packet gets there.
    NoAddress {
        /// The virtual service.
        service: Virtual,
    },
    /// An address on kube-ipvs0 without any virtual service.
    IdleAddress {
        /// The address.
        ip: IpAddr,
    },
    /// An address on kube-ipvs0 that KUBE-IPVS-IPS lacks: every port of the node answers there.
    Unguarded {
        /// The address.
        ip: IpAddr,
    },
    /// A server with a weight that kube-proxy does not give.
    Weight {
        /// The virtual service.
        service: Virtual,
        /// The server.
        server: SocketAddr,
        /// Its weight.
        weight: u32,
    },
    /// A server that takes no new connections and still has some.
    Draining {
        /// The virtual service.
        service: Virtual,
        /// The server.
        server: SocketAddr,
        /// Connections, active and inactive.
        connections: u64,
    },
    /// A server that is not reached by translation, as kube-proxy's are.
    Forwarding {
        /// The virtual service.
        service: Virtual,
        /// The server.
        server: SocketAddr,
        /// How it is reached.
        forward: Forward,
    },
    /// A NodePort whose virtual services differ by address.
    Uneven {
        /// The one that is unlike most.
        service: Virtual,
    },
    /// A rule that no known kube-proxy writes at this place.
    UnknownRule {
        /// Where it is.
        at: Origin,
        /// The rule, without its comment.
        rule: String,
    },
    /// A rule that IPVS mode needs is not there.
    MissingRule {
        /// Family of the rules.
        family: Family,
        /// Table.
        table: String,
        /// The rule, without its comment.
        rule: String,
    },
    /// Something that tells whose the services are was not captured.
    NotCaptured {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl Notice {
    /// A word for its kind, stable for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "foreign-service",
            Self::NoMember { .. } => "no-set-member",
            Self::NoService { .. } => "no-virtual-service",
            Self::NoAddress { .. } => "no-address",
            Self::IdleAddress { .. } => "idle-address",
            Self::Unguarded { .. } => "unguarded-address",
            Self::Weight { .. } => "weight",
            Self::Draining { .. } => "draining",
            Self::Forwarding { .. } => "forwarding",
            Self::Uneven { .. } => "uneven-node-port",
            Self::UnknownRule { .. } => "unknown-rule",
            Self::MissingRule { .. } => "missing-rule",
            Self::NotCaptured { .. } => "not-captured",
        }
    }

    /// Whether the table cannot be trusted with it: what it tells of does something to packets that the table does not know, or
    /// keeps the reader from knowing.
    pub const fn blocks_migration(&self) -> bool {
        matches!(self, Self::UnknownRule { .. } | Self::Forwarding { .. } | Self::NotCaptured { .. })
    }

    /// Whether it tells of damage, not of something that happens on a sound node.
    pub const fn is_damage(&self) -> bool {
        !matches!(self, Self::Foreign { .. } | Self::Draining { .. } | Self::NotCaptured { .. })
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { service, excluded: Some(true) } => {
                write!(f, "{service} is not kube-proxy's, whose excludeCIDRs keep it")
            }
            Self::Foreign { service, excluded: Some(false) } => {
                write!(f, "{service} is not kube-proxy's, which deletes it when it next syncs: no excludeCIDRs keep it")
            }
            Self::Foreign { service, excluded: None } => write!(f, "{service} is not kube-proxy's"),
            Self::NoMember { service } => {
                write!(f, "{service} is in none of kube-proxy's sets: KUBE-IPVS-FILTER refuses new connections")
            }
            Self::NoService { family, set, member } => {
                write!(f, "set {} holds {member}, of which there is no virtual service", set.name(*family))
            }
            Self::NoAddress { service } => write!(f, "the address of {service} is on no device: no packet gets there"),
            Self::IdleAddress { ip } => {
                write!(f, "{ip} is on {} without any virtual service", super::addresses::DEVICE)
            }
            Self::Unguarded { ip } => {
                write!(f, "set {} lacks {ip}: every port of the node answers there", KubeSet::Ips.name(Family::of(*ip)))
            }
            Self::Weight { service, server, weight } => {
                write!(f, "{server} of {service} has weight {weight}; kube-proxy gives 1")
            }
            Self::Draining { service, server, connections } => {
                write!(f, "{server} of {service} takes no new connections and has {connections} left")
            }
            Self::Forwarding { service, server, forward } => {
                write!(f, "{server} of {service} is reached by {forward}; kube-proxy's are by Masq")
            }
            Self::Uneven { service } => write!(f, "{service} serves its NodePort unlike the node's other addresses"),
            Self::UnknownRule { at, rule } => write!(f, "{at}: {rule} is no rule of kube-proxy in IPVS mode"),
            Self::MissingRule { family, table, rule } => write!(f, "{family} {table}: no rule {rule}"),
            Self::NotCaptured { what, reason } => write!(f, "no {what}: {reason}"),
        }
    }
}
