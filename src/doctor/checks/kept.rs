//! What a dataplane keeps of clients: backends, flows; and what it counts.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use kpx_abi::{Reason, map_name};

use super::{Ailment, Cause, Evidence, Finding, Patient};
use crate::audit::Flows;
use crate::dataplane::{MapUse, map_use};
use crate::error::with_causes;
use crate::inspect::entry::Client;
use crate::model::{Frontend, FrontendKey, Protocol};

pub(super) fn affinity(patient: &Patient<'_>) -> Finding {
    let sticky: Vec<&Frontend> = patient.wanted.frontends().iter().filter(|f| f.affinity.is_some()).collect();
    let Some(first) = sticky.first() else {
        return if patient.wanted.frontends().is_empty() {
            Finding::Unknown("there is no frontend".to_owned())
        } else {
            Finding::Passed("none asked for: sessionAffinity is None".to_owned())
        };
    };
    let seconds = first.affinity.unwrap_or_default();
    let forgotten = sticky.iter().find(|f| patient.has.get(&f.key).iter().any(|has| has.affinity != f.affinity));
    if let Some(frontend) = forgotten {
        let has = patient.has.get(&frontend.key).iter().find_map(|f| f.affinity);
        let has = has.map_or_else(|| "not at all".to_owned(), |seconds| format!("for {seconds} s"));
        let text =
            format!("{}: the API keeps clients for {seconds} s, here they are kept {has}", frontend.display_name());
        return Finding::Failed(Ailment::new(Cause::AffinityNotKept, text, "kpx diff api ebpf -o wide"));
    }
    let Some(kpx) = patient.serving.as_kpx() else {
        return Finding::Passed(format!("for {seconds} s, by kube-proxy's rules: kpx inspect affinity shows them"));
    };
    let read = kpx.dataplane.frontends().and_then(|ids| Ok((ids, kpx.dataplane.affinity()?, map_use(&kpx.paths)?)));
    let (ids, clients, used) = match read {
        Ok(read) => read,
        Err(error) => return Finding::Unknown(with_causes(&error)),
    };
    if let Some(full) = used.iter().find(|used| used.map == map_name::AFFINITY && is_full(used)) {
        let text = format!(
            "{} clients are remembered and no more can be: for each new one another is forgotten, and goes to another backend",
            full.entries
        );
        let next = format!("kpx agent --map-size affinity={}", full.size.saturating_mul(4).max(65_536));
        let evidence = Evidence::new(full.map, format!("{} of {} entries", full.entries, full.size));
        return Finding::Failed(Ailment::new(Cause::AffinityFull, text, next).with([evidence]));
    }
    let is_sticky = |key: &FrontendKey| sticky.iter().any(|frontend| frontend.key == *key);
    let own: BTreeSet<u32> = ids.iter().filter(|(_, keys)| keys.iter().any(is_sticky)).map(|(id, _)| *id).collect();
    let listed: BTreeSet<SocketAddr> =
        sticky.iter().flat_map(|f| f.cluster.iter().chain(&f.local)).map(crate::model::Backend::addr).collect();
    let clients: Vec<_> = clients.into_iter().filter(|client| own.contains(&client.service)).collect();
    let gone: Vec<Evidence> = clients
        .iter()
        .filter(|client| client.backend.is_none_or(|backend| !listed.contains(&backend)))
        .map(|client| {
            let who = match &client.client {
                Client::Address(ip) => ip.to_string(),
                Client::Netns(cookie) => format!("sockets of network namespace {cookie}"),
            };
            let was = client.backend.map_or_else(|| "one that has gone".to_owned(), |backend| backend.to_string());
            Evidence::new(who, format!("was kept at {was}"))
        })
        .take(10)
        .collect();
    if gone.is_empty() {
        return Finding::Passed(format!(
            "for {seconds} s; {} remembered now",
            crate::ui::count(clients.len(), "client")
        ));
    }
    let text = format!(
        "the backend of {} has gone: the next connection goes to another",
        crate::ui::count(gone.len(), "client")
    );
    Finding::Remark(Ailment::new(Cause::AffinityBackendGone, text, "kpx inspect affinity").with(gone))
}

/// Whether a map that makes room for new entries by forgetting others is at it. The kernel keeps up to 128 free entries for each
/// processor (kernel/bpf/bpf_lru_list.c, `LOCAL_FREE_TARGET`), so such a map is hardly ever full to the last.
fn is_full(used: &MapUse) -> bool {
    let spare = 128 * std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    used.entries + spare >= used.size && used.entries * 2 >= used.size
}

pub(super) fn udp(patient: &Patient<'_>) -> Finding {
    if patient.wanted.frontends().is_empty() {
        return Finding::Unknown("there is no frontend".to_owned());
    }
    let datagrams = patient.wanted.filter(|frontend| frontend.key.protocol == Protocol::Udp);
    if datagrams.frontends().is_empty() {
        return Finding::Passed("there is no UDP port".to_owned());
    }
    let flows = match Flows::read(patient.node, &datagrams) {
        Ok(flows) => flows,
        Err(skip) => return Finding::Unknown(skip.0),
    };
    let Some((_, client, backend)) = flows.stuck.first() else {
        return Finding::Passed("no flow of connection tracking goes to a backend that has gone".to_owned());
    };
    let command = |client: &SocketAddr, backend: &SocketAddr| {
        format!("conntrack -D -p udp --orig-src {} --reply-src {}", client.ip(), backend.ip())
    };
    let text = format!(
        "{} to a backend that has gone: what these clients send is lost until they are silent for long enough",
        if flows.stuck_count == 1 { "a flow goes on".to_owned() } else { format!("{} flows go on", flows.stuck_count) }
    );
    let evidence = flows.stuck.iter().take(10).map(|(service, client, backend)| {
        Evidence::new(service.clone(), format!("{client} to {backend}")).command(command(client, backend))
    });
    Finding::Failed(Ailment::new(Cause::StaleUdp, text, command(client, backend)).with(evidence))
}

/// What counts what somebody has lost, and what it means.
const LOSSES: [(Reason, &str); 14] = [
    (Reason::Refused, "connections refused at sockets: no backend"),
    (Reason::RefusalPassed, "no backend, and the refusal left to the kernel's rules"),
    (Reason::DropPassed, "no backend on this node"),
    (Reason::Missed, "lookups that met changes at every attempt"),
    (Reason::NoStorage, "sockets without room to remember their Service"),
    (Reason::BindRefused, "processes refused a port that is a NodePort"),
    (Reason::PacketRefused, "packets refused: no backend"),
    (Reason::PacketDropped, "packets dropped: no backend on this node, or no source range has the client"),
    (Reason::ConntrackFull, "packets dropped: no room for another flow"),
    (Reason::NoPort, "packets dropped: no source port is free"),
    (Reason::NoSource, "packets dropped: the device has no address to masquerade with"),
    (Reason::NoRoute, "packets of the node with no route to their backend"),
    (Reason::FrozenFlow, "packets dropped: their flow is frozen"),
    (Reason::DsrTooBig, "packets too big to be announced to the backend's node"),
];

pub(super) fn drops(patient: &Patient<'_>) -> Finding {
    let moved = match &patient.moved {
        Ok(moved) => moved,
        Err(why) => return Finding::Unknown(why.clone()),
    };
    let losses = moved.iter().filter_map(|m| Some((m, LOSSES.iter().find(|(reason, _)| *reason == m.reason)?.1)));
    let (moving, still): (Vec<_>, Vec<_>) = losses.partition(|(m, _)| m.after > m.before);
    let Some((first, meaning)) = moving.first() else {
        let earlier: Vec<String> = still
            .iter()
            .filter(|(m, _)| m.after > 0)
            .map(|(m, _)| format!("{} {}", m.reason.name(), m.after))
            .collect();
        let since = if earlier.is_empty() {
            String::new()
        } else {
            format!("; since they were loaded: {}", earlier.join(", "))
        };
        return Finding::Passed(format!("none{since}"));
    };
    let evidence = moving.iter().map(|(m, meaning)| {
        Evidence::new(m.reason.name(), format!("{} more, {} in all: {meaning}", m.after - m.before, m.after))
    });
    let text = format!("{} moves: {meaning}", first.reason.name());
    Finding::Failed(Ailment::new(Cause::DropsMove, text, "kpx inspect map kpx_reasons").with(evidence))
}
