//! The worker: a thread that takes events in, keeps the maps true, and looks after the node now and then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::cluster::{Cluster, Event, Touched};
use super::metrics::{label, seconds, set, unix_now};
use super::node;
use super::servers::HealthChecks;
use super::status::{Condition, HealthCheck, Shared};
use super::sysctl::Outcome;
use super::table::LiveTable;
use super::watched::Watched;
use super::writer::{Repairs, Stance, Wanted, Writer, Written};
use super::{Options, addresses, flows, notify, sysctl};
use crate::dataplane::Attachment;
use crate::error::with_causes;
use crate::inspect::kube::{LiftedService, Place, place};
use crate::inspect::standing::standing;
use crate::migrate::StoreError;
use crate::model::{BackendState, Family, NodePortScope, Policy, ServiceName};

/// The taint by which the cluster autoscaler announces that a node goes.
const TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What is wrong where the packet path was asked for and is nowhere.
const NO_DEVICE: &str = "the packet path is on no device: none is up, or --devices names none of this node's";

/// How long to wait before trying again what could not be done.
const AGAIN: Duration = Duration::from_millis(250);

/// How long news of devices is gathered, and how far apart two looks are at least: a device comes with a dozen messages, and
/// pods come in crowds.
const SETTLE: Duration = Duration::from_millis(100);
const APART: Duration = Duration::from_secs(1);

/// How often it is found out whether kube-proxy's rules stand.
const RULES: Duration = Duration::from_secs(10);

/// Most events taken in before the maps are written: a storm becomes few writes, and no write waits for its end.
const AT_ONCE: usize = 20_000;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Task {
    /// The API server told something, at this moment.
    Event(Event, Instant),
    /// Devices or addresses have changed.
    Look,
    /// Finish what is under way, and end.
    Stop,
}

/// The worker.
pub(super) struct Worker {
    options: Options,
    shared: Arc<Shared>,
    health_checks: watch::Sender<HealthChecks>,
    cluster: Cluster,
    table: LiveTable,
    place: Option<Place>,
    writer: Writer,
    stance: Stance,
    /// The migration whose rollback was the last word, if one was.
    given_back: Option<String>,
    /// Who wants to know who decides.
    decides: watch::Sender<Stance>,
    /// When the oldest event came that is not written.
    oldest: Option<Instant>,
    /// What the cleaner judges by.
    watched: Arc<Watched>,
    /// Services for the cleaner, once the maps have them.
    disturbed: BTreeSet<ServiceName>,
    /// When to try again what could not be written.
    again: Option<Instant>,
    /// Whether the maps do not have the nodes as they are.
    peers_owed: bool,
    /// Whether everything was written once.
    filled: bool,
    /// Whether everything was attached once.
    attached: bool,
    /// Which of kube-proxy's rules stood, when that was last found out; where it could not be, they do.
    rules: Option<(Instant, bool)>,
    /// On how many devices the packet path is.
    devices: usize,
    /// What systemd was told last.
    told: Option<String>,
}

impl Worker {
    pub(super) fn new(
        options: Options,
        shared: Arc<Shared>,
        health_checks: watch::Sender<HealthChecks>,
        watched: Arc<Watched>,
        decides: watch::Sender<Stance>,
    ) -> Self {
        let writer = Writer::new(&options, sysctl::tracked(&options.config, sysctl::processors()));
        let cluster = Cluster::of(options.node_name.clone());
        Self {
            options,
            shared,
            health_checks,
            cluster,
            table: LiveTable::default(),
            place: None,
            writer,
            stance: Stance::Migrating,
            given_back: None,
            decides,
            oldest: None,
            watched,
            disturbed: BTreeSet::new(),
            again: None,
            peers_owed: false,
            filled: false,
            attached: false,
            rules: None,
            devices: 0,
            told: None,
        }
    }

    /// Works until told to stop, or until nobody sends any more.
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        self.set_sysctls();
        match self.writer.serves_already(&self.options.attach) {
            Ok(true) => {
                tracing::info!("what an earlier kpx pinned serves; it is changed when all objects are known");
                self.shared.serving();
            }
            Ok(false) => {}
            Err(error) => self.shared.condition(Condition::Attach, Some(with_causes(&error))),
        }
        let mut look = Instant::now();
        let mut next_at_least = look;
        loop {
            if look <= Instant::now() {
                self.look_after();
                look = Instant::now() + self.options.interval;
                next_at_least = Instant::now() + APART;
            }
            let until = self.again.unwrap_or(look).min(look);
            let first = match tasks.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(task) => Some(task),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            for task in first.into_iter().chain(tasks.try_iter().take(AT_ONCE)) {
                match task {
                    Task::Event(event, when) => self.take_in(event, when),
                    Task::Look => look = look.min((Instant::now() + SETTLE).max(next_at_least)),
                    Task::Stop => return,
                }
            }
            self.reconcile();
        }
    }

    fn take_in(&mut self, event: Event, when: Instant) {
        let metrics = &self.shared.metrics;
        let counter = match &event {
            Event::Service(change) if change.is_news() => Some(&metrics.service_changes),
            Event::Slice(change) if change.is_news() => Some(&metrics.endpoint_changes),
            _ => None,
        };
        counter.map(Counter::inc);
        self.oldest.get_or_insert(when);
        self.cluster.apply(event);
    }

    /// Brings the maps to what the objects say.
    fn reconcile(&mut self) {
        if !self.cluster.is_complete() {
            return;
        }
        let started = Instant::now();
        let touched = self.cluster.take_touched();
        if touched != Touched::default() {
            self.shared.metrics.last_queued.set(unix_now());
        }
        self.peers_owed |= touched.peers;
        self.lift(touched);
        self.tell_objects();
        let partial = self.cluster.has_unknown_services() || !self.cluster.without_endpoints_known().is_empty();
        if !partial {
            self.writer.all_readable();
        }
        if self.writer.owes() {
            self.shared.pending();
            if !self.write(partial) {
                self.again = Some(Instant::now() + AGAIN);
                return;
            }
        }
        self.again = None;
        if self.peers_owed && self.filled {
            // What cannot be told now is told at the next look.
            self.peers_owed = false;
            if let Some(turn) = self.writer.turn(&self.shared) {
                self.tell_node(&turn);
            }
        }
        if !self.disturbed.is_empty() {
            let disturbed = std::mem::take(&mut self.disturbed);
            self.watched.disturb(disturbed.iter().map(|name| (name, self.table.ports(name))));
        }
        if let Some(oldest) = self.oldest.take() {
            let (sync, total) = (started.elapsed(), oldest.elapsed());
            self.shared.metrics.sync.observe(seconds(sync));
            self.shared.metrics.event_to_map.observe(seconds(total));
            self.shared.metrics.last_sync.set(unix_now());
        }
        self.shared.synced();
        self.tell_systemd();
    }

    fn lift(&mut self, touched: Touched) {
        let frozen = self.cluster.without_endpoints_known();
        let mut names = touched.services;
        if (touched.node || self.place.is_none()) && self.find_place() {
            names.extend(self.cluster.services());
            names.extend(self.table.services().map(|service| service.name.clone()));
        }
        let Some(place) = &self.place else { return };
        if names.is_empty() {
            return;
        }
        let lifted = self.table.lift(&names, &self.cluster, place, &frozen);
        // Before the maps: what a socket is sent to by them, the cleaner knows.
        self.watched.renew(names.iter().map(|name| (name, self.table.ports(name))));
        self.writer.owe(lifted.addresses);
        self.disturbed.extend(lifted.disturbed);
        self.tell_health_checks();
    }

    /// Looks at the node anew; whether anything is otherwise that the lift depends on.
    fn find_place(&mut self) -> bool {
        let node = self.cluster.node();
        self.shared.node_leaves(node.is_some_and(leaves));
        let local = match addresses::local() {
            Ok(local) => Some(local),
            Err(error) => {
                tracing::warn!("the node's addresses: {}", with_causes(&error));
                None
            }
        };
        let mut notices = Vec::new();
        let found = place(self.options.node_name.clone(), node, local.as_ref(), &self.options.config, &mut notices);
        if self.place.as_ref() == Some(&found) {
            return false;
        }
        for notice in &notices {
            tracing::warn!("{notice}");
        }
        self.place = Some(found);
        true
    }

    /// Writes what is owed; whether that was all.
    fn write(&mut self, partial: bool) -> bool {
        let Some(place) = &self.place else { return false };
        let Some(turn) = self.writer.turn(&self.shared) else { return false };
        let written = self.writer.write(&turn, &self.table, place, self.stance, partial, &self.shared);
        if written == Written::All && !self.filled {
            self.filled = true;
            let (services, slices) = self.cluster.sizes();
            tracing::info!(services, slices, "the maps have everything");
            // What went on while nobody was looking is not known: all is looked through once.
            self.disturbed = self.table.services().map(|service| service.name.clone()).collect();
            self.attach(&turn);
        }
        written != Written::Later
    }

    fn attach(&mut self, turn: &crate::migrate::Lock) {
        self.tell_node(turn);
        if let Some(dataplane) = self.writer.dataplane_mut(turn) {
            let told = node::tell_clients(dataplane);
            self.shared.condition(Condition::Clients, told.err().map(|error| with_causes(&error)));
        }
        let rules_stand = self.rules_stand();
        let Some(place) = &self.place else { return };
        let wanted = Wanted {
            stance: self.stance,
            attach: &self.options.attach,
            rules_stand,
            udp_time: sysctl::conntrack(&self.options.proc_sys).udp_time(),
            table: &self.table,
            place,
        };
        match self.writer.attach(turn, &wanted) {
            Ok(found) => {
                self.shared.condition(Condition::Attach, None);
                // Under a migration the rules serve what the programs do not yet.
                if self.writer.is_serving(&self.options.attach) || self.stance == Stance::Migrating {
                    self.shared.serving();
                }
                let Some(repairs) = found else { return };
                let alone = self.stance == Stance::Alone && self.options.attach.packets && repairs.on == 0;
                let none = alone.then(|| NO_DEVICE.to_owned());
                let troubles = repairs.troubles.iter().cloned().chain(none).collect::<Vec<_>>().join("; ");
                self.shared.condition(Condition::Devices, (!troubles.is_empty()).then_some(troubles));
                self.devices = repairs.on;
                self.tell_repairs(&repairs);
                self.attached = true;
            }
            Err(error) => self.shared.condition(Condition::Attach, Some(with_causes(&error))),
        }
    }
}

impl Worker {
    /// Makes the maps of the node true.
    fn tell_node(&mut self, turn: &crate::migrate::Lock) {
        let (Some(dataplane), Some(place)) = (self.writer.dataplane_mut(turn), &self.place) else { return };
        let told = node::tell(dataplane, &self.table, &self.cluster, place);
        let on_devices = !self.attached || self.devices > 0;
        let troubles = told.as_ref().map(|local| node::dsr_troubles(dataplane.dsr(), &self.cluster, local, on_devices));
        self.shared.condition(Condition::Dsr, troubles.ok().filter(|t| !t.is_empty()).map(|t| t.join("; ")));
        self.shared.condition(Condition::Node, told.err().map(|error| with_causes(&error)));
    }

    /// Sets what kube-proxy sets when it starts.
    fn set_sysctls(&self) {
        for change in sysctl::apply(&self.options.proc_sys, &self.options.config, sysctl::processors()) {
            match change.outcome {
                Outcome::Set { .. } => tracing::info!("{change}"),
                Outcome::Failed(_) => tracing::warn!("{change}"),
            }
        }
        if self.options.attach.packets && sysctl::forwards(&self.options.proc_sys) == Some(false) {
            tracing::warn!("net.ipv4.ip_forward is 0: clients reach no backend on another node, and no pod");
        }
    }

    /// Whether any of kube-proxy's rules stand.
    fn rules_stand(&mut self) -> bool {
        if let Some((when, stand)) = self.rules
            && when.elapsed() < RULES.min(self.options.interval)
        {
            return stand;
        }
        let stand = match standing() {
            Ok(standing) => {
                self.shared.condition(Condition::Rules, None);
                let stand = !standing.is_empty();
                if self.rules.is_none_or(|(_, before)| before != stand) {
                    let list: Vec<String> = standing.iter().map(ToString::to_string).collect();
                    if stand {
                        tracing::info!("kube-proxy's rules stand: {}", list.join(", "));
                    } else {
                        tracing::info!(
                            "kube-proxy has no rules here: whoever has no backend is refused by the programs"
                        );
                    }
                }
                stand
            }
            Err(error) => {
                self.shared.condition(Condition::Rules, Some(with_causes(&error)));
                true
            }
        };
        set(&self.shared.metrics.rules_stand, i64::from(stand));
        self.rules = Some((Instant::now(), stand));
        stand
    }

    /// Who decides what is attached. A node that was given back to the rules stays theirs while they stand.
    fn decide(&mut self) -> Result<Stance, StoreError> {
        let given_back = self.writer.given_back()?;
        if given_back.is_some() && self.given_back != given_back && self.rules_stand() {
            tracing::info!(
                "a rollback has given this node back to kube-proxy's rules: they serve until kpx migrate apply"
            );
        }
        self.given_back = given_back;
        match self.given_back.is_some() {
            true if self.rules_stand() => Ok(Stance::Migrating),
            true => Ok(Stance::Alone),
            false => self.writer.stance(),
        }
    }

    /// Ready is who serves, or has left that to a migration; then what there is to know, when it changes.
    fn tell_systemd(&mut self) {
        let ready = self.filled && (self.writer.is_serving(&self.options.attach) || self.stance == Stance::Migrating);
        if self.told.is_none() && !ready {
            return;
        }
        let (services, _) = self.cluster.sizes();
        let conditions: Vec<&str> = self.shared.health().conditions.into_keys().collect();
        let troubles =
            if conditions.is_empty() { String::new() } else { format!("; troubles: {}", conditions.join(", ")) };
        let status = format!("STATUS={services} Services, packet path on {} devices{troubles}", self.devices);
        if self.told.as_ref() != Some(&status) {
            notify::say(&format!("READY=1\n{status}"));
            self.told = Some(status);
        }
    }

    /// What is done now and then.
    fn look_after(&mut self) {
        let stance = self.decide().unwrap_or_else(|error| {
            // Whoever cannot read the journal does not know that there is none.
            tracing::error!("the state directory: {}", with_causes(&error));
            Stance::Migrating
        });
        self.stance = stance;
        self.decides.send_if_modified(|decides| std::mem::replace(decides, stance) != stance);
        if !self.filled {
            return;
        }
        if self.find_place() {
            let everything = Touched { services: self.cluster.services().collect(), ..Touched::default() };
            self.lift(everything);
        }
        if let Some(turn) = self.writer.turn(&self.shared) {
            self.attach(&turn);
        }
        self.measure();
        self.tell_systemd();
    }

    /// What `/metrics` tells of the whole, which costs too much to count at each change.
    fn measure(&self) {
        let metrics = &self.shared.metrics;
        let (services, slices) = self.cluster.sizes();
        for (kind, count) in [("Service", services), ("EndpointSlice", slices)] {
            set(&metrics.objects.get_or_create(&label("kind", kind)), count);
        }
        let mut without_local: BTreeMap<&str, usize> = BTreeMap::from([("internal", 0), ("external", 0)]);
        let (mut here, mut elsewhere) = (0_usize, 0_usize);
        for frontend in self.table.services().flat_map(|service| &service.frontends) {
            let served = crate::dataplane::served(frontend).is_ok();
            *(if served { &mut here } else { &mut elsewhere }) += 1;
            if frontend.policy() == Policy::Local && frontend.local.is_empty() && !frontend.cluster.is_empty() {
                let policy = if frontend.key.exposure.is_external() { "external" } else { "internal" };
                *without_local.entry(policy).or_default() += 1;
            }
        }
        for (policy, count) in without_local {
            set(&metrics.no_local_endpoints.get_or_create(&label("traffic_policy", policy)), count);
        }
        set(&metrics.frontends.get_or_create(&label("by", "maps")), here);
        set(&metrics.frontends.get_or_create(&label("by", "rules")), elsewhere);
        if let Some(counters) = self.writer.dataplane().and_then(|dataplane| dataplane.counters().ok()) {
            for (reason, count) in counters.reasons {
                set(&metrics.packets.get_or_create(&label("reason", reason.name())), count);
            }
        }
        if let Some(dataplane) = self.writer.dataplane() {
            flows::tell(&self.shared, &dataplane.table_use());
        }
        set(&metrics.devices, self.devices);
    }

    /// What is put right at the first time was never otherwise.
    fn tell_repairs(&self, repairs: &Repairs) {
        let repaired = |kind: &str| {
            self.shared.metrics.repairs.get_or_create(&label("kind", kind)).inc();
        };
        for path in &repairs.pins {
            tracing::warn!("{} was gone and is pinned again", path.display());
            repaired("pin");
        }
        if !repairs.joined.is_empty() {
            let names: Vec<&str> = repairs.joined.iter().map(|device| device.name.as_str()).collect();
            tracing::info!("the packet path is attached to {}", names.join(", "));
        }
        if !self.attached {
            return;
        }
        for (device, programs) in &repairs.devices {
            tracing::warn!("{} had been detached from {}: attached again", programs.join(", "), device.name);
            repaired("device");
        }
        if let Some(found) = &repairs.attached {
            let what = match found {
                Attachment::Partly(missing) => missing.join(", "),
                Attachment::Detached | Attachment::Attached => "every program".to_owned(),
            };
            tracing::warn!("{what} had been detached and is attached again");
            repaired("attachment");
        }
        if let Some(mode) = repairs.mode {
            tracing::warn!("the programs had been switched to {}: they serve again", mode.name());
            repaired("mode");
        }
    }

    fn tell_objects(&self) {
        let unreadable = self.cluster.unreadable();
        set(&self.shared.metrics.unreadable, unreadable.len());
        let mut lines: Vec<String> = unreadable.iter().map(|(name, why)| format!("{name}: {why}")).collect();
        lines.extend(self.table.faults().values().cloned());
        lines.extend(self.table.remarks().cloned());
        let frozen = self.cluster.without_endpoints_known();
        lines.extend(
            frozen.iter().map(|service| format!("Service {service} stays as it is: not all its endpoints are known")),
        );
        self.shared.condition(Condition::Objects, (!lines.is_empty()).then(|| lines.join("; ")));
    }

    fn tell_health_checks(&self) {
        let Some(place) = &self.place else { return };
        let addresses = Family::BOTH.iter().map(|family| match &place.facts.of(*family).node_ports {
            NodePortScope::Addresses(list) => list.iter().copied().collect(),
            NodePortScope::All { .. } | NodePortScope::Unknown => Vec::new(),
        });
        let addresses: Vec<Vec<IpAddr>> = addresses.collect();
        let everywhere = addresses.iter().any(Vec::is_empty);
        let checks = HealthChecks {
            ports: self.table.health_checks().map(|(port, service)| (port, health_check(service))).collect(),
            addresses: if everywhere { Vec::new() } else { addresses.concat() },
        };
        self.health_checks.send_if_modified(|current| {
            let changed = *current != checks;
            *current = checks;
            changed
        });
    }
}

/// Whether a Node is about to go.
fn leaves(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    node.metadata.deletion_timestamp.is_some() || taints.iter().any(|taint| taint.key == TO_BE_DELETED)
}

fn health_check(service: &LiftedService) -> HealthCheck {
    let ready = |family: Family| {
        let external =
            service.frontends.iter().filter(|f| f.key.exposure.is_external() && Family::of(f.key.ip) == family);
        let local = external.flat_map(|f| &f.local).filter(|b| b.state == Some(BackendState::Ready));
        local.map(|backend| backend.ip).collect::<BTreeSet<_>>().len()
    };
    let local_endpoints = Family::BOTH.into_iter().map(ready).max().unwrap_or(0);
    HealthCheck { service: service.name.clone(), local_endpoints }
}
