//! What a node has of kube-proxy's, as the kernel's own tools print it: read from the node, kept in files, read back.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::error::Error;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::super::journal::sync_dir;
use super::super::store::{StoreError, write_durably};
use super::ipvs::{self as ipvs_changes, Device};
use super::{RemovalError, lossy, sysctl};
use crate::capture::netlink::{Netlink, Request, attributes};
use crate::capture::{Captured, Item, Node, Variant, XtablesTool, counters, legacy_table, nft_table};
use crate::inspect::conntrack::{self, ConntrackError};
use crate::inspect::iptables::{Dump, Remark, owner, parse};
use crate::inspect::{ipset, ipvs};
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

impl Text {
    /// Parses it; each table may be there once.
    pub(super) fn parsed(&self) -> Result<Dump<'_>, RemovalError> {
        let dump = parse(&self.bytes).map_err(|source| RemovalError::Parse { place: self.place.clone(), source })?;
        for (i, table) in dump.tables().iter().enumerate() {
            if dump.tables()[..i].iter().any(|other| other.name() == table.name()) {
                return Err(RemovalError::RepeatedTable { place: self.place.clone(), table: lossy(table.name()) });
            }
        }
        Ok(dump)
    }
}

/// What the tools of this node do not show, although something of kube-proxy is, or may be, there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// Where, such as `iptables-nft IPv4`.
    pub place: String,
    /// Why they do not show it.
    pub reason: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl fmt::Display for Unseen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.reason)
    }
}

impl Unseen {
    fn rules(variant: Variant, family: Family, reason: String) -> Self {
        let remedy = match variant {
            Variant::Nft => {
                "move rules that are not of iptables into a table of their own (nft list ruleset), or install iptables-nft"
            }
            Variant::Legacy => "install iptables-legacy",
        };
        Self { place: format!("iptables-{variant} {family}"), reason, remedy }
    }
}

/// What a node has of kube-proxy's, with everything of others around it, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    pub(super) rules: Vec<Text>,
    pub(super) unseen: Vec<Unseen>,
    /// kube-proxy's tables of nftables mode, IPv4's and IPv6's, as nft lists them.
    pub(super) listings: [Option<String>; 2],
    /// All IP sets as ipset saves them.
    pub(super) sets: String,
    /// kube-proxy's nfacct objects.
    pub(super) counters: Vec<String>,
    /// Devices and their addresses, as `ip -j -d addr` prints them; empty: not known.
    pub(super) addresses: Vec<u8>,
    /// What the kernel's IPVS says; empty: there is none.
    pub(super) ipvs: Vec<u8>,
    /// kube-proxy's sysctls, a line each.
    pub(super) sysctls: String,
    /// Addresses of ipvs mode's device that sockets of the node have, by connections that run. They are of the moment, and not kept.
    pub(super) in_use: BTreeSet<IpAddr>,
}

/// kube-proxy's nfacct objects.
const COUNTERS: [&str; 2] = [super::render::INVALID, super::render::LOCALHOST];

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
        let item = |item| match node.read(item).map_err(RemovalError::Read)? {
            Captured::Present { bytes, .. } => Ok(Ok(bytes)),
            Captured::Absent { reason } => Ok::<_, RemovalError>(Err(reason)),
        };
        match item(Item::Ipset)? {
            Ok(bytes) => state.sets = lossy(&bytes),
            Err(reason) if state.names_sets() => state.unseen.push(Unseen {
                place: "ipset".into(),
                reason: format!("rules use sets of kube-proxy, and {reason}"),
                remedy: "install ipset",
            }),
            Err(_) => {}
        }
        state.addresses = item(Item::Addresses)?.unwrap_or_default();
        state.ipvs = item(Item::Ipvs)?.unwrap_or_default();
        state.sysctls = sysctl::own(&lossy(&item(Item::Sysctl)?.unwrap_or_default()));
        match item(Item::NftTables)? {
            Ok(bytes) => {
                let text = lossy(&bytes);
                state.listings = Family::BOTH.map(|family| nft_table(&text, family).map(str::to_owned));
            }
            // A live node is asked only for what it has.
            Err(reason) if node.is_live() => {
                let reason = format!("there are tables of kube-proxy, and {reason}");
                state.unseen.push(Unseen { place: "nftables".into(), reason, remedy: "install nft" });
            }
            Err(_) => {}
        }
        if node.is_live() {
            state.in_use = in_use(node, state.device()?.as_ref())?;
            state.counters = counters()?.into_iter().filter(|name| COUNTERS.contains(&name.as_str())).collect();
        }
        Ok(state)
    }

    /// The same, whichever addresses of the device sockets have: what kube-proxy has made does not depend on them.
    #[must_use]
    pub fn at_rest(mut self) -> Self {
        self.in_use.clear();
        self
    }

    /// Whether a rule uses a set of kube-proxy.
    fn names_sets(&self) -> bool {
        self.rules.iter().any(|text| memchr::memmem::find(&text.bytes, b"--match-set KUBE-").is_some())
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
        for (name, bytes) in self.files() {
            write_durably(&aside.join(name), bytes.as_ref())?;
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
        let read = |name: &str| match fs::read(folder.join(name)) {
            Ok(bytes) => Ok(bytes),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(StoreError::Io { action: "read", path: folder.join(name), source }),
        };
        for (listing, name) in state.listings.iter_mut().zip(LISTINGS) {
            *listing = Some(lossy(&read(name)?)).filter(|text| !text.is_empty());
        }
        state.sets = lossy(&read(SETS)?);
        state.counters = lossy(&read(COUNTER_NAMES)?).lines().map(str::to_owned).collect();
        state.addresses = read(ADDRESSES)?;
        state.ipvs = read(IPVS)?;
        state.sysctls = lossy(&read(SYSCTLS)?);
        Ok(state)
    }

    /// What is kept besides rules, by the names of files.
    fn files(&self) -> Vec<(&'static str, Cow<'_, [u8]>)> {
        let listings = LISTINGS.into_iter().zip(&self.listings);
        let mut files: Vec<(&'static str, Cow<'_, [u8]>)> =
            listings.filter_map(|(name, listing)| Some((name, Cow::Borrowed(listing.as_ref()?.as_bytes())))).collect();
        files.push((SETS, Cow::Borrowed(self.sets.as_bytes())));
        files.push((COUNTER_NAMES, Cow::Owned(self.counters.join("\n").into_bytes())));
        files.push((ADDRESSES, Cow::Borrowed(&self.addresses)));
        files.push((IPVS, Cow::Borrowed(&self.ipvs)));
        files.push((SYSCTLS, Cow::Borrowed(self.sysctls.as_bytes())));
        files
    }

    /// kube-proxy's table of nftables mode, as nft lists it.
    pub(super) fn listing(&self, family: Family) -> Option<&str> {
        self.listings[usize::from(family == Family::V6)].as_deref()
    }

    /// The virtual services of IPVS, with all that tells whose they are.
    pub(super) fn virtual_services(&self) -> Result<ipvs::State, RemovalError> {
        let output = |program| move |source: Box<dyn Error + Send + Sync>| RemovalError::Output { program, source };
        if self.ipvs.is_empty() {
            return Ok(ipvs::State::default());
        }
        let addresses = match self.addresses.as_slice() {
            [] => None,
            json => Some(ipvs::Addresses::parse(json).map_err(|e| output("ip")(e.into()))?),
        };
        let sets = ipset::parse(self.sets.as_bytes()).map_err(|e| output("ipset")(e.into()))?;
        Ok(ipvs::State { ipvs: ipvs::decode(&self.ipvs)?, sets, addresses, ..ipvs::State::default() })
    }

    /// Whether kube-proxy's virtual services take nothing new.
    pub fn is_drained(&self) -> Result<bool, RemovalError> {
        Ok(ipvs_changes::drain(&self.virtual_services()?).is_none())
    }

    /// kube-proxy's device of ipvs mode.
    pub(super) fn device(&self) -> Result<Option<Device>, RemovalError> {
        if self.addresses.is_empty() {
            return Ok(None);
        }
        Device::parse(&self.addresses).map_err(|e| RemovalError::Output { program: "ip", source: e.into() })
    }

    /// The rules of a backend and family.
    pub(super) fn text(&self, variant: Variant, family: Family) -> Option<&Text> {
        self.rules.iter().find(|text| (text.variant, text.family) == (variant, family))
    }
}

// The files of a kept state, besides those of rules.
const LISTINGS: [&str; 2] = ["nft-ip-kube-proxy.nft", "nft-ip6-kube-proxy.nft"];
const SETS: &str = "ipset-save.txt";
const COUNTER_NAMES: &str = "nfacct.txt";
const ADDRESSES: &str = "ip-addr.json";
const IPVS: &str = "netlink-ipvs.bin";
const SYSCTLS: &str = "sysctl.txt";

fn file(family: Family, variant: Variant) -> String {
    format!("{}.txt", XtablesTool::Save.program(family, variant))
}

/// Those of the device's addresses that connections have as their source.
fn in_use(node: &Node, device: Option<&Device>) -> Result<BTreeSet<IpAddr>, RemovalError> {
    let own: BTreeSet<IpAddr> = device.into_iter().flat_map(Device::addresses).collect();
    let mut found = BTreeSet::new();
    if !own.is_empty() {
        let read = conntrack::read_node(node, |entry| {
            let over = matches!(entry.state, Some("TIME_WAIT" | "CLOSE" | "CLOSED"));
            found.extend(Some(entry.original.source.ip()).filter(|ip| !over && own.contains(ip)));
        });
        match read {
            Ok(_) | Err(ConntrackError::NotCaptured { .. }) => {}
            Err(error) => return Err(RemovalError::Conntrack(error)),
        }
    }
    Ok(found)
}

/// Tables that a text names but leaves out, where chains of kube-proxy may be in them.
fn left_out(node: &Node, text: &Text) -> Result<Vec<Unseen>, RemovalError> {
    // Only the tools for nf_tables leave a table out; a line that says so is one of the few comments of a text.
    let dump = text.parsed()?;
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
            unseen.push(Unseen::rules(variant, family, reason));
        }
    }
    Ok(unseen)
}

/// A backend without a tool to show it.
fn untold(node: &Node, variant: Variant, family: Family, reason: String) -> Result<Option<Unseen>, RemovalError> {
    // A snapshot has no file for a backend that the node had nothing of.
    let there = node.is_live() && may_hold_chains(node, variant, family, None)?;
    let reason = format!("there are chains of kube-proxy, and {reason}");
    Ok(there.then(|| Unseen::rules(variant, family, reason)))
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
            let Some(mut netlink) = Netlink::nf_tables().map_err(RemovalError::from)? else { return Ok(false) };
            let request = Request::netfilter(NF_TABLES, GET_CHAIN, nfproto(family));
            let chains = netlink.dump_steady(&request, |_, body| {
                let attributes = |wanted| attributes(body.get(4..)?).find(|(kind, _)| *kind == wanted);
                let (_, table) = attributes(CHAIN_TABLE)?;
                let (_, chain) = attributes(CHAIN_NAME)?;
                let table = std::str::from_utf8(terminated(table)).ok()?;
                Some(wanted(table) && owner(terminated(chain)).is_kube_proxy())
            });
            Ok(chains.map_err(RemovalError::from)?.contains(&true))
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
