//! How this node is set up: read, not tried.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use caps::{CapSet, Capability, has_cap};
use fs_err as fs;

use super::answer::Finding;
use crate::capture;
use crate::inspect::bpf::{self, Owner};

/// Where the node is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Places<'p> {
    /// The cgroup2 directory to attach to, or why there is none.
    pub cgroup: Result<&'p Path, &'p str>,
    /// Where pins go.
    pub pins: &'p Path,
}

/// What is known of this node, by names of features.
pub(super) fn look(places: &Places<'_>) -> BTreeMap<&'static str, Finding> {
    BTreeMap::from([
        ("cgroup2", cgroup2(places.cgroup)),
        ("pod-cgroup", pods(places.cgroup)),
        ("bpffs", bpffs(places.pins)),
        ("capabilities", capabilities()),
        ("confinement", confinement()),
        ("foreign-bpf", foreign(places)),
        ("xdp-devices", devices()),
        ("jit", jit()),
        ("lockdown", lockdown()),
        ("unprivileged-bpf", unprivileged()),
    ])
}

/// The one line of a file, or why it cannot be read.
fn line(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map(|text| text.trim().to_owned()).map_err(|e| e.to_string())
}

/// The root of the whole hierarchy has the first inode of its file system, whatever a container calls its own.
const ROOT_INODE: u64 = 1;

fn cgroup2(cgroup: Result<&Path, &str>) -> Finding {
    let path = match cgroup {
        Ok(path) => path,
        Err(reason) => return Finding::known(false, reason),
    };
    match fs::metadata(path) {
        Ok(at) if at.ino() == ROOT_INODE => {
            Finding::known(true, format!("{} is the root of the whole hierarchy", path.display()))
        }
        Ok(at) => Finding::known(
            false,
            format!(
                "{} is a part of the hierarchy (inode {}): sockets elsewhere are not seen",
                path.display(),
                at.ino()
            ),
        ),
        Err(error) => Finding::unknown(error.to_string()),
    }
}

/// Processes of pods that are to be seen from here, each with its path in cgroup2 as the kernel tells it.
fn pod_paths() -> std::io::Result<Vec<(u32, String)>> {
    let number = |process: &fs::DirEntry| process.file_name().to_str().and_then(|name| name.parse().ok());
    let found = fs::read_dir("/proc")?.flatten().filter_map(|process| {
        let pid = number(&process)?;
        // Processes come and go.
        let text = fs::read_to_string(process.path().join("cgroup")).ok()?;
        let unified = text.lines().find_map(|line| line.strip_prefix("0::"))?;
        text.contains("kubepods").then(|| (pid, unified.to_owned()))
    });
    Ok(found.collect())
}

/// Processes of pods that are to be seen from here.
pub fn pod_processes() -> Vec<u32> {
    pod_paths().unwrap_or_default().into_iter().map(|(pid, _)| pid).collect()
}

/// Where the processes of pods are: their path in cgroup2, as the kernel tells it for each process.
fn pods(cgroup: Result<&Path, &str>) -> Finding {
    let Ok(mount) = cgroup else { return Finding::known(false, "there is no cgroup2") };
    let Ok(processes) = pod_paths() else { return Finding::unknown("/proc cannot be read") };
    let count = processes.len();
    let mut pods = BTreeSet::new();
    for (_, unified) in processes {
        let top = unified.split('/').take_while(|part| !part.contains("-pod") && !part.starts_with("pod"));
        pods.insert(top.collect::<Vec<_>>().join("/"));
    }
    if pods.is_empty() {
        return Finding::unknown("no process of a pod is to be seen from here");
    }
    let shown: Vec<&str> = pods.iter().map(|path| if path.is_empty() { "/" } else { path.as_str() }).collect();
    let outside = shown.iter().any(|path| path.starts_with("/.."));
    let whole = fs::metadata(mount).is_ok_and(|at| at.ino() == ROOT_INODE);
    let reason = format!("{} of pods, in {}", crate::ui::count(count, "process"), shown.join(", "));
    if whole {
        return Finding::known(true, format!("{reason}; {} is above them", mount.display()));
    }
    let name = mount.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let below = !outside && shown.iter().all(|path| path.split('/').any(|part| part == name));
    if below {
        Finding::known(true, format!("{reason}; {} is above them", mount.display()))
    } else {
        Finding::known(false, format!("{reason}; {} is not above them", mount.display()))
    }
}

fn bpffs(pins: &Path) -> Finding {
    /// `BPF_FS_MAGIC` of linux/magic.h.
    const MAGIC: u64 = 0xcafe_4a11;
    // The directory of pins need not be there yet.
    let Some(at) = pins.ancestors().find(|path| path.exists()) else {
        return Finding::unknown(format!("nothing of {} is there", pins.display()));
    };
    match rustix::fs::statfs(at) {
        #[allow(clippy::unnecessary_cast, reason = "the field's type differs between architectures")]
        Ok(stat) if stat.f_type as u64 == MAGIC => Finding::known(true, format!("{} is on one", at.display())),
        Ok(_) => Finding::known(false, format!("{} is on none", at.display())),
        Err(error) => Finding::unknown(format!("{}: {error}", at.display())),
    }
}

fn capabilities() -> Finding {
    let has = |capability| has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let admin = has(Capability::CAP_SYS_ADMIN);
    let mut missing = Vec::new();
    if !has(Capability::CAP_BPF) && !admin {
        missing.push("CAP_BPF");
    }
    if !has(Capability::CAP_NET_ADMIN) {
        missing.push("CAP_NET_ADMIN");
    }
    match missing.as_slice() {
        [] => Finding::known(true, "this process has CAP_BPF, or CAP_SYS_ADMIN, and CAP_NET_ADMIN"),
        missing => Finding::known(false, format!("this process has no {}", missing.join(", and no "))),
    }
}

fn confinement() -> Finding {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:")).map_or("", str::trim);
    let profile =
        line("/proc/self/attr/apparmor/current").or_else(|_| line("/proc/self/attr/current")).unwrap_or_default();
    let profile = profile.trim_end_matches('\0');
    let confined = !profile.is_empty() && profile != "unconfined" && profile.ends_with("(enforce)");
    match (seccomp, confined) {
        ("2", true) => Finding::known(false, format!("a seccomp filter, and the AppArmor profile {profile}")),
        ("2", false) => Finding::known(false, "a seccomp filter"),
        (_, true) => Finding::known(false, format!("the AppArmor profile {profile}")),
        ("0" | "1", false) => Finding::known(true, "no seccomp filter and no enforced profile"),
        _ => Finding::unknown("/proc/self/status does not say"),
    }
}

/// Hooks at which a dataplane of Services would stand.
const TRANSLATING: [&str; 5] = ["connect", "sendmsg", "recvmsg", "getpeername", "post_bind"];

fn foreign(places: &Places<'_>) -> Finding {
    let Ok(cgroup) = places.cgroup else { return Finding::unknown("there is no cgroup2") };
    let attached = match bpf::cgroups(places.pins, cgroup) {
        Ok(attached) => attached,
        Err(error) => return Finding::unknown(crate::error::with_causes(&error)),
    };
    let theirs: BTreeSet<String> = attached
        .iter()
        .filter(|on| on.owner != Owner::Kpx && TRANSLATING.iter().any(|hook| on.hook.contains(hook)))
        .map(|on| format!("{} ({}) at {} of {}", on.program, on.owner, on.hook, on.cgroup.display()))
        .collect();
    match theirs.len() {
        0 => Finding::known(true, "no program of others at the hooks of sockets"),
        _ => Finding::known(false, theirs.into_iter().collect::<Vec<_>>().join("; ")),
    }
}

/// Drivers with XDP of their own, by `xdp_features` of Linux 6.12.
const NATIVE: [&str; 27] = [
    "amd-xgbe",
    "atlantic",
    "bnxt_en",
    "cxgb4",
    "dpaa2-eth",
    "ena",
    "enetc",
    "fec",
    "gve",
    "hv_netvsc",
    "i40e",
    "iavf",
    "ice",
    "idpf",
    "igb",
    "igc",
    "ixgbe",
    "ixgbevf",
    "mana",
    "mlx4_en",
    "mlx5_core",
    "mvneta",
    "nfp",
    "qede",
    "sfc",
    "virtio_net",
    "stmmac",
];

fn devices() -> Finding {
    let Ok(entries) = fs::read_dir("/sys/class/net") else { return Finding::unknown("/sys/class/net cannot be read") };
    let mut found = Vec::new();
    let mut without = false;
    for entry in entries.flatten() {
        // What has no device below is made of software: those carry the traffic of the ones that have.
        let Ok(driver) = fs::read_link(entry.path().join("device/driver")) else { continue };
        let driver = driver.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let native = NATIVE.contains(&driver.as_str());
        without |= !native;
        let word = if native { "has it" } else { "is not known to" };
        found.push(format!("{} ({driver}) {word}", entry.file_name().to_string_lossy()));
    }
    found.sort();
    match (found.is_empty(), without) {
        (true, _) => Finding::unknown("no network device with a driver is to be seen from here"),
        (false, without) => {
            Finding { basis: Some(super::Basis::Inferred), ..Finding::known(!without, found.join("; ")) }
        }
    }
}

fn jit() -> Finding {
    match line("/proc/sys/net/core/bpf_jit_enable").as_deref() {
        Ok("0") => Finding::known(false, "net.core.bpf_jit_enable is 0"),
        Ok(value) => Finding::known(true, format!("net.core.bpf_jit_enable is {value}")),
        Err(error) => Finding::unknown(error.clone()),
    }
}

fn lockdown() -> Finding {
    match line("/sys/kernel/security/lockdown") {
        Ok(text) if text.contains("[confidentiality]") => Finding::known(false, "lockdown is at confidentiality"),
        Ok(text) => {
            let mode = text.split(['[', ']']).nth(1).unwrap_or("none");
            Finding::known(true, format!("lockdown is at {mode}"))
        }
        Err(_) if Path::new("/sys/kernel/security/lsm").exists() => Finding::known(true, "the kernel has no lockdown"),
        Err(reason) => Finding::unknown(reason),
    }
}

fn unprivileged() -> Finding {
    match line("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Ok("0") => Finding::known(false, "kernel.unprivileged_bpf_disabled is 0"),
        Ok(value) => Finding::known(true, format!("kernel.unprivileged_bpf_disabled is {value}")),
        Err(reason) => Finding::unknown(reason.clone()),
    }
}

/// The cgroup2 root, or why there is none, in words.
pub fn cgroup_root(
    given: Result<std::path::PathBuf, capture::cgroup::CgroupError>,
) -> Result<std::path::PathBuf, String> {
    given.map_err(|error| crate::error::with_causes(&error))
}
