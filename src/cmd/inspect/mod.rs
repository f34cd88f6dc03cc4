//! `kpx inspect`: what serves on a node.

mod affinity;
mod attached;
mod backends;
mod bpf;
mod conntrack;
mod ipvs;
mod kept;
mod listing;
mod maglev;
mod map;
mod nat;
mod service;
mod services;

use clap::Subcommand;

use super::Context;
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx inspect`.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// List Services as the API, the rules or kpx's maps describe them
    Services(services::ServicesArgs),
    /// Show everything about one Service: API, rules, maps, counters, open connections
    Service(service::Args),
    /// List backends and the Services that use them
    Backends(backends::BackendsArgs),
    /// List clients that stay with their backends
    Affinity(affinity::Args),
    /// Count the kernel's flows, or list those that a dataplane's packet path knows
    Conntrack(conntrack::Args),
    /// List virtual services of IPVS with their servers and counters
    Ipvs(ipvs::IpvsArgs),
    /// List the addresses that are replaced, and by which
    Nat(nat::Args),
    /// List how Maglev tables are shared among backends
    Maglev(maglev::Args),
    /// Show the entries of any BPF map of the host
    Map(map::Args),
    /// List BPF maps of the host, and whose they are
    Maps(bpf::MapsArgs),
    /// List BPF programs of the host, and whose they are
    Programs(bpf::ProgramsArgs),
    /// List BPF links of the host, with their programs
    Links(bpf::LinksArgs),
    /// List programs on the hooks of cgroups, in the order in which they run
    Cgroups(attached::CgroupsArgs),
    /// List programs on network interfaces: XDP, tcx, tc, netkit
    Devices(attached::DevicesArgs),
}

pub(super) fn run(context: &mut Context, command: Inspect) -> Result<Exit, Failure> {
    match command {
        Inspect::Services(args) => services::run(context, &args),
        Inspect::Backends(args) => backends::run(context, &args),
        Inspect::Service(args) => service::run(context, &args),
        Inspect::Affinity(args) => affinity::run(context, args),
        Inspect::Conntrack(args) => conntrack::run(context, args),
        Inspect::Ipvs(args) => ipvs::run(context, &args),
        Inspect::Nat(args) => nat::run(context, &args),
        Inspect::Maglev(args) => maglev::run(context, &args),
        Inspect::Map(args) => map::run(context, &args),
        Inspect::Cgroups(args) => attached::cgroups(context, &args),
        Inspect::Devices(args) => attached::devices(context, &args),
        Inspect::Maps(args) => bpf::maps(context, &args),
        Inspect::Programs(args) => bpf::programs(context, &args),
        Inspect::Links(args) => bpf::links(context, &args),
    }
}
