//! `kpx inspect`: what serves on a node.

mod backends;
mod bpf;
mod services;

use clap::Subcommand;

use super::Context;
use crate::ui::{Exit, Failure};

/// Subcommands of `kpx inspect`.
#[derive(Debug, Subcommand)]
pub enum Inspect {
    /// List Services as the API, the rules or kpx's maps describe them
    Services(services::ServicesArgs),
    /// List backends and the Services that use them
    Backends(backends::BackendsArgs),
    /// List BPF maps of the host, kpx's own marked
    Maps(bpf::MapsArgs),
    /// List BPF programs of the host, kpx's own marked
    Programs(bpf::ProgramsArgs),
    /// List BPF links of the host, with their programs
    Links(bpf::LinksArgs),
}

pub(super) fn run(context: &mut Context, command: Inspect) -> Result<Exit, Failure> {
    match command {
        Inspect::Services(args) => services::run(context, &args),
        Inspect::Backends(args) => backends::run(context, &args),
        Inspect::Maps(args) => bpf::maps(context, &args),
        Inspect::Programs(args) => bpf::programs(context, &args),
        Inspect::Links(args) => bpf::links(context, &args),
    }
}
