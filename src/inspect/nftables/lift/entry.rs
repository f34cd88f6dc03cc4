//! `external-` chains: where traffic to NodePorts, load-balancer addresses and external IPs goes in.

use std::rc::Rc;

use super::super::name::{ChainKind, ChainName};
use super::super::ruleset::{Match, Rule, Side, Statement, Verdict};
use super::Reader;
use super::list::List;
use crate::model::{Masquerade, Policy};

/// What an `external-` chain says.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) policy: Policy,
    pub(super) masquerade: Masquerade,
    /// Whether it sends pods to the Cluster list.
    pub(super) knows_pods: bool,
    pub(super) cluster: Option<Rc<List>>,
    pub(super) local: Option<Rc<List>>,
}

impl<'a> Reader<'a> {
    /// The entry of a chain, read once.
    pub(super) fn entry(&mut self, chain: &'a str, name: &ChainName<'a>) -> Rc<Entry> {
        if let Some(known) = self.entries.get(chain) {
            return Rc::clone(known);
        }
        let rules = self.follow(chain).unwrap_or_default();
        let entry = Rc::new(self.read_entry(chain, rules, name));
        self.entries.insert(chain, Rc::clone(&entry));
        entry
    }

    /// Cluster: `MARK`, `goto service-…`. Local: pods and the node go to `service-…`, the latter marked, others to `local-…`.
    fn read_entry(&mut self, chain: &'a str, rules: &'a [Rule], name: &ChainName<'a>) -> Entry {
        let (service, local) = (name.of_kind(ChainKind::Service), name.of_kind(ChainKind::Local));
        let mut entry = Entry {
            policy: Policy::Cluster,
            masquerade: Masquerade::Never,
            knows_pods: false,
            cluster: None,
            local: None,
        };
        let (mut node_marked, mut node_routed, mut ended) = (false, false, false);
        for (i, rule) in rules.iter().enumerate() {
            let number = i + 1;
            let done = !ended
                && match rule.statements.as_slice() {
                    [Statement::Verdict(Verdict::Goto(to))] if **to == *service => {
                        ended = true;
                        entry.cluster = self.list_of(to);
                        true
                    }
                    [Statement::Verdict(Verdict::Goto(to))] if **to == *local => {
                        (entry.policy, ended) = (Policy::Local, true);
                        entry.local = self.list_of(to);
                        true
                    }
                    [Statement::Match(Match::Local(Side::Source)), Statement::Verdict(Verdict::Goto(to))]
                        if **to == *service && node_marked =>
                    {
                        (entry.policy, node_routed) = (Policy::Local, true);
                        entry.cluster = self.list_of(to);
                        true
                    }
                    [Statement::Match(Match::Local(Side::Source)), rest @ ..] if self.marks(rest) => {
                        (entry.policy, node_marked) = (Policy::Local, true);
                        true
                    }
                    [Statement::Match(condition), Statement::Verdict(Verdict::Goto(to))] if **to == *service => {
                        match Self::detector_in(condition, false) {
                            // Pods must be sent on before the node's mark could touch them.
                            Some(detector) if !node_marked => {
                                self.saw_detector(detector, chain, number, rule);
                                entry.knows_pods = true;
                                entry.cluster = self.list_of(to);
                                true
                            }
                            _ => false,
                        }
                    }
                    rest if self.marks(rest) && entry.masquerade == Masquerade::Never => {
                        entry.masquerade = Masquerade::Always;
                        true
                    }
                    _ => false,
                };
            if !done {
                self.unknown_rule(chain, number, rule);
            }
        }
        match entry.policy {
            Policy::Cluster if !ended => self.incomplete(chain, "the rule that goes on to the endpoints"),
            Policy::Cluster if entry.masquerade == Masquerade::Never || entry.knows_pods => {
                self.incomplete(chain, "the rule that marks for masquerading");
            }
            Policy::Local if entry.masquerade == Masquerade::Always || !node_marked || !node_routed => {
                self.incomplete(chain, "the rules that send the node's own traffic to the endpoints of the cluster");
            }
            _ => {}
        }
        entry
    }

    /// The list behind a `goto` whose target was compared with the names of this Service port.
    fn list_of(&mut self, chain: &'a str) -> Option<Rc<List>> {
        let name = self.name(chain)?;
        Some(self.list(chain, &name))
    }
}
