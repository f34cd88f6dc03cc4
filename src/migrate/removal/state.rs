//! What a node has of kube-proxy's, as the kernel's own tools print it: read from the node, kept in files, read back.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::super::journal::sync_dir;
use super::super::store::{StoreError, write_durably};
use super::RemovalError;
use crate::capture::netlink::{Netlink, Request, attributes};
use crate::capture::{Captured, Item, Node, Variant, XtablesTool, legacy_table};
use crate::inspect::iptables::{Remark, owner, parse};
use crate::model::Family;

/// The rules of one iptables backend and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) variant: Variant,
    pub(super) family: Family,
    /// What `iptables-save -c` printed.
    pub(super) bytes: Vec<u8>,
    /// Where it comes from.
    pub(super) place: String,
}

/// Rules that the tools of this node do not show, although chains of kube-proxy are, or may be, among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Backend.
    pub variant: Variant,
    /// Family.
    pub family: Family,
    /// Why they do not.
    pub reason: String,
}

/// What a node has of kube-proxy's, with everything of others around it, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) rules: Vec<Text>,
    pub(super) unseen: Vec<Unseen>,
}

impl State {
    /// Reads the node, or a snapshot of one. Always afresh: not to be called inside [`Node::at_one_moment`].
    pub fn read(node: &Node) -> Result<Self, RemovalError> {
        let mut state = Self::default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                match node.read(Item::IptablesSave(family, variant)).map_err(RemovalError::Read)? {
                    Captured::Present { bytes, place } => {
                        let text = Text { variant, family, bytes, place };
                        state.unseen.extend(left_out(node, &text)?);
                        state.rules.push(text);
                    }
                    Captured::Absent { reason } => state.unseen.extend(untold(node, variant, family, reason)?),
                }
            }
        }
        Ok(state)
    }

    /// Keeps it in a folder, for [`Self::kept`]; a folder that is there already stays as it is, since it holds what was before
    /// anything was taken away.
    pub fn keep(&self, folder: &Path) -> Result<(), StoreError> {
        if folder.exists() {
            return Ok(());
        }
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { action, path, source }
        };
        let parent = folder.parent().unwrap_or(Path::new("."));
        let mut aside = folder.as_os_str().to_owned();
        aside.push(".part");
        let aside = PathBuf::from(aside);
        if aside.exists() {
            fs::remove_dir_all(&aside).map_err(failed("remove", &aside))?;
        }
        fs::create_dir_all(&aside).map_err(failed("create", &aside))?;
        for text in &self.rules {
            write_durably(&aside.join(file(text.family, text.variant)), &text.bytes)?;
        }
        fs::rename(&aside, folder).map_err(failed("create", folder))?;
        sync_dir(parent).map_err(failed("write", parent))
    }

    /// Reads what [`Self::keep`] wrote.
    pub fn kept(folder: &Path) -> Result<Self, StoreError> {
        let mut state = Self::default();
        for variant in Variant::BOTH {
            for family in Family::BOTH {
                let path = folder.join(file(family, variant));
                match fs::read(&path) {
                    Ok(bytes) => {
                        let place = path.display().to_string();
                        state.rules.push(Text { variant, family, bytes, place });
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound && folder.is_dir() => {}
                    Err(source) => return Err(StoreError::Io { action: "read", path, source }),
                }
            }
        }
        Ok(state)
    }

    /// The rules of a backend and family.
    pub(super) fn text(&self, variant: Variant, family: Family) -> Option<&Text> {
        self.rules.iter().find(|text| (text.variant, text.family) == (variant, family))
    }
}

fn file(family: Family, variant: Variant) -> String {
    format!("{}.txt", XtablesTool::Save.program(family, variant))
}

/// Tables that a text names but leaves out, where chains of kube-proxy may be in them.
fn left_out(node: &Node, text: &Text) -> Result<Vec<Unseen>, RemovalError> {
    // Only the tools for nf_tables leave a table out; a line that says so is one of the few comments of a text.
    let dump = parse(&text.bytes).map_err(|source| RemovalError::Parse { place: text.place.clone(), source })?;
    let (variant, family) = (text.variant, text.family);
    let mut unseen = Vec::new();
    for remark in dump.remarks() {
        if let Remark::Incompatible { table } = remark
            && dump.table(table).is_none()
            && may_hold_chains(node, variant, family, Some(table))?
        {
            let reason = format!(
                "table {table} holds chains of kube-proxy together with rules that {} cannot show",
                XtablesTool::Save.program(family, variant)
            );
            unseen.push(Unseen { variant, family, reason });
        }
    }
    Ok(unseen)
}

/// A backend without a tool to show it.
fn untold(node: &Node, variant: Variant, family: Family, reason: String) -> Result<Option<Unseen>, RemovalError> {
    // A snapshot has no file for a backend that the node had nothing of.
    let there = node.is_live() && may_hold_chains(node, variant, family, None)?;
    Ok(there.then(|| Unseen { variant, family, reason: format!("there are chains of kube-proxy, and {reason}") }))
}

const TABLES: [&str; 5] = ["nat", "filter", "mangle", "raw", "security"];

/// Whether chains of kube-proxy are in one table, or in any: by the kernel's own word, since no tool tells.
fn may_hold_chains(node: &Node, variant: Variant, family: Family, table: Option<&str>) -> Result<bool, RemovalError> {
    if !node.is_live() {
        return Ok(true);
    }
    let wanted = |name: &str| table.map_or(TABLES.contains(&name), |table| table == name);
    match variant {
        Variant::Legacy => {
            for table in TABLES.into_iter().filter(|name| wanted(name)) {
                let entries = legacy_table(family, table).map_err(RemovalError::Kernel)?;
                if entries.is_some_and(|entries| memchr::memmem::find(&entries, b"KUBE-").is_some()) {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        Variant::Nft => {
            let Some(mut netlink) = Netlink::nf_tables().map_err(RemovalError::Netlink)? else { return Ok(false) };
            let request = Request::netfilter(NF_TABLES, GET_CHAIN, nfproto(family));
            let chains = netlink.dump_steady(&request, |_, body| {
                let attributes = |wanted| attributes(body.get(4..)?).find(|(kind, _)| *kind == wanted);
                let (_, table) = attributes(CHAIN_TABLE)?;
                let (_, chain) = attributes(CHAIN_NAME)?;
                let table = std::str::from_utf8(terminated(table)).ok()?;
                Some(wanted(table) && owner(terminated(chain)).is_kube_proxy())
            });
            Ok(chains.map_err(RemovalError::Netlink)?.contains(&true))
        }
    }
}

// linux/netfilter/nfnetlink.h, nf_tables.h
const NF_TABLES: u8 = 10;
const GET_CHAIN: u8 = 4;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;

const fn nfproto(family: Family) -> u8 {
    match family {
        Family::V4 => libc::AF_INET as u8,
        Family::V6 => libc::AF_INET6 as u8,
    }
}

/// A string of netlink without the zero at its end.
fn terminated(bytes: &[u8]) -> &[u8] {
    bytes.strip_suffix(b"\0").unwrap_or(bytes)
}
