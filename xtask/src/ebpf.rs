//! `cargo xtask ebpf`: builds the eBPF object that is committed beside its source, or proves that it comes from there.
//!
//! A build of kpx needs neither nightly Rust nor LLVM, since `ebpf/kpx.bpf.o` is part of the source. Beside it,
//! `ebpf/kpx.bpf.json` records of which sources and with which tools it was made.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::shell::{Privilege, cmd, root, say, which};

/// The bpf-linker release that the object is linked with.
const BPF_LINKER: &str = "0.13.0";
/// The LLVM that bpf-linker is built against; must be the major version of the compiler's own, or later.
const LLVM: &str = "22";
/// Debian's packages of a compiler with the sources of its `core`, and of LLVM.
const PACKAGES: [&str; 6] = ["rustc-web", "cargo-web", "rust-web-src", "llvm-22", "llvm-22-dev", "gcc"];

/// Arguments of `cargo xtask ebpf`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Fail unless the committed object comes from the committed source
    #[arg(long)]
    check: bool,
    /// Install the toolchain if it is missing
    #[arg(long)]
    install: bool,
}

/// Contents of `ebpf/kpx.bpf.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    /// Hash over names and contents of the sources.
    source_sha256: String,
    /// Hash of the object.
    object_sha256: String,
    /// First line of `rustc --version`.
    rustc: String,
    /// LLVM version of that compiler.
    llvm: String,
    /// First line of `bpf-linker --version`.
    bpf_linker: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let record_path = root().join("ebpf/kpx.bpf.json");
    let object_path = root().join("ebpf/kpx.bpf.o");
    let source = source_hash()?;
    if args.install && Toolchain::find().is_err() {
        install()?;
    }
    if !args.check {
        let toolchain = Toolchain::find()?;
        let object = toolchain.build()?;
        let record = toolchain.record(source, &object);
        fs_err::write(&object_path, &object)?;
        fs_err::write(&record_path, serde_json::to_string_pretty(&record)? + "\n")?;
        say(&format!("ebpf/kpx.bpf.o: {} bytes, sha256 {}", object.len(), record.object_sha256));
        return Ok(());
    }
    let text = fs_err::read_to_string(&record_path)?;
    let record: Record = serde_json::from_str(&text).context("ebpf/kpx.bpf.json is not understood")?;
    ensure!(
        record.source_sha256 == source,
        "ebpf/kpx.bpf.o does not come from this source (the sources changed since it was built); run: cargo xtask ebpf"
    );
    let object = fs_err::read(&object_path)?;
    ensure!(
        record.object_sha256 == hash([object.as_slice()]),
        "ebpf/kpx.bpf.o is not the object that ebpf/kpx.bpf.json speaks of; run: cargo xtask ebpf"
    );
    say("ebpf/kpx.bpf.o and its source are those of the record");
    let toolchain = match Toolchain::find() {
        Ok(toolchain) => toolchain,
        Err(missing) => {
            say(&format!("not rebuilt to compare: {missing:#}"));
            return Ok(());
        }
    };
    let rebuilt = toolchain.record(source, &toolchain.build()?);
    if rebuilt == record {
        say("rebuilt: the same, byte for byte");
        return Ok(());
    }
    let same_tools =
        (&rebuilt.rustc, &rebuilt.llvm, &rebuilt.bpf_linker) == (&record.rustc, &record.llvm, &record.bpf_linker);
    ensure!(
        !same_tools,
        "the same tools make another object of this source than ebpf/kpx.bpf.o; run: cargo xtask ebpf"
    );
    say(&format!(
        "rebuilt with other tools than the record's ({}, {}; recorded {}, {}): it builds; its bytes prove nothing",
        rebuilt.rustc, rebuilt.bpf_linker, record.rustc, record.bpf_linker
    ));
    Ok(())
}

fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut sha = Sha256::new();
    for part in parts {
        sha.update(part);
    }
    sha.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// Hash over the path, length and contents of every file that the object is made of.
fn source_hash() -> Result<String> {
    let mut files: Vec<PathBuf> =
        ["ebpf/Cargo.toml", "ebpf/Cargo.lock", "ebpf/abi/Cargo.toml"].map(PathBuf::from).into();
    let mut folders: Vec<PathBuf> = ["ebpf/src", "ebpf/abi/src"].map(PathBuf::from).into();
    while let Some(folder) = folders.pop() {
        for entry in fs_err::read_dir(root().join(&folder))? {
            let entry = entry?;
            let found = if entry.file_type()?.is_dir() { &mut folders } else { &mut files };
            found.push(folder.join(entry.file_name()));
        }
    }
    files.sort();
    let mut parts = Vec::new();
    for file in files {
        let contents = fs_err::read(root().join(&file))?;
        let name = file.to_str().context("a source file's name is not UTF-8")?.to_owned();
        parts.push(format!("{name}\0{}\0", contents.len()).into_bytes());
        parts.push(contents);
    }
    Ok(hash(parts.iter().map(Vec::as_slice)))
}

/// A compiler that can build `core` for BPF, and what links and strips its output.
struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    strip: PathBuf,
    rustc_version: String,
    llvm_version: String,
    linker_version: String,
}

impl Toolchain {
    /// Finds Debian's rustc-web, or a nightly with rust-src, and the linker. The error says what to install.
    fn find() -> Result<Self> {
        let linker = which("bpf-linker");
        let strip = [format!("llvm-strip-{LLVM}"), "llvm-strip".to_owned()].iter().find_map(|name| which(name));
        let compiler = compilers().into_iter().find_map(|(cargo, rustc)| {
            let sysroot = String::from_utf8(cmd(&rustc, ["--print", "sysroot"]).read().ok()?).ok()?;
            let sysroot = PathBuf::from(sysroot.trim());
            sysroot.join("lib/rustlib/src/rust/library/core").is_dir().then_some((cargo, rustc, sysroot))
        });
        let (Some(_), Some(strip), Some((cargo, rustc, sysroot))) = (&linker, &strip, &compiler) else {
            let lacks = [
                linker.is_none().then_some("bpf-linker"),
                strip.is_none().then_some("llvm-strip"),
                compiler.is_none().then_some("a rustc with the sources of core"),
            ];
            let lacks: Vec<_> = lacks.into_iter().flatten().collect();
            bail!("missing: {}\n{}", lacks.join(", "), remedy());
        };
        let verbose = String::from_utf8(cmd(rustc, ["--version", "--verbose"]).read()?)?;
        let first = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: ")).unwrap_or("unknown");
        Ok(Self {
            cargo: cargo.clone(),
            sysroot: sysroot.clone(),
            strip: strip.clone(),
            rustc_version: first(&verbose),
            llvm_version: llvm.to_owned(),
            linker_version: first(&String::from_utf8(cmd("bpf-linker", ["--version"]).read()?)?),
            rustc: rustc.clone(),
        })
    }

    /// Builds the object and strips DWARF from it; BTF stays.
    fn build(&self) -> Result<Vec<u8>> {
        let target = root().join("target/ebpf");
        let home = std::env::var_os("CARGO_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
            .context("neither CARGO_HOME nor HOME is set")?;
        // Paths get into BTF line information: they must not be those of this machine.
        let mut remap = vec![(root().join("ebpf"), "ebpf"), (home.clone(), "cargo"), (self.sysroot.clone(), "rust")];
        // The folder of a crate's source is named after where it was fetched from; the last flag that fits wins.
        let sources = fs_err::read_dir(home.join("registry/src")).into_iter().flatten().flatten();
        remap.extend(sources.map(|folder| (folder.path(), "crates")));
        let mut flags: Vec<String> =
            ["-Clinker=bpf-linker", "-Clink-arg=--btf", "-Cdebuginfo=2"].map(Into::into).into();
        // Chooses among bindings which differ in nothing used here; without it the host's would be taken.
        flags.push("--cfg=bpf_target_arch=\"x86_64\"".to_owned());
        flags.extend(remap.iter().map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display())));
        let args = ["build", "--release", "--locked", "-Zbuild-std=core", "--target=bpfel-unknown-none"];
        cmd(&self.cargo, args)
            .arg("--manifest-path")
            .arg(root().join("ebpf/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .env("RUSTC", &self.rustc)
            .env("RUSTC_BOOTSTRAP", "1")
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            .run()?;
        let stripped = target.join("kpx.bpf.o");
        let built = target.join("bpfel-unknown-none/release/kpx");
        cmd(&self.strip, ["-g", "-o"]).arg(&stripped).arg(&built).run()?;
        Ok(fs_err::read(stripped)?)
    }

    fn record(&self, source_sha256: String, object: &[u8]) -> Record {
        Record {
            source_sha256,
            object_sha256: hash([object]),
            rustc: self.rustc_version.clone(),
            llvm: self.llvm_version.clone(),
            bpf_linker: self.linker_version.clone(),
        }
    }
}

/// cargo and rustc of every toolchain that may do, the recorded object's kind first.
fn compilers() -> Vec<(PathBuf, PathBuf)> {
    let mut found = vec![(PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"))];
    if which("rustup").is_some() {
        let tool = |name| {
            let path = cmd("rustup", ["which", "--toolchain", "nightly", name]).read().ok()?;
            Some(PathBuf::from(String::from_utf8(path).ok()?.trim()))
        };
        found.extend(tool("cargo").zip(tool("rustc")));
    }
    found.retain(|(cargo, rustc)| cargo.is_file() && rustc.is_file());
    found
}

fn linker_install() -> (Vec<(&'static str, String)>, Vec<String>) {
    let prefix = format!("/usr/lib/llvm-{LLVM}");
    let flags = format!("-L native={prefix}/lib -C link-arg=-Wl,-rpath,{prefix}/lib");
    let feature = format!("llvm-{LLVM}");
    let args = ["install", "--locked", "bpf-linker", "--version", BPF_LINKER, "--no-default-features", "--features"];
    let args = args.iter().map(ToString::to_string).chain([feature]).collect();
    (vec![("LLVM_PREFIX", prefix), ("RUSTFLAGS", flags)], args)
}

fn remedy() -> String {
    let (env, args) = linker_install();
    let env: Vec<_> = env.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    format!(
        "run: cargo xtask ebpf --install\nor by hand, on Debian:\n  apt-get install {}\n  {} cargo {}\n\
         or, instead of rustc-web, with rustup: rustup toolchain install nightly --component rust-src",
        PACKAGES.join(" "),
        env.join(" "),
        args.join(" ")
    )
}

fn install() -> Result<()> {
    if which("apt-get").is_none() {
        bail!("this is no Debian machine (no apt-get)\n{}", remedy());
    }
    let privilege = Privilege::find();
    if let Privilege::None(reason) = privilege {
        bail!("{reason}\n{}", remedy());
    }
    let apt = |args: &[&str]| {
        let words = ["DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet"].iter().chain(args).copied();
        cmd("env", words).privileged(&privilege).run()
    };
    apt(&["update"])?;
    let mut words = vec!["install", "--yes", "--no-install-recommends"];
    words.extend(PACKAGES);
    apt(&words)?;
    if which("bpf-linker").is_none() {
        let (env, args) = linker_install();
        env.into_iter().fold(cmd("cargo", args), |command, (name, value)| command.env(name, value)).run()?;
    }
    Ok(())
}
