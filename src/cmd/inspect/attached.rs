//! `kpx inspect cgroups` and `devices`: which programs run where, in which order.

use std::path::{Path, PathBuf};

use clap::Args;

use super::listing::{Kind, Line, Listing, OWNER};
use crate::capture;
use crate::cmd::Context;
use crate::inspect::bpf::{self, OnCgroup, OnDevice};
use crate::ui::{Exit, Failure};

const CGROUP_EXAMPLES: &str = "\
Examples:
  Which programs are attached to which cgroup
    $ kpx inspect cgroups

  Everything that runs for the sockets of one cgroup, those from above included
    $ kpx inspect cgroups /sys/fs/cgroup/kubepods.slice";

const DEVICE_EXAMPLES: &str = "\
Examples:
  Which programs are on the interfaces of this node
    $ kpx inspect devices

  The same in another network namespace, as JSON
    $ kpx inspect devices --netns pod-a -o json";

/// Arguments of `kpx inspect cgroups`.
#[derive(Args, Debug)]
#[command(after_long_help = CGROUP_EXAMPLES)]
pub struct CgroupsArgs {
    /// Show all that runs in this cgroup, inherited programs too
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    /// Only kpx's own
    #[arg(long)]
    ours: bool,
}

/// Arguments of `kpx inspect devices`.
#[derive(Args, Debug)]
#[command(after_long_help = DEVICE_EXAMPLES)]
pub struct DevicesArgs {
    /// Only this interface
    #[arg(value_name = "NAME")]
    device: Option<String>,
    /// Only kpx's own
    #[arg(long)]
    ours: bool,
}

const CGROUPS: Kind = Kind {
    list: "BpfCgroupProgramList",
    noun: "program",
    headings: &["CGROUP", "HOOK", "ORDER", "ID", OWNER, "PROGRAM", "SHARING"],
    narrow: 6,
    right: &["ORDER", "ID"],
    whole: &[],
};

const DEVICES: Kind = Kind {
    list: "BpfDeviceProgramList",
    noun: "program",
    headings: &["DEVICE", "HOOK", "ORDER", "ID", OWNER, "PROGRAM"],
    narrow: 6,
    right: &["ORDER", "ID"],
    whole: &[],
};

pub(super) fn cgroups(context: &mut Context, args: &CgroupsArgs) -> Result<Exit, Failure> {
    let root = context.globals.cgroup()?;
    live_only(context, "what is attached to cgroups")?;
    let (hooked, place) = match &args.path {
        Some(path) => (bpf::effective(&context.globals.bpffs, path)?, path.display().to_string()),
        None => (bpf::cgroups(&context.globals.bpffs, &root)?, format!("{} and below", root.display())),
    };
    // The table has paths as /proc/PID/cgroup has them: below the root of the hierarchy.
    let hierarchy = capture::cgroup::root().unwrap_or_default();
    let line = |h: &OnCgroup| {
        let path =
            h.cgroup.strip_prefix(&hierarchy).map_or_else(|_| h.cgroup.clone(), |path| Path::new("/").join(path));
        let cells = vec![
            path.display().to_string(),
            h.hook.clone(),
            h.order.to_string(),
            h.program_id.to_string(),
            h.owner.to_string(),
            h.program.clone(),
            h.sharing.unwrap_or("inherited").to_owned(),
        ];
        Line::new(format!("program/{}", h.program_id), (h.owner, h.ours), h, cells)
    };
    show(context, &CGROUPS, args.ours, hooked.iter().map(line).collect(), place)
}

pub(super) fn devices(context: &mut Context, args: &DevicesArgs) -> Result<Exit, Failure> {
    live_only(context, "what is attached to interfaces")?;
    let mut found = bpf::devices(&context.globals.bpffs)?;
    found.retain(|on| args.device.as_ref().is_none_or(|device| *device == on.device));
    let line = |on: &OnDevice| {
        let cells = vec![
            on.device.clone(),
            on.hook.to_string(),
            on.order.to_string(),
            on.program_id.to_string(),
            on.owner.to_string(),
            on.program.clone(),
        ];
        Line::new(format!("program/{}", on.program_id), (on.owner, on.ours), on, cells)
    };
    let place = args.device.clone().unwrap_or_else(|| "the interfaces of this node".to_owned());
    show(context, &DEVICES, args.ours, found.iter().map(line).collect(), place)
}

fn show(
    context: &mut Context,
    kind: &'static Kind,
    ours: bool,
    mut lines: Vec<Line>,
    place: String,
) -> Result<Exit, Failure> {
    lines.retain(|line| line.is_ours() || !ours);
    context.ui.report(&Listing::of_objects(kind, lines, ours, &place))?;
    Ok(Exit::Fine)
}

/// A snapshot lists programs and links, but not where they are.
pub(super) fn live_only(context: &Context, what: &str) -> Result<(), Failure> {
    match &context.globals.from {
        None => Ok(()),
        Some(from) => Err(Failure::new(format!("{} is a snapshot, and {what} is not in one", from.display()))
            .hint("run it on the node itself, without --from")),
    }
}
