//! What differs between two tables, named frontend by frontend and field by field.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use super::{Detector, Exposure, Family, Frontend, Protocol, ServiceName, ServiceTable, TrafficSource, Treatment};

/// One difference between table A and table B.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "difference", rename_all = "kebab-case")]
pub enum Difference {
    /// The frontend is in A only.
    OnlyInA(Side),
    /// The frontend is in B only.
    OnlyInB(Side),
    /// The frontend is in both and treats some packet differently.
    Frontend {
        /// The frontend, as A has it.
        #[serde(flatten)]
        side: Side,
        /// Where B read it.
        from_b: String,
        /// What differs.
        fields: Vec<FieldDifference>,
    },
    /// A fact of the node differs.
    Node {
        /// IPv4 or IPv6.
        family: Family,
        /// What differs.
        #[serde(flatten)]
        field: FieldDifference,
    },
    /// A health check port differs.
    HealthCheck {
        /// The port.
        port: u16,
        /// Services it answers for in A and in B.
        #[serde(flatten)]
        field: FieldDifference,
    },
}

/// The frontend a difference speaks of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Side {
    /// `namespace/name`, from whichever side knows it.
    pub service: Option<String>,
    /// Name of the Service port.
    pub port_name: Option<String>,
    /// How the Service is exposed.
    pub kind: Exposure,
    /// Address.
    pub ip: std::net::IpAddr,
    /// Port.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Where it was read.
    pub from: String,
}

/// One field with its value on both sides, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FieldDifference {
    /// Name of the field, as in the JSON of a frontend where there is one.
    pub field: &'static str,
    /// Value in A.
    pub a: String,
    /// Value in B.
    pub b: String,
    /// The traffic it matters for; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub traffic: Vec<TrafficSource>,
}

impl Side {
    fn of(f: &Frontend, other: Option<&Frontend>) -> Self {
        let named = if f.service.is_some() { f } else { other.unwrap_or(f) };
        Self {
            service: named.service.as_ref().map(ToString::to_string),
            port_name: named.port_name.clone(),
            kind: f.key.exposure,
            ip: f.key.ip,
            port: f.key.port,
            protocol: f.key.protocol,
            from: f.origin.to_string(),
        }
    }
}

/// Lists what differs between `a` and `b`; empty exactly when every packet is treated alike.
///
/// Names, origins and the lists that no traffic uses do not count; a fact that one side does not know is not a difference.
pub fn diff(a: &ServiceTable, b: &ServiceTable) -> Vec<Difference> {
    let mut out = Vec::new();
    for family in Family::BOTH {
        node_facts(family, a, b, &mut out);
    }
    health_checks(a, b, &mut out);
    let addresses: BTreeSet<_> = a.frontends().iter().chain(b.frontends()).map(|f| f.key.address()).collect();
    for address in addresses {
        let Pairs { both, only_a, only_b } =
            Pairs::of(a.at(address), b.at(address), |fa, fb| compare(fa, fb, a, b).is_empty());
        for (fa, fb) in both {
            let fields = compare(fa, fb, a, b);
            if !fields.is_empty() {
                let from_b = fb.origin.to_string();
                out.push(Difference::Frontend { side: Side::of(fa, Some(fb)), from_b, fields });
            }
        }
        out.extend(only_a.into_iter().map(|f| Difference::OnlyInA(Side::of(f, None))));
        out.extend(only_b.into_iter().map(|f| Difference::OnlyInB(Side::of(f, None))));
    }
    out
}

/// Frontends of one address, port and protocol, each with its counterpart on the other side. How a Service is exposed
/// there decides only who goes with whom first: rules that refuse do not tell an external IP from a load balancer's.
struct Pairs<'f> {
    both: Vec<(&'f Frontend, &'f Frontend)>,
    only_a: Vec<&'f Frontend>,
    only_b: Vec<&'f Frontend>,
}

impl<'f> Pairs<'f> {
    /// Pairs by Service port and exposure, then by Service, then where one side does not know the Service, then those whose packets
    /// are treated alike under different names.
    fn of(a: &'f [Frontend], b: &'f [Frontend], alike: impl Fn(&Frontend, &Frontend) -> bool) -> Self {
        let mut pairs = Self { both: Vec::new(), only_a: a.iter().collect(), only_b: b.iter().collect() };
        pairs.take(|fa, fb| fa.key == fb.key && fa.service == fb.service && fa.port_name == fb.port_name);
        pairs.take(|fa, fb| fa.key == fb.key && fa.service == fb.service);
        pairs.take(|fa, fb| fa.service == fb.service);
        pairs.take(|fa, fb| fa.service.is_none() || fb.service.is_none());
        pairs.take(alike);
        pairs
    }

    fn take(&mut self, belong: impl Fn(&Frontend, &Frontend) -> bool) {
        for fa in std::mem::take(&mut self.only_a) {
            match self.only_b.iter().position(|fb| belong(fa, fb)) {
                Some(i) => self.both.push((fa, self.only_b.remove(i))),
                None => self.only_a.push(fa),
            }
        }
    }
}

fn node_facts(family: Family, a: &ServiceTable, b: &ServiceTable, out: &mut Vec<Difference>) {
    let (fa, fb) = (a.facts(family), b.facts(family));
    if fa.detector != fb.detector && fa.detector != Detector::Unknown && fb.detector != Detector::Unknown {
        let field = FieldDifference {
            field: "local_detector",
            a: fa.detector.to_string(),
            b: fb.detector.to_string(),
            traffic: Vec::new(),
        };
        out.push(Difference::Node { family, field });
    }
    let unknown = super::NodePortScope::Unknown;
    if fa.node_ports != fb.node_ports && fa.node_ports != unknown && fb.node_ports != unknown {
        let field = FieldDifference {
            field: "node_port_addresses",
            a: fa.node_ports.to_string(),
            b: fb.node_ports.to_string(),
            traffic: Vec::new(),
        };
        out.push(Difference::Node { family, field });
    }
}

fn health_checks(a: &ServiceTable, b: &ServiceTable, out: &mut Vec<Difference>) {
    let (Some(a), Some(b)) = (&a.health_checks, &b.health_checks) else { return };
    let names =
        |services: &BTreeSet<ServiceName>| services.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let ports: BTreeSet<_> = a.keys().chain(b.keys()).collect();
    for port in ports {
        let (va, vb) = (a.get(port).map(names), b.get(port).map(names));
        if va != vb {
            let none = || "none".to_owned();
            let field = FieldDifference {
                field: "health_check_node_port",
                a: va.unwrap_or_else(none),
                b: vb.unwrap_or_else(none),
                traffic: Vec::new(),
            };
            out.push(Difference::HealthCheck { port: *port, field });
        }
    }
}

fn compare(fa: &Frontend, fb: &Frontend, a: &ServiceTable, b: &ServiceTable) -> Vec<FieldDifference> {
    let family = Family::of(fa.key.ip);
    let detector = |t: &ServiceTable, other: &ServiceTable| match &t.facts(family).detector {
        Detector::Unknown => other.facts(family).detector.clone(),
        known => known.clone(),
    };
    let (da, db) = (detector(a, b), detector(b, a));
    let mut fields: Vec<FieldDifference> = Vec::new();
    for source in TrafficSource::ALL {
        let (ta, tb) = (fa.treatment(source, &da), fb.treatment(source, &db));
        if ta == tb {
            continue;
        }
        for (field, va, vb) in describe(&ta, &tb) {
            match fields.iter_mut().find(|f| f.field == field && f.a == va && f.b == vb) {
                Some(known) => known.traffic.push(source),
                None => fields.push(FieldDifference { field, a: va, b: vb, traffic: vec![source] }),
            }
        }
    }
    for field in &mut fields {
        if field.traffic.len() == TrafficSource::ALL.len() {
            field.traffic.clear();
        }
    }
    fields
}

fn describe(a: &Treatment, b: &Treatment) -> Vec<(&'static str, String, String)> {
    let mut out = Vec::new();
    if a.backends != b.backends {
        // Long lists differ in an endpoint or two: name those, not the hundred that agree.
        let only = |x: &Treatment, y: &Treatment| {
            let missing: Vec<_> = x.backends.iter().filter(|e| !y.backends.contains(e)).collect();
            let mut text = format!("{} backends", x.backends.len());
            for (i, (addr, weight)) in missing.iter().take(4).enumerate() {
                let _ = write!(text, "{} {addr}", if i == 0 { ", only here:" } else { "," });
                if *weight != 1 {
                    let _ = write!(text, " (weight {weight})");
                }
            }
            if missing.len() > 4 {
                let _ = write!(text, " and {} more", missing.len() - 4);
            }
            text
        };
        out.push(("backends", only(a, b), only(b, a)));
    }
    let verdict = |t: &Treatment| t.no_backends.map_or_else(|| "forward".to_owned(), |n| n.to_string());
    if a.no_backends != b.no_backends {
        out.push(("no_backends", verdict(a), verdict(b)));
    }
    if a.masquerade != b.masquerade && a.no_backends.is_none() && b.no_backends.is_none() {
        let word = |m: bool| if m { "masqueraded" } else { "client address kept" }.to_owned();
        out.push(("masquerade", word(a.masquerade), word(b.masquerade)));
    }
    if a.affinity != b.affinity {
        let word = |t: &Treatment| t.affinity.map_or_else(|| "none".to_owned(), |s| format!("{s} s"));
        out.push(("affinity_seconds", word(a), word(b)));
    }
    if a.sources != b.sources {
        let word = |t: &Treatment| {
            if t.sources.is_empty() {
                return "all".to_owned();
            }
            t.sources.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        };
        out.push(("source_ranges", word(a), word(b)));
    }
    out
}
