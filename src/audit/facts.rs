//! The typed state that checks judge, each part read when the first check asks for it.

use std::sync::OnceLock;
use std::thread;

use super::check::{Area, Evidence, Skip};
use super::flows::Flows;
use crate::capture::{BpfObjects, Captured, Item, Listener, Node, Process, Setup, Variant, XtablesLock};
use crate::inspect::conntrack::{Limits, Stats};
use crate::inspect::ipset::{self, Sets};
use crate::inspect::iptables::{Backend, Saved, Table, kube_proxys};
use crate::inspect::ipvs::{self, Addresses, IpvsState};
use crate::inspect::kernel::Config;
use crate::inspect::kube::{self, KubeState};
use crate::inspect::nftables::{self, NftablesState, OtherTable, Others};
use crate::inspect::recent::Recent;
use crate::inspect::sysctl::Sysctls;
use crate::model::{Difference, Family, Origin, ServiceTable, diff, join_names};

/// A part that was read, or the reason why it is not there.
type Part<T> = OnceLock<Result<T, Skip>>;

/// What facts borrow from.
#[derive(Debug)]
pub struct Raw<'n> {
    node: &'n Node,
    saved: Part<Saved>,
}

impl<'n> Raw<'n> {
    /// Nothing is read yet.
    pub const fn new(node: &'n Node) -> Self {
        Self { node, saved: OnceLock::new() }
    }
}

/// The iptables rules of a node.
#[derive(Debug)]
pub struct Iptables<'t> {
    /// Each backend that was captured.
    pub backends: Vec<Backend<'t>>,
    kube_proxys: Option<usize>,
}

impl<'t> Iptables<'t> {
    /// The backend that kube-proxy writes to, if its rules are in any.
    pub fn kube_proxys(&self) -> Option<&Backend<'t>> {
        self.kube_proxys.map(|i| &self.backends[i]).filter(|backend| backend.programmed())
    }

    /// The other backend.
    pub fn other(&self) -> Option<&Backend<'t>> {
        let ours = self.kube_proxys()?.variant;
        self.backends.iter().find(|backend| backend.variant != ours)
    }

    /// Every table with the name of the tool that manages it.
    pub fn tables(&self) -> impl Iterator<Item = (&'static str, &Table<'t>)> {
        self.backends.iter().flat_map(|backend| {
            Family::BOTH
                .into_iter()
                .zip(&backend.dumps)
                .filter_map(|(family, dump)| Some((family, dump.as_ref()?)))
                .flat_map(move |(family, dump)| {
                    dump.tables().iter().map(move |table| (tool(family, backend.variant), table))
                })
        })
    }
}

/// The tool that shows and changes the rules of a family and backend.
pub(super) const fn tool(family: Family, variant: Variant) -> &'static str {
    match (family, variant) {
        (Family::V4, Variant::Legacy) => "iptables-legacy",
        (Family::V4, Variant::Nft) => "iptables-nft",
        (Family::V6, Variant::Legacy) => "ip6tables-legacy",
        (Family::V6, Variant::Nft) => "ip6tables-nft",
    }
}

/// A rule of a backend as evidence: its place, and its text as saved.
pub(super) fn rule_at(backend: &Backend<'_>, origin: &Origin) -> Evidence {
    let Origin::Rule { family, table, chain, number } = origin else {
        return Evidence::new(origin.to_string(), "");
    };
    let tool = tool(*family, backend.variant);
    let dump = backend.dumps[usize::from(*family == Family::V6)].as_ref();
    let text = dump.and_then(|dump| {
        let table = dump.table(table)?;
        let rule = table.rule(table.chain(chain.as_bytes())?, *number as usize)?;
        Some(rule.to_string())
    });
    Evidence::new(format!("{tool} {table} {chain} rule {number}"), text.unwrap_or_default())
}

/// Everything the checks judge.
#[derive(Debug)]
pub struct Facts<'t> {
    raw: &'t Raw<'t>,
    iptables: Part<Iptables<'t>>,
    nftables: Part<NftablesState>,
    ipvs: Part<IpvsState>,
    ipvs_table: Part<ServiceTable>,
    ipsets: Part<Sets>,
    addresses: Part<Addresses>,
    kube: Part<KubeState>,
    sysctls: Part<Sysctls>,
    mode: Part<String>,
    bpf: Part<BpfObjects>,
    others: Part<Others>,
    listeners: Part<Vec<Listener>>,
    processes: Part<Vec<Process>>,
    setup: Part<Setup>,
    kernel_config: Part<Config>,
    recent: Part<Recent>,
    lock: Part<XtablesLock>,
    flows: Part<Flows>,
    differences: Part<Vec<Difference>>,
}

impl<'t> Facts<'t> {
    /// Nothing is read yet.
    pub const fn new(raw: &'t Raw<'t>) -> Self {
        Self {
            raw,
            iptables: OnceLock::new(),
            nftables: OnceLock::new(),
            ipvs: OnceLock::new(),
            ipvs_table: OnceLock::new(),
            ipsets: OnceLock::new(),
            addresses: OnceLock::new(),
            kube: OnceLock::new(),
            sysctls: OnceLock::new(),
            mode: OnceLock::new(),
            bpf: OnceLock::new(),
            others: OnceLock::new(),
            listeners: OnceLock::new(),
            processes: OnceLock::new(),
            setup: OnceLock::new(),
            kernel_config: OnceLock::new(),
            recent: OnceLock::new(),
            lock: OnceLock::new(),
            flows: OnceLock::new(),
            differences: OnceLock::new(),
        }
    }

    /// Reads the large parts that these areas need, side by side.
    pub fn prefetch(&self, areas: &[Area]) {
        let any = |wanted: &[Area]| areas.iter().any(|area| wanted.contains(area));
        thread::scope(|scope| {
            if any(&[Area::Services]) {
                scope.spawn(|| self.kube().is_ok());
            }
            if any(&[Area::Nftables, Area::Services]) {
                scope.spawn(|| self.nftables().is_ok());
            }
            if any(&[Area::Iptables, Area::Services]) {
                scope.spawn(|| self.iptables().is_ok());
            }
        });
    }

    /// The iptables rules.
    pub fn iptables(&self) -> Result<&Iptables<'t>, Skip> {
        let read = || {
            let saved = self.raw.saved.get_or_init(|| Saved::capture(self.raw.node).map_err(|e| Skip::because(&e)));
            let backends = saved.as_ref().map_err(Clone::clone)?.backends().map_err(|e| Skip::because(&e))?;
            Ok(Iptables { kube_proxys: kube_proxys(&backends), backends })
        };
        of(self.iptables.get_or_init(read))
    }

    /// What of the iptables rules was not captured, in words.
    pub fn not_captured(&self) -> Vec<String> {
        match self.raw.saved.get() {
            Some(Ok(saved)) => saved.not_captured().iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }

    /// kube-proxy's nftables tables.
    pub fn nftables(&self) -> Result<&NftablesState, Skip> {
        of(self.nftables.get_or_init(|| nftables::read_node(self.raw.node).map_err(|e| Skip::because(&e))))
    }

    /// kube-proxy's nftables tables, if there are any.
    pub fn nft_tables(&self) -> Result<&NftablesState, Skip> {
        let state = self.nftables()?;
        if state.ruleset.is_empty() { Err(Skip("there is no table of kube-proxy".to_owned())) } else { Ok(state) }
    }

    /// The API's objects and kube-proxy's configuration.
    pub fn kube(&self) -> Result<&KubeState, Skip> {
        of(self.kube.get_or_init(|| kube::read_node(self.raw.node).map_err(|e| Skip::because(&e))))
    }

    /// Sysctls of the network.
    pub fn sysctls(&self) -> Result<&Sysctls, Skip> {
        of(self.sysctls.get_or_init(|| self.bytes(Item::Sysctl).map(|text| Sysctls::parse(&text))))
    }

    /// The sysctls of connection tracking.
    pub fn limits(&self) -> Result<Limits, Skip> {
        self.sysctls().cloned().map(Limits::of)
    }

    /// What connection tracking lost, by processor.
    pub fn losses(&self) -> Result<Stats, Skip> {
        Stats::parse(&self.bytes(Item::ConntrackStats)?)
            .ok_or_else(|| Skip("the kernel does not count what connection tracking loses".to_owned()))
    }

    /// The flows of connection tracking, counted by the Services that packets meet.
    pub fn flows(&self) -> Result<&Flows, Skip> {
        of(self.flows.get_or_init(|| Flows::read(self.raw.node, self.programmed()?.table)))
    }

    /// IPVS, with kube-proxy's sets, addresses and rules around it.
    pub fn ipvs(&self) -> Result<&IpvsState, Skip> {
        of(self.ipvs.get_or_init(|| ipvs::read_node(self.raw.node).map_err(|e| Skip::because(&e))))
    }

    /// kube-proxy's part of IPVS with the names that the API has for it.
    pub(super) fn ipvs_table(&self) -> Result<&ServiceTable, Skip> {
        of(self.ipvs_table.get_or_init(|| {
            let table = &self.ipvs()?.table;
            Ok(self.kube().map_or_else(|_| table.clone(), |kube| join_names(table, &kube.table)))
        }))
    }

    /// IP sets.
    pub fn ipsets(&self) -> Result<&Sets, Skip> {
        of(self.ipsets.get_or_init(|| ipset::parse(&self.bytes(Item::Ipset)?).map_err(|e| Skip::because(&e))))
    }

    /// Addresses of the node and on kube-ipvs0.
    pub fn addresses(&self) -> Result<&Addresses, Skip> {
        let read = || Addresses::parse(&self.bytes(Item::Addresses)?).map_err(|e| Skip::because(&e));
        of(self.addresses.get_or_init(read))
    }

    /// Clients that rules remember for session affinity.
    pub fn recent(&self) -> Result<&Recent, Skip> {
        of(self.recent.get_or_init(|| self.bytes(Item::Recent).map(|text| Recent::parse(&text))))
    }

    /// Who holds iptables-legacy's lock.
    pub fn lock(&self) -> Result<&XtablesLock, Skip> {
        of(self.lock.get_or_init(|| self.json(Item::XtablesLock)))
    }

    /// What kube-proxy says its mode is.
    pub fn mode(&self) -> Result<&str, Skip> {
        of(self.mode.get_or_init(|| self.text(Item::ProxyMode).map(|text| text.trim().to_owned()))).map(String::as_str)
    }

    /// BPF programs, links and maps.
    pub fn bpf(&self) -> Result<&BpfObjects, Skip> {
        of(self.bpf.get_or_init(|| self.json(Item::BpfObjects)))
    }

    /// nftables tables of others, and the version of nft.
    pub fn others(&self) -> Result<&Others, Skip> {
        of(self.others.get_or_init(|| {
            let text = self.text(Item::NftOthers)?;
            nftables::others(text.as_bytes()).map_err(|e| Skip::because(&e))
        }))
    }

    /// nftables tables of others.
    pub fn other_tables(&self) -> Result<&[OtherTable], Skip> {
        self.others().map(|others| others.tables.as_slice())
    }

    /// Listening TCP sockets.
    pub fn listeners(&self) -> Result<&[Listener], Skip> {
        of(self.listeners.get_or_init(|| self.json(Item::Listeners))).map(Vec::as_slice)
    }

    /// Processes that have to do with Services.
    pub fn processes(&self) -> Result<&[Process], Skip> {
        of(self.processes.get_or_init(|| self.json(Item::Processes))).map(Vec::as_slice)
    }

    /// Files that act when the node or a program starts.
    pub fn setup(&self) -> Result<&Setup, Skip> {
        of(self.setup.get_or_init(|| self.json(Item::Setup)))
    }

    /// What the kernel was built with.
    pub fn kernel_config(&self) -> Result<&Config, Skip> {
        of(self.kernel_config.get_or_init(|| {
            let text = self.text(Item::KernelConfig)?;
            Config::parse(&text).ok_or_else(|| Skip("what was captured is no kernel configuration".to_owned()))
        }))
    }

    /// What differs between the API (A) and the rules (B).
    pub fn differences(&self) -> Result<&[Difference], Skip> {
        let compare = || {
            let asked = &self.kube()?.table;
            let programmed = self.programmed()?;
            Ok(match programmed.rules {
                // What Local policies become in IPVS mode is no mistake of this node's.
                Rules::Ipvs => diff(&ipvs::as_ipvs(asked), programmed.table),
                Rules::Iptables(_) | Rules::Nftables => diff(asked, programmed.table),
            })
        };
        of(self.differences.get_or_init(compare)).map(Vec::as_slice)
    }

    /// The table that packets meet: of the mode kube-proxy says it has, else of whichever rules there are.
    pub fn programmed(&self) -> Result<Programmed<'_>, Skip> {
        let iptables = || {
            let backend = self.iptables().ok()?.kube_proxys()?;
            Some(Programmed { table: &backend.lifted.table, rules: Rules::Iptables(backend) })
        };
        let nftables =
            || self.nft_tables().ok().map(|state| Programmed { table: &state.table, rules: Rules::Nftables });
        let ipvs = || {
            let table = self.ipvs_table().ok().filter(|table| !table.frontends().is_empty())?;
            Some(Programmed { table, rules: Rules::Ipvs })
        };
        let found = match self.mode() {
            Ok("nftables") => nftables(),
            Ok("iptables") => iptables(),
            Ok("ipvs") => ipvs(),
            _ => iptables().or_else(nftables).or_else(ipvs),
        };
        found.ok_or_else(|| Skip("there are no Service rules of kube-proxy".to_owned()))
    }

    fn json<T: serde::de::DeserializeOwned>(&self, item: Item) -> Result<T, Skip> {
        serde_json::from_str(&self.text(item)?).map_err(|e| Skip::because(&e))
    }

    /// A raw item as text.
    pub fn text(&self, item: Item) -> Result<String, Skip> {
        self.bytes(item).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn bytes(&self, item: Item) -> Result<Vec<u8>, Skip> {
        match self.raw.node.read(item) {
            Ok(Captured::Present { bytes, .. }) => Ok(bytes),
            Ok(Captured::Absent { reason }) => Err(Skip(format!("{item} not captured: {reason}"))),
            Err(error) => Err(Skip::because(&error)),
        }
    }
}

/// The Services as kube-proxy's rules have them.
#[derive(Clone, Copy, Debug)]
pub struct Programmed<'f> {
    /// The table.
    pub table: &'f ServiceTable,
    /// What it was read from.
    pub rules: Rules<'f>,
}

impl<'f> Programmed<'f> {
    /// The iptables backend, if the Services are in one.
    pub const fn backend(&self) -> Option<&'f Backend<'f>> {
        match self.rules {
            Rules::Iptables(backend) => Some(backend),
            Rules::Nftables | Rules::Ipvs => None,
        }
    }
}

/// What serves the Services.
#[derive(Clone, Copy, Debug)]
pub enum Rules<'f> {
    /// One of the iptables backends.
    Iptables(&'f Backend<'f>),
    /// kube-proxy's nftables tables.
    Nftables,
    /// IPVS.
    Ipvs,
}

fn of<T>(part: &Result<T, Skip>) -> Result<&T, Skip> {
    part.as_ref().map_err(Clone::clone)
}
