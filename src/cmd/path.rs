//! `kpx path`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::Context;
use crate::capture::{Captured, Item, Node};
use crate::dataplane::Dataplane;
use crate::inspect::cilium::Pins;
use crate::inspect::ipset::{self, Sets};
use crate::inspect::iptables::{IptablesError, Saved, kube_proxys};
use crate::inspect::ipvs::{self, IpvsError};
use crate::inspect::nftables;
use crate::model::{Family, Protocol, ServiceTable, TrafficSource};
use crate::path::{self, Around, End, Packet, Path, Step};
use crate::source::{SourceError, Via};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const EXAMPLES: &str = "\
Examples:
  Which rules does a connection of this node to the cluster's DNS meet?
    $ sudo kpx path 10.96.0.10:53/UDP

  What does a client outside get from a NodePort of a recorded node, by the rules and by the API?
    $ kpx path --from-ip 203.0.113.9 192.0.2.11:30080 --from node-a --services-from objects.json -o wide

A dataplane that draws lots sends the packet several ways, each with its share. Rules are walked one by one; what cannot be
known (an interface, a set of another owner) is told below. Exit code 2: the dataplanes differ.";

/// Arguments of `kpx path`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// Where the packet is sent to; TCP if no protocol is given
    #[arg(value_name = "IP:PORT[/PROTOCOL]", value_parser = destination)]
    destination: (SocketAddr, Protocol),
    /// The packet's source address [default: a socket of the node]
    #[arg(long, value_name = "IP")]
    from_ip: Option<IpAddr>,
    /// The interface it comes in by [default: the one that leads to its source]
    #[arg(long, value_name = "NAME", requires = "from_ip")]
    in_interface: Option<String>,
    /// Which dataplane to follow it through
    #[arg(long, value_enum, default_value_t, value_name = "SOURCE")]
    via: Scope,
}

/// Which dataplanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Scope {
    /// All that are there
    #[default]
    All,
    /// The rules kube-proxy wrote, legacy or nft, and all others in those tables
    Iptables,
    /// The tables kube-proxy wrote in nftables mode
    Nftables,
    /// The virtual services kube-proxy wrote in IPVS mode
    Ipvs,
    /// kpx's own pinned BPF maps
    Ebpf,
    /// Cilium's pinned BPF maps
    Cilium,
    /// What the objects of the Kubernetes API ask for
    Api,
}

impl Scope {
    fn sources(self) -> &'static [Via] {
        match self {
            Self::All => &[Via::Iptables, Via::Nftables, Via::Ipvs, Via::Ebpf, Via::Cilium, Via::Api],
            Self::Iptables => &[Via::Iptables],
            Self::Nftables => &[Via::Nftables],
            Self::Ipvs => &[Via::Ipvs],
            Self::Ebpf => &[Via::Ebpf],
            Self::Cilium => &[Via::Cilium],
            Self::Api => &[Via::Api],
        }
    }
}

/// The text is no destination.
#[derive(Debug, thiserror::Error)]
#[error("expected ADDRESS:PORT or ADDRESS:PORT/PROTOCOL, such as 10.96.0.10:53/UDP or [fd00::a]:80")]
struct NoDestination;

fn destination(text: &str) -> Result<(SocketAddr, Protocol), NoDestination> {
    let (address, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = all.into_iter().find(|p| p.lower().eq_ignore_ascii_case(protocol)).ok_or(NoDestination)?;
    Ok((address.parse().map_err(|_| NoDestination)?, protocol))
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    let report = PathReport::read(context, args)?;
    context.ui.report(&report)?;
    Ok(if report.differ().is_empty() { Exit::Fine } else { Exit::ActOn })
}

/// The packet's way through one dataplane.
struct Through {
    via: Via,
    place: String,
    path: Path,
}

/// Its ways through all of them.
struct PathReport {
    packet: Packet,
    through: Vec<Through>,
    /// Sources that say nothing, and why.
    missing: Vec<(Via, String)>,
}

impl PathReport {
    fn read(context: &Context, args: &Args) -> Result<Self, Failure> {
        let node = context.node()?;
        let around = Around::read(&node)?;
        let (destination, protocol) = args.destination;
        if let Some(ip) = args.from_ip.filter(|ip| ip.is_ipv4() != destination.is_ipv4()) {
            return Err(Failure::usage(format!("{ip} and {destination} are of different address families"))
                .hint("give --from-ip an address of the destination's family"));
        }
        let mut report = Self {
            packet: packet(context, &node, args, &around, (destination, protocol))?,
            through: Vec::new(),
            missing: Vec::new(),
        };
        for &via in args.via.sources() {
            match follow(context, &node, via, &report.packet, &around) {
                Ok(Ok(through)) => report.through.push(through),
                Ok(Err(why)) => report.missing.push((via, why)),
                // What was asked for by its name has to be there.
                Err(failure) if args.via != Scope::All => return Err(failure),
                Err(failure) => report.missing.push((via, failure.message)),
            }
        }
        if !report.through.is_empty() {
            return Ok(report);
        }
        let mut failure = Failure::new("no dataplane of this node can be read");
        failure.causes.extend(report.missing.iter().map(|(via, why)| format!("{via}: {why}")));
        Err(failure.hint("name the node's snapshot with --from, or run it on the node as root"))
    }

    /// The dataplanes that treat the packet otherwise than the first one.
    fn differ(&self) -> Vec<Via> {
        let Some((first, rest)) = self.through.split_first() else { return Vec::new() };
        rest.iter().filter(|other| !first.path.agrees_with(&other.path)).map(|other| other.via).collect()
    }

    fn footer(&self) -> String {
        let names = |all: &[Via]| {
            let names: Vec<String> = all.iter().map(Via::to_string).collect();
            format!("{} {}", names.join(", "), if names.len() == 1 { "treats" } else { "treat" })
        };
        let all: Vec<Via> = self.through.iter().map(|through| through.via).collect();
        match (&all[..], &self.differ()[..]) {
            ([one], _) => format!("by {one} alone; nothing to compare it with"),
            ([first, ..], []) => format!("{} the packet as {first} does", names(&all[1..])),
            ([first, ..], other) => format!("{} the packet otherwise than {first}", names(other)),
            ([], _) => String::new(),
        }
    }
}

/// What is known of the packet.
fn packet(
    context: &Context,
    node: &Node,
    args: &Args,
    around: &Around,
    (destination, protocol): (SocketAddr, Protocol),
) -> Result<Packet, Failure> {
    let packet = |origin, source, interface| Packet { origin, source, destination, protocol, interface };
    let Some(source) = args.from_ip else {
        return Ok(packet(TrafficSource::Node, around.source_to(destination.ip()), None));
    };
    let led = || around.interface_to(source).filter(|name| *name != "lo").map(str::to_owned);
    let interface = args.in_interface.clone().or_else(led);
    let local = around.addresses.clone().unwrap_or_default();
    // How pods are recognised stands in any of the tables.
    let mut origin = path::origin_of(source, interface.as_deref(), &local, &ServiceTable::default());
    for via in [Via::Iptables, Via::Nftables, Via::Ipvs, Via::Api] {
        if origin == Some(TrafficSource::Outside)
            && let Ok(lifted) = context.lift(node, via)
        {
            origin = path::origin_of(source, interface.as_deref(), &local, &lifted.table);
        }
    }
    let origin = origin.ok_or_else(|| {
        Failure::usage(format!("this node tells pods by their interface, and no route leads to {source}"))
            .hint("name the interface that the packet comes in by: --in-interface NAME")
    })?;
    Ok(packet(origin, Some(source), interface.filter(|_| origin != TrafficSource::Node)))
}

/// Follows the packet through one dataplane; or why there is nothing to follow.
fn follow(
    context: &Context,
    node: &Node,
    via: Via,
    packet: &Packet,
    around: &Around,
) -> Result<Result<Through, String>, Failure> {
    let found = |place: String, path: Path| Ok(Ok(Through { via, place, path }));
    let family = usize::from(packet.family() == Family::V6);
    match via {
        Via::Iptables => {
            let saved = Saved::capture(node).map_err(SourceError::from)?;
            let backends = saved.backends().map_err(SourceError::from)?;
            let chosen = kube_proxys(&backends).map(|i| &backends[i]);
            match chosen.and_then(|backend| Some((backend, backend.dumps[family].as_ref()?))) {
                Some((backend, dump)) if backend.programmed() => found(
                    format!("iptables ({}) of {}", backend.variant, node.label()),
                    path::through_iptables(dump, &sets(node)?, packet, around),
                ),
                _ => Ok(Err("no rules of kube-proxy".to_owned())),
            }
        }
        Via::Nftables => {
            let state = nftables::read_node(node).map_err(SourceError::from)?;
            match path::through_nftables(&state.ruleset, packet, around) {
                Some(path) => found(format!("kube-proxy's nftables tables of {}", node.label()), path),
                None => Ok(Err("no table of kube-proxy".to_owned())),
            }
        }
        Via::Ebpf => {
            let kpx = context.globals.places().kpx;
            if !node.is_live() {
                return Ok(Err("a snapshot holds no BPF maps".to_owned()));
            }
            let dataplane = Dataplane::expect(&kpx)?;
            found(format!("BPF maps in {}", kpx.pins.display()), path::through_maps(&dataplane, packet, around)?)
        }
        Via::Ipvs | Via::Cilium | Via::Api => {
            let lifted = context.lift_named(node, via)?;
            if lifted.table.frontends().is_empty() {
                return Ok(Err(format!("no Services in {}", lifted.place)));
            }
            let table = &lifted.table;
            let path = match via {
                Via::Ipvs => {
                    let state = ipvs::read_node(node).map_err(SourceError::from)?.state;
                    let saved = match Saved::capture(node) {
                        Ok(saved) => Some(saved),
                        // IPVS serves without rules, too.
                        Err(IptablesError::NotCaptured { .. }) => None,
                        Err(error) => return Err(SourceError::from(error).into()),
                    };
                    let backends = saved.as_ref().map(Saved::backends).transpose().map_err(SourceError::from)?;
                    let mut dumps = backends.iter().flatten().filter_map(|backend| backend.dumps[family].as_ref());
                    path::through_ipvs(dumps.find(|dump| ipvs::has_rules(dump)), &state, table, packet, around)
                }
                Via::Cilium => {
                    let state = Pins::new(&context.globals.places().cilium).state().map_err(SourceError::from)?;
                    path::through_cilium(&state, table, packet, around)
                }
                _ => path::through_table(table, "api", packet, around),
            };
            found(lifted.place, path)
        }
    }
}

/// The IP sets that rules name; none where they were not captured.
fn sets(node: &Node) -> Result<Sets, Failure> {
    match node.read(Item::Ipset)? {
        Captured::Present { bytes, place } => {
            ipset::parse(&bytes).map_err(|source| SourceError::Ipvs(IpvsError::Sets { place, source }).into())
        }
        Captured::Absent { .. } => Ok(Sets::new()),
    }
}

impl Through {
    fn title(&self) -> String {
        let compared: Vec<usize> = self.path.ways.iter().map(|way| way.compared).collect();
        let (least, most) = (compared.iter().min().unwrap_or(&0), compared.iter().max().unwrap_or(&0));
        let what = match self.via {
            Via::Iptables | Via::Nftables | Via::Ipvs => "rule",
            Via::Ebpf | Via::Cilium => "map entry",
            // What the objects ask for is no dataplane.
            Via::Api => return self.place.clone(),
        };
        let met = if least == most { count(*most, what) } else { format!("{least} to {}", count(*most, what)) };
        format!("{}: compared with {met}", self.place)
    }

    fn steps(&self, wide: bool) -> Table {
        let headings = ["HOOK", "AT", "DOES", "RULE"];
        let mut table = Table::new(&headings[..if wide { 4 } else { 3 }]).title(self.title());
        let (start, end) = self.path.shared();
        let Some(first) = self.path.ways.first() else { return table };
        let row = |step: &Step| {
            let cells = [Cell::from(step.hook), step.at.clone().into(), tone(&step.does), step.text.clone().into()];
            cells.into_iter().take(if wide { 4 } else { 3 }).collect::<Vec<_>>()
        };
        table.rows.extend(first.steps[..start].iter().map(row));
        if self.path.ways.len() > 1 {
            let ways = format!("one of {} ways, below", self.path.ways.len());
            let cells = [Cell::blank(), Cell::blank(), Cell::toned(ways, Tone::Quiet), Cell::blank()];
            table.rows.push(cells.into_iter().take(if wide { 4 } else { 3 }).collect());
            table.rows.extend(first.steps[first.steps.len() - end..].iter().map(row));
        }
        table
    }

    fn ways(&self) -> Table {
        let mut table = Table::new(&["SHARE", "ENDS-AT", "SOURCE", "BY"]).right(&["SHARE"]).whole(&["ENDS-AT"]);
        let (start, end) = self.path.shared();
        for way in &self.path.ways {
            let own = if self.path.ways.len() > 1 { &way.steps[start..way.steps.len() - end] } else { &[] };
            let shared = |at: &str| way.steps[..start].iter().any(|step| step.at == at);
            let by: Vec<&str> = own.iter().map(|step| step.at.as_str()).filter(|at| !shared(at)).collect();
            let (ends, source) = match way.end {
                End::Backend { to, nodes_source } => {
                    (Cell::from(to.to_string()), if nodes_source { "the node's" } else { "the client's" })
                }
                End::Untouched => (Cell::toned("untouched", Tone::Quiet), "the client's"),
                verdict => (Cell::toned(verdict.to_string(), Tone::Warning), "-"),
            };
            let share = Cell::from(format!("{:.1} %", way.probability * 100.0));
            let by = if by.is_empty() { Cell::toned("-", Tone::Quiet) } else { Cell::from(by.join("\n")) };
            table.rows.push(vec![share, ends, source.into(), by]);
        }
        table
    }
}

fn tone(does: &str) -> Cell {
    let bad = does.starts_with("drop") || does.starts_with("refuse");
    Cell::toned(does, if bad { Tone::Warning } else { Tone::Plain })
}

impl Report for PathReport {
    fn kind(&self) -> &'static str {
        "PacketPath"
    }

    fn items(&self) -> Vec<Value> {
        let item = |through: &Through| {
            let ways = through.path.ways.iter().map(|way| {
                let (end, to, source) = match way.end {
                    End::Backend { to, nodes_source } => {
                        ("backend", Some(to.to_string()), Some(if nodes_source { "node" } else { "client" }))
                    }
                    End::Untouched => ("untouched", None, None),
                    End::Refused => ("refused", None, None),
                    End::Dropped => ("dropped", None, None),
                };
                json!({
                    "probability": way.probability,
                    "end": end,
                    "backend": to,
                    "source": source,
                    "compared": way.compared,
                    "steps": way.steps.iter().map(to_value).collect::<Vec<_>>(),
                })
            });
            json!({
                "source": through.via.to_string(),
                "read_from": through.place,
                "ways": ways.collect::<Vec<_>>(),
                "notes": through.path.notes,
            })
        };
        self.through.iter().map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let missing = |(via, why): &(Via, String)| json!({ "source": via.to_string(), "reason": why });
        let packet = json!({
            "destination": self.packet.destination.to_string(),
            "protocol": self.packet.protocol,
            "origin": self.packet.origin,
            "source": self.packet.source,
            "interface": self.packet.interface,
        });
        let mut extra = Map::new();
        extra.insert("packet".to_owned(), packet);
        extra.insert("differ".to_owned(), json!(self.differ().iter().map(Via::to_string).collect::<Vec<_>>()));
        extra.insert("missing".to_owned(), json!(self.missing.iter().map(missing).collect::<Vec<_>>()));
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = Vec::new();
        let mut notes: BTreeMap<&str, Vec<Via>> = BTreeMap::new();
        for through in &self.through {
            tables.extend([through.steps(wide), through.ways()]);
            for note in &through.path.notes {
                notes.entry(note).or_default().push(through.via);
            }
        }
        if let Some(last) = tables.pop() {
            tables.push(last.footer(format!("{}: {}", self.packet, self.footer())));
        }
        if !notes.is_empty() {
            let mut table = Table::new(&["VIA", "NOTE"]).title("Taken for granted");
            for (note, via) in notes {
                let via: Vec<String> = via.iter().map(Via::to_string).collect();
                table.row([via.join("\n"), note.to_owned()]);
            }
            tables.push(table);
        }
        if wide && !self.missing.is_empty() {
            let mut table = Table::new(&["SOURCE", "REASON"]).title("Not read");
            for (via, why) in &self.missing {
                table.row([via.to_string(), why.clone()]);
            }
            tables.push(table);
        }
        tables
    }

    fn names(&self) -> Vec<String> {
        self.through.iter().flat_map(|through| through.path.ends().into_keys()).map(|end| end.to_string()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Way;

    #[test]
    fn the_title_tells_with_how_many_rules_or_entries() {
        let titled = |via, counts: &[usize]| {
            let way =
                |compared: &usize| Way { probability: 0.5, steps: Vec::new(), compared: *compared, end: End::Refused };
            let path = Path { ways: counts.iter().map(way).collect(), ..Path::default() };
            Through { via, place: "here".to_owned(), path }.title()
        };
        assert_eq!(titled(Via::Iptables, &[7, 9, 8]), "here: compared with 7 to 9 rules");
        assert_eq!(titled(Via::Ebpf, &[4, 4]), "here: compared with 4 map entries");
        assert_eq!(titled(Via::Cilium, &[1]), "here: compared with 1 map entry");
        assert_eq!(titled(Via::Api, &[1]), "here");
    }
}
