//! `kpx inspect ipvs`.

use std::net::SocketAddr;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cmd::selection::Selection;
use crate::cmd::{Context, notices};
use crate::inspect::ipvs::{self, IpvsState, Stats, Virtual, VirtualService};
use crate::model::{Family, Frontend, ServiceTable};
use crate::source::{Lifted, Remark, Via};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const EXAMPLES: &str = "\
Examples:
  The virtual services of IPVS with their servers, connections and Services
    $ kpx inspect ipvs

  One Service, with all counters and rates, in a recorded node
    $ kpx inspect ipvs --from node-a.tar.zst --services-from objects.json --service shop/cart -o wide

  Is that what the API asks for? Exit code 2 if it is not
    $ kpx diff api ipvs --services-from objects.json";

/// Arguments of `kpx inspect ipvs`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct IpvsArgs {
    /// Only virtual services that are not kube-proxy's
    #[arg(long, conflicts_with_all = ["namespace", "service"])]
    foreign: bool,
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn run(context: &mut Context, args: &IpvsArgs) -> Result<Exit, Failure> {
    let node = context.node()?;
    let state = ipvs::read_node(&node)?;
    let (known, why) = match context.lift(&node, Via::Api) {
        Ok(known) => (known.table, None),
        Err(failure) => (ServiceTable::default(), Some(failure.message)),
    };
    let no_names = |why| Remark { code: "no-names", text: format!("no names of Services: {why}") };
    let of_reader = |notice: &ipvs::Notice| Remark { code: notice.code(), text: notice.to_string() };
    let lifted = Lifted {
        via: Via::Ipvs,
        place: node.label(),
        table: ServiceTable::default(),
        notices: why.map(no_names).into_iter().chain(state.notices.iter().map(of_reader)).collect(),
    };
    notices::show(context, &lifted);
    let list = ServiceList::of(&state, &known, args, &lifted);
    args.selection.found(list.rows.len(), &format!("IPVS of {}", lifted.place))?;
    context.ui.report(&list)?;
    Ok(Exit::Fine)
}

/// A virtual service with whose it is.
struct Row<'a> {
    service: &'a VirtualService,
    /// Whether kube-proxy made it.
    ours: bool,
    frontend: Option<&'a Frontend>,
}

struct ServiceList<'a> {
    state: &'a IpvsState,
    lifted: &'a Lifted,
    rows: Vec<Row<'a>>,
}

impl<'a> ServiceList<'a> {
    fn of(state: &'a IpvsState, known: &'a ServiceTable, args: &IpvsArgs, lifted: &'a Lifted) -> Self {
        let row = |service: &'a VirtualService| {
            let ours = !state.state.exposures(service).is_empty();
            Row { service, ours, frontend: if ours { frontend(service, known) } else { None } }
        };
        let keeps = |row: &Row<'_>| {
            let selected = args.selection.is_all() || row.frontend.is_some_and(|f| args.selection.keeps(f));
            selected && !(args.foreign && row.ours)
        };
        let mut rows: Vec<Row<'a>> = state.state.ipvs.services.iter().map(row).filter(keeps).collect();
        let by_name = |row: &Row<'a>| {
            (!row.ours, row.frontend.is_none(), row.frontend.map(Frontend::display_name), row.service.key)
        };
        rows.sort_by_cached_key(by_name);
        Self { state, lifted, rows }
    }

    fn footer(&self) -> String {
        let ipvs = &self.state.state.ipvs;
        let Some(version) = ipvs.version else { return format!("{} has no IPVS", self.lifted.place) };
        let servers: usize = self.rows.iter().map(|row| row.service.servers.len()).sum();
        let foreign = self.rows.iter().filter(|row| !row.ours).count();
        let mut parts = vec![count(self.rows.len(), "virtual service"), count(servers, "server")];
        if foreign > 0 {
            parts.push(format!("{foreign} not kube-proxy's"));
        }
        let (templates, connections): (Vec<_>, Vec<_>) = self.state.connections.iter().partition(|c| c.is_template());
        if !self.state.connections.is_empty() {
            parts.push(count(connections.len(), "connection"));
            parts.push(format!("{} bound by affinity", count(templates.len(), "client")));
        }
        parts.push(format!("IPVS {version}"));
        parts.extend(ipvs.table_size.map(|size| format!("{size} buckets")));
        let timeouts = |[tcp, fin, udp]: [u32; 3]| format!("time-outs: TCP {tcp} s, after FIN {fin} s, UDP {udp} s");
        parts.extend(ipvs.timeouts.map(timeouts));
        parts.join(", ")
    }
}

/// The frontend at a virtual service's address, or the NodePort at its port.
fn frontend<'a>(service: &VirtualService, known: &'a ServiceTable) -> Option<&'a Frontend> {
    let (ip, port, protocol) = service.address()?;
    let at = |ip| known.at((ip, port, protocol)).first();
    at(ip).or_else(|| at(Family::of(ip).unspecified()))
}

fn name(row: &Row<'_>) -> Cell {
    match row.frontend {
        _ if !row.ours => Cell::toned("(not kube-proxy's)", Tone::Quiet),
        Some(frontend) => Cell::from(frontend.display_name()),
        None => Cell::default(),
    }
}

/// As `ipvsadm -L` calls them.
fn flags(service: &VirtualService) -> String {
    let mut flags: Vec<String> = service.scheduler_flags().map(str::to_owned).collect();
    flags.extend(service.affinity().map(|seconds| format!("persistent {seconds}")));
    flags.extend(service.clients_mask().map(|mask| format!("mask {mask}")));
    if service.flags.has(ipvs::Flags::ONE_PACKET) {
        flags.push("ops".to_owned());
    }
    flags.join(" ")
}

fn counters(stats: &Stats) -> [Cell; 10] {
    [
        stats.connections,
        stats.in_packets,
        stats.out_packets,
        stats.in_bytes,
        stats.out_bytes,
        stats.connection_rate,
        stats.in_packet_rate,
        stats.out_packet_rate,
        stats.in_byte_rate,
        stats.out_byte_rate,
    ]
    .map(|n| Cell::from(n.to_string()))
}

/// Headings of the counters in [`counters`]' order, the sums as `ipvsadm --stats` and the rates as `--rate` call them.
const COUNTERS: [&str; 10] =
    ["CONNS", "IN-PKTS", "OUT-PKTS", "IN-BYTES", "OUT-BYTES", "CPS", "IN-PPS", "OUT-PPS", "IN-BPS", "OUT-BPS"];

impl Report for ServiceList<'_> {
    fn kind(&self) -> &'static str {
        "IpvsServiceList"
    }

    fn items(&self) -> Vec<Value> {
        let item = |row: &Row<'_>| {
            let service = row.service;
            let (address, mark) = match service.key {
                Virtual::Address(address, protocol) => (Some((address, protocol)), None),
                Virtual::Mark(_, mark) => (None, Some(mark)),
            };
            let servers = service.servers.iter().map(|server| {
                json!({
                    "ip": server.address.ip(), "port": server.address.port(), "forward": server.forward.to_string(),
                    "weight": server.weight, "active": server.active, "inactive": server.inactive,
                    "persistent": server.persistent, "statistics": to_value(&server.stats),
                })
            });
            json!({
                "service": row.frontend.and_then(|f| f.service.as_ref()).map(ToString::to_string),
                "port_name": row.frontend.and_then(|f| f.port_name.clone()),
                "kube_proxy": row.ours,
                "kinds": self.state.state.exposures(service),
                "ip": address.map(|(a, _): (SocketAddr, _)| a.ip()),
                "port": address.map(|(a, _)| a.port()),
                "protocol": address.map(|(_, protocol)| protocol),
                "mark": mark,
                "scheduler": service.scheduler,
                "flags": service.flags.0,
                "persistent_seconds": service.affinity(),
                "statistics": to_value(&service.stats),
                "servers": servers.collect::<Vec<_>>(),
            })
        };
        self.rows.iter().map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let ipvs = &self.state.state.ipvs;
        let mut extra = Map::new();
        extra.insert("read_from".to_owned(), json!(self.lifted.place));
        extra.insert("version".to_owned(), json!(ipvs.version.map(|v| v.to_string())));
        extra.insert("buckets".to_owned(), json!(ipvs.table_size));
        let timeouts = ipvs.timeouts.map(|[tcp, fin, udp]| json!({ "tcp": tcp, "tcp_fin": fin, "udp": udp }));
        extra.insert("timeout_seconds".to_owned(), json!(timeouts));
        extra.insert("notices".to_owned(), json!(self.lifted.notices));
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut headings = vec!["SERVICE", "ADDRESS", "HOW", "WEIGHT", "ACTIVE", "INACTIVE"];
        let numbers: &[&'static str] = if wide { &COUNTERS } else { &COUNTERS[..1] };
        headings.extend(numbers);
        if wide {
            headings.push("FLAGS");
        }
        let mut table =
            Table::new(&headings).right(&["WEIGHT", "ACTIVE", "INACTIVE"]).right(numbers).whole(&["ADDRESS", "HOW"]);
        for row in &self.rows {
            let service = row.service;
            let sum = |of: fn(&ipvs::RealServer) -> u32| service.servers.iter().map(|s| u64::from(of(s))).sum::<u64>();
            let mut cells = vec![
                name(row),
                Cell::from(service.key.to_string()),
                Cell::from(service.scheduler.clone()),
                Cell::blank(),
                Cell::from(sum(|s| s.active).to_string()),
                Cell::from(sum(|s| s.inactive).to_string()),
            ];
            cells.extend(counters(&service.stats).into_iter().take(numbers.len()));
            if wide {
                cells.push(Cell::from(flags(service)));
            }
            table.row(cells);
            for server in &service.servers {
                let weight = server.weight.to_string();
                let mut cells = vec![
                    Cell::blank(),
                    Cell::from(format!("> {}", server.address)),
                    Cell::from(server.forward.to_string()),
                    if server.weight == 1 { Cell::from(weight) } else { Cell::toned(weight, Tone::Warning) },
                    Cell::from(server.active.to_string()),
                    Cell::from(server.inactive.to_string()),
                ];
                cells.extend(counters(&server.stats).into_iter().take(numbers.len()));
                if wide {
                    cells.push(Cell::blank());
                }
                table.row(cells);
            }
        }
        vec![table.footer(self.footer())]
    }

    fn names(&self) -> Vec<String> {
        self.rows.iter().map(|row| row.service.key.to_string()).collect()
    }
}
