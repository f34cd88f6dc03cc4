//! Who serves, and what.

use super::super::serving::{Kpx, Serving};
use super::{Ailment, Cause, Evidence, Finding, Patient};
use crate::capture::{Captured, Item};
use crate::dataplane::{Mode, Served};
use crate::inspect::ipvs::as_ipvs;
use crate::model::{Difference, FieldDifference, FrontendKey, ServiceTable, Side, diff};
use crate::source::Via;
use crate::ui::count;

/// Most differences that are shown.
const SHOWN: usize = 5;

pub(super) fn serves(patient: &Patient<'_>) -> Finding {
    let kpx = match &patient.serving {
        Serving::Kpx(kpx) => kpx,
        Serving::Rules(lifted) => return Finding::Passed(format!("kube-proxy's rules do ({})", lifted.place)),
        Serving::Unknown(why) => return Finding::Unknown(why.clone()),
        Serving::Nobody => {
            let text = "neither kpx's maps nor rules of kube-proxy are on this node";
            return Finding::Failed(Ailment::new(Cause::NobodyServes, text, "kpx migrate status"));
        }
    };
    let mode = kpx.mode.name();
    match (kpx.mode, &kpx.rules) {
        (Mode::Active, Ok(rules)) if rules.is_empty() => Finding::Passed("kpx does, alone".to_owned()),
        (Mode::Active, Ok(_)) => Finding::Passed("kpx does, in front of rules of kube-proxy".to_owned()),
        (Mode::Active, Err(why)) => Finding::Passed(format!("kpx does; of rules nothing is known: {why}")),
        (_, Ok(rules)) if !rules.is_empty() => {
            let text =
                format!("kube-proxy's rules do: kpx's programs are in mode {mode} and leave new connections alone");
            let ailment = Ailment::new(Cause::NotActive, text, "kpx migrate status");
            Finding::Remark(ailment.with(rules.iter().map(|rules| Evidence::new(rules.to_string(), "stands"))))
        }
        _ => {
            let text = format!("nobody does: kpx's programs are in mode {mode}, and no rules of kube-proxy stand");
            Finding::Failed(Ailment::new(Cause::NotActive, text, "kpx migrate status"))
        }
    }
}

pub(super) fn programmed(patient: &Patient<'_>) -> Finding {
    let state = match &patient.api {
        Ok(state) => state,
        Err(why) => return Finding::Unknown(format!("nothing to compare with: {why}")),
    };
    let (via, wanted) = match &patient.serving {
        Serving::Kpx(_) => ("ebpf", patient.wanted.clone()),
        Serving::Rules(lifted) if lifted.via == Via::Ipvs => ("ipvs", as_ipvs(&patient.wanted)),
        Serving::Rules(lifted) if lifted.via == Via::Nftables => ("nftables", patient.wanted.clone()),
        Serving::Rules(_) => ("iptables", patient.wanted.clone()),
        Serving::Nobody => return Finding::Unknown("nobody serves".to_owned()),
        Serving::Unknown(why) => return Finding::Unknown(why.clone()),
    };
    let found: Vec<Difference> = diff(&wanted, &patient.has).into_iter().filter(is_about_frontends).collect();
    let Some(first) = found.first() else {
        let n = wanted.frontends().len();
        return if n == 0 {
            Finding::Unknown("there is no frontend".to_owned())
        } else {
            Finding::Passed(format!("{}, as the API has it", count(n, "frontend")))
        };
    };
    let missing = found.iter().filter(|d| matches!(d, Difference::OnlyInA(_))).count();
    let all_missing = missing > 0 && missing == wanted.frontends().len();
    let (cause, text) = match first {
        _ if all_missing => (Cause::NotProgrammed, format!("{via} has nothing of it")),
        _ if missing > 0 => (Cause::NotProgrammed, format!("{via} lacks {}", count(missing, "frontend"))),
        Difference::Frontend { fields, .. } if fields.iter().all(|field| field.field == "affinity_seconds") => {
            (Cause::AffinityNotKept, format!("{via} does not keep clients at their backends as the API asks"))
        }
        _ => (Cause::Outdated, format!("{via} has {} otherwise than the API", count(found.len(), "frontend"))),
    };
    let reasons =
        patient.serving.as_kpx().map(|kpx| why_behind(patient, kpx, &state.table, &wanted)).unwrap_or_default();
    let next = reasons.iter().find_map(|reason| reason.command.clone());
    let next = next.unwrap_or_else(|| format!("kpx diff api {via} -o wide"));
    let evidence = reasons.into_iter().chain(found.iter().take(SHOWN).map(|d| difference(d, via)));
    Finding::Failed(Ailment::new(cause, text, next).with(evidence))
}

const fn is_about_frontends(difference: &Difference) -> bool {
    match difference {
        Difference::OnlyInA(_) | Difference::OnlyInB(_) | Difference::Frontend { .. } => true,
        Difference::Node { .. } | Difference::HealthCheck { .. } => false,
    }
}

fn difference(difference: &Difference, via: &str) -> Evidence {
    let at = |side: &Side| {
        let key = FrontendKey { ip: side.ip, port: side.port, protocol: side.protocol, exposure: side.kind };
        format!("{} {key}", side.kind)
    };
    match difference {
        Difference::OnlyInA(side) => Evidence::new(at(side), format!("in the API, not in {via}")),
        Difference::OnlyInB(side) => Evidence::new(at(side), format!("in {via}, not in the API")),
        Difference::Frontend { side, fields, .. } => {
            let field = |f: &FieldDifference| format!("{}: API {}, {via} {}", f.field, f.a, f.b);
            Evidence::new(at(side), fields.iter().map(field).collect::<Vec<_>>().join("; "))
        }
        Difference::Node { .. } | Difference::HealthCheck { .. } => Evidence::default(),
    }
}

/// Why the maps are not as the API is.
fn why_behind(patient: &Patient<'_>, kpx: &Kpx, all: &ServiceTable, wanted: &ServiceTable) -> Vec<Evidence> {
    let mut found = Vec::new();
    for (frontend, reason) in Served::of(all).others {
        if wanted.get(&frontend.key).iter().any(|f| f.service == frontend.service) {
            found.push(Evidence::new(frontend.display_name(), format!("kpx does not serve it: {reason}")));
        }
    }
    for used in kpx.dataplane.table_use().iter().filter(|used| used.entries >= used.size) {
        let command = "kpx agent --map-size NAME=N".to_owned();
        found.push(Evidence::new(used.map, format!("is full: {} of {}", used.entries, used.size)).command(command));
    }
    match patient.node.read(Item::Healthz) {
        Ok(Captured::Present { bytes, place }) => match agents_answer(&bytes) {
            Some(conditions) => found.extend(conditions.into_iter().map(|(condition, text)| {
                Evidence::new(format!("the agent's condition {condition}"), text).command(format!("curl -s {place}"))
            })),
            None => found
                .push(Evidence::new(place, "the answer is not an agent's: it is kube-proxy's, or another program's")),
        },
        Ok(Captured::Absent { reason }) => {
            let text = format!("no agent follows the API here ({reason})");
            found.push(Evidence::new("kpx agent", text).command("systemctl status kpx-agent"));
        }
        Err(error) => {
            found.push(
                Evidence::new("kpx agent", crate::error::with_causes(&error)).command("systemctl status kpx-agent"),
            );
        }
    }
    found
}

/// The conditions of an agent's `/healthz`; `None` if that is not what it is.
fn agents_answer(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let body = memchr::memmem::find(bytes, b"\r\n\r\n").map_or(bytes, |at| &bytes[at + 4..]);
    let json: serde_json::Value = serde_json::from_slice(body).ok()?;
    let conditions = json.get("conditions")?.as_object()?;
    Some(conditions.iter().map(|(name, text)| (name.clone(), text.as_str().unwrap_or_default().to_owned())).collect())
}
