//! kube-proxy's rules from a table, for a node whose kube-proxy cannot be started again: as kube-proxy of Kubernetes 1.30 to 1.37 in
//! iptables mode writes them, and as iptables-save prints them then.
//!
//! Two things a table does not know: the order of Services, which kube-proxy itself leaves to chance, and the order of
//! loadBalancerSourceRanges, which are sorted here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::ports::{Port, ports};
use super::state::{State, Text};
use crate::capture::Variant;
use crate::model::{Backend, Detector, Exposure, Family, Masquerade, NodePortScope, Policy, ServiceName, ServiceTable};

/// What kube-proxy writes, besides what the table says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// The mark that asks for masquerading: `1 << masqueradeBit`.
    pub mark: u32,
    /// Whether masqueraded ports are drawn fully at random, which kube-proxy wants where iptables is 1.6.2 or later.
    pub random_fully: bool,
    /// Whether packets of no valid connection are dropped: unless `nf_conntrack_tcp_be_liberal` is set.
    pub drop_invalid: bool,
    /// Whether nfacct objects count: since Kubernetes 1.32, where the kernel has them.
    pub counters: bool,
    /// Whether rules for endpoints have no comments: in clusters of more than 1000 endpoints.
    pub terse: bool,
}

impl Default for Form {
    fn default() -> Self {
        Self { mark: 1 << 14, random_fully: true, drop_invalid: true, counters: true, terse: false }
    }
}

/// The rules for a table, as a state that [`super::restore`] puts on a node, in one backend.
pub fn render(table: &ServiceTable, variant: Variant, form: Form) -> State {
    let text = |family| {
        let mut writer = Writer { family, form, filter: Rules::default(), nat: Rules::default() };
        writer.table(table);
        Text { variant, family, bytes: writer.finish().into_bytes(), place: "rendered rules".into() }
    };
    let counters = if form.counters { vec![INVALID.to_owned(), LOCALHOST.to_owned()] } else { Vec::new() };
    State { rules: Family::BOTH.map(text).into(), counters, ..State::default() }
}

/// The nfacct objects that rendered rules name.
pub(super) const INVALID: &str = "ct_state_invalid_dropped_pkts";
pub(super) const LOCALHOST: &str = "localhost_nps_accepted_pkts";

/// The rules of each chain, in order.
type Rules = BTreeMap<String, Vec<String>>;

struct Writer {
    family: Family,
    form: Form,
    filter: Rules,
    nat: Rules,
}

/// `healthCheckNodePort`s and the Services they answer for.
type HealthChecks = BTreeMap<u16, BTreeSet<ServiceName>>;

fn comment(text: &str) -> String {
    format!("-m comment --comment \"{text}\"")
}

/// An address as a destination or source.
fn host(ip: IpAddr) -> String {
    IpNet::from(ip).to_string()
}

/// A chance of one in `count`, as iptables-save prints what kube-proxy wrote with ten decimals and the kernel holds in 31 bits.
fn probability(count: usize) -> String {
    const WHOLE: f64 = 2_147_483_648.0;
    let written: f64 = format!("{:.10}", 1.0 / count as f64).parse().unwrap_or(1.0);
    format!("{:.11}", (written * WHOLE).round() / WHOLE)
}

impl Writer {
    fn filter(&mut self, chain: &str, rule: String) {
        self.filter.entry(chain.to_owned()).or_default().push(rule);
    }

    fn nat(&mut self, chain: &str, rule: String) {
        self.nat.entry(chain.to_owned()).or_default().push(rule);
    }

    fn table(&mut self, table: &ServiceTable) {
        for chain in
            ["KUBE-EXTERNAL-SERVICES", "KUBE-NODEPORTS", "KUBE-PROXY-CANARY", "KUBE-PROXY-FIREWALL", "KUBE-SERVICES"]
        {
            self.filter.entry(chain.to_owned()).or_default();
        }
        for chain in ["KUBE-NODEPORTS", "KUBE-PROXY-CANARY", "KUBE-SERVICES"] {
            self.nat.entry(chain.to_owned()).or_default();
        }
        self.fixed();
        let facts = table.facts(self.family);
        let none = HealthChecks::new();
        let health = table.health_checks.as_ref().unwrap_or(&none);
        for port in ports(table, self.family) {
            self.dispatch(&port, &facts.node_ports, health);
            self.lists(&port, &facts.detector);
        }
        self.node_ports(&facts.node_ports);
    }

    /// Marking, masquerading, and what passes FORWARD.
    fn fixed(&mut self) {
        let mark = self.form.mark;
        self.nat("KUBE-MARK-MASQ", format!("-j MARK --set-xmark {mark:#x}/{mark:#x}"));
        self.nat("KUBE-POSTROUTING", format!("-m mark ! --mark {mark:#x}/{mark:#x} -j RETURN"));
        self.nat("KUBE-POSTROUTING", format!("-j MARK --set-xmark {mark:#x}/0x0"));
        let random = if self.form.random_fully { " --random-fully" } else { "" };
        let why = comment("kubernetes service traffic requiring SNAT");
        self.nat("KUBE-POSTROUTING", format!("{why} -j MASQUERADE{random}"));
        if self.form.drop_invalid {
            let counter = self.counter(INVALID);
            self.filter("KUBE-FORWARD", format!("-m conntrack --ctstate INVALID{counter} -j DROP"));
        }
        let marked = comment("kubernetes forwarding rules");
        self.filter("KUBE-FORWARD", format!("{marked} -m mark --mark {mark:#x}/{mark:#x} -j ACCEPT"));
        let known = comment("kubernetes forwarding conntrack rule");
        self.filter("KUBE-FORWARD", format!("{known} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"));
    }

    /// iptables-save prints two spaces before the name.
    fn counter(&self, name: &str) -> String {
        if self.form.counters { format!(" -m nfacct --nfacct-name  {name}") } else { String::new() }
    }

    /// From a Service port's addresses to its chains, and what is refused.
    fn dispatch(&mut self, port: &Port<'_>, scope: &NodePortScope, health: &HealthChecks) {
        let (name, protocol) = (&port.name, port.protocol.lower());
        let to = |ip: IpAddr, number: u16, what: &str| {
            format!(
                "-d {} -p {protocol} {} -m {protocol} --dport {number}",
                host(ip),
                comment(&format!("{name}{what}"))
            )
        };
        let (has, internal, external) = (port.has_endpoints(), port.policy(false), port.policy(true));
        let (refusal, why) =
            if has { ("DROP".to_owned(), " has no local endpoints") } else { (self.reject(), " has no endpoints") };
        for at in port.at(Exposure::ClusterIp) {
            if port.served(internal) {
                let chain = port.chain(internal);
                self.nat("KUBE-SERVICES", format!("{} -j {chain}", to(at.key.ip, at.key.port, " cluster IP")));
            } else {
                self.filter("KUBE-SERVICES", format!("{} -j {refusal}", to(at.key.ip, at.key.port, why)));
            }
        }
        let entry = format!("KUBE-EXT-{}", port.hash);
        let firewall = format!("KUBE-FW-{}", port.hash);
        let fenced = has && port.at(Exposure::LoadBalancer).any(|at| !at.sources.is_empty());
        for (exposure, what, chain) in [
            (Exposure::ExternalIp, " external IP", &entry),
            (Exposure::LoadBalancer, " loadbalancer IP", if fenced { &firewall } else { &entry }),
        ] {
            for at in port.at(exposure) {
                if has {
                    self.nat("KUBE-SERVICES", format!("{} -j {chain}", to(at.key.ip, at.key.port, what)));
                }
                if exposure == Exposure::LoadBalancer && fenced {
                    let why = format!(" traffic not accepted by {firewall}");
                    self.filter("KUBE-PROXY-FIREWALL", format!("{} -j DROP", to(at.key.ip, at.key.port, &why)));
                }
                if !port.served(external) {
                    let rule = format!("{} -j {refusal}", to(at.key.ip, at.key.port, why));
                    self.filter("KUBE-EXTERNAL-SERVICES", rule);
                }
            }
        }
        for at in port.at(Exposure::NodePort) {
            let number = at.key.port;
            if has {
                let rule = format!("-p {protocol} {} -m {protocol} --dport {number}", comment(name));
                let loopback = matches!(scope, NodePortScope::All { loopback: true });
                if self.family == Family::V4 && loopback && self.form.counters {
                    let counter = self.counter(LOCALHOST);
                    self.nat("KUBE-NODEPORTS", format!("-d 127.0.0.0/8 {rule}{counter} -j {entry}"));
                }
                self.nat("KUBE-NODEPORTS", format!("{rule} -j {entry}"));
            }
            if !port.served(external) {
                let of_node = format!(
                    "{} -m addrtype --dst-type LOCAL -m {protocol} --dport {number}",
                    comment(&format!("{name}{why}"))
                );
                self.filter("KUBE-EXTERNAL-SERVICES", format!("-p {protocol} {of_node} -j {refusal}"));
            }
        }
        let service = port.frontends.first().and_then(|frontend| frontend.service.as_ref());
        for (number, services) in health {
            if service.is_some_and(|service| services.contains(service)) {
                let why = comment(&format!("{name} health check node port"));
                self.filter("KUBE-NODEPORTS", format!("-p tcp {why} -m tcp --dport {number} -j ACCEPT"));
            }
        }
    }

    fn reject(&self) -> String {
        let with = if self.family == Family::V4 { "icmp" } else { "icmp6" };
        format!("REJECT --reject-with {with}-port-unreachable")
    }

    /// A Service port's own chains.
    fn lists(&mut self, port: &Port<'_>, detector: &Detector) {
        let (internal, external) = (port.policy(false), port.policy(true));
        let reachable = port.external();
        if port.served(internal) {
            self.off_cluster(port, &port.chain(internal), detector);
        }
        if reachable && port.has_endpoints() {
            self.entry(port, external, detector);
        }
        let used =
            |policy: Policy| internal == policy || reachable && (external == policy || policy == Policy::Cluster);
        for policy in [Policy::Cluster, Policy::Local] {
            if used(policy) && !port.list(policy).is_empty() {
                self.balance(port, policy);
            }
        }
        let mut endpoints: Vec<SocketAddr> = [Policy::Cluster, Policy::Local]
            .into_iter()
            .filter(|policy| used(*policy))
            .flat_map(|policy| port.list(policy).iter().map(Backend::addr))
            .collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        for endpoint in endpoints {
            self.endpoint(port, endpoint);
        }
    }

    /// Who is masqueraded on the way from the ClusterIP.
    fn off_cluster(&mut self, port: &Port<'_>, chain: &str, detector: &Detector) {
        let protocol = port.protocol.lower();
        let rules: Vec<String> = port
            .at(Exposure::ClusterIp)
            .filter_map(|at| {
                let (ip, number) = (host(at.key.ip), at.key.port);
                let (source, interface) = match (at.masquerade, detector) {
                    (Masquerade::Always, _) => (String::new(), String::new()),
                    (Masquerade::OffCluster, Detector::Cidr(net)) => (format!("! -s {net} "), String::new()),
                    (Masquerade::OffCluster, Detector::Interface(name)) => (String::new(), format!("! -i {name} ")),
                    (Masquerade::OffCluster, Detector::InterfacePrefix(name)) => {
                        (String::new(), format!("! -i {name}+ "))
                    }
                    _ => return None,
                };
                let what = comment(&format!("{} cluster IP", port.name));
                Some(format!(
                    "{source}-d {ip} {interface}-p {protocol} {what} -m {protocol} --dport {number} -j KUBE-MARK-MASQ"
                ))
            })
            .collect();
        for rule in rules {
            self.nat(chain, rule);
        }
    }

    /// Where traffic to external addresses enters, and what a load balancer's source ranges let in.
    fn entry(&mut self, port: &Port<'_>, policy: Policy, detector: &Detector) {
        let (name, entry, cluster) = (&port.name, format!("KUBE-EXT-{}", port.hash), port.chain(Policy::Cluster));
        let about = |what: &str| comment(&format!("{what} for {name} external destinations"));
        if policy == Policy::Cluster {
            self.nat(&entry, format!("{} -j KUBE-MARK-MASQ", about("masquerade traffic")));
        } else {
            let pods = match detector {
                Detector::Cidr(net) => Some(format!("-s {net}")),
                Detector::Interface(name) => Some(format!("-i {name}")),
                Detector::InterfacePrefix(name) => Some(format!("-i {name}+")),
                Detector::None | Detector::Unknown => None,
            };
            if let Some(pods) = pods {
                self.nat(&entry, format!("{pods} {} -j {cluster}", about("pod traffic")));
            }
            let local = "-m addrtype --src-type LOCAL";
            self.nat(&entry, format!("{} {local} -j KUBE-MARK-MASQ", about("masquerade LOCAL traffic")));
            self.nat(&entry, format!("{} {local} -j {cluster}", about("route LOCAL traffic")));
        }
        if port.served(policy) {
            self.nat(&entry, format!("-j {}", port.chain(policy)));
        }
        let vips: Vec<IpNet> = port.at(Exposure::LoadBalancer).map(|at| IpNet::from(at.key.ip)).collect();
        let mut ranges: Vec<IpNet> =
            port.at(Exposure::LoadBalancer).flat_map(|at| at.sources.iter().copied()).collect();
        if ranges.is_empty() {
            return;
        }
        // A load balancer's own address comes last, as it is let in only because some range holds the node.
        ranges.sort_unstable_by_key(|net| (vips.contains(net), *net));
        ranges.dedup();
        let firewall = format!("KUBE-FW-{}", port.hash);
        for net in ranges {
            // A range of all is printed without an address.
            let source = if net.prefix_len() == 0 { String::new() } else { format!("-s {net} ") };
            self.nat(&firewall, format!("{source}{} -j {entry}", comment(&format!("{name} loadbalancer IP"))));
        }
        self.nat(&firewall, comment(&format!("other traffic to {name} will be dropped by KUBE-PROXY-FIREWALL")));
    }

    /// A list: clients that come again, then one backend by chance.
    fn balance(&mut self, port: &Port<'_>, policy: Policy) {
        let chain = port.chain(policy);
        let mut backends: Vec<SocketAddr> = port.list(policy).iter().map(Backend::addr).collect();
        // kube-proxy sorts by the text of an address.
        backends.sort_by_key(SocketAddr::to_string);
        let mask = self.mask();
        let about = |endpoint: &SocketAddr, terse: bool| {
            if terse { String::new() } else { format!("{} ", comment(&format!("{} -> {endpoint}", port.name))) }
        };
        if let Some(seconds) = port.affinity() {
            for endpoint in &backends {
                let (about, to) = (about(endpoint, self.form.terse), port.endpoint_chain(endpoint));
                let known =
                    format!("-m recent --rcheck --seconds {seconds} --reap --name {to} --mask {mask} --rsource");
                self.nat(&chain, format!("{about}{known} -j {to}"));
            }
        }
        for (i, endpoint) in backends.iter().enumerate() {
            let (about, to) = (about(endpoint, self.form.terse), port.endpoint_chain(endpoint));
            let chance = match backends.len() - i {
                1 => String::new(),
                left => format!("-m statistic --mode random --probability {} ", probability(left)),
            };
            self.nat(&chain, format!("{about}{chance}-j {to}"));
        }
    }

    const fn mask(&self) -> &'static str {
        match self.family {
            Family::V4 => "255.255.255.255",
            Family::V6 => "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        }
    }

    fn endpoint(&mut self, port: &Port<'_>, endpoint: SocketAddr) {
        let (chain, protocol) = (port.endpoint_chain(&endpoint), port.protocol.lower());
        let about = if self.form.terse { String::new() } else { format!("{} ", comment(&port.name)) };
        self.nat(&chain, format!("-s {} {about}-j KUBE-MARK-MASQ", host(endpoint.ip())));
        let remember = match port.affinity() {
            Some(_) => format!("-m recent --set --name {chain} --mask {} --rsource ", self.mask()),
            None => String::new(),
        };
        self.nat(&chain, format!("-p {protocol} {about}{remember}-m {protocol} -j DNAT --to-destination {endpoint}"));
    }

    /// From the node's addresses to NodePorts: the last rule of its chain.
    fn node_ports(&mut self, scope: &NodePortScope) {
        let why = comment("kubernetes service nodeports; NOTE: this must be the last rule in this chain");
        let local = "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS";
        match (scope, self.family) {
            (NodePortScope::Addresses(addresses), family) => {
                for ip in addresses.iter().filter(|ip| Family::of(**ip) == family) {
                    self.nat("KUBE-SERVICES", format!("-d {} {why} -j KUBE-NODEPORTS", host(*ip)));
                }
            }
            (NodePortScope::All { loopback: true }, Family::V4) => self.nat("KUBE-SERVICES", format!("{why} {local}")),
            (_, Family::V4) => self.nat("KUBE-SERVICES", format!("! -d 127.0.0.0/8 {why} {local}")),
            (_, Family::V6) => self.nat("KUBE-SERVICES", format!("! -d ::1/128 {why} {local}")),
        }
    }

    /// The text of iptables-save.
    fn finish(self) -> String {
        let mut lines = vec!["*mangle".to_owned(), ":KUBE-PROXY-CANARY - [0:0]".to_owned(), "COMMIT".to_owned()];
        for (table, chains, jumps) in [("filter", self.filter, &FILTER[..]), ("nat", self.nat, &NAT)] {
            lines.push(format!("*{table}"));
            let mut builtin: Vec<&str> = jumps.iter().map(|(from, ..)| *from).collect();
            builtin.dedup();
            lines.extend(builtin.into_iter().map(|chain| format!(":{chain} ACCEPT [0:0]")));
            lines.extend(chains.keys().map(|chain| format!(":{chain} - [0:0]")));
            if table == "filter" {
                // The kubelet's jumps, where there are any, stay in front.
                lines.extend(["INPUT", "OUTPUT"].map(|from| format!("-A {from} -j KUBE-FIREWALL")));
            }
            lines.extend(jumps.iter().map(|(from, new, why, to)| {
                let new = if *new { "-m conntrack --ctstate NEW " } else { "" };
                format!("-A {from} {new}{} -j {to}", comment(why))
            }));
            for (chain, rules) in &chains {
                lines.extend(rules.iter().map(|rule| format!("-A {chain} {rule}")));
            }
            lines.push("COMMIT".to_owned());
        }
        lines.join("\n") + "\n"
    }
}

/// Jumps from built-in chains, in their order there: from where, whether for new connections only, why, to what.
type Jump = (&'static str, bool, &'static str, &'static str);

const FIREWALL: (&str, &str) = ("kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL");
const EXTERNAL: (&str, &str) = ("kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES");
const SERVICES: (&str, &str) = ("kubernetes service portals", "KUBE-SERVICES");

const FILTER: [Jump; 9] = [
    ("INPUT", true, FIREWALL.0, FIREWALL.1),
    ("INPUT", false, "kubernetes health check service ports", "KUBE-NODEPORTS"),
    ("INPUT", true, EXTERNAL.0, EXTERNAL.1),
    ("FORWARD", true, FIREWALL.0, FIREWALL.1),
    ("FORWARD", false, "kubernetes forwarding rules", "KUBE-FORWARD"),
    ("FORWARD", true, SERVICES.0, SERVICES.1),
    ("FORWARD", true, EXTERNAL.0, EXTERNAL.1),
    ("OUTPUT", true, FIREWALL.0, FIREWALL.1),
    ("OUTPUT", true, SERVICES.0, SERVICES.1),
];

const NAT: [Jump; 3] = [
    ("PREROUTING", false, SERVICES.0, SERVICES.1),
    ("OUTPUT", false, SERVICES.0, SERVICES.1),
    ("POSTROUTING", false, "kubernetes postrouting rules", "KUBE-POSTROUTING"),
];

#[cfg(test)]
mod tests {
    use super::probability;

    #[test]
    fn probabilities_are_as_the_kernel_keeps_them() {
        // Seen in iptables-save.
        assert_eq!(probability(2), "0.50000000000");
        assert_eq!(probability(3), "0.33333333349");
        assert_eq!(probability(31), "0.03225806449");
        assert_eq!(probability(13), "0.07692307699");
    }
}
