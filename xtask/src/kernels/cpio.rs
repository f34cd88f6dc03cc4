//! An initial file system: a cpio archive in the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::shell::cmd;

const DIRECTORY: u32 = 0o040_755;
const LINK: u32 = 0o120_777;
const FILE: u32 = 0o100_000;

/// An archive as it grows. A path is written once, whoever adds it.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    paths: BTreeSet<PathBuf>,
}

impl Archive {
    fn entry(&mut self, path: &Path, mode: u32, content: &[u8]) {
        if !self.paths.insert(path.to_owned()) {
            return;
        }
        self.write(path.as_os_str().as_bytes(), mode, content);
    }

    fn write(&mut self, path: &[u8], mode: u32, content: &[u8]) {
        let name = path.strip_prefix(b"/").unwrap_or(path);
        let mut header = "070701".to_owned();
        // inode, mode, uid, gid, links, mtime, size, device (major, minor), special device (same), name with NUL, check
        for field in [self.paths.len(), mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0] {
            write!(header, "{field:08x}").expect("a String takes everything");
        }
        for part in [header.as_bytes(), name, b"\0"] {
            self.bytes.extend_from_slice(part);
        }
        self.pad(4);
        self.bytes.extend_from_slice(content);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// A directory and those above it.
    pub(super) fn directory(&mut self, path: &Path) {
        if let Some(above) = path.parent() {
            self.directory(above);
            self.entry(path, DIRECTORY, &[]);
        }
    }

    /// A file of this content.
    pub(super) fn file(&mut self, path: &Path, permissions: u32, content: &[u8]) {
        if let Some(above) = path.parent() {
            self.directory(above);
        }
        self.entry(path, FILE | permissions, content);
    }

    /// A file or directory of this machine, at the same path, with what symbolic links on the way lead to.
    pub(super) fn add(&mut self, path: &Path) -> Result<()> {
        let real = self.links(path)?;
        if real.is_dir() {
            for entry in fs_err::read_dir(&real)? {
                self.add(&entry?.path())?;
            }
        } else if !self.paths.contains(&real) {
            let permissions = fs_err::metadata(&real)?.permissions().mode() & 0o777;
            self.file(&real, permissions, &fs_err::read(&real)?);
        }
        Ok(())
    }

    /// The files of a directory of this machine, at another path.
    pub(super) fn tree(&mut self, from: &Path, to: &Path) -> Result<()> {
        for entry in fs_err::read_dir(from)? {
            let path = entry?.path();
            let target = to.join(path.file_name().unwrap_or_default());
            if path.is_dir() {
                self.tree(&path, &target)?;
            } else {
                self.file(&target, 0o644, &fs_err::read(&path)?);
            }
        }
        Ok(())
    }

    /// Adds the symbolic links on a path; returns the path without them.
    pub(super) fn links(&mut self, path: &Path) -> Result<PathBuf> {
        let mut real = PathBuf::from("/");
        for component in path.components() {
            match component {
                Component::RootDir | Component::CurDir | Component::Prefix(_) => continue,
                Component::ParentDir => {
                    real.pop();
                    continue;
                }
                Component::Normal(name) => real.push(name),
            }
            if real.is_symlink() {
                let target = fs_err::read_link(&real)?;
                if let Some(above) = real.parent() {
                    self.directory(above);
                }
                self.entry(&real, LINK, target.as_os_str().as_bytes());
                real.pop();
                real = self.links(&real.join(target))?;
            } else if real.is_dir() {
                self.directory(&real);
            }
        }
        Ok(real)
    }

    /// A program of this machine with the libraries that it is linked with.
    pub(super) fn program(&mut self, path: &Path) -> Result<()> {
        self.add(path)?;
        self.libraries(path)
    }

    /// The libraries that a program is linked with; none for a script or a static program.
    pub(super) fn libraries(&mut self, program: &Path) -> Result<()> {
        let Ok(listed) = cmd("ldd", [program]).read() else { return Ok(()) };
        for word in listed.split(u8::is_ascii_whitespace).filter(|word| word.starts_with(b"/")) {
            self.add(Path::new(OsStr::from_bytes(word)))
                .with_context(|| format!("library of {}", program.display()))?;
        }
        Ok(())
    }

    /// The archive, padded so that another may follow.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.write(b"TRAILER!!!", 0, &[]);
        self.pad(512);
        self.bytes
    }
}
