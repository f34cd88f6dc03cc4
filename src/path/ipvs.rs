//! The way through IPVS mode: iptables rules that ask sets, the routing that kube-ipvs0's addresses decide, and the virtual service.

use super::iptables::{self, At};
use super::trail::Hook;
use super::ways::{Place, Ways};
use super::{Around, End, Packet, Path, Step};
use crate::inspect::iptables::Dump;
use crate::inspect::ipvs::{DEVICE, RealServer, State, Virtual, VirtualService};
use crate::model::ServiceTable;

/// Follows a packet through the rules, which may be none, and IPVS; `names` is the table with the Services' names.
pub fn walk(dump: Option<&Dump<'_>>, state: &State, names: &ServiceTable, packet: &Packet, around: &Around) -> Path {
    let none = Dump::default();
    let scheduler = Scheduler { state, names };
    iptables::follow(dump.unwrap_or(&none), &state.sets, Some(scheduler), packet, around)
}

/// IPVS, as a hook meets it.
pub(super) struct Scheduler<'s> {
    state: &'s State,
    names: &'s ServiceTable,
}

impl Scheduler<'_> {
    /// The virtual service that takes a packet.
    fn service(&self, packet: &Packet, mark: u32) -> Option<&VirtualService> {
        let services = || self.state.ipvs.services.iter();
        let marked = services().find(|service| mark != 0 && service.key == Virtual::Mark(packet.family(), mark));
        marked.or_else(|| {
            let key = Virtual::Address(packet.destination, packet.protocol);
            services().find(|service| service.key == key)
        })
    }

    /// Tells where the routing decision leads a packet that came in.
    pub(super) fn route(&self, packet: &Packet, place: &mut Place<At>) {
        let trail = &mut place.trail;
        if trail.looped || trail.served || !matches!(trail.hook, Hook::Input | Hook::Forward) {
            return;
        }
        let ip = trail.destination.ip();
        let on_device =
            || self.state.addresses.as_ref().and_then(|a| a.services.as_ref()).is_some_and(|all| all.contains(&ip));
        let (at, does) = match trail.hook {
            Hook::Input if on_device() => (DEVICE, "has the address: for this node"),
            Hook::Input => ("addresses", "one of the node's: for this node"),
            _ if self.service(packet, trail.mark).is_some() => ("addresses", "none of the node's: IPVS is not asked"),
            _ => return,
        };
        trail.steps.push(Step { hook: "routing", at: at.to_owned(), does: does.to_owned(), text: ip.to_string() });
    }

    /// Gives a packet a server, or leaves it alone.
    pub(super) fn schedule(
        &self,
        packet: &Packet,
        around: &Around,
        place: &mut Place<At>,
        ways: &mut Ways<At>,
    ) -> Option<End> {
        if place.trail.served || place.trail.looped {
            return None;
        }
        let service = self.service(packet, place.trail.mark)?;
        let at = format!("IPVS {}", service.key);
        let name = self.name(packet);
        place.trail.step(at.clone(), name, format!("scheduler {}", service.scheduler));
        if let Some(seconds) = service.affinity() {
            ways.note(format!(
                "the client was taken to be new: with affinity its backend of the last {seconds} s is kept"
            ));
        }
        // One of weight 0 gets nothing new.
        let servers: Vec<&RealServer> = service.servers.iter().filter(|server| server.weight > 0).collect();
        let Some((first, others)) = servers.split_first() else {
            place.trail.step(at, "refuse: no server", String::new());
            return Some(End::Refused);
        };
        let weigh = |server: &RealServer| if is_weighted(&service.scheduler) { f64::from(server.weight) } else { 1.0 };
        if !others.is_empty() && !matches!(service.scheduler.as_str(), "rr" | "wrr") {
            ways.note(format!(
                "scheduler {} looks at connections or clients: its servers' shares are a guess",
                service.scheduler
            ));
        }
        let sum: f64 = servers.iter().map(|server| weigh(server)).sum();
        let send = |place: &mut Place<At>, server: &RealServer| {
            let trail = &mut place.trail;
            trail.probability *= weigh(server) / sum;
            trail.destination = server.address;
            (trail.translated, trail.served) = (true, true);
            trail.step(
                format!("server {}", server.address),
                format!("to {}", server.address),
                format!("{} weight {}", server.forward, server.weight),
            );
            // What is for another host leaves from here as the node's own; what is for this one goes on.
            if around.is_local(server.address.ip()) != Some(true) {
                trail.hook = Hook::Output;
                place.at.tables = 0;
            }
        };
        for server in others.iter().rev() {
            let mut other = place.clone();
            send(&mut other, server);
            ways.later(other);
        }
        send(place, first);
        None
    }

    /// Whose virtual service it is.
    fn name(&self, packet: &Packet) -> String {
        let (ip, port, protocol) = (packet.destination.ip(), packet.destination.port(), packet.protocol);
        let all = |ip| self.names.at((ip, port, protocol));
        match all(ip).first().or_else(|| all(packet.family().unspecified()).first()) {
            Some(frontend) => format!("{} of {}", frontend.key.exposure, frontend.display_name()),
            None => "a virtual service".to_owned(),
        }
    }
}

/// Whether a scheduler goes by weights other than 0.
fn is_weighted(scheduler: &str) -> bool {
    !matches!(scheduler, "rr" | "lc" | "dh" | "lblc" | "lblcr" | "fo" | "ovf")
}
