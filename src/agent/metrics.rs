//! What `/metrics` tells: kube-proxy's names where the meaning is the same, so that dashboards live on; `kpx_` otherwise.

use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// A label with its value.
pub(super) type Label = [(&'static str, String); 1];

/// The metrics, and the registry that prints them.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    /// Time that one reconcile took.
    pub(super) sync: Histogram,
    /// Time from the change that led to an EndpointSlice until the maps had it.
    pub(super) programming: Histogram,
    /// Time from an event's arrival until the maps had it.
    pub(super) event_to_map: Histogram,
    /// When the last reconcile ended, seconds since 1970.
    pub(super) last_sync: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// When the last change came, seconds since 1970.
    pub(super) last_queued: Gauge<f64, std::sync::atomic::AtomicU64>,
    /// Changes of Services.
    pub(super) service_changes: Counter,
    /// Changes of EndpointSlices.
    pub(super) endpoint_changes: Counter,
    /// Services without a usable endpoint on this node, by traffic policy.
    pub(super) no_local_endpoints: Family<Label, Gauge>,
    /// Answers of `/healthz`.
    pub(super) healthz: Family<Label, Counter>,
    /// Answers of `/livez`.
    pub(super) livez: Family<Label, Counter>,
    /// Entries taken out of the kernel's conntrack.
    pub(super) conntrack_deleted: Counter,
    /// Time that one look through conntrack took.
    pub(super) conntrack_time: Histogram,
    /// Sockets closed since their backend has gone.
    pub(super) sockets_closed: Family<Label, Counter>,
    /// Things found missing and put back.
    pub(super) repairs: Family<Label, Counter>,
    /// Times that another kpx's dataplane was taken over.
    pub(super) upgrades: Family<Label, Counter>,
    /// Failures to write the maps.
    pub(super) write_failures: Family<Label, Counter>,
    /// Objects that cannot be read now.
    pub(super) unreadable: Gauge,
    /// Conditions that hold now.
    pub(super) conditions: Family<Label, Gauge>,
    /// Objects known, by kind.
    pub(super) objects: Family<Label, Gauge>,
    /// Frontends served, and those left to the kernel's rules.
    pub(super) frontends: Family<Label, Gauge>,
    /// Entries of flows of the packet path that were over.
    pub(super) flows_forgotten: Counter,
    /// Time that one look through the flows of the packet path took.
    pub(super) flows_time: Histogram,
    /// Devices that the packet path is on.
    pub(super) devices: Gauge,
    /// 1 while kube-proxy's rules stand.
    pub(super) rules_stand: Gauge,
    /// Entries in use of each map that has a limit.
    pub(super) map_entries: Family<Label, Gauge>,
    /// Entries that each map has room for.
    pub(super) map_size: Family<Label, Gauge>,
    /// What the programs have done with packets and sockets, by reason.
    pub(super) packets: Family<Label, Gauge>,
}

/// 1 µs to 4 s.
fn fine() -> Histogram {
    Histogram::new(exponential_buckets(0.000_001, 2.0, 23))
}

/// 1 ms to 17 min, as kube-proxy has them.
fn coarse() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 20))
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            sync: fine(),
            programming: coarse(),
            event_to_map: fine(),
            last_sync: Gauge::default(),
            last_queued: Gauge::default(),
            service_changes: Counter::default(),
            endpoint_changes: Counter::default(),
            no_local_endpoints: Family::default(),
            healthz: Family::default(),
            livez: Family::default(),
            conntrack_deleted: Counter::default(),
            conntrack_time: coarse(),
            sockets_closed: Family::default(),
            repairs: Family::default(),
            upgrades: Family::default(),
            write_failures: Family::default(),
            unreadable: Gauge::default(),
            conditions: Family::default(),
            objects: Family::default(),
            frontends: Family::default(),
            flows_forgotten: Counter::default(),
            flows_time: coarse(),
            devices: Gauge::default(),
            rules_stand: Gauge::default(),
            map_entries: Family::default(),
            map_size: Family::default(),
            packets: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let proxy = self.registry.sub_registry_with_prefix("kubeproxy");
        let mut add = |name: &str, help: &str, metric: &dyn Registrable| metric.register(proxy, name, help);
        add("sync_proxy_rules_duration_seconds", "Time that one reconcile took", &self.sync);
        add(
            "network_programming_duration_seconds",
            "Time from the change of a Pod or Service until the maps had it",
            &self.programming,
        );
        add("sync_proxy_rules_last_timestamp_seconds", "When the last reconcile ended", &self.last_sync);
        add("sync_proxy_rules_last_queued_timestamp_seconds", "When the last change came", &self.last_queued);
        add("sync_proxy_rules_service_changes", "Changes of Services", &self.service_changes);
        add("sync_proxy_rules_endpoint_changes", "Changes of EndpointSlices", &self.endpoint_changes);
        add(
            "sync_proxy_rules_no_local_endpoints_total",
            "Services with a Local policy and no endpoint on this node",
            &self.no_local_endpoints,
        );
        add("proxy_healthz", "Answers of /healthz by status code", &self.healthz);
        add("proxy_livez", "Answers of /livez by status code", &self.livez);
        add("conntrack_reconciler_deleted_entries", "Stale UDP entries deleted", &self.conntrack_deleted);
        add("conntrack_reconciler_sync_duration_seconds", "Time one look through conntrack took", &self.conntrack_time);
        let own = self.registry.sub_registry_with_prefix("kpx");
        let mut add = |name: &str, help: &str, metric: &dyn Registrable| metric.register(own, name, help);
        add("event_to_map_seconds", "Time from an event's arrival until the maps had it", &self.event_to_map);
        add("sockets_closed", "Sockets closed since their backend has gone, by protocol", &self.sockets_closed);
        add("repairs", "Things found missing and put back, by kind", &self.repairs);
        add("upgrades", "Dataplanes of another kpx taken over, by what was replaced", &self.upgrades);
        add("write_failures", "Failures to write the maps, by map", &self.write_failures);
        add("unreadable_objects", "API objects that cannot be read now", &self.unreadable);
        add("condition", "1 where something is wrong, by kind", &self.conditions);
        add("objects", "API objects known, by kind", &self.objects);
        add("frontends", "Frontends, by who serves them", &self.frontends);
        add("flows_forgotten", "Entries of flows of the packet path that were over", &self.flows_forgotten);
        add("flows_look_seconds", "Time one look through the flows of the packet path took", &self.flows_time);
        add("devices", "Network devices that the packet path is on", &self.devices);
        add("rules_stand", "1 while rules of kube-proxy stand on the node", &self.rules_stand);
        add("map_entries", "Entries in use, by map", &self.map_entries);
        add("map_size", "Entries there is room for, by map", &self.map_size);
        add("decisions", "What the programs have decided since they were loaded, by reason", &self.packets);
    }

    /// The metrics in OpenMetrics' text form.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A metric that can be told its name.
trait Registrable {
    fn register(&self, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric + Clone> Registrable for M {
    fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.clone());
    }
}

/// Seconds since 1970.
pub(super) fn unix_now() -> f64 {
    jiff::Timestamp::now().as_duration().as_secs_f64()
}

/// Sets a gauge to a count.
pub(super) fn set(gauge: &Gauge, count: impl TryInto<i64>) {
    gauge.set(count.try_into().unwrap_or(i64::MAX));
}

/// A label of one name.
pub(super) fn label(name: &'static str, value: impl Into<String>) -> Label {
    [(name, value.into())]
}

/// Seconds, for histograms.
pub(super) const fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}
