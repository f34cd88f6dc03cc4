//! The balancing chains (`KUBE-SVC-`, `KUBE-SVL-`) and the endpoint chains (`KUBE-SEP-`) behind them.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ipnet::IpNet;

use super::super::dump::{Rule, Table};
use super::super::hash::chain_hash;
use super::super::notice::Notice;
use super::super::owner::{Hashed, hashed};
use super::super::spec::{Action, Parts, Spec, host};
use super::{Port, Reader};
use crate::model::{Backend, Detector, FrontendKey, Masquerade, Protocol};

/// What one balancing chain says.
#[derive(Default)]
pub(super) struct List {
    /// Sorted by address.
    pub(super) backends: Vec<Backend>,
    pub(super) affinity: Option<u32>,
    masquerades: Vec<MasqueradeRule>,
    /// Whether a ClusterIP's rule jumps here.
    pub(super) serves_cluster_ip: bool,
}

struct MasqueradeRule {
    destination: Option<std::net::IpAddr>,
    port: u16,
    /// Whether traffic of pods is left out.
    spares_pods: bool,
}

impl List {
    /// When traffic to `key` that jumps straight here is masqueraded.
    pub(super) fn masquerade(&self, key: &FrontendKey) -> Masquerade {
        let matching = |m: &&MasqueradeRule| m.port == key.port && m.destination.is_none_or(|ip| ip == key.ip);
        let mut found = Masquerade::Never;
        for rule in self.masquerades.iter().filter(matching) {
            if !rule.spares_pods {
                return Masquerade::Always;
            }
            found = Masquerade::OffCluster;
        }
        found
    }

    pub(super) fn masquerades_all(&self) -> bool {
        self.masquerades.iter().any(|m| !m.spares_pods)
    }
}

/// A list while its rules are read.
#[derive(Default)]
pub(super) struct Balancing {
    list: List,
    /// Chains with an affinity rule, in order.
    sticky: Vec<usize>,
    /// Chains in order of choice, with the probability of each; the last has none.
    choices: Vec<(usize, Option<f64>)>,
    seconds: Option<u32>,
}

impl<'a> Reader<'_, 'a> {
    /// The list of a `KUBE-SVC-` or `KUBE-SVL-` chain.
    pub(super) fn list(&mut self, nat: &Table<'a>, chain: usize, port: usize) -> usize {
        if let Some(&known) = self.list_of.get(&chain) {
            return known;
        }
        let mut balancing = Balancing::default();
        for (i, rule) in nat.rules_of(chain).enumerate() {
            let spec = rule.spec();
            let protocol = Some(self.ports[port].protocol);
            let done = (spec.protocol == protocol && self.masquerade_rule(nat, rule, i + 1, &spec, &mut balancing))
                || self.choice_rule(nat, rule, i + 1, &spec, &mut balancing);
            if !done {
                self.unknown(nat, rule, i + 1);
            }
        }
        self.close_list(nat, chain, port, balancing)
    }

    /// `[! -s CIDR] [-d VIP] -p tcp --dport 80 -j KUBE-MARK-MASQ` at the head of a balancing chain.
    fn masquerade_rule(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        spec: &Spec<'a>,
        balancing: &mut Balancing,
    ) -> bool {
        let base = Parts::PROTOCOL.and(Parts::COMMENT).and(Parts::DPORT).and(Parts::TARGET);
        let rest = spec.parts.without(base.and(Parts::DESTINATION));
        let Some(port) = spec.destination_port() else { return false };
        let off_cluster = rest == Parts::SOURCE || rest == Parts::IN;
        if spec.target_name() != b"KUBE-MARK-MASQ"
            || !spec.parts.has(base)
            || !(off_cluster || rest == Parts::NONE)
            || spec.negated != rest
            || !balancing.choices.is_empty()
            || !balancing.sticky.is_empty()
        {
            return false;
        }
        let destination = spec.destination_host();
        if spec.destination.is_some() != destination.is_some() {
            return false;
        }
        if off_cluster {
            let Some(detector) = detector(spec) else { return false };
            self.detected(detector, |r| r.origin(nat, rule.chain(), number));
        }
        balancing.list.masquerades.push(MasqueradeRule { destination, port, spares_pods: off_cluster });
        true
    }

    /// A rule that sends the packet to an endpoint: by affinity, by chance, or as the last choice.
    pub(super) fn choice_rule(
        &mut self,
        nat: &Table<'a>,
        rule: &Rule<'a>,
        number: usize,
        spec: &Spec<'a>,
        balancing: &mut Balancing,
    ) -> bool {
        let target = spec.target_name();
        if !matches!(hashed(target), Some((Hashed::Sep, _))) || spec.negated != Parts::NONE {
            return false;
        }
        // A rule after the last choice is never reached.
        if balancing.choices.last().is_some_and(|(_, probability)| probability.is_none()) {
            return false;
        }
        let parts = spec.parts.without(Parts::COMMENT);
        if parts == Parts::TARGET.and(Parts::RECENT) {
            let good = spec.recent.filter(|r| !r.set && r.reap && r.source && r.name == target);
            let Some(seconds) = good.and_then(|r| r.seconds) else { return false };
            if balancing.seconds.is_some_and(|known| known != seconds) || !balancing.choices.is_empty() {
                return false;
            }
            balancing.seconds = Some(seconds);
            if let Some(chain) = self.follow(nat, rule, number, target) {
                balancing.sticky.push(chain);
            }
            return true;
        }
        if parts.without(Parts::PROBABILITY) != Parts::TARGET {
            return false;
        }
        if let Some(chain) = self.follow(nat, rule, number, target) {
            balancing.choices.push((chain, spec.probability));
        }
        true
    }

    /// Reads the endpoints of a list and gives it its place.
    pub(super) fn close_list(&mut self, nat: &Table<'a>, chain: usize, port: usize, from: Balancing) -> usize {
        let Balancing { mut list, sticky, choices, seconds } = from;
        if choices.last().is_none_or(|(_, probability)| probability.is_some()) {
            self.incomplete(nat, chain, "the rule for the last endpoint");
        }
        if seconds.is_some() && !choices.iter().map(|(sep, _)| sep).eq(sticky.iter()) {
            self.incomplete(nat, chain, "an affinity rule for each endpoint");
        }
        list.affinity = seconds;
        let weights = weights(&choices).unwrap_or_else(|| {
            let chain = self.place(nat, chain);
            self.notices.push(Notice::OddProbabilities { chain });
            vec![1; choices.len()]
        });
        list.backends.reserve_exact(choices.len());
        for (&(sep, _), weight) in choices.iter().zip(weights) {
            if let Some(addr) = self.endpoint(nat, sep, port, seconds.is_some()) {
                list.backends.push(Backend { ip: addr.ip(), port: addr.port(), weight, local: None, state: None });
            }
        }
        list.backends.sort_unstable_by_key(|b| (b.ip, b.port));
        self.lists.push(list);
        self.list_of.insert(chain, self.lists.len() - 1);
        self.lists.len() - 1
    }

    /// Reads the endpoint chains of the usual shape in one go, in the order of the text: lists name them in any order, and
    /// following them one by one through a large text would wait for memory at every step.
    pub(super) fn read_endpoints(&mut self, nat: &Table<'a>) {
        self.endpoints = nat
            .chains()
            .iter()
            .enumerate()
            .map(|(i, chain)| {
                let mut rules = nat.rules_of(i);
                let (Some((Hashed::Sep, _)), 2) = (hashed(chain.name), rules.len()) else { return None };
                let (first, second) = (rules.next()?.spec(), rules.next()?.spec());
                let protocol = second.protocol?;
                match (endpoint_rule(&first, chain.name, protocol)?, endpoint_rule(&second, chain.name, protocol)?) {
                    (EndpointRule::Hairpin(source), EndpointRule::Dnat(addr, sticky)) if host(source)? == addr.ip() => {
                        Some(Endpoint { addr, protocol, sticky })
                    }
                    _ => None,
                }
            })
            .collect();
    }

    /// The address of a `KUBE-SEP-` chain.
    fn endpoint(&mut self, nat: &Table<'a>, chain: usize, port: usize, sticky: bool) -> Option<SocketAddr> {
        let (number, addr) = match self.endpoints[chain] {
            Some(known) if known.protocol == self.ports[port].protocol && known.sticky == sticky => (2, known.addr),
            _ => {
                let known = self.odd_endpoint_of.get(&chain).copied();
                let read = known.unwrap_or_else(|| self.odd_endpoint(nat, chain, port, sticky));
                self.odd_endpoint_of.insert(chain, read);
                read?
            }
        };
        // The lists of one Service port share their endpoints' chains.
        if !std::mem::replace(&mut self.endpoint_checked[chain], true) {
            self.check_endpoint_hash(nat, chain, number, port, addr);
        }
        Some(addr)
    }

    /// An endpoint chain in which something is not as usual: says what, and gives the DNAT rule and its address.
    fn odd_endpoint(
        &mut self,
        nat: &Table<'a>,
        chain: usize,
        port: usize,
        sticky: bool,
    ) -> Option<(usize, SocketAddr)> {
        let name = nat.chains()[chain].name;
        let protocol = self.ports[port].protocol;
        let mut hairpin: Option<IpNet> = None;
        let mut dnat: Option<(usize, SocketAddr, bool)> = None;
        for (i, rule) in nat.rules_of(chain).enumerate() {
            match endpoint_rule(&rule.spec(), name, protocol) {
                Some(EndpointRule::Hairpin(source)) if hairpin.is_none() && dnat.is_none() => hairpin = Some(source),
                Some(EndpointRule::Dnat(addr, remembers)) if dnat.is_none() => dnat = Some((i + 1, addr, remembers)),
                _ => self.unknown(nat, rule, i + 1),
            }
        }
        let Some((number, addr, remembers)) = dnat else {
            self.incomplete(nat, chain, "the DNAT rule");
            return None;
        };
        if hairpin.and_then(host) != Some(addr.ip()) {
            self.incomplete(nat, chain, "the rule that masquerades an endpoint's traffic to itself");
        }
        if remembers != sticky {
            self.incomplete(nat, chain, "agreement with its callers on session affinity");
        }
        Some((number, addr))
    }

    fn check_endpoint_hash(&mut self, nat: &Table<'a>, chain: usize, number: usize, port: usize, addr: SocketAddr) {
        let Port { name, protocol, .. } = &self.ports[port];
        let mut text = AddrText { bytes: [0; 64], length: 0 };
        write!(text, "{addr}").expect("an address fits");
        let expected = chain_hash(&[name.as_bytes(), protocol.lower().as_bytes(), text.bytes()]);
        let chain_name = nat.chains()[chain].name;
        if hashed(chain_name).is_some_and(|(_, hash)| hash != expected) {
            let of = format!("{name} {} at {addr}", protocol.lower());
            let at = self.origin(nat, chain, number);
            let chain = String::from_utf8_lossy(chain_name).into_owned();
            self.notices.push(Notice::HashMismatch { at, chain, of });
        }
    }
}

/// What a `KUBE-SEP-` chain of the usual two rules says.
#[derive(Clone, Copy)]
pub(super) struct Endpoint {
    addr: SocketAddr,
    protocol: Protocol,
    /// Whether it remembers its clients.
    sticky: bool,
}

enum EndpointRule {
    Hairpin(IpNet),
    Dnat(SocketAddr, bool),
}

fn endpoint_rule(spec: &Spec<'_>, chain: &[u8], protocol: Protocol) -> Option<EndpointRule> {
    if spec.negated != Parts::NONE {
        return None;
    }
    let parts = spec.parts.without(Parts::COMMENT);
    if parts == Parts::SOURCE.and(Parts::TARGET) && spec.target_name() == b"KUBE-MARK-MASQ" {
        return spec.source.map(EndpointRule::Hairpin);
    }
    if parts.without(Parts::RECENT) != Parts::PROTOCOL.and(Parts::TARGET) || spec.protocol != Some(protocol) {
        return None;
    }
    let remembers = spec.recent.is_some();
    if spec.recent.is_some_and(|r| !r.set || !r.source || r.name != chain) {
        return None;
    }
    match spec.target?.action {
        Action::Dnat(addr) => Some(EndpointRule::Dnat(addr, remembers)),
        _ => None,
    }
}

/// How a rule recognises (or, negated, does not recognise) pods: by source or by input interface.
pub(super) fn detector(spec: &Spec<'_>) -> Option<Detector> {
    if let Some(net) = spec.source {
        return Some(Detector::Cidr(net));
    }
    let interface = std::str::from_utf8(spec.in_interface?).ok()?;
    Some(match interface.strip_suffix('+') {
        Some(prefix) => Detector::InterfacePrefix(prefix.to_owned()),
        None => Detector::Interface(interface.to_owned()),
    })
}

/// Tolerance of a probability: kube-proxy writes ten decimals, the kernel keeps 31 bits.
const TOLERANCE: f64 = 1e-8;

/// Largest weight looked for behind probabilities that are not even.
const LARGEST_WEIGHT: u16 = 256;

/// The weights behind a chain of probabilities; `None` if whole numbers do not explain them.
fn weights(choices: &[(usize, Option<f64>)]) -> Option<Vec<u16>> {
    let count = choices.len();
    let even = choices.iter().enumerate().all(|(i, (_, probability))| {
        let wanted = 1.0 / (count - i) as f64;
        (probability.unwrap_or(1.0) - wanted).abs() <= TOLERANCE
    });
    if even {
        return Some(vec![1; count]);
    }
    let mut left = 1.0;
    let mut shares = Vec::with_capacity(count);
    for (_, probability) in choices {
        let share = left * probability.unwrap_or(1.0);
        left -= share;
        shares.push(share);
    }
    let least = shares.iter().copied().fold(f64::INFINITY, f64::min);
    if least <= 0.0 {
        return None;
    }
    (1..=LARGEST_WEIGHT).find_map(|scale| {
        let wanted: Vec<f64> = shares.iter().map(|share| share / least * f64::from(scale)).collect();
        let whole = wanted.iter().all(|w| (w - w.round()).abs() <= 1e-7 * w && *w < f64::from(u16::MAX));
        whole.then(|| wanted.iter().map(|w| w.round() as u16).collect())
    })
}

/// Text of a socket address without a heap.
struct AddrText {
    bytes: [u8; 64],
    length: usize,
}

impl AddrText {
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl std::fmt::Write for AddrText {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(probabilities: &[f64]) -> Option<Vec<u16>> {
        let mut choices: Vec<_> = probabilities.iter().map(|&p| (0, Some(p))).collect();
        choices.push((0, None));
        weights(&choices)
    }

    #[test]
    fn even_probabilities_are_weights_of_one() {
        assert_eq!(from(&[]), Some(vec![1]));
        assert_eq!(from(&[0.333_333_333_49, 0.5]), Some(vec![1, 1, 1]));
        // What iptables-save prints for 150 endpoints.
        let many: Vec<f64> =
            (2..=150).rev().map(|n| (f64::from(1 << 16) * 32768.0 / f64::from(n)).round() / 2_147_483_648.0).collect();
        assert_eq!(from(&many), Some(vec![1; 150]));
    }

    #[test]
    fn uneven_probabilities_become_whole_weights() {
        assert_eq!(from(&[0.75]), Some(vec![3, 1]));
        assert_eq!(from(&[0.2, 0.5]), Some(vec![1, 2, 2]));
        assert_eq!(from(&[0.414_213_562_37]), None);
        assert_eq!(from(&[0.0]), None);
    }
}
