//! The one table every description of a node's Services is lifted into, its equality and its diff. Pure: no I/O.

mod diff;
mod frontend;
mod names;
pub mod select;
mod table;
mod treatment;
mod view;

pub use diff::{Difference, FieldDifference, Side, diff};
pub use frontend::{
    Backend, BackendSelection, BackendState, Exposure, Family, ForwardingMode, Frontend, FrontendKey, Masquerade,
    NoBackends, Origin, Policy, Protocol, ServiceName,
};
pub use names::join_names;
pub use select::{KubeVersion, Semantics};
pub use table::{Conflict, Detector, NodeFacts, NodePortScope, ServiceTable};
pub use treatment::{TrafficSource, Treatment};
pub use view::FrontendView;
