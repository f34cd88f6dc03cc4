//! `cargo xtask dist`: a Debian package, a tarball and their checksums, from what is committed and one build.
//!
//! The package is made by dpkg-deb of a tree, since it is a copy of files and nothing else: it starts nothing, and taking it off leaves
//! what is pinned and served alone.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::kpx;
use crate::shell::{cmd, root, say, which};

/// Arguments of `cargo xtask dist`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pack this program instead of one that is built for it
    #[arg(long, value_name = "FILE")]
    kpx: Option<PathBuf>,
    /// Where the files go
    #[arg(long, value_name = "DIR", default_value = "target/dist")]
    out: PathBuf,
}

/// The target of a program that needs no library of the system it runs on.
const STATIC: &str = "x86_64-unknown-linux-musl";

/// What the packages are made of.
struct Release {
    version: String,
    /// Debian's name of the processor.
    arch: String,
    /// Seconds since 1970 that all files bear, so that the same source gives the same packages.
    epoch: String,
}

/// Where things go in the package. A folder's files go into the folder.
const FILES: [(&str, &str); 6] = [
    ("completions/kpx.bash", "usr/share/bash-completion/completions/kpx"),
    ("completions/_kpx", "usr/share/zsh/vendor-completions/_kpx"),
    ("completions/kpx.fish", "usr/share/fish/vendor_completions.d/kpx.fish"),
    ("deploy/kpx-agent.service", "usr/lib/systemd/system/kpx-agent.service"),
    ("README.md", "usr/share/doc/kpx/README.md"),
    ("LICENSE", "usr/share/doc/kpx/copyright"),
];

/// What systemd is told once the unit is there, or no longer.
const RELOAD: &str = "#!/bin/sh\nset -e\n\
    # The agent is not started: it needs a kubeconfig. What it served goes on without it.\n\
    if [ -z \"$DPKG_ROOT\" ] && [ -d /run/systemd/system ]; then systemctl daemon-reload || true; fi\n";

pub(crate) fn run(args: &Args) -> Result<()> {
    let release = Release::find()?;
    let out = root().join(&args.out);
    fs_err::create_dir_all(&out)?;
    let program = match &args.kpx {
        Some(path) => path.canonicalize().with_context(|| format!("there is no {}", path.display()))?,
        None => kpx::build(true)?,
    };
    let mut made = vec![debian(&release, &program, &out)?, tarball(&release, &program, &release.arch, &out)?];
    if args.kpx.is_none() {
        match static_program() {
            Ok(program) => made.push(tarball(&release, &program?, &format!("{}-static", release.arch), &out)?),
            Err(why) => say(&format!("no static build: {why}")),
        }
    }
    let sums = checksums(&made)?;
    fs_err::write(out.join("SHA256SUMS"), &sums)?;
    say(&sums);
    try_out(&made[0], &out.join("tree"))?;
    say(&format!("{} installs, works and goes again in a tree of its own", made[0].display()));
    Ok(())
}

impl Release {
    fn find() -> Result<Self> {
        let text = |output: Vec<u8>| Ok::<_, anyhow::Error>(String::from_utf8(output)?.trim().to_owned());
        let manifest = fs_err::read_to_string(root().join("Cargo.toml"))?;
        let version = manifest.lines().find_map(|line| line.strip_prefix("version = ")?.split('"').nth(1));
        let epoch = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(epoch) => epoch,
            Err(_) => text(cmd("git", ["log", "-1", "--format=%ct"]).read()?)?,
        };
        Ok(Self {
            version: version.context("Cargo.toml declares no version")?.to_owned(),
            arch: text(cmd("dpkg", ["--print-architecture"]).read()?)?,
            epoch,
        })
    }
}

/// A program without libraries, or why there cannot be one here.
fn static_program() -> Result<Result<PathBuf>, String> {
    let sysroot = cmd("rustc", ["--print", "sysroot"]).read().map_err(|e| e.to_string())?;
    let sysroot = PathBuf::from(String::from_utf8_lossy(sysroot.trim_ascii()).into_owned());
    if !sysroot.join("lib/rustlib").join(STATIC).is_dir() {
        return Err(format!("the target is not installed: rustup target add {STATIC}"));
    }
    if which("musl-gcc").is_none() {
        return Err("musl-gcc is not installed: apt-get install musl-tools".to_owned());
    }
    let args = ["build", "--locked", "--bin", "kpx", "--profile", "release", "--target", STATIC];
    Ok(cmd("cargo", args).run().map(|()| root().join("target").join(STATIC).join("release/kpx")))
}

fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs_err::copy(from, to)?;
    Ok(fs_err::set_permissions(to, std::fs::Permissions::from_mode(mode))?)
}

fn write(to: &Path, text: &str, mode: u32) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs_err::create_dir_all(to.parent().context("a file is in a folder")?)?;
    fs_err::write(to, text)?;
    Ok(fs_err::set_permissions(to, std::fs::Permissions::from_mode(mode))?)
}

fn fresh(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs_err::remove_dir_all(folder)?;
    }
    Ok(fs_err::create_dir_all(folder)?)
}

fn folder(path: &Path) -> Result<Vec<PathBuf>> {
    let mut all = fs_err::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    all.sort();
    Ok(all)
}

fn packed(file: &Path) -> Result<()> {
    cmd("gzip", ["-9", "-n", "-f"]).arg(file).read().map(drop)
}

/// The package.
fn debian(release: &Release, program: &Path, out: &Path) -> Result<PathBuf> {
    let tree = out.join("deb");
    fresh(&tree)?;
    copy(program, &tree.join("usr/bin/kpx"), 0o755)?;
    // kubectl finds plug-ins by their names.
    std::os::unix::fs::symlink("kpx", tree.join("usr/bin/kubectl-kpx"))?;
    for (from, to) in FILES {
        copy(&root().join(from), &tree.join(to), 0o644)?;
    }
    copy(&root().join("deploy/config.toml"), &tree.join("etc/kpx/config.toml"), 0o644)?;
    let changes = tree.join("usr/share/doc/kpx/changelog");
    copy(&root().join("CHANGELOG.md"), &changes, 0o644)?;
    packed(&changes)?;
    for page in folder(&root().join("man"))? {
        let to = tree.join("usr/share/man/man1").join(page.file_name().context("a page has a name")?);
        copy(&page, &to, 0o644)?;
        packed(&to)?;
    }
    write(&tree.join("DEBIAN/conffiles"), "/etc/kpx/config.toml\n", 0o644)?;
    for script in ["postinst", "postrm"] {
        write(&tree.join("DEBIAN").join(script), RELOAD, 0o755)?;
    }
    let bytes = fs_err::read(program)?;
    write(&tree.join("DEBIAN/control"), &control(release, depends(&bytes), size(&tree)?), 0o644)?;
    let package = out.join(format!("kpx_{}_{}.deb", release.version, release.arch));
    let build = cmd("dpkg-deb", ["--root-owner-group", "-Zxz", "--build"]).arg(&tree).arg(&package);
    build.env("SOURCE_DATE_EPOCH", &release.epoch).read()?;
    Ok(package)
}

fn control(release: &Release, depends: Option<String>, kib: u64) -> String {
    let depends = depends.map_or_else(String::new, |depends| format!("Depends: {depends}\n"));
    format!(
        "Package: kpx\nVersion: {}\nArchitecture: {}\nMaintainer: The kpx authors <kpx@example.invalid>\n\
         Installed-Size: {kib}\n{depends}Recommends: conntrack, iproute2, iptables, nftables\nSuggests: bash-completion, ipset\n\
         Section: admin\nPriority: optional\nDescription: moves Kubernetes nodes from kube-proxy to eBPF without an outage\n \
         Reads what kube-proxy's rules do, compares them packet by packet with its own BPF\n \
         maps, and carries a node over step by step, with a journal and a way back.\n \
         .\n \
         The agent's unit is not enabled: it needs a kubeconfig at /etc/kpx/agent.conf.\n",
        release.version, release.arch
    )
}

/// The libraries that a program asks for by name, with the newest version of glibc that it needs; `None`: it needs none.
fn depends(program: &[u8]) -> Option<String> {
    const MARK: &[u8] = b"GLIBC_2.";
    let digits = |rest: &[u8]| {
        let end = rest.iter().position(|b| !b.is_ascii_digit()).unwrap_or(rest.len());
        std::str::from_utf8(&rest[..end]).ok()?.parse::<u32>().ok()
    };
    let newest = program
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .filter_map(|(at, _)| digits(&program[at + MARK.len()..]))
        .max()?;
    let libgcc = program.windows(13).any(|window| window == b"libgcc_s.so.1");
    Some(format!("libc6 (>= 2.{newest}){}", if libgcc { ", libgcc-s1" } else { "" }))
}

/// Size of the files of a tree, in KiB.
fn size(tree: &Path) -> Result<u64> {
    let output = String::from_utf8(cmd("du", ["-sk", "--apparent-size"]).arg(tree).read()?)?;
    output.split_whitespace().next().and_then(|kib| kib.parse().ok()).context("du tells no size")
}

/// The same files in one folder, for systems without dpkg.
fn tarball(release: &Release, program: &Path, arch: &str, out: &Path) -> Result<PathBuf> {
    let name = format!("kpx-{}-linux-{arch}", release.version);
    let tree = out.join("tar");
    fresh(&tree)?;
    let top = tree.join(&name);
    copy(program, &top.join("kpx"), 0o755)?;
    for file in ["README.md", "LICENSE", "CHANGELOG.md"] {
        copy(&root().join(file), &top.join(file), 0o644)?;
    }
    for part in ["man", "completions", "deploy"] {
        for file in folder(&root().join(part))? {
            copy(&file, &top.join(part).join(file.file_name().context("a file has a name")?), 0o644)?;
        }
    }
    let packed = out.join(format!("{name}.tar.gz"));
    let tar = cmd("tar", ["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu", "-C"]).arg(&tree);
    let tar = tar.arg(format!("--mtime=@{}", release.epoch)).args(["-I", "gzip -9 -n", "-cf"]);
    tar.arg(&packed).arg(name).read()?;
    Ok(packed)
}

/// In the form that `sha256sum --check` reads.
fn checksums(files: &[PathBuf]) -> Result<String> {
    let mut sums = String::new();
    for file in files {
        let hash = Sha256::digest(fs_err::read(file)?);
        let hex = hash.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        writeln!(sums, "{hex}  {}", file.file_name().context("a file has a name")?.display())?;
    }
    Ok(sums)
}

/// Installs a package into an empty tree with a package database of its own, runs what it installed, and purges it.
fn try_out(package: &Path, tree: &Path) -> Result<()> {
    fresh(tree)?;
    let database = tree.join("var/lib/dpkg");
    for part in ["info", "updates", "triggers", "alternatives"] {
        fs_err::create_dir_all(database.join(part))?;
    }
    fs_err::write(database.join("status"), "")?;
    // What it depends on is not in the tree; its scripts run outside of it, and are told so.
    let dpkg = || {
        let options = ["--force-not-root,script-chrootless,depends,bad-path", "--log=/dev/null"];
        cmd("dpkg", options).arg(format!("--root={}", tree.display()))
    };
    dpkg().arg("--install").arg(package).read()?;
    let verified = dpkg().args(["--verify", "kpx"]).read()?;
    if !verified.is_empty() {
        bail!("dpkg --verify: {}", String::from_utf8_lossy(&verified));
    }
    for name in ["kpx", "kubectl-kpx"] {
        cmd(tree.join("usr/bin").join(name), ["version"]).read()?;
    }
    for page in ["kpx.1.gz", "kpx-agent.1.gz"] {
        cmd("gzip", ["-t"]).arg(tree.join("usr/share/man/man1").join(page)).read()?;
    }
    let unit = fs_err::read_to_string(tree.join("usr/lib/systemd/system/kpx-agent.service"))?;
    let starts = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/")).context("the unit starts nothing")?;
    let program = starts.split(' ').next().unwrap_or_default();
    if !tree.join(program).is_file() {
        bail!("the unit starts /{program}, which is not in the package");
    }
    dpkg().args(["--purge", "kpx"]).read()?;
    let left = cmd("find", [tree.join("usr").into_os_string(), tree.join("etc").into_os_string()]);
    let left = left.args(["-not", "-type", "d"]).read().unwrap_or_default();
    if !left.is_empty() {
        bail!("left behind: {}", String::from_utf8_lossy(&left));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_glibc_is_what_a_program_depends_on() {
        let of = |text: &[u8]| depends(text);
        let both = "libc6 (>= 2.34), libgcc-s1";
        assert_eq!(of(b"..GLIBC_2.2.5\0GLIBC_2.34\0GLIBC_2.17\0libgcc_s.so.1").as_deref(), Some(both));
        assert_eq!(of(b"GLIBC_2.9").as_deref(), Some("libc6 (>= 2.9)"));
        assert_eq!(of(b"static"), None);
    }

    /// A program that can be packed without being built.
    fn stand_in(folder: &Path, version_fails: bool) -> PathBuf {
        let program = folder.join("kpx");
        let code = u8::from(version_fails);
        write(&program, &format!("#!/bin/sh\n[ \"$1\" = version ] && exit {code}\n"), 0o755).expect("written");
        program
    }

    #[test]
    fn a_package_installs_into_an_empty_tree_and_leaves_nothing_behind() {
        if which("dpkg-deb").is_none() {
            return say("skipped: no dpkg-deb");
        }
        let folder = std::env::temp_dir().join(format!("kpx-dist-{}", std::process::id()));
        fresh(&folder).expect("a folder");
        let release = Release { version: "1.2.3".to_owned(), arch: "all".to_owned(), epoch: "1700000000".to_owned() };
        let package = |fails| {
            let program = stand_in(&folder, fails);
            let package = debian(&release, &program, &folder)?;
            try_out(&package, &folder.join("tree")).map(|()| package)
        };
        let made = package(false).expect("it installs");
        let listed = cmd("dpkg-deb", ["--contents"]).arg(&made).read().expect("it can be listed");
        let listed = String::from_utf8(listed).expect("text");
        for path in [
            "./usr/bin/kpx",
            "./usr/bin/kubectl-kpx -> kpx",
            "./etc/kpx/config.toml",
            "./usr/lib/systemd/system/kpx-agent.service",
            "./usr/share/man/man1/kpx-agent.1.gz",
            "./usr/share/bash-completion/completions/kpx",
        ] {
            assert!(listed.contains(path), "{path} in\n{listed}");
        }
        assert!(!listed.contains("DEBIAN"));
        // The same source makes the same bytes.
        let hash = |path: &Path| checksums(&[path.to_owned()]).expect("a file");
        let (first, tar) = (hash(&made), tarball(&release, &stand_in(&folder, false), "all", &folder).expect("packed"));
        let packed = hash(&tar);
        assert_eq!(first, hash(&package(false).expect("it installs")));
        assert_eq!(packed, hash(&tarball(&release, &stand_in(&folder, false), "all", &folder).expect("packed")));
        // A program that does not run is found out.
        package(true).expect_err("it does not run");
        fs_err::remove_dir_all(&folder).expect("removed");
    }
}
