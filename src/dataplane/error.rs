//! What can go wrong with the dataplane, and what to type next.

use std::io;
use std::path::{Path, PathBuf};

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use thiserror::Error;

use super::Full;
use super::hooks::Hook;
use crate::capture::command::CommandError;
use crate::error::Hinted;

/// How many of the last lines of the verifier's log an error shows.
const LOG_LINES: usize = 12;

/// What can go wrong with the dataplane.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The pins' directory is no place for pins.
    #[error("{} is not on a BPF filesystem", path.display())]
    NotBpffs {
        /// The directory, or the nearest one above it that exists.
        path: PathBuf,
    },
    /// The cgroup is not one of version 2.
    #[error("{} is not a cgroup of version 2", path.display())]
    NotCgroup2 {
        /// The directory.
        path: PathBuf,
    },
    /// The cgroup cannot be opened.
    #[error("cannot open cgroup {}", path.display())]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// This process may not load and attach such programs.
    #[error("not permitted: missing {}", .missing.join(" and "))]
    Capability {
        /// Names of the capabilities.
        missing: Vec<&'static str>,
    },
    /// The kernel lacks something.
    #[error("kernel {kernel} lacks {feature} (Linux {since}, {config})")]
    Kernel {
        /// Release of the running kernel.
        kernel: String,
        /// What it lacks.
        feature: &'static str,
        /// The first Linux with it.
        since: &'static str,
        /// The option it is built with.
        config: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// The verifier refused a program.
    #[error("kernel {kernel} refused program {program}; its verifier's last words:\n{log}")]
    Verifier {
        /// Name of the program.
        program: &'static str,
        /// Release of the running kernel.
        kernel: String,
        /// Last lines of the log.
        log: String,
        /// What the call returned.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the eBPF object")]
    Load {
        /// Why.
        source: Box<EbpfError>,
    },
    /// A program failed otherwise.
    #[error("cannot {action} program {program}")]
    Program {
        /// What was attempted.
        action: &'static str,
        /// Name of the program.
        program: &'static str,
        /// Why.
        source: Box<ProgramError>,
    },
    /// A pin could not be made.
    #[error("cannot pin {}", path.display())]
    Pin {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: Box<PinError>,
    },
    /// A pin could not be opened, or what it holds not be asked about.
    #[error("cannot {action} {}", path.display())]
    Object {
        /// What was attempted.
        action: &'static str,
        /// The pin.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file operation failed.
    #[error(transparent)]
    File(#[from] io::Error),
    /// A map could not be read or written.
    #[error("cannot {action} map {map}")]
    Map {
        /// What was attempted.
        action: &'static str,
        /// Name of the map.
        map: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The pinned maps are of another layout.
    #[error("the maps in {} have {found}, this kpx needs layout {expected}", pins.display())]
    Layout {
        /// The pins' directory.
        pins: PathBuf,
        /// What was found.
        found: String,
        /// What is needed.
        expected: u32,
    },
    /// The pinned dataplane is of a newer layout.
    #[error("the dataplane in {} has layout {found}: a newer kpx made it, this one knows layouts up to {known}", pins.display())]
    Newer {
        /// The pins' directory.
        pins: PathBuf,
        /// Its layout.
        found: u32,
        /// The newest layout that this kpx knows.
        known: u32,
    },
    /// An upgrade was killed, or failed, after the new programs were attached.
    #[error("an upgrade of the dataplane in {} has ended half-way", pins.display())]
    Unfinished {
        /// The pins' directory.
        pins: PathBuf,
    },
    /// A map cannot be carried over.
    #[error("map {map} in {} cannot be carried over from layout {from} to layout {to}", pins.display())]
    Carry {
        /// The pins' directory.
        pins: PathBuf,
        /// Name of the map.
        map: &'static str,
        /// The layout found.
        from: u32,
        /// The layout of this kpx.
        to: u32,
    },
    /// The object cannot be read.
    #[error("the eBPF object of this kpx is damaged")]
    Parse {
        /// Why.
        source: Box<aya_obj::ParseError>,
    },
    /// Attached, but pins are missing.
    #[error("the dataplane in {} is attached, but lacks {}", pins.display(), missing.join(", "))]
    Damaged {
        /// The pins' directory.
        pins: PathBuf,
        /// Names of what is missing.
        missing: Vec<String>,
    },
    /// A link leads to another cgroup.
    #[error("{} is attached to another cgroup than {}", link.display(), cgroup.display())]
    OtherCgroup {
        /// The pinned link.
        link: PathBuf,
        /// The cgroup wanted.
        cgroup: PathBuf,
    },
    /// A map has no room.
    #[error(transparent)]
    Full(#[from] Full),
    /// A network device could not be attached to.
    #[error("cannot {action} network device {device}")]
    Device {
        /// What was attempted.
        action: &'static str,
        /// The device's name.
        device: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// The network devices cannot be listed.
    #[error("cannot list the network devices")]
    Devices(#[from] CommandError),
    /// What `ip` lists is not understood.
    #[error("`ip -j -d addr` prints what is not understood")]
    DeviceList(#[from] serde_json::Error),
    /// Somebody listens already.
    #[error("process {pid} listens to events already")]
    Listening {
        /// The process.
        pid: u32,
    },
    /// The buffer of events cannot be mapped.
    #[error("cannot read events")]
    Events {
        /// What the kernel says.
        source: Box<MapError>,
    },
    /// What was listened to is no longer what serves.
    #[error("the dataplane in {} has been replaced or removed", pins.display())]
    Replaced {
        /// The pins' directory.
        pins: PathBuf,
    },
    /// The operation needs a dataplane, and there is none.
    #[error("no dataplane is installed in {}", pins.display())]
    NotInstalled {
        /// The pins' directory.
        pins: PathBuf,
    },
}

impl Hinted for DataplaneError {
    fn hints(&self) -> Vec<String> {
        let line = |text: &str| vec![text.to_owned()];
        match self {
            Self::NotBpffs { path } => vec![
                format!("mount one: mount -t bpf bpf {}", mount_point(path).display()),
                "or name another directory: --bpffs DIR".to_owned(),
            ],
            Self::NotCgroup2 { .. } => vec![
                "find the cgroup2 mount: findmnt -t cgroup2".to_owned(),
                "or make one: mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2".to_owned(),
                "then name it: --cgroup PATH".to_owned(),
            ],
            Self::Capability { missing } => vec![format!(
                "run as root, or with: setpriv --ambient-caps {}",
                missing
                    .iter()
                    .map(|c| format!("+{}", c.trim_start_matches("CAP_").to_lowercase()))
                    .collect::<Vec<_>>()
                    .join(",")
            )],
            Self::Kernel { config, .. } => vec![format!("see: grep {config} /boot/config-$(uname -r)")],
            Self::Verifier { .. } => {
                line("this is a bug of kpx on this kernel: please report it with this text and `kpx version`")
            }
            Self::Layout { .. } => vec![
                "take it over, without interrupting anything: kpx agent".to_owned(),
                "while a migration is open, which the agent leaves alone, first end it with the kpx that began it: \
                 kpx migrate rollback"
                    .to_owned(),
            ],
            Self::Newer { .. } => vec![
                "go on with the newer kpx: `kpx version` tells the layout of each".to_owned(),
                "or give the node back to kube-proxy before this one is used: kpx migrate rollback".to_owned(),
            ],
            Self::Unfinished { .. } => line("finish it: kpx agent"),
            Self::Carry { .. } => vec![
                "the old programs stay and serve: go on with the kpx that made them".to_owned(),
                "or give the node back to kube-proxy and begin anew: kpx migrate rollback".to_owned(),
            ],
            Self::Parse { .. } => line("install kpx again"),
            Self::Damaged { pins, .. } => vec![
                "pin again what attached programs tell of: kpx agent".to_owned(),
                "roll back, if a migration is open: kpx migrate rollback".to_owned(),
                format!(
                    "else take all of it away, which ends the flows that it carries, and begin anew: rm -r {}",
                    pins.display()
                ),
                "and where they are filters, before Linux 6.6, from each device: tc qdisc del dev DEVICE clsact"
                    .to_owned(),
            ],
            Self::OtherCgroup { .. } => line("name the cgroup it was installed for: --cgroup PATH"),
            Self::Full(full) if full.map == kpx_abi::map_name::YIELD => line(
                "more UDP flows to Services are open than there is room for: see `conntrack -L -p udp`, try again when there are fewer",
            ),
            Self::Full(full) if !full.resting => {
                line("roll back and apply again: the maps are sized by the table they are made for")
            }
            Self::Listening { pid } => vec![format!("wait for it, or end it: kill {pid}")],
            Self::Replaced { .. } => line("listen to the new one: kpx monitor"),
            Self::NotInstalled { .. } => line("name the BPF filesystem it was installed on: --bpffs DIR"),
            _ => Vec::new(),
        }
    }
}

/// Where to mount: the usual place if the path lies there.
fn mount_point(path: &Path) -> &Path {
    let usual = Path::new("/sys/fs/bpf");
    if path.starts_with("/sys/fs") { usual } else { path }
}

/// Release of the running kernel.
pub(super) fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// Capabilities that loading and attaching need and this process lacks: CAP_BPF and CAP_NET_ADMIN (Linux 5.8), or
/// CAP_SYS_ADMIN in place of the first.
pub(super) fn missing_capabilities() -> Vec<&'static str> {
    use caps::{CapSet, Capability, has_cap};
    // Where even this cannot be asked, the kernel's own answer will have to do.
    let has = |capability| has_cap(None, CapSet::Effective, capability).unwrap_or(true);
    let mut missing = Vec::new();
    if !has(Capability::CAP_BPF) && !has(Capability::CAP_SYS_ADMIN) {
        missing.push("CAP_BPF");
    }
    if !has(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    missing
}

impl DataplaneError {
    /// A failure of loading the object: what the kernel lacks, if that is why.
    pub(super) fn of_load(error: EbpfError) -> Self {
        match error {
            EbpfError::MapError(MapError::CreateError { name, io_error }) if refused(&io_error) => {
                let storage = name == kpx_abi::map_name::PEERS || name == kpx_abi::map_name::SOCKETS;
                let (feature, since) = if storage {
                    ("socket storage for address hooks", "5.3")
                } else {
                    ("maps described by BTF", "4.18")
                };
                Self::Kernel { kernel: kernel(), feature, since, config: "CONFIG_BPF_SYSCALL", source: io_error }
            }
            other => Self::Load { source: Box::new(other) },
        }
    }

    /// A failure of loading one program.
    pub(super) fn of_program(hook: &Hook, error: ProgramError) -> Self {
        Self::of_loading(hook.program, (hook.feature, hook.since, "CONFIG_CGROUP_BPF"), error)
    }

    /// A failure of loading a program of the packet path.
    pub(super) fn of_packet_program(program: &'static str, error: ProgramError) -> Self {
        Self::of_loading(program, ("programs of network devices", "5.10", "CONFIG_NET_CLS_BPF"), error)
    }

    /// A failure of loading a program that needs a feature: its name, the first Linux with it, its option.
    fn of_loading(
        program: &'static str,
        needs: (&'static str, &'static str, &'static str),
        error: ProgramError,
    ) -> Self {
        match error {
            ProgramError::LoadError { io_error, verifier_log } => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
                if lines.is_empty() && refused(&io_error) {
                    let (feature, since, config) = needs;
                    return Self::Kernel { kernel: kernel(), feature, since, config, source: io_error };
                }
                let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
                Self::Verifier { program, kernel: kernel(), log: tail, source: io_error }
            }
            other => Self::Program { action: "load", program, source: Box::new(other) },
        }
    }

    /// The kernel has nothing for the short cut in drivers to read packets with.
    pub(super) fn no_short_cut() -> Self {
        Self::Kernel {
            kernel: kernel(),
            feature: "reading packets in drivers",
            since: "5.18",
            config: "CONFIG_BPF_SYSCALL",
            source: io::ErrorKind::Unsupported.into(),
        }
    }

    /// The kernel has no links for cgroup programs.
    pub(super) fn no_links(source: io::Error) -> Self {
        Self::Kernel {
            kernel: kernel(),
            feature: "links of cgroup programs",
            since: "5.7",
            config: "CONFIG_CGROUP_BPF",
            source,
        }
    }

    /// A failure of attaching one program.
    pub(super) fn of_attach(hook: &Hook, error: ProgramError) -> Self {
        match error {
            ProgramError::SyscallError(call) if refused(&call.io_error) => Self::no_links(call.io_error),
            other => Self::Program { action: "attach", program: hook.program, source: Box::new(other) },
        }
    }
}

fn refused(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::E2BIG | libc::EOPNOTSUPP | libc::ENOSYS))
}
