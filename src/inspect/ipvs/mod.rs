//! IPVS: the kernel's virtual services, kube-proxy's sets, addresses and rules around them, and its part as a ServiceTable.

mod addresses;
mod connections;
mod decode;
mod deviate;
mod lift;
pub(crate) mod message;
mod notice;
mod read;
mod rules;
mod sets;
mod state;

pub use addresses::{Addresses, DEVICE};
pub use connections::{Connection, parse as parse_connections};
pub use decode::{DecodeError, decode};
pub use deviate::as_ipvs;
pub use lift::State;
pub use notice::Notice;
pub use read::{IpvsError, IpvsState, read_node};
pub use rules::{Rules, are_there as has_rules};
pub use sets::{KubeSet, KubeSets};
pub use state::{Flags, Forward, Ipvs, RealServer, Stats, Version, Virtual, VirtualService};
