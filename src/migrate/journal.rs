//! The journal of one migration: an intent before each step and a result after it, on disk before anything goes on.
//!
//! `<state-dir>/migrations/<id>/journal.jsonl`, one JSON object a line, only ever appended to:
//!
//! ```text
//! {"seq":1,"at":"2026-…","event":"begin","direction":"forward","boot_id":"…","version":"0.1.0"}
//! {"seq":2,"at":"2026-…","event":"intent","phase":"load","step":"install","action":"do"}
//! {"seq":3,"at":"2026-…","event":"done","phase":"load","step":"install","action":"do"}
//! {"seq":4,"at":"2026-…","event":"gate","phase":"load","passed":true}
//! {"seq":5,"at":"2026-…","event":"end","direction":"forward","outcome":"complete"}
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::phase::PhaseName;
use super::switch::{SERVE_PACKETS, STOP};
use crate::error::Hinted;
use crate::failpoint;

/// Direction of a run of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// `apply`.
    Forward,
    /// `rollback`.
    Backward,
}

/// What is done with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Its effect is brought about.
    Do,
    /// Its effect is taken away.
    Undo,
}

/// How a run of the engine ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum End {
    /// Every phase is done and its gate passed.
    Complete,
    /// Stopped behind this phase, as asked.
    Reached {
        /// The phase.
        phase: PhaseName,
    },
    /// The gate behind this phase was not passed.
    GateFailed {
        /// The phase.
        phase: PhaseName,
    },
    /// Stopped in front of this phase, whose time has not come.
    Waiting {
        /// The phase.
        phase: PhaseName,
        /// What is waited for.
        why: String,
    },
    /// Everything is undone.
    RolledBack,
    /// Stopped between two steps by a signal.
    Interrupted,
}

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The engine starts.
    Begin {
        /// Direction.
        direction: Direction,
        /// `/proc/sys/kernel/random/boot_id`: programs and pins do not outlive it.
        boot_id: String,
        /// Version of kpx.
        version: String,
    },
    /// A step is about to be done or undone.
    Intent {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: String,
        /// Which.
        action: Action,
    },
    /// It is done or undone, and was looked at.
    Done {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: String,
        /// Which.
        action: Action,
        /// What it found out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// How much of what it moved or removed.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        counts: BTreeMap<String, u64>,
    },
    /// It failed; what it left behind is for the next run to find out.
    Failed {
        /// Its phase.
        phase: PhaseName,
        /// Its id.
        step: String,
        /// Which.
        action: Action,
        /// Why.
        error: String,
    },
    /// A gate was looked at.
    Gate {
        /// The phase in front of it.
        phase: PhaseName,
        /// Whether it was passed.
        passed: bool,
        /// What was not as it must be.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        failures: Vec<String>,
    },
    /// The engine ends. Absent after a crash.
    End {
        /// How.
        #[serde(flatten)]
        end: End,
    },
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Number of the line, from 1.
    pub seq: u64,
    /// When it was written.
    pub at: jiff::Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Why a journal cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file system refuses.
    #[error("cannot {action} journal {path}")]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A line that is not the last one cannot be understood.
    #[error("journal {path} is damaged at line {line}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

impl Hinted for JournalError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { .. } => vec!["the state directory is given by --state-dir".to_owned()],
            Self::Damaged { path, .. } => vec![format!(
                "kpx writes only whole lines; look at what else wrote to {} before going on",
                path.display()
            )],
        }
    }
}

/// The open journal of one migration.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: fs::File,
    records: Vec<Record>,
    written: u64,
}

const FILE_NAME: &str = "journal.jsonl";

impl Journal {
    /// Opens the journal in `dir` for appending, creating it if there is none. A torn last line is cut off.
    pub fn open(dir: &Path) -> Result<Self, JournalError> {
        let path = dir.join(FILE_NAME);
        let (records, whole) = read_file(&path)?;
        let failed = |source| JournalError::Io { action: "write", path: path.clone(), source };
        let file = fs::OpenOptions::new().create(true).append(true).open(&path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > whole {
            file.set_len(whole).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        sync_dir(dir).map_err(failed)?;
        Ok(Self { path, file, records, written: 0 })
    }

    /// Reads the journal in `dir` without changing it; empty where there is none.
    pub fn read(dir: &Path) -> Result<Vec<Record>, JournalError> {
        read_file(&dir.join(FILE_NAME)).map(|(records, _)| records)
    }

    /// What is in it.
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Appends one event; when this returns, it is on disk.
    pub fn append(&mut self, event: Event) -> Result<(), JournalError> {
        self.written += 1;
        failpoint::before_write(self.written);
        let record = Record { seq: self.records.len() as u64 + 1, at: jiff::Timestamp::now(), event };
        let mut line = serde_json::to_vec(&record).expect("an event has string keys and no failing serialiser");
        line.push(b'\n');
        let failed = |source| JournalError::Io { action: "write", path: self.path.clone(), source };
        self.file.write_all(&line).map_err(failed)?;
        self.file.sync_data().map_err(failed)?;
        self.records.push(record);
        failpoint::after_write(self.written);
        Ok(())
    }
}

/// The records, and the length of the text that holds them (a torn last line is beyond it).
fn read_file(path: &Path) -> Result<(Vec<Record>, u64), JournalError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(source) => return Err(JournalError::Io { action: "read", path: path.to_owned(), source }),
    };
    let mut records = Vec::new();
    let mut at = 0;
    while at < text.len() {
        let Some(end) = memchr::memchr(b'\n', &text[at..]) else { break };
        match serde_json::from_slice(&text[at..at + end]) {
            Ok(record) => records.push(record),
            // Power loss may leave a last line of the right length and the wrong content.
            Err(_) if at + end + 1 == text.len() => break,
            Err(source) => {
                return Err(JournalError::Damaged { path: path.to_owned(), line: records.len() + 1, source });
            }
        }
        at += end + 1;
    }
    Ok((records, at as u64))
}

/// Makes the names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// What the journal says about one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Nothing was ever begun.
    Untouched,
    /// Begun and not ended: a failure, or a crash.
    Doing,
    /// Done.
    Done,
    /// Undoing begun and not ended.
    Undoing,
    /// Undone.
    Undone,
}

/// What the journal says about a migration, all in all.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    marks: BTreeMap<String, Mark>,
    gates: BTreeSet<PhaseName>,
    notes: BTreeMap<String, String>,
    /// Direction of the last run; `None` when none began.
    pub direction: Option<Direction>,
    /// Boot id of the last run.
    pub boot_id: Option<String>,
    /// How the last run ended; `None` after a crash or a failure.
    pub end: Option<End>,
    /// The last failure, if the last run ended by one.
    pub failure: Option<String>,
    /// When the first and the last line were written.
    pub span: Option<(jiff::Timestamp, jiff::Timestamp)>,
}

impl Progress {
    /// Reads the records from first to last.
    pub fn of(records: &[Record]) -> Self {
        let mut progress = Self::default();
        for record in records {
            progress.take(&record.event);
            let first = progress.span.map_or(record.at, |(first, _)| first);
            progress.span = Some((first, record.at));
        }
        progress
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Begin { direction, boot_id, .. } => {
                self.direction = Some(*direction);
                self.boot_id = Some(boot_id.clone());
                self.end = None;
                self.failure = None;
            }
            Event::Intent { phase, step, action } => {
                let mark = match action {
                    Action::Do => Mark::Doing,
                    Action::Undo => Mark::Undoing,
                };
                if *action == Action::Undo {
                    self.gates.remove(phase);
                }
                self.marks.insert(step.clone(), mark);
            }
            Event::Done { step, action, note, .. } => {
                let mark = match action {
                    Action::Do => Mark::Done,
                    Action::Undo => Mark::Undone,
                };
                self.marks.insert(step.clone(), mark);
                match note {
                    Some(note) => drop(self.notes.insert(step.clone(), note.clone())),
                    None => drop(self.notes.remove(step)),
                }
            }
            Event::Failed { step, error, .. } => self.failure = Some(format!("{step}: {error}")),
            Event::Gate { phase, passed, failures } => {
                if *passed {
                    self.gates.insert(*phase);
                } else {
                    self.gates.remove(phase);
                    self.failure = Some(failures.join("; "));
                }
            }
            Event::End { end } => self.end = Some(end.clone()),
        }
    }

    /// What is said about a step.
    pub fn mark(&self, step: &str) -> Mark {
        self.marks.get(step).copied().unwrap_or(Mark::Untouched)
    }

    /// What a step found out when it was last done or undone.
    pub fn note(&self, step: &str) -> Option<&str> {
        self.notes.get(step).map(String::as_str)
    }

    /// Whether the gate behind a phase was passed and nothing in front of it undone since.
    pub fn gate_passed(&self, phase: PhaseName) -> bool {
        self.gates.contains(&phase)
    }

    /// The last phase whose gate is passed.
    pub fn phase(&self) -> Option<PhaseName> {
        self.gates.last().copied()
    }

    /// Whether the node was carried over all the way, so that nothing but eBPF serves it, and no run is under way.
    pub fn is_carried_over(&self) -> bool {
        self.direction == Some(Direction::Forward)
            && matches!(self.end, Some(End::Complete | End::Waiting { .. }))
            && self.gate_passed(PhaseName::Remove)
    }

    /// Whether kube-proxy is stopped and stays so; `None` where this migration has not got there.
    pub fn kube_proxy_is_away(&self) -> Option<bool> {
        match (self.mark(STOP), self.direction) {
            (Mark::Done, Some(Direction::Backward)) => {
                // It is started before the packet path leaves anything to the rules.
                Some(!matches!(self.mark(SERVE_PACKETS), Mark::Undoing | Mark::Undone))
            }
            (Mark::Done, _) => Some(true),
            (Mark::Doing | Mark::Undoing | Mark::Undone, _) => Some(false),
            (Mark::Untouched, _) => None,
        }
    }

    /// Whether the migration is over: everything undone, nothing begun since.
    pub fn is_closed(&self) -> bool {
        self.end == Some(End::RolledBack)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Event {
        Event::Begin { direction: Direction::Forward, boot_id: "b".into(), version: "1".into() }
    }

    fn intent(step: &str) -> Event {
        Event::Intent { phase: PhaseName::Load, step: step.into(), action: Action::Do }
    }

    #[test]
    fn a_torn_last_line_is_cut_off_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(dir.path()).unwrap();
        journal.append(begin()).unwrap();
        let whole = fs::metadata(dir.path().join(FILE_NAME)).unwrap().len();
        journal.append(intent("install")).unwrap();
        let text = fs::read(dir.path().join(FILE_NAME)).unwrap();
        for len in whole as usize..text.len() {
            fs::write(dir.path().join(FILE_NAME), &text[..len]).unwrap();
            assert_eq!(Journal::read(dir.path()).unwrap().len(), 1, "cut at {len}");
            let mut journal = Journal::open(dir.path()).unwrap();
            journal.append(intent("again")).unwrap();
            let records = Journal::read(dir.path()).unwrap();
            assert_eq!(records.len(), 2, "cut at {len}");
            assert_eq!(records[1].seq, 2);
        }
    }

    #[test]
    fn a_line_of_noughts_at_the_end_is_torn_and_one_in_the_middle_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        Journal::open(dir.path()).unwrap().append(begin()).unwrap();
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"\0\0\0\0\n");
        fs::write(&path, &text).unwrap();
        assert_eq!(Journal::read(dir.path()).unwrap().len(), 1);
        text.extend_from_slice(b"{}\n");
        fs::write(&path, &text).unwrap();
        assert!(matches!(Journal::read(dir.path()), Err(JournalError::Damaged { line: 2, .. })));
    }

    #[test]
    fn progress_follows_the_last_word_on_each_step() {
        let at = jiff::Timestamp::UNIX_EPOCH;
        let undo = |step: &str| Event::Intent { phase: PhaseName::Load, step: step.into(), action: Action::Undo };
        let events = [
            begin(),
            intent("a"),
            Event::Done {
                phase: PhaseName::Load,
                step: "a".into(),
                action: Action::Do,
                note: None,
                counts: BTreeMap::new(),
            },
            intent("b"),
            Event::Gate { phase: PhaseName::Load, passed: true, failures: vec![] },
            undo("a"),
        ];
        let records: Vec<_> =
            events.into_iter().enumerate().map(|(i, event)| Record { seq: i as u64 + 1, at, event }).collect();
        let before = Progress::of(&records[..5]);
        assert_eq!((before.mark("a"), before.mark("b"), before.mark("c")), (Mark::Done, Mark::Doing, Mark::Untouched));
        assert!(before.gate_passed(PhaseName::Load));
        let after = Progress::of(&records);
        assert_eq!(after.mark("a"), Mark::Undoing);
        assert!(!after.gate_passed(PhaseName::Load), "a gate behind an undone step is closed again");
    }
}
