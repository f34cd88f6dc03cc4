//! What the lift met and could not take over as it is.

use std::fmt;
use std::net::SocketAddr;

/// Something the table does not tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Entries of other sizes than those known.
    Layout {
        /// The map.
        map: &'static str,
        /// Size of its keys.
        key_size: u32,
        /// Size of its values.
        value_size: u32,
    },
    /// A slot that is not there.
    NoSlot {
        /// The frontend.
        frontend: SocketAddr,
        /// The slot.
        slot: u16,
    },
    /// A slot names a backend that is not there.
    NoBackend {
        /// The frontend.
        frontend: SocketAddr,
        /// The slot.
        slot: u16,
        /// The backend's id.
        id: u32,
    },
    /// A frontend of a pod's hostPort, which is no Service.
    HostPort {
        /// The frontend.
        frontend: SocketAddr,
    },
    /// A local redirect policy chose the backends.
    LocalRedirect {
        /// The frontend.
        frontend: SocketAddr,
    },
    /// Connections go to the L7 proxy first.
    L7 {
        /// The frontend.
        frontend: SocketAddr,
    },
    /// Source ranges are kept out instead of let in.
    DenyRanges {
        /// The frontend.
        frontend: SocketAddr,
    },
    /// No protocol is recorded, neither with the frontend nor with a backend.
    NoProtocol {
        /// The frontend.
        frontend: SocketAddr,
    },
}

impl Notice {
    /// A word for its kind, stable for scripts.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Layout { .. } => "unknown-layout",
            Self::NoSlot { .. } => "missing-slot",
            Self::NoBackend { .. } => "missing-backend",
            Self::HostPort { .. } => "host-port",
            Self::LocalRedirect { .. } => "local-redirect",
            Self::L7 { .. } => "l7-proxy",
            Self::DenyRanges { .. } => "deny-ranges",
            Self::NoProtocol { .. } => "no-protocol",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout { map, key_size, value_size } => {
                write!(f, "{map} has keys of {key_size} and values of {value_size} bytes, a layout that is not known")
            }
            Self::NoSlot { frontend, slot } => write!(f, "{frontend} has no slot {slot}, though it counts it"),
            Self::NoBackend { frontend, slot, id } => {
                write!(f, "slot {slot} of {frontend} names backend {id}, which is not there")
            }
            Self::HostPort { frontend } => write!(f, "{frontend} is a pod's hostPort, no Service"),
            Self::LocalRedirect { frontend } => write!(f, "a local redirect policy chose the backends of {frontend}"),
            Self::L7 { frontend } => write!(f, "connections to {frontend} go to Cilium's L7 proxy first"),
            Self::DenyRanges { frontend } => {
                write!(f, "{frontend} keeps its source ranges out instead of letting them in")
            }
            Self::NoProtocol { frontend } => write!(f, "no protocol is recorded for {frontend}; TCP is assumed"),
        }
    }
}
