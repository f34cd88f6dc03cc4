//! `kpx inspect services`.

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cmd::selection::{Page, Selection};
use crate::cmd::watch::Watch;
use crate::cmd::{Context, notices};
use crate::model::{Backend, Family, Frontend, FrontendView};
use crate::source::{Lifted, Via};
use crate::ui::{Cell, Exit, Failure, Report, Table, Tone, count, to_value};

const EXAMPLES: &str = "\
Examples:
  What the rules on this node do with each Service
    $ kpx inspect services

  The same from the API objects, for one Service, with everything that is known
    $ kpx inspect services --via api --services-from objects.json --service shop/cart -o json";

/// Arguments of `kpx inspect services`.
#[derive(Args, Debug)]
#[command(after_long_help = EXAMPLES)]
pub struct ServicesArgs {
    /// What to read [default: api with --services-from, else iptables]
    #[arg(long, value_enum, value_name = "SOURCE")]
    via: Option<Via>,
    #[command(flatten)]
    selection: Selection,
    #[command(flatten)]
    page: Page,
    #[command(flatten)]
    watch: Watch,
}

pub(super) fn run(context: &mut Context, args: &ServicesArgs) -> Result<Exit, Failure> {
    args.watch.run(context, |context| look(context, args))
}

fn look(context: &mut Context, args: &ServicesArgs) -> Result<(), Failure> {
    let via = context.via(args.via);
    let node = context.node()?;
    let lifted = context.lift_named(&node, via)?;
    let lifted = Lifted { table: args.selection.of(lifted.table), ..lifted };
    args.selection.found(lifted.table.frontends().len(), &lifted.place)?;
    notices::show(context, &lifted);
    context.ui.report(&ServiceList { lifted: &lifted, page: args.page, in_detail: args.selection.service.is_some() })
}

/// The frontends of one table, by Service.
struct ServiceList<'a> {
    lifted: &'a Lifted,
    page: Page,
    /// Whether the table for people names backends, too: there is room when one Service was asked for.
    in_detail: bool,
}

impl ServiceList<'_> {
    /// People look for a Service, not for an address: frontends without a name come last.
    fn frontends(&self) -> Vec<&Frontend> {
        let mut frontends: Vec<&Frontend> = self.lifted.table.frontends().iter().collect();
        frontends.sort_by_key(|f| (f.service.is_none(), f.service.as_ref(), f.key.exposure, f.key));
        self.page.of(frontends).collect()
    }

    fn footer(&self) -> String {
        let frontends = self.lifted.table.frontends();
        let mut services: Vec<_> = frontends.iter().filter_map(|f| f.service.as_ref()).collect();
        services.sort();
        services.dedup();
        let of = if services.is_empty() { String::new() } else { format!(" of {}", count(services.len(), "Service")) };
        let (first, next) = self.page.words(frontends.len());
        format!("{first}{}{of}, read from {}{next}", count(frontends.len(), "frontend"), self.lifted.place)
    }
}

impl Report for ServiceList<'_> {
    fn kind(&self) -> &'static str {
        "ServiceList"
    }

    fn items(&self) -> Vec<Value> {
        self.frontends().into_iter().map(|f| to_value(&FrontendView::from(f))).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let facts = |family| {
            let facts = self.lifted.table.facts(family);
            json!({
                "local_detector": facts.detector.to_string(),
                "node_port_addresses": facts.node_ports.to_string(),
            })
        };
        let mut extra = Map::new();
        extra.insert("total".to_owned(), json!(self.lifted.table.frontends().len()));
        extra.insert("source".to_owned(), json!(self.lifted.via.to_string()));
        extra.insert("read_from".to_owned(), json!(self.lifted.place));
        extra.insert("node".to_owned(), json!({ "IPv4": facts(Family::V4), "IPv6": facts(Family::V6) }));
        extra.insert("notices".to_owned(), json!(self.lifted.notices));
        extra
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut table = if wide {
            // The lists come last: they may be long, and nothing has to line up behind them.
            Table::new(&[
                "SERVICE",
                "KIND",
                "ADDRESS",
                "POLICY",
                "MASQUERADE",
                "AFFINITY",
                "SOURCES",
                "FROM",
                "LOCAL-BACKENDS",
                "BACKENDS",
            ])
        } else if self.in_detail {
            Table::new(&["SERVICE", "KIND", "ADDRESS", "BACKENDS"]).whole(&["KIND", "ADDRESS"])
        } else {
            Table::new(&["SERVICE", "KIND", "ADDRESS", "BACKENDS"]).right(&["BACKENDS"]).whole(&["KIND", "ADDRESS"])
        };
        for frontend in self.frontends() {
            let name = match &frontend.service {
                Some(_) => Cell::from(frontend.display_name()),
                None => Cell::default(),
            };
            let mut row =
                vec![name, Cell::from(frontend.key.exposure.to_string()), Cell::from(frontend.key.to_string())];
            if wide {
                row.extend([
                    Cell::from(frontend.policy().to_string()),
                    Cell::from(frontend.masquerade.to_string()),
                    Cell::from(frontend.affinity.map_or_else(String::new, |seconds| format!("{seconds}s"))),
                    Cell::from(frontend.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")),
                    Cell::from(frontend.origin.to_string()),
                    all(&frontend.local),
                    all(&frontend.cluster),
                ]);
            } else {
                row.push(if self.in_detail { first_few(frontend) } else { number(frontend) });
            }
            table.row(row);
        }
        vec![table.footer(self.footer())]
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.frontends().into_iter().map(Frontend::display_name).collect();
        names.dedup();
        names
    }
}

/// How many backends new connections have, and what a client meets when there is none.
fn number(frontend: &Frontend) -> Cell {
    match (frontend.own_list().len(), frontend.no_backends) {
        (0, Some(verdict)) => Cell::toned(format!("0:{verdict}"), Tone::Warning),
        (n, _) => Cell::from(n.to_string()),
    }
}

/// The first backends and how many more there are.
fn first_few(frontend: &Frontend) -> Cell {
    const FEW: usize = 6;
    let list = frontend.own_list();
    if list.is_empty() {
        return number(frontend);
    }
    let mut text: Vec<String> = list.iter().take(FEW).map(|backend| backend.addr().to_string()).collect();
    if list.len() > FEW {
        text.push(format!("+{}", list.len() - FEW));
    }
    Cell::from(text.join(","))
}

fn all(backends: &[Backend]) -> Cell {
    Cell::from(backends.iter().map(|b| b.addr().to_string()).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::ServiceList;
    use crate::cmd::samples;
    use crate::source::Via;
    use crate::ui::{Format, Ui, UiOptions};

    fn screen(format: Format, width: Option<u16>) -> String {
        list(format, width, false)
    }

    fn list(format: Format, width: Option<u16>, in_detail: bool) -> String {
        let (mut ui, out, _) = Ui::buffered(UiOptions { format, ..UiOptions::default() }, width);
        let lifted = samples::lifted(Via::Iptables);
        ui.report(&ServiceList { lifted: &lifted, page: crate::cmd::selection::Page::default(), in_detail })
            .expect("memory takes everything");
        out.text()
    }

    #[test]
    fn the_table_fits_a_terminal_of_80() {
        insta::assert_snapshot!(screen(Format::Table, Some(80)), @r"
        SERVICE                      KIND          ADDRESS                      BACKENDS
        a-namespace-with-a-rather-   ClusterIP     [fd00:10:96::beef]:9090/TCP  0:reject
        long-name/
        and-a-service-whose-name-
        is-longer-still:metrics
        shop/cart:http               ClusterIP     10.96.0.20:80/TCP                   3
        shop/cart:http               NodePort      [::]:30080/TCP                 0:drop
        shop/catalogue:https         ClusterIP     10.96.7.3:443/TCP                 150
        shop/catalogue:https         LoadBalancer  203.0.113.9:443/TCP                 1
        <none>                       ExternalIP    198.51.100.7:8443/TCP               3
        6 frontends of 3 Services, read from iptables-legacy of node-a
        ");
    }

    #[test]
    fn one_service_is_shown_with_its_backends() {
        insta::assert_snapshot!(list(Format::Table, Some(80), true), @r"
        SERVICE              KIND          ADDRESS                      BACKENDS
        a-namespace-with-a-  ClusterIP     [fd00:10:96::beef]:9090/TCP  0:reject
        rather-long-name/
        and-a-service-
        whose-name-is-
        longer-
        still:metrics
        shop/cart:http       ClusterIP     10.96.0.20:80/TCP            10.244.1.5:8080,
                                                                        10.244.1.6:8080,
                                                                        10.244.1.7:8080
        shop/cart:http       NodePort      [::]:30080/TCP               0:drop
        shop/                ClusterIP     10.96.7.3:443/TCP            10.244.1.1:8080,
        catalogue:https                                                 10.244.1.2:8080,
                                                                        10.244.1.3:8080,
                                                                        10.244.1.4:8080,
                                                                        10.244.1.5:8080,
                                                                        10.244.1.6:8080,
                                                                        +144
        shop/                LoadBalancer  203.0.113.9:443/TCP          10.244.1.5:8080
        catalogue:https
        <none>               ExternalIP    198.51.100.7:8443/TCP        10.244.1.5:8080,
                                                                        10.244.1.6:8080,
                                                                        10.244.1.7:8080
        6 frontends of 3 Services, read from iptables-legacy of node-a
        ");
    }

    #[test]
    fn a_piped_table_keeps_every_cell_on_one_line() {
        insta::assert_snapshot!(screen(Format::Table, None), @r"
        SERVICE                                                                               KIND          ADDRESS                      BACKENDS
        a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still:metrics  ClusterIP     [fd00:10:96::beef]:9090/TCP  0:reject
        shop/cart:http                                                                        ClusterIP     10.96.0.20:80/TCP                   3
        shop/cart:http                                                                        NodePort      [::]:30080/TCP                 0:drop
        shop/catalogue:https                                                                  ClusterIP     10.96.7.3:443/TCP                 150
        shop/catalogue:https                                                                  LoadBalancer  203.0.113.9:443/TCP                 1
        <none>                                                                                ExternalIP    198.51.100.7:8443/TCP               3
        6 frontends of 3 Services, read from iptables-legacy of node-a
        ");
    }

    #[test]
    fn wide_hides_nothing() {
        let text = screen(Format::Wide, Some(80));
        assert!(text.contains("10.244.1.149:8080,10.244.1.150:8080"), "every backend is listed");
        let lines: Vec<&str> = text.lines().filter(|line| !line.contains("10.244.1.149")).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        SERVICE                                                                               KIND          ADDRESS                      POLICY   MASQUERADE   AFFINITY  SOURCES          FROM                           LOCAL-BACKENDS   BACKENDS
        a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still:metrics  ClusterIP     [fd00:10:96::beef]:9090/TCP  Cluster  off-cluster  <none>    <none>           IPv4 nat KUBE-SERVICES rule 7  <none>           <none>
        shop/cart:http                                                                        ClusterIP     10.96.0.20:80/TCP            Cluster  off-cluster  <none>    <none>           IPv4 nat KUBE-SERVICES rule 7  <none>           10.244.1.5:8080,10.244.1.6:8080,10.244.1.7:8080
        shop/cart:http                                                                        NodePort      [::]:30080/TCP               Local    off-cluster  <none>    <none>           IPv4 nat KUBE-SERVICES rule 7  <none>           10.244.1.5:8080,10.244.1.6:8080,10.244.1.7:8080
        shop/catalogue:https                                                                  LoadBalancer  203.0.113.9:443/TCP          Local    never        <none>    198.51.100.0/24  IPv4 nat KUBE-SERVICES rule 7  10.244.1.5:8080  10.244.1.5:8080,10.244.1.6:8080,10.244.1.7:8080
        <none>                                                                                ExternalIP    198.51.100.7:8443/TCP        Cluster  off-cluster  <none>    <none>           IPv4 nat KUBE-SERVICES rule 7  <none>           10.244.1.5:8080,10.244.1.6:8080,10.244.1.7:8080
        6 frontends of 3 Services, read from iptables-legacy of node-a
        ");
    }

    #[test]
    fn json_has_the_fields_scripts_rely_on() {
        let document: serde_json::Value = serde_json::from_str(&screen(Format::Json, None)).expect("JSON");
        insta::assert_snapshot!(serde_json::to_string_pretty(&document["items"][4]).expect("JSON"), @r#"
        {
          "service": "shop/catalogue",
          "port_name": "https",
          "kind": "LoadBalancer",
          "ip": "203.0.113.9",
          "port": 443,
          "protocol": "TCP",
          "backends": [
            {
              "ip": "10.244.1.5",
              "port": 8080,
              "local": true,
              "state": "ready",
              "weight": 1
            },
            {
              "ip": "10.244.1.6",
              "port": 8080,
              "local": false,
              "state": "ready",
              "weight": 1
            },
            {
              "ip": "10.244.1.7",
              "port": 8080,
              "local": true,
              "state": "ready",
              "weight": 1
            }
          ],
          "local_backends": [
            {
              "ip": "10.244.1.5",
              "port": 8080,
              "local": true,
              "state": "ready",
              "weight": 1
            }
          ],
          "internal_traffic_policy": "Cluster",
          "external_traffic_policy": "Local",
          "affinity_seconds": null,
          "source_ranges": [
            "198.51.100.0/24"
          ],
          "masquerade": "never",
          "no_backends": null,
          "from": "IPv4 nat KUBE-SERVICES rule 7"
        }
        "#);
        let envelope: Vec<&str> = document.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(envelope, ["apiVersion", "kind", "total", "source", "read_from", "node", "notices", "items"]);
    }

    #[test]
    fn names_are_one_a_line() {
        insta::assert_snapshot!(screen(Format::Name, None), @r"
        a-namespace-with-a-rather-long-name/and-a-service-whose-name-is-longer-still:metrics
        shop/cart:http
        shop/catalogue:https
        198.51.100.7:8443/TCP
        ");
    }
}
