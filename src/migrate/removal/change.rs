//! One change, which one run of a tool or one batch of messages makes.

use std::io;

use fs_err as fs;

use super::Count;
use super::ipvs::Command;
use crate::capture::command::{self, CommandError};
use crate::capture::netlink::{Netlink, NetlinkError, Request};
use crate::capture::{Variant, XtablesTool, delete_counters, make_counters};
use crate::model::Family;

/// A change, and how much it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) act: Act,
    pub(super) count: Count,
}

/// What is done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A table of iptables, for `iptables-restore --noflush`.
    Rules { variant: Variant, family: Family, text: Vec<u8> },
    /// Commands for `nft -f`.
    Nft(Vec<u8>),
    /// Commands for `ipset restore`.
    Sets(Vec<u8>),
    /// Commands for `ip -batch`.
    Device(Vec<u8>),
    /// nfacct objects are made.
    MakeCounters(Vec<String>),
    /// nfacct objects are deleted.
    DeleteCounters(Vec<String>),
    /// Messages to the kernel's IPVS.
    Ipvs(Vec<Command>),
    /// Files below /proc/sys, with what is written to them.
    Sysctls(Vec<(String, String)>),
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The tool failed.
    #[error(transparent)]
    Tool(#[from] CommandError),
    /// The kernel refused.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// A file could not be written.
    #[error(transparent)]
    File(#[from] io::Error),
}

impl CommitError {
    /// Whether the change was tried and refused, as it is where a rule is not there any more, something is referred to, or a lock
    /// is held.
    pub(super) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Tool(CommandError::Failed { .. }) | Self::Kernel(NetlinkError::Refused(_)))
    }
}

/// How long to wait for the lock of iptables-legacy, in seconds. A restore of many Services holds it for seconds.
const LOCK_WAIT: &str = "60";

/// Messages sent at once.
const BATCH: usize = 64;

impl Change {
    pub(super) fn commit(&self) -> Result<(), CommitError> {
        match &self.act {
            Act::Rules { variant, family, text } => {
                let args = ["--noflush", "--wait", LOCK_WAIT];
                XtablesTool::Restore.run(*family, *variant, &args, Some(text))?;
            }
            Act::Nft(text) => drop(command::output("nft", ["-f", "-"], Some(text))?),
            Act::Sets(text) => drop(command::output("ipset", ["restore"], Some(text))?),
            Act::Device(text) => drop(command::output("ip", ["-batch", "-"], Some(text))?),
            Act::MakeCounters(names) => make_counters(names)?,
            Act::DeleteCounters(names) => delete_counters(names)?,
            Act::Ipvs(commands) => send(commands)?,
            Act::Sysctls(values) => {
                for (path, value) in values {
                    fs::write(path, value)?;
                }
            }
        }
        Ok(())
    }

    /// What is done, line by line, for people.
    pub(super) fn lines(&self) -> Vec<String> {
        let text = |text: &[u8]| String::from_utf8_lossy(text).lines().map(str::to_owned).collect();
        match &self.act {
            Act::Rules { text: lines, .. } | Act::Nft(lines) | Act::Sets(lines) | Act::Device(lines) => text(lines),
            Act::MakeCounters(names) => names.iter().map(|name| format!("nfacct add {name}")).collect(),
            Act::DeleteCounters(names) => names.iter().map(|name| format!("nfacct delete {name}")).collect(),
            Act::Ipvs(commands) => commands.iter().map(|command| command.shown.clone()).collect(),
            Act::Sysctls(values) => values.iter().map(|(path, value)| format!("{path} = {value}")).collect(),
        }
    }
}

/// Sends messages to the kernel's IPVS. What is there already, or gone already, is as it should be.
fn send(commands: &[Command]) -> Result<(), CommitError> {
    let missing = || io::Error::new(io::ErrorKind::Unsupported, "the kernel has no IPVS");
    let (mut netlink, family) = Netlink::ipvs()?.ok_or_else(missing)?;
    for batch in commands.chunks(BATCH) {
        let request = |command: &Command| {
            let mut request = Request::generic(family, command.number, 1);
            request.body.extend(&command.attributes);
            request
        };
        for outcome in netlink.tell(&batch.iter().map(request).collect::<Vec<_>>(), false)? {
            match outcome {
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ESRCH | libc::ENOENT)) => {
                    return Err(NetlinkError::Refused(error).into());
                }
                _ => {}
            }
        }
    }
    Ok(())
}
