//! The state directory: past and present migrations, and the lock that lets one of them run at a time.
//!
//! ```text
//! <state-dir>/lock                        held while something is changed; says by whom
//! <state-dir>/migrations/<id>/plan.json   what was agreed to
//! <state-dir>/migrations/<id>/journal.jsonl
//! <state-dir>/migrations/<id>/backup/     the node as it was, as a snapshot
//! ```

use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::driver::ProxyDriver;
use super::journal::{Journal, JournalError, Progress, sync_dir};
use super::plan::{Accept, Plan};
use crate::capture::{CaptureError, Node, NodeOptions};
use crate::error::Hinted;

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process id.
    pub pid: u32,
    /// When it took the lock.
    pub since: jiff::Timestamp,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system refuses.
    #[error("cannot {action} {path}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another kpx is changing the node.
    #[error("another kpx is at work on this node: {}", match holder {
        Some(h) => format!("process {} since {}", h.pid, h.since),
        None => "its process is not known".to_owned(),
    })]
    Locked {
        /// Who.
        holder: Option<Holder>,
    },
    /// A plan on disk cannot be understood.
    #[error("cannot understand plan {path}")]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A plan on disk is of another version.
    #[error("plan {path} is {found}, this kpx reads {}", Plan::describe_version())]
    PlanVersion {
        /// The file.
        path: PathBuf,
        /// What it says it is.
        found: String,
    },
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Hinted for StoreError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                vec!["run as root, or give a directory you may write with --state-dir".to_owned()]
            }
            Self::Locked { .. } => vec!["wait for it to end, or give it longer: --lock-timeout 60s".to_owned()],
            Self::Plan { .. } | Self::PlanVersion { .. } => {
                vec!["make a new one: kpx migrate plan --out FILE".to_owned()]
            }
            Self::Journal(source) => source.hints(),
            Self::Io { .. } => Vec::new(),
        }
    }
}

/// The state directory.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// One migration in the state directory.
#[derive(Clone, Debug)]
pub struct Migration {
    /// Its id: the time it was begun, UTC.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
}

/// Holds the lock until dropped; the kernel drops it with the process, however that ends.
#[derive(Debug)]
pub struct Lock {
    _file: fs::File,
    holder: Holder,
    previous: Option<Holder>,
}

impl Lock {
    /// This process, as the lock's file says it.
    pub const fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Who held the lock last before.
    pub const fn previous(&self) -> Option<&Holder> {
        self.previous.as_ref()
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { action, path, source }
}

impl Store {
    /// The store in `dir`, which need not exist yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Takes the lock, waiting no longer than `timeout`.
    pub fn lock(&self, timeout: Duration) -> Result<Lock, StoreError> {
        fs::create_dir_all(&self.dir).map_err(io_error("create", &self.dir))?;
        let path = self.dir.join("lock");
        let holder_in = |file: &mut fs::File| {
            let mut text = String::new();
            let _ = file.read_to_string(&mut text);
            serde_json::from_str(&text).ok()
        };
        let mut file = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io_error("open", &path))?;
        let until = Instant::now() + timeout;
        while let Err(error) = file.file().try_lock() {
            match error {
                std::fs::TryLockError::Error(source) => return Err(io_error("lock", &path)(source)),
                std::fs::TryLockError::WouldBlock if Instant::now() >= until => {
                    return Err(StoreError::Locked { holder: holder_in(&mut file) });
                }
                std::fs::TryLockError::WouldBlock => std::thread::sleep(Duration::from_millis(50)),
            }
        }
        let previous = holder_in(&mut file);
        let holder = Holder { pid: std::process::id(), since: jiff::Timestamp::now() };
        let text = serde_json::to_string(&holder).expect("a number and a time serialise");
        let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()));
        written.map_err(io_error("write", &path))?;
        Ok(Lock { _file: file, holder, previous })
    }

    /// All migrations, oldest first.
    pub fn list(&self) -> Result<Vec<Migration>, StoreError> {
        let dir = self.dir.join("migrations");
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(io_error("read", &dir)(source)),
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry.map_err(io_error("read", &dir))?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            // What begins with a dot was never finished being made.
            if !id.starts_with('.') {
                found.push(Migration { id, dir: entry.path() });
            }
        }
        found.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(found)
    }

    /// The migration that is under way or in force: the newest that is not rolled back.
    pub fn current(&self) -> Result<Option<Migration>, StoreError> {
        for migration in self.list()?.into_iter().rev() {
            if !migration.progress()?.is_closed() {
                return Ok(Some(migration));
            }
        }
        Ok(None)
    }

    /// Records a new migration with its plan; it is there as a whole or not at all.
    pub fn create(&self, plan: &Plan) -> Result<Migration, StoreError> {
        let parent = self.dir.join("migrations");
        fs::create_dir_all(&parent).map_err(io_error("create", &parent))?;
        let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let mut id = time.clone();
        let mut n = 1;
        while parent.join(&id).exists() {
            n += 1;
            id = format!("{time}-{n}");
        }
        let temporary = parent.join(format!(".{id}"));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(io_error("remove", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(io_error("create", &temporary))?;
        write_durably(&temporary.join("plan.json"), plan.to_json().as_bytes())?;
        let dir = parent.join(&id);
        fs::rename(&temporary, &dir).map_err(io_error("create", &dir))?;
        sync_dir(&parent).map_err(io_error("write", &parent))?;
        Ok(Migration { id, dir })
    }
}

impl Migration {
    /// What its journal says.
    pub fn progress(&self) -> Result<Progress, StoreError> {
        Ok(Progress::of(&Journal::read(&self.dir)?))
    }

    /// Its plan.
    pub fn plan(&self) -> Result<Plan, StoreError> {
        Plan::read(&self.dir.join("plan.json"))
    }

    /// Decides anew how kube-proxy is stopped, where that is said, and what else is accepted.
    pub fn amend(&self, driver: Option<ProxyDriver>, accept: &[Accept]) -> Result<(), StoreError> {
        let mut plan = self.plan()?;
        if let Some(driver) = driver {
            plan.driver = driver;
            plan.driver_evidence = vec!["decided on the way".to_owned()];
        }
        plan.accept.extend(accept.iter().filter(|accept| !plan.accept.contains(accept)).copied().collect::<Vec<_>>());
        plan.write(&self.dir.join("plan.json"))
    }

    /// Where the snapshot of the node before the migration is.
    pub fn backup(&self) -> PathBuf {
        self.dir.join("backup")
    }

    /// That snapshot; `None` before it is there.
    pub fn recorded(&self) -> Result<Option<Node>, CaptureError> {
        let from = Some(self.backup()).filter(|backup| backup.is_dir());
        from.map(|from| Node::open(&NodeOptions { from: Some(from), ..NodeOptions::default() })).transpose()
    }
}

/// Writes a file so that its content and its name are on disk when this returns; an older file is replaced at once.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(io_error("write in", dir))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io_error("write", path))?;
    file.persist(path).map_err(|e| io_error("write", path)(e.error))?;
    sync_dir(dir).map_err(io_error("write", dir))
}
