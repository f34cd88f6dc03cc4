//! `service-` and `local-` chains: the choice among endpoints, with session affinity; and `endpoint-` chains.

use std::net::IpAddr;
use std::rc::Rc;

use super::super::name::{ChainKind, ChainName};
use super::super::notice::{Notice, Place};
use super::super::ruleset::{Addresses, Balance, Match, Rule, Side, Statement, Verdict};
use super::{Detector, Reader};
use crate::model::{Backend, Family, Masquerade};

/// What a chain chooses among.
#[derive(Clone, Debug, Default)]
pub(super) struct List {
    /// Endpoints, sorted.
    pub(super) backends: Vec<Backend>,
    /// ClientIP affinity, seconds.
    pub(super) affinity: Option<u32>,
    /// ClusterIPs and ports whose traffic the chain masquerades itself (before Kubernetes 1.35).
    pub(super) masquerades: Vec<(IpAddr, u16, Masquerade)>,
}

/// Where an `endpoint-` chain sends, and the affinity set it keeps.
struct EndpointChain<'a> {
    to: (IpAddr, u16),
    remembers: Option<&'a str>,
}

impl<'a> Reader<'a> {
    /// The list of a chain, read once.
    pub(super) fn list(&mut self, chain: &'a str, name: &ChainName<'a>) -> Rc<List> {
        if let Some(known) = self.lists.get(chain) {
            return Rc::clone(known);
        }
        let rules = self.follow(chain).unwrap_or_default();
        let list = Rc::new(self.read_list(chain, rules, name));
        self.lists.insert(chain, Rc::clone(&list));
        list
    }

    fn read_list(&mut self, chain: &'a str, rules: &'a [Rule], name: &ChainName<'a>) -> List {
        let mut list = List::default();
        let mut bound: Vec<(&'a str, &'a str)> = Vec::new();
        let mut chosen: Option<Vec<(IpAddr, u16, Option<&'a str>)>> = None;
        for (i, rule) in rules.iter().enumerate() {
            let number = i + 1;
            let done = chosen.is_none()
                && match rule.statements.as_slice() {
                    [
                        Statement::Match(Match::Address { side: Side::Source, not: false, among: Addresses::Set(set) }),
                        Statement::Verdict(Verdict::Goto(endpoint)),
                    ] => {
                        bound.push((set, endpoint));
                        true
                    }
                    [Statement::Match(Match::Protocol(protocol)), Statement::DnatSpread(balance)]
                        if *protocol == name.protocol =>
                    {
                        self.check_balance(chain, number, rule, balance);
                        chosen = Some(balance.choices.iter().map(|(_, (ip, port))| (*ip, *port, None)).collect());
                        true
                    }
                    [Statement::Spread(balance)] => {
                        self.check_balance(chain, number, rule, balance);
                        match self.endpoints(balance, name) {
                            Some(endpoints) => {
                                chosen = Some(endpoints);
                                true
                            }
                            None => false,
                        }
                    }
                    [
                        Statement::Match(Match::Address {
                            side: Side::Destination,
                            not: false,
                            among: Addresses::Nets(nets),
                        }),
                        Statement::Match(Match::Port(protocol, port)),
                        rest @ ..,
                    ] if *protocol == name.protocol && bound.is_empty() => match nets.as_slice() {
                        [vip] if vip.prefix_len() == vip.max_prefix_len() => {
                            match self.masquerade_in(chain, number, rule, rest) {
                                Some(masquerade) => {
                                    list.masquerades.push((vip.addr(), *port, masquerade));
                                    true
                                }
                                None => false,
                            }
                        }
                        _ => false,
                    },
                    _ => false,
                };
            if !done {
                self.unknown_rule(chain, number, rule);
            }
        }
        let Some(chosen) = chosen else {
            self.incomplete(chain, "the rule that chooses an endpoint");
            return list;
        };
        list.affinity = self.affinity(chain, &bound, &chosen);
        list.backends = self.backends(name, chosen.iter().map(|(ip, port, _)| (*ip, *port)));
        list
    }

    /// `[ip saddr != CIDR] MARK`: what an off-cluster masquerade rule does, if it is one.
    pub(super) fn masquerade_in(
        &mut self,
        chain: &str,
        number: usize,
        rule: &Rule,
        statements: &[Statement],
    ) -> Option<Masquerade> {
        if self.marks(statements) {
            return Some(Masquerade::Always);
        }
        let [Statement::Match(condition), rest @ ..] = statements else { return None };
        let detector: Detector = Self::detector_in(condition, true)?;
        if !self.marks(rest) {
            return None;
        }
        self.saw_detector(detector, chain, number, rule);
        Some(Masquerade::OffCluster)
    }

    /// Every number drawn must choose something.
    fn check_balance<T>(&mut self, chain: &str, number: usize, rule: &Rule, balance: &Balance<T>) {
        let mut numbers: Vec<u32> = balance.choices.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        let whole = numbers.iter().copied().eq(0..balance.modulus);
        if !whole {
            let at = self.rule_place(chain, number, rule);
            self.notices.push(Notice::OddBalance { at });
        }
    }

    fn endpoints(
        &mut self,
        balance: &'a Balance<Verdict>,
        name: &ChainName<'a>,
    ) -> Option<Vec<(IpAddr, u16, Option<&'a str>)>> {
        let mut found = Vec::with_capacity(balance.choices.len());
        for (_, verdict) in &balance.choices {
            let Verdict::Goto(chain) = verdict else { return None };
            if let Some(endpoint) = self.endpoint(chain, name) {
                found.push((endpoint.to.0, endpoint.to.1, endpoint.remembers));
            }
        }
        Some(found)
    }

    /// `endpoint-…`: `[ip saddr EP MARK] [update @affinity-… { ip saddr }] meta l4proto P dnat to EP`.
    fn endpoint(&mut self, chain: &'a str, list: &ChainName<'a>) -> Option<EndpointChain<'a>> {
        let known = self.reached.contains(chain);
        let name = self.name(chain)?;
        let same_port =
            (&name.service, name.port_name, name.protocol) == (&list.service, list.port_name, list.protocol);
        let named = name.endpoint.filter(|_| name.kind == ChainKind::Endpoint && same_port);
        let rules = self.follow(chain)?;
        let (mut to, mut remembers, mut masquerades_itself) = (None, None, false);
        for (i, rule) in rules.iter().enumerate() {
            let done = to.is_none()
                && match rule.statements.as_slice() {
                    [
                        Statement::Match(Match::Address {
                            side: Side::Source,
                            not: false,
                            among: Addresses::Nets(nets),
                        }),
                        rest @ ..,
                    ] if self.marks(rest) => {
                        masquerades_itself = matches!(nets.as_slice(), [net]
                            if named.is_some_and(|(ip, _)| super::super::text::host(ip) == *net));
                        masquerades_itself
                    }
                    [Statement::Remember(set)] => {
                        remembers = Some(&**set);
                        self.reached.insert(set);
                        true
                    }
                    [Statement::Match(Match::Protocol(protocol)), Statement::Dnat(ip, port)]
                        if *protocol == list.protocol =>
                    {
                        to = Some((*ip, *port));
                        named == to
                    }
                    _ => false,
                };
            if !done && !known {
                self.unknown_rule(chain, i + 1, rule);
            }
        }
        if known {
            return to.map(|to| EndpointChain { to, remembers });
        }
        if to.is_none() {
            self.incomplete(chain, "the rule that translates to the endpoint");
        }
        if self.here.is_none() && !masquerades_itself {
            self.incomplete(chain, "the rule that masquerades the endpoint's connections to itself");
        }
        to.map(|to| EndpointChain { to, remembers })
    }

    /// The affinity that all endpoints of a chain agree on.
    fn affinity(
        &mut self,
        chain: &str,
        bound: &[(&'a str, &'a str)],
        chosen: &[(IpAddr, u16, Option<&'a str>)],
    ) -> Option<u32> {
        let sets: Vec<&str> = chosen.iter().filter_map(|(_, _, set)| *set).collect();
        if bound.is_empty() && sets.is_empty() {
            return None;
        }
        let mut timeouts: Vec<Option<u64>> = Vec::new();
        for (set, endpoint) in bound {
            let matching =
                set.strip_prefix("affinity-").is_some_and(|rest| endpoint.strip_prefix("endpoint-") == Some(rest));
            if !matching || !sets.contains(set) {
                self.incomplete(chain, "agreement of the affinity rules with the endpoints");
            }
            self.reached.insert(set);
            if let Some(found) = self.set(set) {
                timeouts.push(found.timeout);
            } else {
                let what = Place { kind: "set", ..Place::chain(self.family, set) };
                self.notices.push(Notice::Missing { what });
            }
        }
        if bound.len() != chosen.len() || sets.len() != chosen.len() {
            self.incomplete(chain, "the affinity rule of an endpoint");
        }
        timeouts.dedup();
        if let [Some(seconds)] = timeouts.as_slice() {
            return u32::try_from(*seconds).ok();
        }
        self.incomplete(chain, "one time-out for all affinity sets");
        None
    }

    /// Endpoints with their weight: how many of the numbers drawn choose them.
    fn backends(&self, name: &ChainName<'a>, chosen: impl Iterator<Item = (IpAddr, u16)>) -> Vec<Backend> {
        let mut sorted: Vec<(IpAddr, u16)> = chosen.filter(|(ip, _)| Family::of(*ip) == self.family).collect();
        sorted.sort_unstable();
        let local = |ip, port| match &self.here {
            Some(here) => Some(here.contains(&(ip, name.protocol, port))),
            None => (name.kind == ChainKind::Local).then_some(true),
        };
        sorted
            .chunk_by(|a, b| a == b)
            .map(|same| {
                let (ip, port) = same[0];
                let weight = u16::try_from(same.len()).unwrap_or(u16::MAX);
                Backend { ip, port, weight, local: local(ip, port), state: None }
            })
            .collect()
    }
}
