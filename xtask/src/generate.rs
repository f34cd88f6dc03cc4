//! `cargo xtask generate`: completions and man pages, from the command line's own definition; the table of conformance,
//! from the tests' data; the table of kernels, from what runs on them left; the page of checks, from the checks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::kernels::report;
use crate::kpx;
use crate::shell::{cmd, root, say};

/// Arguments of `cargo xtask generate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write nothing; fail when a committed file is not what would be written
    #[arg(long)]
    check: bool,
}

/// Shells with their completion file's name as packages install it.
const SHELLS: [(&str, &str); 3] = [("bash", "kpx.bash"), ("zsh", "_kpx"), ("fish", "kpx.fish")];

/// The table of conformance.
const CONFORMANCE: &str = "docs/conformance.md";
/// What the checks say of themselves.
const CHECKS: &str = "docs/checks.md";

/// Path below the project → content.
type Files = BTreeMap<PathBuf, Vec<u8>>;

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    let (wanted, there) = (wanted()?, there()?);
    for stale in there.keys().filter(|path| !wanted.contains_key(*path)) {
        fs_err::remove_file(root().join(stale))?;
        say(&format!("removed {}", stale.display()));
    }
    for (path, content) in &wanted {
        if there.get(path) != Some(content) {
            let file = root().join(path);
            fs_err::create_dir_all(file.parent().context("every generated file is in a folder")?)?;
            fs_err::write(file, content)?;
            say(&format!("wrote {}", path.display()));
        }
    }
    Ok(())
}

/// Fails when a committed file differs from what would be written.
pub(crate) fn check() -> Result<()> {
    let (wanted, there) = (wanted()?, there()?);
    let stale: Vec<String> = wanted
        .keys()
        .chain(there.keys())
        .filter(|path| wanted.get(*path) != there.get(*path))
        .map(|path| path.display().to_string())
        .collect();
    if !stale.is_empty() {
        bail!("not fresh: {}; run cargo xtask generate and commit", stale.join(", "));
    }
    say(&format!("{} generated files are fresh", wanted.len()));
    Ok(())
}

fn wanted() -> Result<Files> {
    let kpx = kpx::build(false)?;
    let mut files = Files::new();
    for (shell, name) in SHELLS {
        let script = cmd(&kpx, ["completions", shell]).read()?;
        files.insert(Path::new("completions").join(name), script);
    }
    files.insert(PathBuf::from(CHECKS), cmd(&kpx, ["checks"]).read()?);
    let pages = root().join("target/generated/man");
    if pages.exists() {
        fs_err::remove_dir_all(&pages)?;
    }
    cmd(&kpx, ["man".into(), pages.clone().into_os_string()]).read()?;
    files.extend(files_of(&pages, Path::new("man"))?);
    files.extend(conformance()?);
    files.insert(report::DOCUMENT.into(), report::document()?.into_bytes());
    Ok(files)
}

/// The table of conformance; as committed where the recordings that it speaks of are not there.
fn conformance() -> Result<Option<(PathBuf, Vec<u8>)>> {
    let document = root().join("target/generated/conformance.md");
    if document.exists() {
        fs_err::remove_file(&document)?;
    }
    let test = ["test", "--locked", "--workspace", "--test", "kpx", "conformance::document::is_fresh", "--", "--exact"];
    cmd("cargo", test).env("KPX_CONFORMANCE_DOCUMENT", &document).read()?;
    let fresh = if document.exists() { document } else { root().join(CONFORMANCE) };
    fresh.exists().then(|| Ok((CONFORMANCE.into(), fs_err::read(fresh)?))).transpose()
}

fn there() -> Result<Files> {
    let mut files = files_of(&root().join("completions"), Path::new("completions"))?;
    files.extend(files_of(&root().join("man"), Path::new("man"))?);
    let document = root().join(CONFORMANCE);
    if document.exists() {
        files.insert(CONFORMANCE.into(), fs_err::read(document)?);
    }
    files.insert(report::DOCUMENT.into(), fs_err::read(root().join(report::DOCUMENT))?);
    if let Ok(checks) = fs_err::read(root().join(CHECKS)) {
        files.insert(PathBuf::from(CHECKS), checks);
    }
    Ok(files)
}

fn files_of(directory: &Path, as_folder: &Path) -> Result<Files> {
    if !directory.exists() {
        return Ok(Files::new());
    }
    fs_err::read_dir(directory)?
        .map(|entry| {
            let entry = entry?;
            Ok((as_folder.join(entry.file_name()), fs_err::read(entry.path())?))
        })
        .collect()
}
