//! A kernel to run tests on: its image, and an archive of the modules that tests need.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::apt::{Apt, numbers};
use super::cpio::Archive;
use crate::shell::{cmd, root, say};

/// The folders of `net/` whose modules tests may need.
const FOLDERS: [&str; 9] = ["8021q", "bridge", "core", "ipv4", "ipv6", "netfilter", "sched", "sctp", "unix"];
/// And these devices.
const DEVICES: [&str; 11] =
    ["bonding", "dummy", "geneve", "ifb", "ipvlan", "macvlan", "tun", "veth", "vrf", "vxlan", "wireguard"];

/// A kernel, unpacked below `target/kernels/`.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// As `uname -r` will say.
    pub(super) release: String,
    directory: PathBuf,
}

impl Kernel {
    /// The kernel's image, to be booted.
    pub(super) fn image(&self) -> PathBuf {
        self.directory.join("vmlinuz")
    }

    /// An archive with the modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.directory.join("modules.cpio")
    }
}

/// Where kernels are kept.
pub(super) fn store() -> PathBuf {
    root().join("target/kernels")
}

/// Kernels of these versions: `6.1` is the last of that series, `newest` the last of all. What was fetched once is kept.
pub(super) fn find(versions: &[String]) -> Result<Vec<Kernel>> {
    let mut kernels = versions.iter().map(|version| kept(version)).collect::<Result<Vec<_>>>()?;
    if kernels.iter().any(Option::is_none) {
        let apt = Apt::update(&store().join("apt"))?;
        for (version, kernel) in versions.iter().zip(&mut kernels).filter(|(_, kernel)| kernel.is_none()) {
            *kernel = Some(fetch(&apt, version)?);
        }
    }
    Ok(kernels.into_iter().flatten().collect())
}

fn is_of(release: &str, version: &str) -> bool {
    version == "newest" || numbers(release).starts_with(&numbers(version))
}

/// A kernel fetched before. Which is the newest, only the package lists can tell.
fn kept(version: &str) -> Result<Option<Kernel>> {
    if version == "newest" || !store().is_dir() {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in fs_err::read_dir(store())? {
        let directory = entry?.path();
        let release = directory.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if is_of(&release, version) && directory.join("modules.cpio").is_file() {
            found.push(Kernel { release, directory });
        }
    }
    Ok(found.into_iter().max_by_key(|kernel| numbers(&kernel.release)))
}

fn fetch(apt: &Apt, version: &str) -> Result<Kernel> {
    let releases = apt.kernels()?;
    let Some(release) = releases.iter().rfind(|release| is_of(release, version)).cloned() else {
        bail!("there is no kernel {version}; there are {}", releases.join(", "));
    };
    let directory = store().join(&release);
    let kernel = Kernel { release, directory };
    if !kernel.modules().is_file() {
        say(&format!("fetching Linux {}", kernel.release));
        unpack(apt, &kernel).with_context(|| format!("kernel {}", kernel.release))?;
    }
    Ok(kernel)
}

fn unpack(apt: &Apt, kernel: &Kernel) -> Result<()> {
    let whole = empty(kernel.directory.join("whole"))?;
    apt.unpack(&kernel.release, &whole)?;
    // Newer packages have it all below usr/.
    if !whole.join("lib").exists() {
        std::os::unix::fs::symlink("usr/lib", whole.join("lib"))?;
    }
    let modules = whole.join("lib/modules").join(&kernel.release);
    let images = [whole.join("boot").join(format!("vmlinuz-{}", kernel.release)), modules.join("vmlinuz")];
    let image = images.iter().find(|image| image.is_file()).context("the packages hold no kernel")?;
    fs_err::copy(image, kernel.image())?;
    depmod(&whole, &kernel.release)?;
    let few = empty(kernel.directory.join("few"))?;
    copy_needed(&modules, &few.join("lib/modules").join(&kernel.release))?;
    depmod(&few, &kernel.release)?;
    let mut archive = Archive::default();
    archive.tree(&few.join("lib"), Path::new("/usr/lib"))?;
    for directory in [whole, few] {
        fs_err::remove_dir_all(directory)?;
    }
    // Last: its presence says that all is there.
    fs_err::write(kernel.modules(), archive.finish())?;
    Ok(())
}

/// An empty directory, whatever a run that was interrupted left there.
fn empty(path: PathBuf) -> Result<PathBuf> {
    if path.exists() {
        fs_err::remove_dir_all(&path)?;
    }
    fs_err::create_dir_all(&path)?;
    Ok(path)
}

fn depmod(base: &Path, release: &str) -> Result<()> {
    cmd("depmod", ["-b".into(), base.into(), OsString::from(release)]).read().map(drop)
}

/// Copies the needed modules and those they need, uncompressed: where they are loaded, decompression is slow.
fn copy_needed(modules: &Path, to: &Path) -> Result<()> {
    let dependencies = fs_err::read_to_string(modules.join("modules.dep"))?;
    let needed: BTreeSet<&str> = dependencies
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(module, _)| is_needed(module))
        .flat_map(|(module, others)| std::iter::once(module).chain(others.split_whitespace()))
        .collect();
    for module in needed {
        let (from, target) = (modules.join(module), to.join(module));
        fs_err::create_dir_all(target.parent().context("a module is in a folder")?)?;
        if from.extension().is_some_and(|extension| extension == "xz") {
            fs_err::write(target.with_extension(""), cmd("xz", ["-dc".into(), from.into_os_string()]).read()?)?;
        } else {
            fs_err::copy(&from, &target)?;
        }
    }
    for list in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        // Which of these there are differs by age.
        if modules.join(list).is_file() {
            fs_err::copy(modules.join(list), to.join(list))?;
        }
    }
    Ok(())
}

/// Whether tests may need a module: `kernel/net/sched/cls_bpf.ko.xz`.
fn is_needed(module: &str) -> bool {
    let name = module.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default();
    FOLDERS.iter().any(|folder| module.starts_with(&format!("kernel/net/{folder}/"))) || DEVICES.contains(&name)
}
