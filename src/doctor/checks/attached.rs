//! Where kpx's programs are, and who is in front of them.

use super::super::patient::cgroup_of;
use super::super::serving::{Kpx, Serving};
use super::met::{origins, said};
use super::{Ailment, Cause, Evidence, Finding, Patient};
use crate::dataplane::{self, Attachment, Mode, NodeDevice, carries_packets, hooks_in_front};
use crate::error::with_causes;
use crate::inspect::bpf;
use crate::inspect::cilium;
use crate::model::{Protocol, TrafficSource};
use crate::path::{End, Packet, through_others};
use crate::preflight;
use crate::source::Via;

/// kpx's dataplane, or why there is none to look at.
fn kpx<'p>(patient: &'p Patient<'_>) -> Result<&'p Kpx, Finding> {
    match &patient.serving {
        Serving::Kpx(kpx) => Ok(kpx),
        Serving::Unknown(why) => Err(Finding::Unknown(why.clone())),
        Serving::Rules(_) | Serving::Nobody => Err(Finding::Unknown("kpx is not on this node".to_owned())),
    }
}

pub(super) fn sockets(patient: &Patient<'_>) -> Finding {
    let kpx = match kpx(patient) {
        Ok(kpx) => kpx,
        Err(finding) => return finding,
    };
    let wanted = patient.wanted.frontends();
    if !wanted.is_empty() && wanted.iter().all(|f| f.key.protocol == Protocol::Sctp) {
        return Finding::Passed("no hook sees sockets of SCTP: devices serve it".to_owned());
    }
    let cgroup = match &kpx.cgroup {
        Ok(cgroup) => cgroup,
        Err(why) => return Finding::Unknown(why.clone()),
    };
    let next = "kpx inspect cgroups";
    let ailment = |text| Finding::Failed(Ailment::new(Cause::SocketsNotAttached, text, next));
    match kpx.dataplane.attachment() {
        Err(error) => return Finding::Failed(Ailment::new(Cause::OtherCgroup, with_causes(&error), next)),
        Ok(Attachment::Detached) => return ailment(format!("no hook is attached to {}", cgroup.display())),
        Ok(Attachment::Partly(missing)) => {
            return ailment(format!("not attached to {}: {}", cgroup.display(), missing.join(", ")));
        }
        Ok(Attachment::Attached) => {}
    }
    let pods = patient.asked.pod.map_or_else(preflight::pod_processes, |pid| vec![pid]);
    let places: Vec<_> = pods.iter().map(|pid| (*pid, cgroup_of(&pid.to_string()))).collect();
    let located: Vec<_> = places.iter().filter_map(|(pid, at)| Some((*pid, at.as_ref().ok()?))).collect();
    let elsewhere: Vec<_> = located.iter().filter(|(_, at)| !at.starts_with(cgroup)).collect();
    if elsewhere.is_empty() {
        let of = match (located.len(), places.iter().find_map(|(_, at)| at.as_ref().err())) {
            (0, Some(why)) => return Finding::Unknown(format!("all on {}; of pods: {why}", cgroup.display())),
            (0, None) => "no process of a pod was seen".to_owned(),
            (1, _) => "a process of a pod is below it".to_owned(),
            (n, _) => format!("{n} processes of pods are below it"),
        };
        return Finding::Passed(format!("all on {}; {of}", cgroup.display()));
    }
    let text = format!(
        "{} of pods not below {}, where the hooks are: their sockets are not seen",
        if elsewhere.len() == 1 { "a process".to_owned() } else { format!("{} processes", elsewhere.len()) },
        cgroup.display()
    );
    let evidence =
        elsewhere.iter().take(5).map(|(pid, at)| Evidence::new(format!("process {pid}"), at.display().to_string()));
    let ailment = |text| Ailment::new(Cause::OtherCgroup, text, "kpx agent --cgroup DIR").with(evidence);
    match &patient.pod {
        // The packet path serves who is not seen at sockets.
        Ok((pid, attempts))
            if attempts.iter().any(|a| a.protocol == Protocol::Tcp) && attempts.iter().all(|a| a.outcome.is_ok()) =>
        {
            Finding::Remark(ailment(format!("{text}, and process {pid} is answered all the same")))
        }
        _ => Finding::Failed(ailment(text)),
    }
}

pub(super) fn devices(patient: &Patient<'_>) -> Finding {
    let kpx = match kpx(patient) {
        Ok(kpx) => kpx,
        Err(finding) => return finding,
    };
    let both = kpx.dataplane.devices().and_then(|with| Ok((with, dataplane::node_devices()?)));
    let (recorded, all) = match both {
        Ok(both) => both,
        Err(error) => return Finding::Unknown(with_causes(&error)),
    };
    // A device that pins or maps remember may have lost its programs since.
    let attached = bpf::devices(&kpx.paths.pins).unwrap_or_default();
    let runs = |device: &NodeDevice| attached.iter().any(|on| on.interface == device.index && on.ours);
    let with: Vec<&NodeDevice> = recorded.iter().filter(|device| runs(device)).collect();
    let lost = recorded.iter().filter(|device| !runs(device));
    let bare: Vec<&NodeDevice> = all
        .iter()
        .filter(|device| {
            device.name != "lo" && carries_packets(device) && !recorded.iter().any(|d| d.index == device.index)
        })
        .chain(lost)
        .collect();
    let names = |devices: &[&NodeDevice]| devices.iter().map(|d| d.name.as_str()).collect::<Vec<_>>().join(", ");
    let next = "kpx inspect devices";
    if with.is_empty() {
        let text = "no device has the packet path: clients outside, and pods that no hook sees, are not served";
        let ailment = Ailment::new(Cause::DevicesNotAttached, text, next);
        return if kpx.beside_rules() {
            Finding::Passed("none has them: kube-proxy's rules serve clients outside".to_owned())
        } else {
            Finding::Failed(
                ailment.with(bare.iter().map(|device| Evidence::new(device.name.as_str(), "has no program of kpx"))),
            )
        };
    }
    // Where the client that complains comes by, else where everybody outside does.
    let outside =
        [std::net::Ipv4Addr::new(192, 0, 2, 1).into(), std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into()];
    let clients = patient.asked.client.map_or(outside.to_vec(), |ip| vec![ip]);
    let by = clients
        .iter()
        .filter_map(|ip| patient.around.interface_to(*ip))
        .find(|name| bare.iter().any(|d| d.name == *name));
    match by {
        Some(name) => {
            let text = format!("{name}, by which clients come, has no program of kpx");
            let evidence =
                [Evidence::new("devices with them", names(&with)), Evidence::new("devices without", names(&bare))];
            Finding::Failed(Ailment::new(Cause::DevicesNotAttached, text, next).with(evidence))
        }
        None if bare.is_empty() => Finding::Passed(format!("on {}", names(&with))),
        None => Finding::Passed(format!("on {}; not on {}", names(&with), names(&bare))),
    }
}

/// Priority of the chains by which kube-proxy's rules translate destinations (`NF_IP_PRI_NAT_DST`).
const DSTNAT: i32 = -100;

/// An nftables table of others that gives one of these packets another destination before who serves comes to see it, in chains up to
/// this priority.
fn table_in_front(
    patient: &Patient<'_>,
    priority: i32,
    of: impl Fn(&Packet) -> bool,
) -> Result<Option<Ailment>, String> {
    let others = patient.others.as_ref().map_err(String::clone)?;
    let others: Vec<_> = others.iter().map(|table| table.clone().in_front_of(priority)).collect();
    let packets = patient.frontends().flat_map(|frontend| {
        origins(patient, frontend).into_iter().filter_map(|origin| patient.packet(&frontend.key, origin))
    });
    for packet in packets.filter(of) {
        for table in &others {
            let path = through_others(table, &packet, &patient.around).unwrap_or_default();
            let Some(way) = path.ways.iter().find(|way| matches!(way.end, End::Backend { .. })) else { continue };
            let name = format!("table {} {}", table.family, table.name);
            let text = format!("{packet} is given another destination by nftables {name}, before it is looked at here");
            let evidence = way.steps.iter().map(|step| Evidence::new(format!("{} {}", step.hook, step.at), said(step)));
            return Ok(Some(Ailment::new(Cause::SomebodyInFront, text, format!("nft list {name}")).with(evidence)));
        }
    }
    Ok(None)
}

pub(super) fn first(patient: &Patient<'_>) -> Finding {
    if let Serving::Rules(lifted) = &patient.serving {
        // IPVS comes behind every chain that translates.
        let priority = if lifted.via == Via::Ipvs { i32::MAX } else { DSTNAT };
        return match table_in_front(patient, priority, |_| true) {
            Ok(None) => Finding::Passed("no nftables table of others translates before kube-proxy's rules".to_owned()),
            Ok(Some(ailment)) => Finding::Failed(ailment),
            Err(why) => Finding::Unknown(why),
        };
    }
    let kpx = match kpx(patient) {
        Ok(kpx) => kpx,
        Err(finding) => return finding,
    };
    // What no hook sees at a socket of the node is seen where it leaves by a device.
    let unhooked = |packet: &Packet| packet.origin == TrafficSource::Node && packet.protocol == Protocol::Sctp;
    if let Ok(Some(ailment)) = table_in_front(patient, i32::MAX, unhooked) {
        return Finding::Failed(ailment);
    }
    let mut evidence = Vec::new();
    let paths = match &kpx.cgroup {
        Ok(cgroup) => dataplane::Paths { cgroup: cgroup.clone(), ..kpx.paths.clone() },
        Err(why) => return Finding::Unknown(why.clone()),
    };
    match hooks_in_front(&paths) {
        Ok(hooks) => evidence.extend(hooks.into_iter().map(|hook| {
            Evidence::new(
                format!("{} of {}", hook.hook, hook.cgroup.display()),
                format!("program {} {} runs before kpx's", hook.program_id, hook.name),
            )
        })),
        Err(error) => return Finding::Unknown(with_causes(&error)),
    }
    let attached = bpf::devices(&kpx.paths.pins).unwrap_or_default();
    for on in attached.iter().filter(|on| !on.ours) {
        let before = |other: &&bpf::OnDevice| {
            other.ours && (other.interface, other.hook) == (on.interface, on.hook) && on.order < other.order
        };
        if attached.iter().any(|other| before(&other)) {
            let text = format!("program {} {} runs before kpx's", on.program_id, on.program);
            evidence.push(Evidence::new(format!("{} of {}", on.hook, on.device), text));
        }
    }
    if let Ok(state) = cilium::Pins::new(&patient.cilium).state() {
        let (table, ..) = cilium::lift(&state);
        let both = patient.wanted.frontends().iter().filter(|f| !table.at(f.key.address()).is_empty());
        evidence
            .extend(both.map(|f| Evidence::new(format!("Cilium's maps {}", f.key), "Cilium has the frontend, too")));
    }
    // What the hooks know nothing of they do not count by Service.
    let would_count = kpx.mode != Mode::Off && !patient.has.frontends().is_empty();
    let unseen = would_count
        && patient.counted == Some(false)
        && kpx.dataplane.attachment().is_ok_and(|a| a == Attachment::Attached);
    let next = "kpx inspect cgroups -o wide";
    match (evidence.is_empty(), patient.counted) {
        (true, Some(true)) => {
            Finding::Passed("nobody runs before kpx, and kpx counted the host's connection".to_owned())
        }
        (true, _) if !unseen => Finding::Passed("nobody runs before kpx".to_owned()),
        (true, _) => {
            let text = "the host's connection was made, and kpx's hooks did not count it";
            Finding::Failed(Ailment::new(Cause::SomebodyInFront, text, next))
        }
        (false, _) if unseen => {
            let text = "the host's connection was made, and kpx's hooks did not see the Service's address: a program in front decided";
            Finding::Failed(Ailment::new(Cause::SomebodyInFront, text, next).with(evidence))
        }
        (false, counted) => {
            let text = if counted == Some(true) {
                "programs of others run before kpx's; the host's connection came through to kpx"
            } else {
                "programs of others run before kpx's, and may decide first"
            };
            Finding::Remark(Ailment::new(Cause::SomebodyInFront, text, next).with(evidence))
        }
    }
}
