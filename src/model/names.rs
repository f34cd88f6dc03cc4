//! Names of Services for a table that has none.

use super::{Frontend, ServiceTable};

/// Gives the frontends of `table` the names that `known` has for the same address, port and protocol.
///
/// BPF maps and IPVS hold no names: without this, `kpx inspect --via ebpf` could show addresses only. Nor does IPVS tell whose
/// health check a port is.
#[must_use]
pub fn join_names(table: &ServiceTable, known: &ServiceTable) -> ServiceTable {
    let named = |frontend: &Frontend| {
        let mut frontend = frontend.clone();
        if frontend.service.is_none()
            && let Some(other) = known.get(&frontend.key).iter().find(|f| f.service.is_some())
        {
            frontend.service.clone_from(&other.service);
            frontend.port_name.clone_from(&other.port_name);
        }
        frontend
    };
    let mut joined =
        ServiceTable::new(table.frontends().iter().map(named).collect(), table.v4.clone(), table.v6.clone());
    joined.health_checks.clone_from(&table.health_checks);
    for (port, services) in joined.health_checks.iter_mut().flatten().filter(|(_, services)| services.is_empty()) {
        if let Some(of) = known.health_checks.as_ref().and_then(|all| all.get(port)) {
            services.clone_from(of);
        }
    }
    joined
}
