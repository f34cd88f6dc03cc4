//! `kpx diff`.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::selection::Selection;
use super::{Context, notices};
use crate::dataplane::{NotServed, Served};
use crate::inspect::ipvs::as_ipvs;
use crate::model::{Difference, FieldDifference, Frontend, Side, TrafficSource, diff};
use crate::source::{Lifted, Via, join_names};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const EXAMPLES: &str = "\
Examples:
  Do the rules on this node do what the API says? Exit code 2 if they do not
    $ kpx diff api iptables --services-from objects.json

  Do kpx's maps treat one Service as the rules do, in a recorded node?
    $ kpx diff iptables ebpf --from node-a.tar.zst --service shop/cart -o json";

/// Arguments of `kpx diff`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub struct Args {
    /// One description
    #[arg(value_enum)]
    a: Via,
    /// The other
    #[arg(value_enum)]
    b: Via,
    #[command(flatten)]
    selection: Selection,
}

pub(super) fn run(context: &mut Context, args: &Args) -> Result<Exit, Failure> {
    if args.a == args.b {
        return Err(Failure::usage(format!("{} compared with itself never differs", args.a))
            .hint("name two of api, iptables, nftables, ipvs, ebpf and cilium, such as kpx diff api iptables"));
    }
    let node = context.node()?;
    let (a, b) = (context.lift(&node, args.a)?, context.lift(&node, args.b)?);
    notices::show(context, &a);
    notices::show(context, &b);
    let comparison = Comparison::of(a, b, &args.selection);
    let frontends = comparison.a.table.frontends().len() + comparison.b.table.frontends().len();
    args.selection.found(frontends + comparison.with_the_rules.len(), &format!("{} or {}", args.a, args.b))?;
    context.ui.report(&comparison)?;
    Ok(if comparison.differences.is_empty() { Exit::Fine } else { Exit::ActOn })
}

/// Two tables and what differs between them.
struct Comparison {
    a: Lifted,
    b: Lifted,
    differences: Vec<Difference>,
    /// Where kpx's maps are one side: what the other side has and the maps are not meant to.
    with_the_rules: Vec<(Frontend, NotServed)>,
    /// Where IPVS is one side: what its mode does otherwise than the other side asks for, by design.
    by_ipvs_mode: Vec<Difference>,
}

impl Comparison {
    fn of(mut a: Lifted, mut b: Lifted, selection: &Selection) -> Self {
        let by_ipvs_mode = match (a.via, b.via) {
            (Via::Ipvs, _) => as_in_ipvs_mode(&mut a, &mut b, selection),
            (_, Via::Ipvs) => as_in_ipvs_mode(&mut b, &mut a, selection),
            _ => Vec::new(),
        };
        let narrow = |maps: &mut Lifted, other: &mut Lifted| {
            if maps.via.is_nameless() {
                maps.table = join_names(&maps.table, &other.table);
            }
            if maps.via != Via::Ebpf {
                return Vec::new();
            }
            let served = Served::of(&other.table);
            other.table = served.table;
            served.others
        };
        let mut with_the_rules = narrow(&mut a, &mut b);
        with_the_rules.extend(narrow(&mut b, &mut a));
        a.table = selection.of(a.table);
        b.table = selection.of(b.table);
        with_the_rules.retain(|(frontend, _)| selection.keeps(frontend));
        Self { differences: diff(&a.table, &b.table), a, b, with_the_rules, by_ipvs_mode }
    }

    fn footer(&self) -> String {
        let (a, b) = (self.a.table.frontends().len(), self.b.table.frontends().len());
        let differences = count(self.differences.len(), "difference");
        let of = if a == b {
            count(a, "frontend")
        } else {
            format!("{} of {} and {b} of {}", count(a, "frontend"), self.a.via, self.b.via)
        };
        let tally = self.tally();
        let tally = if tally.is_empty() { String::new() } else { format!(" ({})", tally.join(", ")) };
        let rest = match self.with_the_rules.len() {
            0 => String::new(),
            n => format!("; {n} more stay with the rules, not meant for the maps"),
        };
        let frontends = self.by_ipvs_mode.iter().filter(|d| matches!(d, Difference::Frontend { .. })).count();
        let mode = match frontends {
            0 => String::new(),
            n => format!("; {} served as IPVS mode does, not as asked (-o json names them)", count(n, "frontend")),
        };
        format!("{differences} in {of}{tally}{rest}{mode}")
    }

    /// How many differences are of which sort, the most frequent first.
    fn tally(&self) -> Vec<String> {
        let mut sorts: BTreeMap<String, usize> = BTreeMap::new();
        for difference in &self.differences {
            let all: Vec<String> = match difference {
                Difference::OnlyInA(_) => vec![format!("not in {}", self.b.via)],
                Difference::OnlyInB(_) => vec![format!("not in {}", self.a.via)],
                Difference::Frontend { fields, .. } => fields.iter().map(|field| field.field.to_owned()).collect(),
                Difference::Node { field, .. } | Difference::HealthCheck { field, .. } => vec![field.field.to_owned()],
            };
            for sort in all {
                *sorts.entry(sort).or_default() += 1;
            }
        }
        let mut sorts: Vec<_> = sorts.into_iter().collect();
        sorts.sort_by_key(|(_, n)| Reverse(*n));
        sorts.into_iter().map(|(sort, n)| format!("{sort} {n}")).collect()
    }
}

/// Makes of `asked` what kube-proxy in IPVS mode makes of it, and tells how that differs.
fn as_in_ipvs_mode(ipvs: &mut Lifted, asked: &mut Lifted, selection: &Selection) -> Vec<Difference> {
    let done = as_ipvs(&asked.table);
    let differences = diff(&selection.of(asked.table.clone()), &selection.of(done.clone()));
    ipvs.table = join_names(&ipvs.table, &done);
    asked.table = done;
    differences
}

fn name(side: &Side) -> String {
    match (&side.service, &side.port_name) {
        (Some(service), Some(port)) if !port.is_empty() => format!("{service}:{port}"),
        (Some(service), _) => service.clone(),
        (None, _) => "<none>".to_owned(),
    }
}

fn address(side: &Side) -> String {
    let address = std::net::SocketAddr::new(side.ip, side.port);
    format!("{} {address}/{}", side.kind, side.protocol)
}

fn field(difference: &FieldDifference) -> String {
    if difference.traffic.is_empty() {
        return difference.field.to_owned();
    }
    let word = |source: &TrafficSource| match source {
        TrafficSource::Outside => "outside",
        TrafficSource::Pod => "pod",
        TrafficSource::Node => "node",
    };
    let traffic: Vec<_> = difference.traffic.iter().map(word).collect();
    format!("{}\nfrom {}", difference.field, traffic.join(", "))
}

impl Report for Comparison {
    fn kind(&self) -> &'static str {
        "ServiceDiff"
    }

    fn items(&self) -> Vec<Value> {
        self.differences.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let side = |lifted: &Lifted| {
            json!({
                "source": lifted.via.to_string(),
                "read_from": lifted.place,
                "frontends": lifted.table.frontends().len(),
                "notices": lifted.notices,
            })
        };
        let mut extra = Map::new();
        extra.insert("a".to_owned(), side(&self.a));
        extra.insert("b".to_owned(), side(&self.b));
        extra.insert("differences".to_owned(), json!(self.differences.len()));
        let rest: Vec<Value> = self
            .with_the_rules
            .iter()
            .map(|(frontend, reason)| {
                json!({
                    "service": frontend.service.as_ref().map(ToString::to_string),
                    "frontend": frontend.key.to_string(),
                    "reason": reason.to_string(),
                })
            })
            .collect();
        extra.insert("with_the_rules".to_owned(), json!(rest));
        if !self.by_ipvs_mode.is_empty() {
            extra.insert("by_ipvs_mode".to_owned(), json!(self.by_ipvs_mode));
        }
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut headings = vec!["FRONTEND", "FIELD", self.a.via.heading(), self.b.via.heading()];
        if wide {
            headings.extend(["A-FROM", "B-FROM"]);
        }
        let mut table = Table::new(&headings);
        let mut row = |cells: [Cell; 4], from_a: &str, from_b: &str| {
            let mut cells = Vec::from(cells);
            if wide {
                // A line for each row, so that text tools can work on them.
                for cell in &mut cells {
                    cell.text = cell.text.replace('\n', " ");
                }
                cells.extend([from_a, from_b].map(Cell::from));
            }
            table.row(cells);
        };
        for difference in &self.differences {
            match difference {
                Difference::OnlyInA(side) | Difference::OnlyInB(side) => {
                    let who = Cell::from(format!("{}\n{}", name(side), address(side)));
                    let (here, not) = (Cell::toned("present", Tone::Warning), Cell::toned("absent", Tone::Warning));
                    if matches!(difference, Difference::OnlyInA(_)) {
                        row([who, Cell::from("frontend"), here, not], &side.from, "");
                    } else {
                        row([who, Cell::from("frontend"), not, here], "", &side.from);
                    }
                }
                Difference::Frontend { side, from_b, fields } => {
                    for (i, difference) in fields.iter().enumerate() {
                        let who = format!("{}\n{}", name(side), address(side));
                        // The second field of a frontend stands below the first, without its name again.
                        let who = if i == 0 || wide { Cell::from(who) } else { Cell::blank() };
                        row(
                            [
                                who,
                                Cell::from(field(difference)),
                                Cell::toned(difference.a.clone(), Tone::Warning),
                                Cell::toned(difference.b.clone(), Tone::Warning),
                            ],
                            &side.from,
                            from_b,
                        );
                    }
                }
                Difference::Node { family, field: difference } => row(
                    [
                        Cell::from(format!("the node, {family}")),
                        Cell::from(field(difference)),
                        Cell::toned(difference.a.clone(), Tone::Warning),
                        Cell::toned(difference.b.clone(), Tone::Warning),
                    ],
                    "",
                    "",
                ),
                Difference::HealthCheck { port, field: difference } => row(
                    [
                        Cell::from(format!("health check port {port}")),
                        Cell::from(field(difference)),
                        Cell::toned(difference.a.clone(), Tone::Warning),
                        Cell::toned(difference.b.clone(), Tone::Warning),
                    ],
                    "",
                    "",
                ),
            }
        }
        vec![table.footer(self.footer())]
    }

    fn names(&self) -> Vec<String> {
        self.differences
            .iter()
            .map(|difference| match difference {
                Difference::OnlyInA(side) | Difference::OnlyInB(side) | Difference::Frontend { side, .. } => {
                    if side.service.is_some() { name(side) } else { address(side) }
                }
                Difference::Node { family, .. } => format!("node {family}"),
                Difference::HealthCheck { port, .. } => format!("health check port {port}"),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Comparison, Selection};
    use crate::cmd::samples;
    use crate::model::{NoBackends, Policy, ServiceTable};
    use crate::source::{Lifted, Via};
    use crate::ui::{Format, Ui, UiOptions};

    fn screen(format: Format, width: Option<u16>, change: impl Fn(&mut Vec<crate::model::Frontend>)) -> String {
        let (a, b) = (samples::lifted(Via::Api), samples::lifted(Via::Iptables));
        let mut frontends = b.table.frontends().to_vec();
        change(&mut frontends);
        let table = ServiceTable::new(frontends, b.table.v4.clone(), b.table.v6.clone());
        let b = Lifted { table, ..b };
        let comparison = Comparison::of(a, b, &Selection::default());
        let (mut ui, out, _) = Ui::buffered(UiOptions { format, ..UiOptions::default() }, width);
        ui.report(&comparison).expect("memory takes everything");
        out.text()
    }

    /// One frontend gone, one new, one with other backends and affinity, one that refuses only outside traffic.
    fn stale(frontends: &mut Vec<crate::model::Frontend>) {
        frontends.retain(|f| f.key.port != 9090);
        frontends.push(samples::frontend(crate::model::Exposure::ClusterIp, "10.96.0.99", 80, Some(("shop/old", ""))));
        let catalogue = frontends.iter_mut().find(|f| f.affinity.is_some()).expect("the sample has affinity");
        catalogue.affinity = None;
        catalogue.cluster.truncate(149);
        let cart = frontends.iter_mut().find(|f| f.key.port == 30080).expect("the sample has a NodePort");
        (cart.external_policy, cart.no_backends) = (Policy::Local, Some(NoBackends::Reject));
    }

    #[test]
    fn equal_tables_are_said_to_be_equal() {
        insta::assert_snapshot!(screen(Format::Table, Some(80), |_| ()), @r"
        0 differences in 6 frontends
        ");
    }

    #[test]
    fn each_difference_names_the_frontend_the_field_and_both_values() {
        insta::assert_snapshot!(screen(Format::Table, Some(80), stale), @r"
        FRONTEND                     FIELD             API                  IPTABLES
        shop/old                     frontend          absent               present
        ClusterIP 10.96.0.99:80/TCP
        shop/catalogue:https         backends          150 backends, only   149 backends
        ClusterIP 10.96.7.3:443/TCP                    here:
                                                       10.244.1.150:8080
                                     affinity_seconds  10800 s              none
        shop/cart:http               no_backends       drop                 reject
        NodePort [::]:30080/TCP      from outside
        a-namespace-with-a-rather-   frontend          present              absent
        long-name/
        and-a-service-whose-name-
        is-longer-still:metrics
        ClusterIP
        [fd00:10:96::beef]:9090/TCP
        4 differences in 6 frontends (affinity_seconds 1, backends 1, no_backends 1, not
        in api 1, not in iptables 1)
        ");
    }

    #[test]
    fn wide_tells_where_both_sides_were_read() {
        insta::assert_snapshot!(screen(Format::Wide, Some(80), stale), @r"
        FRONTEND                                                                                                                    FIELD                     API                                         IPTABLES      A-FROM                         B-FROM
        shop/old ClusterIP 10.96.0.99:80/TCP                                                                                        frontend                  absent                                      present       <none>                         IPv4 nat KUBE-SERVICES rule 7
        shop/catalogue:https ClusterIP 10.96.7.3:443/TCP                                                                            backends                  150 backends, only here: 10.244.1.150:8080  149 backends  IPv4 nat KUBE-SERVICES rule 7  IPv4 nat KUBE-SERVICES rule 7
        shop/catalogue:https ClusterIP 10.96.7.3:443/TCP                                                                            affinity_seconds          10800 s                                     none          IPv4 nat KUBE-SERVICES rule 7  IPv4 nat KUBE-SERVICES rule 7
        shop/cart:http NodePort [::]:30080/TCP                                                                                      no_backends from outside  drop                                        reject        IPv4 nat KUBE-SERVICES rule 7  IPv4 nat KUBE-SERVICES rule 7
        a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still:metrics ClusterIP [fd00:10:96::beef]:9090/TCP  frontend                  present                                     absent        IPv4 nat KUBE-SERVICES rule 7  <none>
        4 differences in 6 frontends (affinity_seconds 1, backends 1, no_backends 1, not in api 1, not in iptables 1)
        ");
    }

    #[test]
    fn json_has_one_item_a_difference() {
        insta::assert_snapshot!(screen(Format::Json, None, stale), @r#"
        {
          "apiVersion": "kpx.dev/v1",
          "kind": "ServiceDiff",
          "a": {
            "source": "api",
            "read_from": "iptables-legacy of node-a",
            "frontends": 6,
            "notices": [
              {
                "code": "stale-chain",
                "text": "IPv4 nat KUBE-SVC-OLD: left over"
              }
            ]
          },
          "b": {
            "source": "iptables",
            "read_from": "iptables-legacy of node-a",
            "frontends": 6,
            "notices": [
              {
                "code": "stale-chain",
                "text": "IPv4 nat KUBE-SVC-OLD: left over"
              }
            ]
          },
          "differences": 4,
          "with_the_rules": [],
          "items": [
            {
              "difference": "only-in-b",
              "service": "shop/old",
              "port_name": "",
              "kind": "ClusterIP",
              "ip": "10.96.0.99",
              "port": 80,
              "protocol": "TCP",
              "from": "IPv4 nat KUBE-SERVICES rule 7"
            },
            {
              "difference": "frontend",
              "service": "shop/catalogue",
              "port_name": "https",
              "kind": "ClusterIP",
              "ip": "10.96.7.3",
              "port": 443,
              "protocol": "TCP",
              "from": "IPv4 nat KUBE-SERVICES rule 7",
              "from_b": "IPv4 nat KUBE-SERVICES rule 7",
              "fields": [
                {
                  "field": "backends",
                  "a": "150 backends, only here: 10.244.1.150:8080",
                  "b": "149 backends"
                },
                {
                  "field": "affinity_seconds",
                  "a": "10800 s",
                  "b": "none"
                }
              ]
            },
            {
              "difference": "frontend",
              "service": "shop/cart",
              "port_name": "http",
              "kind": "NodePort",
              "ip": "::",
              "port": 30080,
              "protocol": "TCP",
              "from": "IPv4 nat KUBE-SERVICES rule 7",
              "from_b": "IPv4 nat KUBE-SERVICES rule 7",
              "fields": [
                {
                  "field": "no_backends",
                  "a": "drop",
                  "b": "reject",
                  "traffic": [
                    "outside"
                  ]
                }
              ]
            },
            {
              "difference": "only-in-a",
              "service": "a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still",
              "port_name": "metrics",
              "kind": "ClusterIP",
              "ip": "fd00:10:96::beef",
              "port": 9090,
              "protocol": "TCP",
              "from": "IPv4 nat KUBE-SERVICES rule 7"
            }
          ]
        }
        "#);
    }
}
