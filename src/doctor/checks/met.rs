//! What a client meets: where its packets would end, whether it is answered, and whose address the backend sees.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::super::probe::Attempt;
use super::super::serving::Serving;
use super::{Ailment, Cause, Evidence, Finding, Patient};
use crate::inspect::nftables::OtherTable;
use crate::model::{Exposure, Frontend, Policy, TrafficSource};
use crate::path::{End, Packet, Path, Step};

/// Why nothing is looked at one by one, if that is so.
fn nothing(patient: &Patient<'_>) -> Option<Finding> {
    if patient.is_general() {
        return Some(Finding::Unknown("no Service was named".to_owned()));
    }
    let none = patient.wanted.frontends().is_empty();
    none.then(|| Finding::Unknown("there is no frontend".to_owned()))
}

/// Whose packets are followed to a frontend.
pub(super) fn origins(patient: &Patient<'_>, frontend: &Frontend) -> Vec<TrafficSource> {
    match patient.client_origin() {
        // It complains of its own packets.
        Some(origin) => vec![origin],
        None if frontend.key.exposure.is_external() => vec![TrafficSource::Node, TrafficSource::Outside],
        None => vec![TrafficSource::Node, TrafficSource::Pod],
    }
}

/// How to see the same way in full.
fn command(packet: &Packet) -> String {
    match (packet.origin, packet.source) {
        (TrafficSource::Outside | TrafficSource::Pod, Some(ip)) => {
            format!("kpx path --from-ip {ip} {}/{}", packet.destination, packet.protocol)
        }
        _ => format!("kpx path {}/{}", packet.destination, packet.protocol),
    }
}

pub(super) fn way(patient: &Patient<'_>) -> Finding {
    if let Some(finding) = nothing(patient) {
        return finding;
    }
    let mut followed = 0;
    for frontend in patient.frontends() {
        // Nothing else can come of these: endpoints says so.
        if frontend.cluster.is_empty() && frontend.local.is_empty() {
            continue;
        }
        for origin in origins(patient, frontend) {
            let Some(packet) = patient.packet(&frontend.key, origin) else {
                return Finding::Unknown("the node's addresses are not known".to_owned());
            };
            let path = match patient.walk(&packet) {
                Ok(path) => path,
                Err(why) => return Finding::Unknown(why),
            };
            followed += 1;
            let wanted = patient.wanted_way(&packet);
            if let Some(ailment) = judged(patient, frontend, &packet, &path, wanted.as_ref()) {
                return Finding::Failed(ailment);
            }
            if let Some(ailment) = filtered(patient, &packet, &path).or_else(|| sent_on(patient, &packet, &path)) {
                return Finding::Failed(ailment);
            }
        }
    }
    if followed == 0 {
        return Finding::Unknown("no frontend has an endpoint".to_owned());
    }
    let which = if followed == 1 {
        "one packet, to a backend".to_owned()
    } else {
        format!("{followed} packets, each to a backend")
    };
    Finding::Passed(format!("followed {which}"))
}

/// What is wrong with a packet's way.
fn judged(
    patient: &Patient<'_>,
    frontend: &Frontend,
    packet: &Packet,
    path: &Path,
    wanted: Option<&Path>,
) -> Option<Ailment> {
    let bad = path.ways.iter().find(|way| !matches!(way.end, End::Backend { .. }));
    let Some(bad) = bad else {
        let other = wanted.filter(|wanted| !same_backends(frontend, path, wanted))?;
        let ends = |path: &Path| path.ends().keys().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let text = format!("{packet} ends elsewhere than the API asks for");
        let evidence = [Evidence::new("here", ends(path)), Evidence::new("API", ends(other))];
        return Some(Ailment::new(Cause::WrongWay, text, command(packet)).with(evidence));
    };
    let last = bad.steps.last();
    // A socket whose address is not known yet is left to whoever sees the packet: no fault.
    if path.notes.iter().any(|note| note.contains("whoever sees the packet")) {
        return None;
    }
    let why = last.map(|step| step.does.clone()).unwrap_or_default();
    let evidence: Vec<Evidence> =
        bad.steps.iter().map(|step| Evidence::new(format!("{} {}", step.hook, step.at), step.does.clone())).collect();
    let local = frontend.key.exposure.is_external()
        && frontend.external_policy == Policy::Local
        && frontend.local.is_empty()
        && packet.origin == TrafficSource::Outside;
    let ranges = packet
        .source
        .is_some_and(|ip| !frontend.sources.is_empty() && !frontend.sources.iter().any(|net| net.contains(&ip)));
    let named = frontend.service.as_ref();
    let next = |field: &str| match named {
        Some(name) => {
            format!("kubectl get service -n {} {} -o jsonpath='{{.spec.{field}}}'", name.namespace, name.name)
        }
        None => command(packet),
    };
    let (cause, text, next) = if ranges {
        let nets: Vec<String> = frontend.sources.iter().map(ToString::to_string).collect();
        let text = format!("{packet} is {}: loadBalancerSourceRanges let in {} only", bad.end, nets.join(", "));
        (Cause::SourceRanges, text, next("loadBalancerSourceRanges"))
    } else if local {
        let text = format!("{packet} is {}: externalTrafficPolicy is Local, and no endpoint is on this node", bad.end);
        (Cause::NoLocalEndpoint, text, next("externalTrafficPolicy"))
    } else if bad.end == End::Untouched && frontend.key.exposure == Exposure::NodePort {
        let scope = match &patient.serving {
            Serving::Kpx(kpx) => kpx_scope(kpx, packet.destination),
            _ => patient.wanted.facts(packet.family()).node_ports.to_string(),
        };
        let text = format!("NodePorts do not answer on {}: {scope}", packet.destination.ip());
        (
            Cause::NodePortAddress,
            text,
            "kubectl get configmap -n kube-system kube-proxy -o yaml | grep nodePortAddresses".to_owned(),
        )
    } else {
        let said = if why.is_empty() { String::new() } else { format!(" ({why})") };
        (Cause::WrongWay, format!("{packet} is {}{said}", bad.end), command(packet))
    };
    Some(Ailment::new(cause, text, next).with(evidence))
}

/// Rules of others that stop a packet between kpx's hooks.
fn filtered(patient: &Patient<'_>, packet: &Packet, path: &Path) -> Option<Ailment> {
    let kpx = patient.serving.as_kpx().filter(|_| packet.origin != TrafficSource::Node)?;
    // Packets with kpx's own mark are let through by a rule of its own, and the walk knows no marks.
    if kpx.dataplane.marks().is_ok_and(|(_, accept)| accept != 0) {
        return None;
    }
    let backend = backends(path).into_iter().next()?;
    let beyond = patient.beyond(packet, backend);
    let way = beyond.iter().flat_map(|path| &path.ways).find(|way| matches!(way.end, End::Dropped | End::Refused))?;
    let text = format!("{packet} is {} on its way to {backend}, by rules of others", way.end);
    let evidence = way.steps.iter().map(|step| Evidence::new(format!("{} {}", step.hook, step.at), said(step)));
    let next = command_at(patient, way.steps.last(), "iptables-save -c | grep -E 'DROP|REJECT'");
    Some(Ailment::new(Cause::Filtered, text, next).with(evidence))
}

/// Rules of others that give a packet another destination than the backend that kpx's hooks gave it.
fn sent_on(patient: &Patient<'_>, packet: &Packet, path: &Path) -> Option<Ailment> {
    patient.serving.as_kpx()?;
    let backend = backends(path).into_iter().next()?;
    let beyond = patient.beyond(packet, backend);
    let way = beyond.iter().flat_map(|path| &path.ways).find(|way| matches!(way.end, End::Backend { .. }))?;
    let text = format!("{packet} is sent on from {backend} to another destination, by rules of others");
    let evidence = way.steps.iter().map(|step| Evidence::new(format!("{} {}", step.hook, step.at), said(step)));
    let next = command_at(patient, way.steps.last(), "iptables-save -c -t nat");
    Some(Ailment::new(Cause::WrongWay, text, next).with(evidence))
}

/// How to see the rule of a step: in a table of nftables, or as iptables shows it.
fn command_at(patient: &Patient<'_>, step: Option<&Step>, of_iptables: &str) -> String {
    let is_in = |table: &&OtherTable| {
        step.is_some_and(|step| step.at.starts_with(&format!("{} {} ", table.family, table.name)))
    };
    patient
        .others
        .iter()
        .flatten()
        .find(is_in)
        .map_or_else(|| of_iptables.to_owned(), |table| format!("nft list table {} {}", table.family, table.name))
}

pub(super) fn said(step: &Step) -> String {
    if step.text.is_empty() { step.does.clone() } else { format!("{} ({})", step.does, step.text) }
}

/// The rule of others that gives a packet the node's address between kpx's hooks.
fn masqueraded(patient: &Patient<'_>, packet: &Packet, path: &Path) -> Option<(Evidence, String)> {
    patient.serving.as_kpx()?;
    let beyond = patient.beyond(packet, backends(path).into_iter().next()?);
    let step = beyond.iter().flat_map(|path| &path.ways).flat_map(|way| &way.steps).find(|step| step.masquerades())?;
    let next = command_at(patient, Some(step), "iptables-save -c -t nat | grep POSTROUTING");
    Some((Evidence::new(format!("{} {}", step.hook, step.at), said(step)), next))
}

fn kpx_scope(kpx: &super::super::serving::Kpx, to: SocketAddr) -> String {
    use crate::dataplane::AddressFlags;
    match kpx.dataplane.addresses() {
        Ok(known) => match known.get(&to.ip()) {
            Some(flags) if flags.has(AddressFlags::NODEPORT) => "though the maps say so".to_owned(),
            Some(_) => "it is the node's, and nodePortAddresses leaves it out".to_owned(),
            None => "kpx does not know it as an address of the node".to_owned(),
        },
        Err(error) => crate::error::with_causes(&error),
    }
}

/// The backends that a packet may come to.
fn backends(path: &Path) -> BTreeSet<SocketAddr> {
    path.ends().keys().filter_map(|end| if let End::Backend { to, .. } = end { Some(*to) } else { None }).collect()
}

/// Whether both lead to the same backends, whatever their shares and sources. A client that is kept at one comes to that alone.
fn same_backends(frontend: &Frontend, here: &Path, wanted: &Path) -> bool {
    let (here, wanted) = (backends(here), backends(wanted));
    here == wanted || frontend.affinity.is_some() && here.is_subset(&wanted)
}

pub(super) fn host(patient: &Patient<'_>) -> Finding {
    match &patient.host {
        Ok(attempts) => answered(patient, attempts, "the host"),
        Err(why) => Finding::Unknown(why.clone()),
    }
}

pub(super) fn pod(patient: &Patient<'_>) -> Finding {
    match &patient.pod {
        Ok((pid, attempts)) => answered(patient, attempts, &format!("the pod of process {pid}")),
        Err(why) => Finding::Unknown(why.clone()),
    }
}

fn shown(attempt: &Attempt) -> Evidence {
    let to = format!("{}/{}", attempt.to, attempt.protocol);
    match &attempt.outcome {
        Ok(from) => Evidence::new(to, format!("connected from {} in {} ms", from.ip(), attempt.millis)),
        Err(why) => Evidence::new(to, format!("{why}, after {} ms", attempt.millis)),
    }
}

fn answered(patient: &Patient<'_>, attempts: &[Attempt], whom: &str) -> Finding {
    let Some(first) = attempts.iter().find(|attempt| attempt.outcome.is_err()) else {
        let all: Vec<String> = attempts.iter().map(|a| format!("{}/{}", a.to, a.protocol)).collect();
        return Finding::Passed(format!("{} connected from {whom}", all.join(", ")));
    };
    let failed: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.outcome.is_err()).collect();
    let tried = &patient.backends;
    let (silent, alive): (Vec<&Attempt>, Vec<&Attempt>) = tried.iter().partition(|attempt| attempt.outcome.is_err());
    let evidence = failed.iter().copied().chain(silent.iter().copied()).map(shown);
    let to = format!("{}/{}", first.to, first.protocol);
    let (namespace, _) = patient
        .wanted
        .frontends()
        .iter()
        .find_map(|frontend| frontend.service.as_ref())
        .map_or(("NS", ""), |name| (name.namespace.as_str(), name.name.as_str()));
    if !silent.is_empty() && alive.is_empty() {
        let text = format!("{to} does not answer {whom}, and nor does a backend that is asked for directly");
        let next = format!("kubectl get pods -n {namespace} -o wide");
        return Finding::Failed(Ailment::new(Cause::BackendDown, text, next).with(evidence));
    }
    let besides = match (silent.len(), alive.len()) {
        (0, 0) => String::new(),
        (0, n) => format!(
            ", though {} when asked directly",
            if n == 1 { "its backend does".to_owned() } else { format!("{n} backends do") }
        ),
        (bad, _) => format!(", and {bad} of {} backends do not when asked directly", tried.len()),
    };
    let cause = if silent.is_empty() { Cause::NoAnswer } else { Cause::BackendDown };
    Finding::Failed(
        Ailment::new(cause, format!("{to} does not answer {whom}{besides}"), format!("kpx path {to}")).with(evidence),
    )
}

/// What of a Service decides about the source.
fn because(patient: &Patient<'_>, frontend: &Frontend, packet: &Packet) -> String {
    let policy = frontend.key.exposure.is_external() && frontend.external_policy == Policy::Cluster;
    let detector = &patient.wanted.facts(packet.family()).detector;
    if policy {
        "externalTrafficPolicy is Cluster".to_owned()
    } else if packet.origin == TrafficSource::Outside {
        format!("the client counts as outside: pods are recognised by {detector}")
    } else {
        "kube-proxy's masqueradeAll, or the backend is the client itself".to_owned()
    }
}

pub(super) fn source(patient: &Patient<'_>) -> Finding {
    if let Some(finding) = nothing(patient) {
        return finding;
    }
    let mut kept = 0;
    let mut replaced: Vec<(Evidence, Ailment)> = Vec::new();
    for frontend in patient.frontends() {
        for origin in origins(patient, frontend).into_iter().filter(|origin| *origin != TrafficSource::Node) {
            let Some(packet) = patient.packet(&frontend.key, origin) else { continue };
            let path = match patient.walk(&packet) {
                Ok(path) => path,
                Err(why) => return Finding::Unknown(why),
            };
            let masked =
                |path: &Path| path.ways.iter().any(|way| matches!(way.end, End::Backend { nodes_source: true, .. }));
            let arrives = |path: &Path| path.ways.iter().any(|way| matches!(way.end, End::Backend { .. }));
            let wanted = patient.wanted_way(&packet);
            if let Some(wanted) =
                wanted.filter(|wanted| arrives(wanted) && arrives(&path) && masked(wanted) != masked(&path))
            {
                let (here, api) =
                    if masked(&path) { ("the node's", "the client's") } else { ("the client's", "the node's") };
                let text = format!("{packet}: backends see {here} address, and should see {api}");
                let evidence = [Evidence::new(
                    "asked for",
                    wanted.ends().keys().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                )];
                return Finding::Failed(Ailment::new(Cause::SourceReplaced, text, command(&packet)).with(evidence));
            }
            if masked(&path) {
                let text =
                    format!("{packet}: backends see the node's address, since {}", because(patient, frontend, &packet));
                let next = match &frontend.service {
                    Some(name) if frontend.key.exposure.is_external() => format!(
                        "kubectl patch service -n {} {} -p '{{\"spec\":{{\"externalTrafficPolicy\":\"Local\"}}}}'",
                        name.namespace, name.name
                    ),
                    _ => command(&packet),
                };
                let at = Evidence::new(
                    format!("{} {}", frontend.key.exposure, frontend.key),
                    because(patient, frontend, &packet),
                );
                replaced.push((at, Ailment::new(Cause::SourceReplaced, text, next)));
            } else if let Some((rule, next)) = masqueraded(patient, &packet, &path) {
                let text =
                    format!("{packet}: backends see the node's address, since a rule of others replaces the client's");
                return Finding::Failed(Ailment::new(Cause::SourceReplaced, text, next).with([rule]));
            } else if arrives(&path) {
                kept += 1;
            }
        }
    }
    match replaced.split_first() {
        None if kept == 0 => Finding::Unknown("no packet arrives".to_owned()),
        None => Finding::Passed("the client's".to_owned()),
        Some(((_, first), [])) => Finding::Remark(first.clone()),
        Some(((_, first), _)) => Finding::Remark(first.clone().with(replaced.iter().map(|(at, _)| at.clone()))),
    }
}
