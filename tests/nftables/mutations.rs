//! Every rule and element of kube-proxy's tables, damaged in every way that matters: the lift differs, or has a notice, and names the
//! Service or the chain, set or map; or the damage is shown to do nothing.
//!
//! A fifth of the endpoints' chains unless `KPX_MUTATIONS=all` asks for each: they are many, and all alike. The score is printed.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread;

use kpx::inspect::nftables::{
    Element, Key, Lift, Match, Rule, Ruleset, Set, Side, Statement, Table, Verdict, lift, without_hairpin,
};
use kpx::model::{Family, Protocol, diff};

use super::{ruleset_of, samples};

/// One family of a sample, and what its lift says.
struct World {
    family: Family,
    ruleset: Ruleset,
    lift: Lift,
}

/// What is done to a table, or to a part of it.
type Damage<T> = Box<dyn Fn(&mut T) + Send>;

/// Damage to a table.
struct Mutation {
    kind: &'static str,
    what: String,
    damage: Damage<Table>,
    /// Of these a report must name one.
    names: Vec<String>,
    /// Why it changes nothing, if so.
    harmless: Option<&'static str>,
}

enum Outcome {
    Named,
    Harmless(&'static str),
    Wrong(String),
}

impl World {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for sample in samples() {
            let Ruleset { v4, v6 } = ruleset_of(&sample);
            for (family, ruleset) in [(Family::V4, Ruleset { v4, v6: None }), (Family::V6, Ruleset { v4: None, v6 })] {
                let lift = lift(&ruleset);
                all.push(Self { family, ruleset, lift });
            }
        }
        all
    }

    fn table(&self) -> &Table {
        self.ruleset.table(self.family).expect("a table")
    }

    /// What is said of the damaged table and was not said of this one: differences and notices.
    fn said(&self, damage: &dyn Fn(&mut Table)) -> Vec<String> {
        let mut damaged = self.ruleset.clone();
        damage(damaged.v4.as_mut().or(damaged.v6.as_mut()).expect("a table"));
        let damaged = lift(&damaged);
        let differences = diff(&self.lift.table, &damaged.table);
        let notices = damaged.notices.iter().filter(|n| !self.lift.notices.contains(n));
        let hairpins = without_hairpin(&damaged.table, &self.lift.table);
        let notices = notices.chain(&hairpins).map(ToString::to_string);
        differences.iter().map(|difference| format!("{difference:?}")).chain(notices).collect()
    }

    fn judge(&self, mutation: Mutation) -> Outcome {
        let said = self.said(&*mutation.damage);
        if said.iter().any(|text| mutation.names.iter().any(|name| text.contains(name.as_str()))) {
            return Outcome::Named;
        }
        match mutation.harmless {
            Some(why) if said.is_empty() => Outcome::Harmless(why),
            _ => Outcome::Wrong(format!("{} {}: {}\n  said: {said:?}", self.family, mutation.kind, mutation.what)),
        }
    }

    fn mutations(&self, all: bool) -> Vec<Mutation> {
        let table = self.table();
        let mut found = Vec::new();
        for (i, (name, chain)) in table.chains.iter().enumerate() {
            if all || i.is_multiple_of(5) || !name.starts_with("endpoint-") {
                (0..chain.rules.len()).for_each(|j| self.of_rule(name, &chain.rules, j, &mut found));
            }
        }
        // Clients come and go in affinity sets without kube-proxy.
        for (name, set) in table.sets.iter().filter(|(name, _)| !name.starts_with("affinity-")) {
            (0..set.elements.len()).for_each(|i| self.of_element(name, set, i, &mut found));
        }
        found
    }

    fn of_rule(&self, chain: &str, rules: &[Rule], at: usize, found: &mut Vec<Mutation>) {
        let text = rules[at].text(self.family).to_string();
        let mut named = names(chain);
        if chain == "services" && text.contains("@cluster-ips") {
            // Every Service is named whose clients' addresses it concerned.
            named.push("field: \"masquerade\"".to_owned());
        }
        let mut add = |kind, harmless, damage: Damage<Vec<Rule>>| {
            let name = chain.to_owned();
            found.push(Mutation {
                kind,
                what: format!("{chain} rule {}: {text}", at + 1),
                damage: Box::new(move |table| damage(&mut table.chains.get_mut(&*name).expect("the chain").rules)),
                names: named.clone(),
                harmless,
            });
        };
        let unallocated = chain == "cluster-ips-check" && text.ends_with(" drop");
        let unallocated =
            unallocated.then_some("kube-proxy writes it only where it knows the ServiceCIDRs, and no Service needs it");
        add("deleted", unallocated, Box::new(move |rules| drop(rules.remove(at))));
        let verdict = [Verdict::Accept, Verdict::Return, Verdict::Drop][at % 3].clone();
        let foreign = Rule { handle: 9999, comment: None, statements: vec![Statement::Verdict(verdict)] };
        add("a rule of others before it", None, Box::new(move |rules| rules.insert(at, foreign.clone())));
        if let Some(next) = rules.get(at + 1) {
            add("order", commute(&rules[at], next), Box::new(move |rules| rules.swap(at, at + 1)));
        }
        for (i, statement) in rules[at].statements.iter().enumerate() {
            for other in wrong(statement).into_iter().filter(|other| other != statement) {
                add("altered", None, Box::new(move |rules| rules[at].statements[i] = other.clone()));
            }
        }
    }

    fn of_element(&self, set: &str, content: &Set, at: usize, found: &mut Vec<Mutation>) {
        let element = &content.elements[at];
        let mut names = vec![format!(" {set} ")];
        match (&element.verdict, &element.key) {
            (Some(Verdict::Goto(chain)), _) if chain.contains('/') => names.extend(self::names(chain)),
            (_, Key::Service(ip, ..) | Key::Address(ip) | Key::Hairpin(ip, ..)) => names.push(ip.to_string()),
            (_, Key::NodePort(_, port)) => names.push(port.to_string()),
            _ => {}
        }
        let mut add = |kind, harmless, damage: Damage<Vec<Element>>| {
            let name = set.to_owned();
            found.push(Mutation {
                kind,
                what: format!("{set} {{ {} }}", element.key),
                damage: Box::new(move |table| {
                    let elements = &mut table.sets.get_mut(&*name).expect("the set").elements;
                    damage(elements);
                    elements.sort_by(|a, b| a.key.cmp(&b.key));
                }),
                names: names.clone(),
                harmless,
            });
        };
        let refused = (set == "cluster-ips" && only_refused(&self.table().sets, &element.key))
            .then_some("all of its ports are refused: the others then go on untranslated instead of being refused too");
        add("deleted", refused, Box::new(move |elements| drop(elements.remove(at))));
        for other in wrong_elements(element) {
            add("altered", None, Box::new(move |elements| elements[at] = other.clone()));
        }
    }
}

/// A chain of one Service port by the Service in its name, which reports may give instead of the chain's.
fn names(chain: &str) -> Vec<String> {
    let mut names = vec![chain.to_owned()];
    if let Some((_, base)) = chain.split_once('-').and_then(|(_, rest)| rest.split_once('-')) {
        let mut parts = base.split('/');
        if let (Some(namespace), Some(service)) = (parts.next(), parts.next()) {
            names.push(format!("{namespace}/{service}"));
        }
    }
    names
}

/// Why two neighbours may change places, if they may.
fn commute(a: &Rule, b: &Rule) -> Option<&'static str> {
    let bound = |rule: &Rule| {
        matches!(
            rule.statements.as_slice(),
            [Statement::Match(Match::Address { side: Side::Source, .. }), Statement::Verdict(_)]
        )
    };
    let marks = |rule: &Rule| {
        let jump = |chain: &str| chain == "mark-for-masquerade";
        matches!(rule.statements.last(), Some(Statement::MarkOr(_)))
            || matches!(rule.statements.last(), Some(Statement::Verdict(Verdict::Jump(chain))) if jump(chain))
    };
    let remembers = |rule: &Rule| matches!(rule.statements.as_slice(), [Statement::Remember(_)]);
    if bound(a) && bound(b) {
        return Some("a client is remembered for one endpoint");
    }
    if marks(a) && marks(b) {
        return Some("both set the same mark, and go on");
    }
    (marks(a) && remembers(b)).then_some("the one sets the mark, the other remembers the client, and both go on")
}

/// The same statement, wrong in one way or another. Nothing for what kpx does not know, which is an unknown rule as it is.
fn wrong(statement: &Statement) -> Vec<Statement> {
    match statement.clone() {
        Statement::MarkOr(bits) => vec![Statement::MarkOr(bits << 1)],
        Statement::MarkXor(bits) => vec![Statement::MarkXor(bits << 1)],
        Statement::ServiceMap(name) => vec![Statement::ServiceMap(format!("{name}-2").into())],
        Statement::NodePortMap(name) => vec![Statement::NodePortMap(format!("{name}-2").into())],
        Statement::Spread(balance) => {
            let mut more = balance.clone();
            more.modulus += 1;
            let mut other = balance;
            other.choices[0].1 = Verdict::Accept;
            vec![Statement::Spread(more), Statement::Spread(other)]
        }
        Statement::DnatSpread(balance) => {
            let (mut more, mut port, mut address) = (balance.clone(), balance.clone(), balance);
            more.modulus += 1;
            port.choices[0].1.1 ^= 1;
            address.choices[0].1.0 = other_ip(address.choices[0].1.0);
            [more, port, address].map(Statement::DnatSpread).into()
        }
        Statement::Dnat(ip, port) => vec![Statement::Dnat(other_ip(ip), port), Statement::Dnat(ip, port ^ 1)],
        Statement::Remember(set) => vec![Statement::Remember(format!("{set}-2").into())],
        Statement::Reject => vec![Statement::Verdict(Verdict::Accept), Statement::Verdict(Verdict::Drop)],
        Statement::Masquerade { .. } | Statement::Verdict(Verdict::Drop) => vec![Statement::Verdict(Verdict::Accept)],
        Statement::Verdict(_) => vec![Statement::Verdict(Verdict::Drop), Statement::Verdict(Verdict::Return)],
        Statement::Match(condition) => wrong_match(condition).into_iter().map(Statement::Match).collect(),
        Statement::Elsewhere(_) | Statement::Other(_) => Vec::new(),
    }
}

fn wrong_match(condition: Match) -> Vec<Match> {
    match condition {
        Match::Address { side, not, among } => vec![Match::Address { side, not: !not, among }],
        Match::Local(_) | Match::New | Match::Translated => Vec::new(),
        Match::Protocol(_) => vec![Match::Protocol(Protocol::Sctp)],
        Match::Port(protocol, port) => vec![Match::Port(protocol, port ^ 1)],
        Match::Interface { not, by_index, name } => vec![Match::Interface { not: !not, by_index, name }],
        Match::Marked { bits, set } => vec![Match::Marked { bits: bits << 1, set }, Match::Marked { bits, set: !set }],
        Match::Hairpin(set) => vec![Match::Hairpin(format!("{set}-2").into())],
    }
}

fn other_ip(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(v4) => IpAddr::V4((u32::from(v4) ^ 0x100).into()),
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) ^ 0x100).into()),
    }
}

fn wrong_elements(element: &Element) -> Vec<Element> {
    let mut all = Vec::new();
    if let Key::Service(ip, protocol, port) = element.key {
        all.push(Element { key: Key::Service(ip, protocol, port ^ 1), ..element.clone() });
    }
    if let Key::NodePort(protocol, port) = element.key {
        all.push(Element { key: Key::NodePort(protocol, port ^ 1), ..element.clone() });
    }
    if element.verdict.is_some() {
        all.push(Element { verdict: Some(Verdict::Accept), ..element.clone() });
    }
    all
}

/// Whether all ports of a ClusterIP are refused: those that are no Service's then go on untranslated instead of being
/// refused too.
fn only_refused(sets: &BTreeMap<Box<str>, Set>, key: &Key) -> bool {
    let served =
        |element: &Element| matches!((&element.key, key), (Key::Service(ip, ..), Key::Address(vip)) if ip == vip);
    !sets["service-ips"].elements.iter().any(served) && sets["no-endpoint-services"].elements.iter().any(served)
}

#[test]
fn damage_to_any_rule_or_element_is_named() {
    let all = std::env::var("KPX_MUTATIONS").is_ok_and(|value| value == "all");
    let (mut named, mut harmless, mut wrong) = (0_usize, BTreeMap::new(), Vec::new());
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    for world in World::all() {
        let mut parts: Vec<Vec<Mutation>> = (0..threads).map(|_| Vec::new()).collect();
        for (i, mutation) in world.mutations(all).into_iter().enumerate() {
            parts[i % threads].push(mutation);
        }
        let world = &world;
        let judge = |part: Vec<Mutation>| part.into_iter().map(|mutation| world.judge(mutation)).collect::<Vec<_>>();
        let outcomes = thread::scope(|scope| {
            let work: Vec<_> = parts.into_iter().map(|part| scope.spawn(move || judge(part))).collect();
            work.into_iter().flat_map(|thread| thread.join().expect("it ends")).collect::<Vec<_>>()
        });
        for outcome in outcomes {
            match outcome {
                Outcome::Named => named += 1,
                Outcome::Harmless(why) => *harmless.entry(why).or_insert(0_usize) += 1,
                Outcome::Wrong(text) => wrong.push(text),
            }
        }
    }
    let dangerous = named + wrong.len();
    let score = named as f64 * 100.0 / dangerous as f64;
    println!("{dangerous} dangerous mutations, {named} named: {score:.2} %; harmless: {harmless:?}");
    assert!(wrong.is_empty(), "{} of {dangerous}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(dangerous > 4000, "{dangerous}");
}
