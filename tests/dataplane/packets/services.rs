//! Services whose frontends and backends are the same for both families and protocols.

use kpx::dataplane::Capacity;
use kpx_abi::packet::proto::{TCP, UDP};
use kpx_abi::{Exposure, Flags};

use super::frontends::{Tables, Wanted};
use super::peers::Server;
use super::world::{NEIGHBOUR, NODE, POD, REMOTE, World, at, socket};

/// The port of every backend.
pub(crate) const PORT: u16 = 8080;

/// A service for TCP and UDP in both families at this address and port: four services, numbered from this one on.
pub(crate) fn serve(
    tables: &mut Tables,
    service: u32,
    addr: [&str; 2],
    port: u16,
    flags: Flags,
    backends: &[[&str; 2]],
) {
    for (n, family) in (0..).zip([0, 1]) {
        for (m, protocol) in (0..).zip([TCP, UDP]) {
            let backend = |b: &[&str; 2]| (socket(b[family], PORT), *b != REMOTE);
            let wanted = Wanted {
                at: socket(addr[family], port),
                protocol,
                flags,
                backends: backends.iter().map(backend).collect(),
            };
            tables.put(service + 2 * n + m, &wanted);
        }
    }
}

/// A server on every pod and on the node.
pub(crate) fn servers(world: &World) -> Vec<Server> {
    let mut started = Vec::new();
    for (space, addr) in [("pod", POD), ("neighbour", NEIGHBOUR), ("remote", REMOTE), ("node", NODE)] {
        for addr in addr {
            started.push(world.inside(space, || Server::start(space, &at(addr, PORT))));
        }
    }
    started
}

/// Maps large enough for a test.
pub(crate) fn capacity() -> Capacity {
    Capacity { conntrack: 4096, fragments: 64, ..Capacity::default() }
}

/// The flags of an exposure.
pub(crate) fn exposed(exposure: Exposure) -> Flags {
    Flags::default().with_exposure(exposure)
}
