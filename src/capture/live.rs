//! Reading the node that kpx runs on, without changing it: no table is created and no module loaded by looking.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::bpf::BpfObjects;
use super::command::{self, CommandError};
use super::error::CaptureError;
use super::host::{self, Host};
use super::iptables::XtablesTool;
use super::item::{Item, Variant};
use super::kernel::Part;
use super::setup::Setup;
use super::{
    Captured, NodeOptions, api, conntrack, ipvs, kernel_config, listeners, listing, locks, nft, processes, proxy,
    recent, sysctl,
};
use crate::model::Family;

/// This node, in the network namespace that the process is in.
#[derive(Debug)]
pub struct Live {
    netns: Option<String>,
    kubeconfig: Option<PathBuf>,
    context: Option<String>,
}

impl Live {
    pub(super) fn new(options: &NodeOptions) -> Self {
        Self { netns: options.netns.clone(), kubeconfig: options.kubeconfig.clone(), context: options.context.clone() }
    }

    pub(super) fn label(&self) -> String {
        match &self.netns {
            Some(name) => format!("this node, network namespace {name}"),
            None => "this node".to_owned(),
        }
    }

    pub(super) async fn connect(&self) -> Result<(kube::Client, String), api::ApiError> {
        api::connect(self.kubeconfig.as_deref(), self.context.as_deref()).await
    }

    pub(super) fn node_name() -> String {
        proxy::live_node_name().unwrap_or_else(host::node_name)
    }

    pub(super) fn read(&self, item: Item) -> Result<Captured, CaptureError> {
        match item {
            Item::Host => Host::read().map(|host| json(&host, "uname")),
            Item::IptablesSave(family, variant) => rules(family, variant),
            Item::NftRuleset | Item::NftOthers if !there(item, Part::NfTables)? => {
                Ok(nothing(Part::NfTables, b"{\"nftables\": []}\n"))
            }
            Item::NftOthers => nft::others(),
            Item::NftTables => listing::tables(),
            Item::Nfacct if !there(item, Part::Nfacct)? => Ok(nothing(Part::Nfacct, b"")),
            Item::Ipset if !there(item, Part::IpSet)? => Ok(nothing(Part::IpSet, b"")),
            Item::NftRuleset | Item::Nfacct | Item::Ipset | Item::Addresses | Item::Routes | Item::RouteRules => {
                commands(item)
            }
            Item::Sysctl => kernel(item, SYSCTL, sysctl::read()),
            Item::Conntrack => conntrack::table(),
            Item::ConntrackStats => conntrack::stats(),
            Item::Ipvs => ipvs::state(),
            Item::IpvsConnections => ipvs::connections(),
            Item::Recent => kernel(item, recent::PLACE, recent::read()),
            Item::XtablesLock => as_json(item, LOCKS, locks::read()),
            Item::BpfObjects => as_json(item, BPF, BpfObjects::read()),
            Item::Listeners => as_json(item, SOCKETS, listeners::read()),
            Item::Processes => as_json(item, PROCESSES, processes::read()),
            Item::Setup => as_json(item, SETUP, Setup::read(Path::new("/"))),
            Item::KernelConfig => match kernel_config::read() {
                Ok(Some((bytes, place))) => Ok(Captured::Present { bytes, place }),
                Ok(None) => Ok(Captured::Absent { reason: format!("none of {KERNEL_CONFIG} is there") }),
                Err(source) => Err(CaptureError::Kernel { item, place: KERNEL_CONFIG, source }),
            },
            Item::ProxyMode | Item::Configz | Item::Healthz | Item::Livez | Item::Metrics => {
                proxy::read(item).expect("kube-proxy serves these")
            }
            Item::ProxyLog => Ok(Captured::Absent {
                reason: "a container's log cannot be found from here; add it by hand as kube-proxy.log".to_owned(),
            }),
            Item::ProxyConfigMap | Item::Services | Item::EndpointSlices | Item::Nodes => {
                api::read(item, self.kubeconfig.as_deref(), self.context.as_deref())
                    .expect("the API has these")
                    .map_err(|source| CaptureError::Api { item, source })
            }
        }
    }
}

const SYSCTL: &str = "/proc/sys/net";
const LOCKS: &str = "/proc/locks";
const BPF: &str = "bpf(2)";
const SOCKETS: &str = "/proc/net/tcp";
const PROCESSES: &str = "/proc";
const SETUP: &str = "/etc";
const KERNEL_CONFIG: &str = "/proc/config.gz, /boot/config-RELEASE, /usr/lib/modules/RELEASE/config";

/// How an item is read, for `capture.json`.
pub(super) fn source(item: Item) -> String {
    let joined = |programs: Vec<(&str, Vec<&str>)>| {
        let lines: Vec<_> =
            programs.into_iter().map(|(program, args)| format!("{program} {}", args.join(" "))).collect();
        lines.join("; ")
    };
    match item {
        Item::Host => "uname".to_owned(),
        Item::IptablesSave(family, variant) => format!("{} -c", XtablesTool::Save.program(family, variant)),
        Item::Sysctl => SYSCTL.to_owned(),
        Item::Conntrack | Item::ConntrackStats => conntrack::PLACE.to_owned(),
        Item::Ipvs => ipvs::PLACE.to_owned(),
        Item::IpvsConnections => "/proc/net/ip_vs_conn".to_owned(),
        Item::Recent => recent::PLACE.to_owned(),
        Item::XtablesLock => LOCKS.to_owned(),
        Item::BpfObjects => BPF.to_owned(),
        Item::NftOthers => nft::SOURCE.to_owned(),
        Item::NftTables => listing::SOURCE.to_owned(),
        Item::Listeners => SOCKETS.to_owned(),
        Item::Processes => PROCESSES.to_owned(),
        Item::Setup => SETUP.to_owned(),
        Item::KernelConfig => KERNEL_CONFIG.to_owned(),
        Item::ProxyLog => String::new(),
        _ => proxy::url(item).or_else(|| api::source(item)).unwrap_or_else(|| joined(programs(item))),
    }
}

/// The programs whose output, joined, is an item.
fn programs(item: Item) -> Vec<(&'static str, Vec<&'static str>)> {
    match item {
        Item::NftRuleset => vec![("nft", vec!["-j", "list", "ruleset"])],
        Item::Nfacct => vec![("nfacct", vec!["list"])],
        Item::Ipset => vec![("ipset", vec!["save"])],
        Item::Addresses => vec![("ip", vec!["-j", "-d", "addr"])],
        Item::Routes => {
            let of = |family| ("ip", vec!["-j", family, "route", "show", "table", "all"]);
            vec![of("-4"), of("-6")]
        }
        Item::RouteRules => vec![("ip", vec!["-j", "rule"])],
        _ => Vec::new(),
    }
}

fn commands(item: Item) -> Result<Captured, CaptureError> {
    let mut outputs = Vec::new();
    for (program, args) in programs(item) {
        match command::output(program, args, None) {
            Ok(bytes) => outputs.push(bytes),
            Err(e @ CommandError::NotInstalled { .. }) => return Ok(not_installed(&e)),
            Err(source) => return Err(CaptureError::Command { item, source }),
        }
    }
    let bytes = if item == Item::Routes { join_arrays(&outputs) } else { outputs.concat() };
    Ok(Captured::Present { bytes, place: source(item) })
}

/// Several JSON arrays as one, their text untouched.
fn join_arrays(arrays: &[Vec<u8>]) -> Vec<u8> {
    let inner = arrays.iter().filter_map(|a| a.trim_ascii().strip_prefix(b"[")?.strip_suffix(b"]"));
    let inner: Vec<&[u8]> = inner.map(<[u8]>::trim_ascii).filter(|a| !a.is_empty()).collect();
    [b"[", inner.join(&b","[..]).as_slice(), b"]\n"].concat()
}

/// The rules of one backend. Asking iptables-legacy where the kernel has no such table would create it, and asking nft
/// where nf_tables is absent would load it.
fn rules(family: Family, variant: Variant) -> Result<Captured, CaptureError> {
    let item = Item::IptablesSave(family, variant);
    match variant {
        Variant::Legacy => {
            let names = match family {
                Family::V4 => "/proc/thread-self/net/ip_tables_names",
                Family::V6 => "/proc/thread-self/net/ip6_tables_names",
            };
            match fs::read(names) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(empty(names, "is absent")),
                Err(source) => return Err(CaptureError::Kernel { item, place: names, source }),
                Ok(tables) if tables.trim_ascii().is_empty() => return Ok(empty(names, "is empty")),
                Ok(_) => {}
            }
        }
        Variant::Nft if !there(item, Part::NfTables)? => return Ok(nothing(Part::NfTables, b"")),
        Variant::Nft => {}
    }
    save(family, variant)
}

fn save(family: Family, variant: Variant) -> Result<Captured, CaptureError> {
    match XtablesTool::Save.run(family, variant, &["-c"], None) {
        Ok((bytes, place)) => Ok(Captured::Present { bytes, place }),
        Err(e @ CommandError::NotInstalled { .. }) => Ok(not_installed(&e)),
        Err(source) => Err(CaptureError::Command { item: Item::IptablesSave(family, variant), source }),
    }
}

pub(super) fn there(item: Item, part: Part) -> Result<bool, CaptureError> {
    part.is_there().map_err(|source| CaptureError::Kernel { item, place: "/proc/kallsyms", source })
}

/// What a tool would print on a kernel without the part that it lists.
pub(super) fn nothing(part: Part, bytes: &[u8]) -> Captured {
    Captured::Present { bytes: bytes.to_vec(), place: format!("the kernel has no {}", part.module()) }
}

fn empty(file: &str, how: &str) -> Captured {
    Captured::Present { bytes: Vec::new(), place: format!("{} {how}", file.replace("/thread-self", "")) }
}

fn not_installed(error: &CommandError) -> Captured {
    Captured::Absent { reason: error.to_string() }
}

fn json<T: serde::Serialize>(value: &T, place: &str) -> Captured {
    let mut bytes = serde_json::to_vec_pretty(value).expect("plain structs always serialise");
    bytes.push(b'\n');
    Captured::Present { bytes, place: place.to_owned() }
}

fn as_json<T: serde::Serialize>(
    item: Item,
    place: &'static str,
    read: io::Result<T>,
) -> Result<Captured, CaptureError> {
    match read {
        Ok(value) => Ok(json(&value, place)),
        Err(source) => Err(CaptureError::Kernel { item, place, source }),
    }
}

fn kernel(item: Item, place: &'static str, read: io::Result<Vec<u8>>) -> Result<Captured, CaptureError> {
    match read {
        Ok(bytes) => Ok(Captured::Present { bytes, place: place.to_owned() }),
        Err(source) => Err(CaptureError::Kernel { item, place, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_joined() {
        let joined = |arrays: &[&[u8]]| join_arrays(&arrays.iter().map(|a| a.to_vec()).collect::<Vec<_>>());
        assert_eq!(joined(&[b"[{\"a\":1}]\n", b"[ ]\n", b"[{\"b\":2},3]\n"]), b"[{\"a\":1},{\"b\":2},3]\n");
        assert_eq!(joined(&[b"[]", b""]), b"[]\n");
    }

    #[test]
    fn every_item_says_how_it_is_read() {
        for item in Item::ALL {
            assert_eq!(source(item).is_empty(), item == Item::ProxyLog, "{item}");
        }
    }
}
