//! The rules against what the API says: every difference is somebody's connection gone wrong.

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found, Skip, rule_at};
use crate::inspect::kube;
use crate::model::{Difference, FieldDifference, Side};

/// Forces a full sync of iptables mode; in nftables mode a restart does.
const REBUILD: &str = "kubectl -n kube-system delete pod -l k8s-app=kube-proxy --field-selector spec.nodeName=NODE";

pub(super) const CHECKS: [Check; 7] = [
    Check {
        id: "KPX-A701",
        area: Area::Services,
        severity: Severity::Error,
        title: "Rules for Service ports that the API does not have",
        why: "The Service was deleted or changed, and the rules were not: connections still reach its old endpoints, or whoever has their \
              addresses now. The sign of a kube-proxy that is stopped, stuck, or left behind by another one.",
        remedy: "See whether kube-proxy runs and reaches the API server; then let it write everything anew.",
        command: REBUILD,
        run: extra,
    },
    Check {
        id: "KPX-A702",
        area: Area::Services,
        severity: Severity::Error,
        title: "Service ports without rules",
        why: "The API has the Service, the node does not serve it: connections to it go out untranslated and time out.",
        remedy: "See whether kube-proxy runs and reaches the API server; then let it write everything anew.",
        command: REBUILD,
        run: missing,
    },
    Check {
        id: "KPX-A703",
        area: Area::Services,
        severity: Severity::Error,
        title: "Rules that send to other endpoints than the API's",
        why: "Connections go to pods that are gone, or new pods get none. Weights count: an endpoint that gets more than its share is such a \
              difference too.",
        remedy: "See whether kube-proxy runs and reaches the API server; then let it write everything anew.",
        command: REBUILD,
        run: |facts| differing(facts, |field| field.field == "backends"),
    },
    Check {
        id: "KPX-A704",
        area: Area::Services,
        severity: Severity::Error,
        title: "Refusals that the API does not ask for, or the other way round",
        why: "A \"has no endpoints\" rule refuses a Service that has endpoints by now, or a Service without any is not refused and its clients \
              wait for a time-out. REJECT and DROP differ too: clients notice the one at once.",
        remedy: "See whether kube-proxy runs and reaches the API server; then let it write everything anew.",
        command: REBUILD,
        run: |facts| differing(facts, |field| field.field == "no_backends"),
    },
    Check {
        id: "KPX-A705",
        area: Area::Services,
        severity: Severity::Error,
        title: "Masquerading, affinity or source ranges other than the API's",
        why: "The Service answers, but otherwise than it should: client addresses are hidden or shown, sessions do not stick, or clients come in \
              that loadBalancerSourceRanges keeps out.",
        remedy: "Compare kube-proxy's configuration with that of other nodes; then let it write everything anew.",
        command: "kpx diff api iptables -o wide",
        run: |facts| differing(facts, |field| !matches!(field.field, "backends" | "no_backends")),
    },
    Check {
        id: "KPX-A706",
        area: Area::Services,
        severity: Severity::Error,
        title: "Facts of the node that rules and configuration tell differently",
        why: "How pods are recognised, where NodePorts answer and which health check ports are let in are the same for all Services: a difference \
              touches each of them.",
        remedy: "Restart kube-proxy, so that it writes all rules with its present configuration.",
        command: REBUILD,
        run: facts_of_node,
    },
    Check {
        id: "KPX-A707",
        area: Area::Services,
        severity: Severity::Info,
        title: "Assumptions that the comparison with the API rests on",
        why: "kube-proxy's configuration or version, or the node's name, was not told outright. Where an assumption is wrong, the comparison is \
              too.",
        remedy: "Tell kpx what it cannot see, then compare again.",
        command: "kpx audit --node-name NAME --kube-proxy-flag cluster-cidr=CIDR",
        run: assumptions,
    },
];

fn extra(facts: &Facts<'_>) -> Found {
    sides(facts, |difference| match difference {
        Difference::OnlyInB(side) => Some(side),
        _ => None,
    })
}

fn missing(facts: &Facts<'_>) -> Found {
    sides(facts, |difference| match difference {
        Difference::OnlyInA(side) => Some(side),
        _ => None,
    })
}

fn sides(facts: &Facts<'_>, wanted: fn(&Difference) -> Option<&Side>) -> Found {
    let named = |side: &Side| evidence(facts, side, &side.from, "");
    facts.differences()?.iter().filter_map(wanted).map(named).collect()
}

fn differing(facts: &Facts<'_>, wanted: fn(&FieldDifference) -> bool) -> Found {
    let mut found = Vec::new();
    for difference in facts.differences()? {
        if let Difference::Frontend { side, from_b, fields } = difference {
            for field in fields.iter().filter(|field| wanted(field)) {
                let what = format!("; {}: {} in the API, {} in the rules", field.field, field.a, field.b);
                found.push(evidence(facts, side, from_b, &what)?);
            }
        }
    }
    Ok(found)
}

/// The frontend and what is said of it, at the rule that it was read from.
fn evidence(facts: &Facts<'_>, side: &Side, from: &str, what: &str) -> Result<Evidence, Skip> {
    let programmed = facts.programmed()?;
    let at = programmed.table.at((side.ip, side.port, side.protocol)).iter().find(|f| f.origin.to_string() == from);
    let service = side.service.as_deref().unwrap_or("a Service without a name");
    let port =
        side.port_name.as_deref().filter(|name| !name.is_empty()).map(|name| format!(":{name}")).unwrap_or_default();
    let address = std::net::SocketAddr::new(side.ip, side.port);
    let text = format!("{service}{port}, {} {address}/{}{what}", side.kind, side.protocol);
    Ok(match (at, programmed.backend()) {
        (Some(frontend), Some(backend)) => Evidence::new(rule_at(backend, &frontend.origin).at, text),
        _ => Evidence::new(from, text),
    })
}

fn facts_of_node(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for difference in facts.differences()? {
        let (at, field) = match difference {
            Difference::Node { family, field } => (format!("{} of {family}", field.field), field),
            Difference::HealthCheck { port, field } => (format!("healthCheckNodePort {port}"), field),
            _ => continue,
        };
        found.push(Evidence::new(at, format!("{} in the API and configuration, {} in the rules", field.a, field.b)));
    }
    Ok(found)
}

fn assumptions(facts: &Facts<'_>) -> Found {
    facts.programmed()?;
    // A Service that needs a health check port and has none is no assumption.
    let assumed = |notice: &&kube::Notice| !matches!(notice, kube::Notice::NoHealthCheckPort { .. });
    let notices = &facts.kube()?.notices;
    Ok(notices.iter().filter(assumed).map(|notice| Evidence::new("the API side", notice.to_string())).collect())
}
