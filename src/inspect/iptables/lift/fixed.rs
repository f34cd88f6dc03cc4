//! The chains that are the same for all Services, the jumps from the built-in chains, and what nobody reaches any more.

use std::collections::HashSet;

use super::super::dump::{Rule, Table};
use super::super::notice::{Notice, Place};
use super::super::owner::{Owner, owner};
use super::super::spec::{Action, Parts, Spec};
use super::{Reader, lossy};
use crate::model::{Exposure, FrontendKey};

/// A jump that kube-proxy makes from a built-in chain.
struct Jump {
    table: &'static str,
    from: &'static str,
    to: &'static str,
}

const fn jump(table: &'static str, from: &'static str, to: &'static str) -> Jump {
    Jump { table, from, to }
}

/// Kubernetes 1.23 to 1.36; the load balancer firewall since 1.25.
const JUMPS: [Jump; 12] = [
    jump("nat", "PREROUTING", "KUBE-SERVICES"),
    jump("nat", "OUTPUT", "KUBE-SERVICES"),
    jump("nat", "POSTROUTING", "KUBE-POSTROUTING"),
    jump("filter", "FORWARD", "KUBE-SERVICES"),
    jump("filter", "OUTPUT", "KUBE-SERVICES"),
    jump("filter", "INPUT", "KUBE-EXTERNAL-SERVICES"),
    jump("filter", "FORWARD", "KUBE-EXTERNAL-SERVICES"),
    jump("filter", "INPUT", "KUBE-NODEPORTS"),
    jump("filter", "FORWARD", "KUBE-FORWARD"),
    jump("filter", "INPUT", "KUBE-PROXY-FIREWALL"),
    jump("filter", "OUTPUT", "KUBE-PROXY-FIREWALL"),
    jump("filter", "FORWARD", "KUBE-PROXY-FIREWALL"),
];

impl<'a> Reader<'_, 'a> {
    /// Counts kube-proxy's chains and rules, and tells whether there are hashed chains, and chains of ipvs mode.
    pub(super) fn summarise(&mut self) -> (bool, bool) {
        let (mut hashed, mut ipvs) = (false, false);
        for table in self.dump.tables() {
            let (mut chains, mut rules) = (0, 0);
            for (i, chain) in table.chains().iter().enumerate().filter(|(_, chain)| !chain.is_builtin()) {
                let owner = owner(chain.name);
                hashed |= matches!(owner, Owner::Hashed(_));
                ipvs |= owner == Owner::Ipvs;
                if owner.is_kube_proxy() {
                    chains += 1;
                    rules += table.rules_of(i).len();
                }
            }
            if chains > 0 {
                let name = String::from_utf8_lossy(table.name()).into_owned();
                *self.own.summary.chains.entry(name.clone()).or_default() += chains;
                *self.own.summary.rules.entry(name).or_default() += rules;
            }
        }
        (hashed, ipvs)
    }

    /// `KUBE-MARK-MASQ`, `KUBE-POSTROUTING`, `KUBE-FORWARD`, and the drop mark of old versions.
    pub(super) fn read_fixed(&mut self, nat: &Table<'a>) {
        let dump = self.dump;
        let mark = self.read_mark(nat);
        self.own.summary.masquerade_mark = mark;
        self.read_postrouting(nat, mark);
        if let Some(filter) = dump.table("filter") {
            self.each_rule(filter, b"KUBE-FORWARD", |r, _, _, spec| r.forward_rule(spec, mark));
            if let Some(chain) = filter.chain(b"KUBE-FORWARD") {
                let accepts = filter.rules_of(chain).filter(|rule| rule.spec().target_name() == b"ACCEPT").count();
                if accepts < 2 {
                    self.incomplete(filter, chain, "a rule that accepts marked or established packets");
                }
            }
            let drops = |table: &Table<'a>, chain: &[u8], good: fn(&Spec<'a>) -> bool| {
                table.chain(chain).is_some_and(|c| table.rules_of(c).any(|r| good(&r.spec())))
            };
            let marks = drops(nat, b"KUBE-MARK-DROP", |s| matches!(s.target, Some(t) if t.name == b"MARK"));
            let dropped = drops(filter, b"KUBE-FIREWALL", |s| s.mark.is_some() && s.target_name() == b"DROP");
            if self.drops_by_mark && !(marks && dropped) {
                self.notices.push(Notice::InertDropMark { family: self.family });
            }
        }
        let canary = dump.table("mangle").is_some_and(|t| t.chain(b"KUBE-PROXY-CANARY").is_some());
        if !canary {
            self.notices.push(Notice::MissingCanary { family: self.family });
        }
    }

    fn read_mark(&mut self, nat: &Table<'a>) -> Option<u32> {
        let mut found = None;
        self.each_rule(nat, b"KUBE-MARK-MASQ", |_, _, number, spec| match spec.target?.action {
            Action::Mark { value, mask } if number == 1 && spec.is(Parts::TARGET) && value == mask => {
                found = Some(value);
                Some(())
            }
            _ => None,
        });
        match nat.chain(b"KUBE-MARK-MASQ") {
            Some(chain) => {
                self.reached[chain] = true;
                if found.is_none() {
                    self.incomplete(nat, chain, "the rule that sets the mark");
                }
            }
            None => self.missing_fixed(nat, "KUBE-MARK-MASQ"),
        }
        found
    }

    fn missing_fixed(&mut self, table: &Table<'_>, chain: &str) {
        let chain = Place { family: self.family, table: lossy(table.name()), chain: chain.into() };
        self.notices.push(Notice::IncompleteChain { chain, missing: "the chain itself" });
    }

    fn read_postrouting(&mut self, nat: &Table<'a>, mark: Option<u32>) {
        let Some(chain) = nat.chain(b"KUBE-POSTROUTING") else {
            self.missing_fixed(nat, "KUBE-POSTROUTING");
            return;
        };
        self.reached[chain] = true;
        self.each_rule(nat, b"KUBE-POSTROUTING", |_, _, number, spec| {
            let good = match (number, spec.target?.action) {
                (1, Action::Plain) => {
                    spec.parts == Parts::MARK.and(Parts::TARGET)
                        && spec.negated == Parts::MARK
                        && spec.target_name() == b"RETURN"
                        && spec.mark == mark.map(|m| (m, m))
                }
                (2, Action::Mark { value, mask }) => spec.is(Parts::TARGET) && Some(value) == mark && mask == 0,
                (3, Action::Masquerade { .. }) => spec.is(Parts::COMMENT.and(Parts::TARGET)),
                _ => false,
            };
            good.then_some(())
        });
        if nat.rules_of(chain).len() < 3 {
            self.incomplete(nat, chain, "a rule that masquerades marked packets");
        }
    }

    fn forward_rule(&mut self, spec: &Spec<'a>, mark: Option<u32>) -> Option<()> {
        let verdict = spec.target_name();
        let commented = Parts::COMMENT.and(Parts::TARGET);
        if spec.negated != Parts::NONE {
            return None;
        }
        let known = if spec.parts.without(Parts::NFACCT) == Parts::CTSTATE.and(Parts::TARGET) {
            self.note_nfacct(spec);
            spec.ctstate == Some(b"INVALID") && verdict == b"DROP"
        } else if spec.parts == commented.and(Parts::MARK) {
            spec.mark == mark.map(|m| (m, m)) && verdict == b"ACCEPT"
        } else {
            spec.parts == commented.and(Parts::CTSTATE)
                && spec.ctstate == Some(b"RELATED,ESTABLISHED")
                && verdict == b"ACCEPT"
        };
        known.then_some(())
    }

    pub(super) fn note_nfacct(&mut self, spec: &Spec<'_>) {
        if let Some(name) = spec.nfacct {
            self.own.summary.nfacct.insert(String::from_utf8_lossy(name).into_owned());
        }
    }

    /// The jumps from built-in chains, and rules of others that reach into kube-proxy's chains.
    pub(super) fn jumps(&mut self) {
        let dump = self.dump;
        let mut made: HashSet<usize> = HashSet::new();
        for table in dump.tables() {
            for (i, chain) in table.chains().iter().enumerate() {
                let of_kube_proxy = !chain.is_builtin() && owner(chain.name).is_kube_proxy();
                if of_kube_proxy {
                    continue;
                }
                for (n, rule) in table.rules_of(i).enumerate() {
                    self.outside_rule(table, rule, n + 1, &mut made);
                }
            }
        }
        if !self.own.summary.programmed {
            return;
        }
        for (i, jump) in JUMPS.iter().enumerate() {
            let declared = dump.table(jump.table).is_some_and(|t| t.chain(jump.to.as_bytes()).is_some());
            // Every version has all chains but the firewall, and writes all jumps to a chain it has.
            let wanted = declared || jump.to != "KUBE-PROXY-FIREWALL";
            if wanted && !made.contains(&i) {
                let from = Place { family: self.family, table: jump.table.into(), chain: jump.from.into() };
                self.notices.push(Notice::MissingJump { from, to: jump.to });
            }
        }
    }

    /// A rule outside of kube-proxy's chains: one of its jumps, somebody's dependence on its chains, or none of its business.
    fn outside_rule(&mut self, table: &Table<'a>, rule: &Rule<'a>, number: usize, made: &mut HashSet<usize>) {
        let spec = rule.spec();
        let target = spec.target_name();
        let kind = owner(target);
        if !kind.is_kube_proxy() {
            self.about_a_service(table, rule, number, &spec);
            return;
        }
        let from = table.chains()[rule.chain()];
        let wanted = |j: &Jump| {
            from.is_builtin()
                && j.table.as_bytes() == table.name()
                && j.from.as_bytes() == from.name
                && j.to.as_bytes() == target
        };
        let known = JUMPS.iter().position(wanted).filter(|_| is_jump(&spec));
        if table.name() == b"nat"
            && let Some(chain) = table.chain(target)
        {
            self.reached[chain] = true;
        }
        match known {
            Some(jump) => {
                made.insert(jump);
            }
            None if kind == Owner::Ipvs && self.own.summary.programmed => self.unknown(table, rule, number),
            None => {
                let at = self.origin(table, rule.chain(), number);
                let target = String::from_utf8_lossy(target).into_owned();
                self.notices.push(Notice::ForeignReference { at, rule: rule.to_string(), target });
            }
        }
    }

    /// Reports a rule of somebody else whose destination is one of the ClusterIPs.
    fn about_a_service(&mut self, table: &Table<'a>, rule: &Rule<'a>, number: usize, spec: &Spec<'a>) {
        let Some(net) = spec.destination else { return };
        if net.prefix_len() != net.max_prefix_len() || spec.negated.has(Parts::DESTINATION) || spec.target.is_none() {
            return;
        }
        let same = |key: &FrontendKey| {
            key.exposure == Exposure::ClusterIp
                && key.ip == net.addr()
                && spec.protocol.is_none_or(|p| p == key.protocol)
                && spec.dport.is_none_or(|(first, last)| (first..=last).contains(&key.port))
        };
        if let Some(draft) = self.drafts.iter().find(|draft| same(&draft.key)) {
            let service = self.ports[draft.port].name.to_owned();
            let at = self.origin(table, rule.chain(), number);
            self.notices.push(Notice::ForeignService { at, rule: rule.to_string(), service });
        }
    }

    /// kube-proxy's chains that no packet reaches.
    pub(super) fn leftovers(&mut self) {
        let dump = self.dump;
        let programmed = self.own.summary.programmed;
        for table in dump.tables() {
            let nat = table.name() == b"nat";
            for (i, chain) in table.chains().iter().enumerate() {
                if chain.is_builtin() {
                    continue;
                }
                let kind = owner(chain.name);
                let stale = match kind {
                    Owner::Userspace => {
                        let chain = self.place(table, i);
                        self.notices.push(Notice::UserspaceMode { chain });
                        false
                    }
                    Owner::Canary => !programmed,
                    Owner::KubeProxy if !nat => !programmed,
                    Owner::KubeProxy | Owner::Hashed(_) => !(nat && self.reached[i]),
                    Owner::Ipvs => true,
                    Owner::Builtin | Owner::Kubelet | Owner::Foreign => false,
                };
                if stale {
                    let chain = self.place(table, i);
                    self.notices.push(Notice::StaleChain { chain });
                }
            }
        }
    }
}

/// Whether a rule is a jump of kube-proxy: nothing but a comment, and new connections only where it likes.
fn is_jump(spec: &Spec<'_>) -> bool {
    let plain = Parts::COMMENT.and(Parts::TARGET);
    let jumps = spec.target.is_some_and(|t| !t.goto);
    let new = spec.parts == plain.and(Parts::CTSTATE) && spec.ctstate == Some(b"NEW");
    jumps && spec.negated == Parts::NONE && (spec.parts == plain || new)
}
