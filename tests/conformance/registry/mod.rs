//! Every behaviour of Kubernetes' own tests of Services that needs no cloud.

mod granular;
mod load_balancers;
mod others;
mod pending;
mod services;

use super::behaviour::Behaviour;

/// All of them, in the order of the document.
pub(super) fn all() -> Vec<Behaviour> {
    let mut all =
        [services::behaviours(), granular::behaviours(), others::behaviours(), load_balancers::behaviours()].concat();
    for (id, reason) in pending::PENDING {
        let of = all.iter_mut().find(|behaviour| behaviour.id == *id);
        of.unwrap_or_else(|| panic!("{id} is pending and no behaviour")).pending = Some(reason);
    }
    all
}

/// Why kpx shows a source where rules show another.
const AT_SOCKETS: &str = "translated at the socket, where nothing is masqueraded: the server sees the pod itself";
