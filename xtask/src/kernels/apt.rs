//! Kernel packages of Debian's suites, by apt with directories of its own: nothing of the machine's set-up changes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::shell::{Cmd, cmd};

/// The suites that carry kernels: 5.10, then 6.1 and 6.12, then 6.16 to the newest.
const SUITES: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-backports"];
/// What signs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Kernels for virtual machines: every feature of the full ones but for drivers of hardware.
const FLAVOUR: &str = "-cloud-amd64";

/// Package lists of the suites above.
pub(super) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Fetches the lists from the mirror that this machine uses.
    pub(super) fn update(directory: &Path) -> Result<Self> {
        let (main, security) = mirrors()?;
        for folder in ["lists/partial", "cache/archives/partial", "debs"] {
            fs_err::create_dir_all(directory.join(folder))?;
        }
        let source = |suite: &str| {
            let mirror = if suite.ends_with("-security") { &security } else { &main };
            format!("deb [arch=amd64 signed-by={KEYRING}] {mirror} {suite} main\n")
        };
        fs_err::write(directory.join("sources.list"), SUITES.map(source).concat())?;
        let apt = Self { directory: directory.to_owned() };
        // A suite that a mirror does not carry is no reason to do without the others.
        let updated = apt.command("apt-get", &["--quiet", "update"]).read();
        if apt.kernels()?.is_empty() {
            updated.context("no package lists")?;
            bail!("the machine's mirror carries no kernels of {}", SUITES.join(", "));
        }
        Ok(apt)
    }

    fn command(&self, program: &str, args: &[&str]) -> Cmd {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let options = [
            format!("Dir::State={}", at("")),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=/nonexistent".to_owned(),
            // The user that apt would change to can read neither this directory nor write there.
            "APT::Sandbox::User=".to_owned(),
        ];
        let words = options.into_iter().flat_map(|option| ["-o".to_owned(), option]);
        cmd(program, words.chain(args.iter().map(ToString::to_string))).dir(self.directory.join("debs"))
    }

    /// Releases of all kernels in the lists, oldest first.
    pub(super) fn kernels(&self) -> Result<Vec<String>> {
        let names = String::from_utf8(self.command("apt-cache", &["pkgnames", "linux-image-"]).read()?)?;
        let mut releases: Vec<String> = names
            .lines()
            .filter_map(|name| name.strip_prefix("linux-image-"))
            .filter(|release| release.ends_with(FLAVOUR) && release.starts_with(|c: char| c.is_ascii_digit()))
            .filter(|release| numbers(release).len() > 3)
            .map(str::to_owned)
            .collect();
        releases.sort_by_key(|release| numbers(release));
        Ok(releases)
    }

    /// Downloads a kernel and unpacks it into a directory.
    pub(super) fn unpack(&self, release: &str, into: &Path) -> Result<()> {
        let image = format!("linux-image-{release}");
        let depends = String::from_utf8(self.command("apt-cache", &["depends", "--important", &image]).read()?)?;
        // From 6.19 on that package is empty, and kernel and modules are in two others.
        let parts = depends
            .lines()
            .filter_map(|line| line.trim().strip_prefix("Depends: "))
            .filter(|name| name.starts_with("linux-binary-") || name.starts_with("linux-modules-"));
        for package in std::iter::once(image.as_str()).chain(parts) {
            self.command("apt-get", &["--quiet", "download", package]).read()?;
        }
        let debs = self.directory.join("debs");
        for deb in fs_err::read_dir(&debs)? {
            cmd("dpkg", ["-x".into(), deb?.path().into_os_string(), into.into()]).read()?;
        }
        fs_err::remove_dir_all(&debs)?;
        fs_err::create_dir_all(&debs)?;
        Ok(())
    }
}

/// The machine's Debian mirrors: of the releases themselves, and of their security updates.
fn mirrors() -> Result<(String, String)> {
    let release = fs_err::read_to_string("/etc/os-release").unwrap_or_default();
    let value = |name: &str| release.lines().find_map(|line| line.strip_prefix(name)).map(|v| v.trim_matches('"'));
    ensure!(value("ID=") == Some("debian"), "this is no Debian machine");
    let codename = value("VERSION_CODENAME=").context("/etc/os-release names no release")?;
    let format = ["indextargets", "--format", "$(RELEASE) $(REPO_URI)"];
    let targets = String::from_utf8(cmd("apt-get", format).read()?)?;
    let mirror = |suite: String| {
        let found = targets.lines().find_map(|line| line.split_once(' ').filter(|(name, _)| *name == suite));
        found.map(|(_, uri)| uri.to_owned()).with_context(|| format!("apt has no source of {suite}"))
    };
    Ok((mirror(codename.to_owned())?, mirror(format!("{codename}-security"))?))
}

/// The numbers in a release, which order releases: `6.12.117+deb12-cloud-amd64` has 6, 12, 117, 12 and 64.
pub(super) fn numbers(release: &str) -> Vec<u32> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}
