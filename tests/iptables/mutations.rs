//! Every rule of kube-proxy's on the recorded node, damaged in every way that matters: what the API says differs from what is
//! left, or the audit has a finding, and either names the Service or the chain; or the damage is shown to do nothing.
//!
//! A fifteenth of the IPv4 rules unless `KPX_MUTATIONS=all` asks for each; IPv6 always in full. The score is printed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread;

use kpx::audit::{Area, Judged, audit};
use kpx::capture::{Node, NodeOptions};
use kpx::inspect::iptables::{Owner, Parts, Spec, Words, lift, owner, parse};
use kpx::inspect::kube;
use kpx::model::{Family, ServiceTable, diff};

const FILES: [(Family, &str); 2] = [(Family::V4, "iptables-save.txt"), (Family::V6, "ip6tables-save.txt")];

/// A rule of the text.
struct Rule {
    /// Line, from 0.
    line: usize,
    chain: String,
    body: String,
}

impl Rule {
    fn spec(&self) -> Spec<'_> {
        Spec::read(Words::new(self.body.as_bytes()))
    }

    fn target(&self) -> String {
        String::from_utf8_lossy(self.spec().target_name()).into_owned()
    }

    /// The line with another body.
    fn with(&self, body: &str) -> String {
        format!("-A {} {body}", self.chain)
    }
}

/// One family's undamaged rules and what is said of them.
struct World {
    family: Family,
    file: &'static str,
    lines: Vec<String>,
    rules: Vec<Rule>,
    api: ServiceTable,
    /// Service by chain, as comments tell.
    services: BTreeMap<String, String>,
    notices: BTreeSet<String>,
    findings: BTreeSet<String>,
}

/// Damage: its kind, and the lines that stand in the place of which.
struct Mutation {
    kind: &'static str,
    first: usize,
    count: usize,
    by: Vec<String>,
    /// Why it changes nothing, if so.
    harmless: Option<&'static str>,
}

impl World {
    fn of(family: Family, file: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/lab/node");
        let text = fs_err::read_to_string(folder.join(file)).expect("the recording is there");
        let node = Node::open(&NodeOptions { from: Some(folder), ..NodeOptions::default() }).expect("it opens");
        let api = api_of(&node, family);
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let rules: Vec<Rule> = lines.iter().enumerate().filter_map(|(line, text)| rule(line, text)).collect();
        let services = services(&rules);
        let mut world =
            Self { family, file, lines, rules, api, services, notices: BTreeSet::new(), findings: BTreeSet::new() };
        let whole = world.lines.join("\n") + "\n";
        let (notices, differences) = world.lifted(&whole);
        assert!(differences.is_empty(), "the recording differs from its API: {differences:?}");
        world.notices = notices;
        world.findings = world.audited(&whole);
        world
    }

    /// What the reader notices, and what differs from the API.
    fn lifted(&self, text: &str) -> (BTreeSet<String>, Vec<String>) {
        let dump = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{e}"));
        let lifted = match self.family {
            Family::V4 => lift(Some(&dump), None),
            Family::V6 => lift(None, Some(&dump)),
        };
        let differences = diff(&self.api, &lifted.table).iter().map(|d| format!("{d:?}")).collect();
        (lifted.notices.iter().map(ToString::to_string).collect(), differences)
    }

    /// What the audit finds in these rules alone.
    fn audited(&self, text: &str) -> BTreeSet<String> {
        let folder = tempfile::tempdir().expect("a folder");
        fs_err::write(folder.path().join(self.file), text).expect("written");
        fs_err::write(folder.path().join("sysctl.txt"), "net.netfilter.nf_conntrack_tcp_be_liberal = 0\n")
            .expect("written");
        let node = Node::open(&NodeOptions { from: Some(folder.path().to_owned()), ..NodeOptions::default() });
        let judged = audit(&node.expect("it opens"), &[Area::Iptables, Area::Conntrack]).judged;
        let of = |j: &Judged| {
            j.evidence().iter().map(|e| format!("{} {}: {}", j.check.id, e.at, e.text)).collect::<Vec<_>>()
        };
        judged.iter().flat_map(of).collect()
    }

    /// What is said of the damaged rules and was not said of the whole ones.
    fn said(&self, mutation: &Mutation) -> Vec<String> {
        let (before, rest) = self.lines.split_at(mutation.first);
        let after = &rest[mutation.count..];
        let text: Vec<&str> = before.iter().chain(&mutation.by).chain(after).map(String::as_str).collect();
        let text = text.join("\n") + "\n";
        let (notices, mut said) = self.lifted(&text);
        said.extend(notices.difference(&self.notices).cloned());
        if said.is_empty() {
            said.extend(self.audited(&text).difference(&self.findings).cloned());
        }
        said
    }

    /// The words of which a report must have one: the Service, the chain, or the chain jumped to.
    fn names(&self, rule: &Rule) -> Vec<String> {
        let target = rule.target();
        let service = [&rule.chain, &target].into_iter().find_map(|chain| self.services.get(chain));
        let own = service_in(rule);
        let mut names: Vec<String> = service.cloned().into_iter().chain(own).collect();
        names.push(rule.chain.clone());
        if rule.chain == "KUBE-MARK-MASQ" {
            names.push("KUBE-POSTROUTING".to_owned());
        }
        if rule.spec().source.is_some() {
            // How pods are recognised is told for the node, not for each rule.
            names.push("local_detector".to_owned());
        }
        if target.starts_with("KUBE-") {
            names.push(target);
        }
        names
    }

    fn mutations(&self, at: usize) -> Vec<Mutation> {
        let rule = &self.rules[at];
        let spec = rule.spec();
        let one = |kind, body: String| Mutation {
            kind,
            first: rule.line,
            count: 1,
            by: vec![rule.with(&body)],
            harmless: None,
        };
        let again = |other: &Rule| {
            let twin = other.spec();
            other.line != rule.line
                && other.chain == rule.chain
                && (twin.dport, twin.protocol, twin.target_name()) == (spec.dport, spec.protocol, spec.target_name())
        };
        let accepts = spec.target_name() == b"ACCEPT" && rule.chain == "KUBE-NODEPORTS" && self.rules.iter().any(again);
        let needless = spec.target.is_none().then_some("a rule without a target does nothing");
        let needless = needless.or(accepts.then_some("another port of the Service has the same health check"));
        let counts = rule.chain == "KUBE-NODEPORTS" && rule.body.starts_with("-d 127.0.0.0/8 ");
        let needless = needless.or(counts.then_some("the rule behind it does the same, and does not count"));
        let mut all = vec![
            Mutation { kind: "deleted", first: rule.line, count: 1, by: Vec::new(), harmless: needless },
            Mutation {
                kind: "a rule of others before it",
                first: rule.line,
                count: 0,
                by: vec![rule.with(foreign(rule))],
                harmless: None,
            },
        ];
        let target = rule.target();
        if let Some(to) = other_verdict(&target) {
            // The target's own options go with it.
            let at = format!(" {}", rule.body).rfind(&format!(" -j {target}")).expect("it has this target");
            all.push(one("another target", format!("{}-j {to}", &rule.body[..at])));
        }
        if let Some(chain) = self.sibling(&target) {
            all.push(one("another chain", rule.body.replace(&target, &chain)));
        }
        for (kind, body) in edits(&rule.body) {
            all.push(one(kind, body));
        }
        if let Some(next) = self.rules.get(at + 1).filter(|next| next.chain == rule.chain && next.line == rule.line + 1)
        {
            all.push(Mutation {
                kind: "order",
                first: rule.line,
                count: 2,
                by: vec![self.lines[next.line].clone(), self.lines[rule.line].clone()],
                harmless: commute(rule, next),
            });
        }
        all
    }

    /// Another chain of the same kind.
    fn sibling(&self, chain: &str) -> Option<String> {
        let kind = chain.get(..9).filter(|_| matches!(owner(chain.as_bytes()), Owner::Hashed(_)))?;
        let others = self.services.keys().find(|other| {
            other.starts_with(kind) && *other != chain && self.services.get(*other) != self.services.get(chain)
        });
        others.cloned()
    }
}

/// What the API says of one family; health check ports of Services that have no frontend in it are the other family's.
fn api_of(node: &Node, family: Family) -> ServiceTable {
    let mut api =
        kube::read_node(node).expect("its objects are there").table.filter(|f| Family::of(f.key.ip) == family);
    let services: BTreeSet<_> = api.frontends().iter().filter_map(|f| f.service.clone()).collect();
    if let Some(ports) = &mut api.health_checks {
        ports.retain(|_, names| names.iter().any(|name| services.contains(name)));
    }
    api
}

/// A rule of kube-proxy: inside its chains, or a jump to one.
fn rule(line: usize, text: &str) -> Option<Rule> {
    let (_, rest) = text.split_once("-A ").filter(|(start, _)| start.is_empty() || start.starts_with('['))?;
    let (chain, body) = rest.split_once(' ')?;
    let rule = Rule { line, chain: chain.to_owned(), body: body.to_owned() };
    let own = owner(chain.as_bytes()).is_kube_proxy() || owner(rule.target().as_bytes()).is_kube_proxy();
    own.then_some(rule)
}

/// `namespace/name` in a rule's comment.
fn service_in(rule: &Rule) -> Option<String> {
    let comment = rule.spec().plain_comment()?.to_owned();
    let word = comment.split(' ').find(|word| word.contains('/'))?;
    word.split(':').next().map(str::to_owned)
}

fn services(rules: &[Rule]) -> BTreeMap<String, String> {
    let mut services = BTreeMap::new();
    for rule in rules {
        let Some(service) = service_in(rule) else { continue };
        for chain in [rule.chain.clone(), rule.target()] {
            if matches!(owner(chain.as_bytes()), Owner::Hashed(_)) {
                services.entry(chain).or_insert_with(|| service.clone());
            }
        }
    }
    services
}

/// What somebody might put in front: a verdict for all in a built-in chain, else one for a source.
fn foreign(rule: &Rule) -> &'static str {
    let builtin = rule.chain.bytes().all(|b| b.is_ascii_uppercase());
    match (builtin, rule.body.contains("::")) {
        (true, _) => "-j ACCEPT",
        (false, true) => "-s 2001:db8::1/128 -j RETURN",
        (false, false) => "-m mark --mark 0x1/0x1 -j RETURN",
    }
}

fn other_verdict(target: &str) -> Option<&'static str> {
    match target {
        // Its options would have to go with it; the addresses are changed instead.
        "" | "DNAT" | "MARK" => None,
        "ACCEPT" => Some("DROP"),
        _ => Some("ACCEPT"),
    }
}

/// Addresses, ports, protocols, probabilities and marks, each changed.
fn edits(body: &str) -> Vec<(&'static str, String)> {
    let words: Vec<&str> = body.split(' ').collect();
    let mut edits = Vec::new();
    for (i, pair) in words.windows(2).enumerate() {
        let mut put = |kind, value: String| {
            let mut changed: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
            changed[i + 1] = value;
            edits.push((kind, changed.join(" ")));
        };
        match (pair[0], pair[1]) {
            ("-d" | "-s", net) => put("address", other_net(net)),
            ("--to-destination", to) => {
                let (ip, port) = to.rsplit_once(':').expect("kube-proxy gives a port");
                put("port", format!("{ip}:{}", port.parse::<u16>().expect("a port") ^ 1));
                put("address", format!("{}:{port}", other_ip(ip)));
            }
            ("--dport", port) => put("port", (port.parse::<u16>().expect("a port") ^ 1).to_string()),
            ("--probability", p) => put("probability", format!("{:.11}", p.parse::<f64>().expect("a number") * 0.7)),
            ("--mark" | "--set-xmark", mark) => put("mark", mark.replace("0x4000", "0x8000")),
            _ => {}
        }
    }
    for (from, to) in [("tcp", "udp"), ("udp", "tcp")] {
        if body.contains(&format!("-p {from} ")) {
            edits.push((
                "protocol",
                body.replace(&format!("-p {from} "), &format!("-p {to} "))
                    .replace(&format!("-m {from} "), &format!("-m {to} ")),
            ));
        }
    }
    edits
}

fn other_net(net: &str) -> String {
    let (ip, length) = net.split_once('/').unwrap_or((net, ""));
    match length {
        "32" | "128" => format!("{}/{length}", other_ip(ip)),
        _ if ip.contains(':') => format!("fd99::/{length}"),
        _ => format!("172.16.0.0/{length}"),
    }
}

fn other_ip(ip: &str) -> String {
    let brackets = ip.starts_with('[');
    let mut plain: std::net::IpAddr = ip.trim_matches(['[', ']']).parse().expect("an address");
    match &mut plain {
        std::net::IpAddr::V4(v4) => *v4 = (u32::from(*v4) ^ 0x100).into(),
        std::net::IpAddr::V6(v6) => *v6 = (u128::from(*v6) ^ 0x100).into(),
    }
    if brackets { format!("[{plain}]") } else { plain.to_string() }
}

/// Why two neighbours may change places, if they may.
fn commute(a: &Rule, b: &Rule) -> Option<&'static str> {
    let (first, second) = (a.spec(), b.spec());
    let keyed = |spec: &Spec<'_>| (spec.destination, spec.protocol, spec.dport);
    let hosts = |spec: &Spec<'_>| spec.parts.has(Parts::PROTOCOL.and(Parts::DPORT)) && spec.negated == Parts::NONE;
    if first.target.is_none() || second.target.is_none() {
        return Some("a rule without a target does nothing");
    }
    if first.target_name() == second.target_name()
        && first.recent.is_none()
        && first.probability.is_none()
        && second.probability.is_none()
    {
        return Some("both lead to the same");
    }
    if hosts(&first) && hosts(&second) && keyed(&first) != keyed(&second) {
        return Some("no packet matches both");
    }
    let remembers = |spec: &Spec<'_>| spec.recent.is_some_and(|recent| !recent.set);
    if remembers(&first) && remembers(&second) {
        return Some("a client is remembered for one endpoint");
    }
    let jumps = |rule: &Rule| rule.chain.bytes().all(|b| b.is_ascii_uppercase());
    if jumps(a) && jumps(b) {
        return Some("the chains decide about different packets");
    }
    (a.chain == "KUBE-FORWARD").then_some("INVALID packets are not marked, and are not of an established connection")
}

#[test]
fn damage_to_any_rule_is_named() {
    let all = std::env::var("KPX_MUTATIONS").is_ok_and(|value| value == "all");
    let worlds = FILES.map(|(family, file)| World::of(family, file));
    let mut jobs: Vec<(&World, usize)> = Vec::new();
    for world in &worlds {
        let step = if all || world.family == Family::V6 { 1 } else { 15 };
        // Chains of their own kind are few: all rules that belong to no Service are tried.
        let tried = |i: &usize| i.is_multiple_of(step) || service_in(&world.rules[*i]).is_none();
        jobs.extend((0..world.rules.len()).filter(tried).map(|i| (world, i)));
    }
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (mut named, mut harmless, mut wrong) = (0_usize, BTreeMap::new(), Vec::new());
    thread::scope(|scope| {
        let work: Vec<_> = jobs
            .chunks(jobs.len().div_ceil(threads))
            .map(|jobs| scope.spawn(move || jobs.iter().flat_map(|(world, i)| judge(world, *i)).collect::<Vec<_>>()))
            .collect();
        for outcome in work.into_iter().flat_map(|thread| thread.join().expect("it ends")) {
            match outcome {
                Outcome::Named => named += 1,
                Outcome::Harmless(why) => *harmless.entry(why).or_insert(0_usize) += 1,
                Outcome::Wrong(text) => wrong.push(text),
            }
        }
    });
    let dangerous = named + wrong.len();
    let score = named as f64 * 100.0 / dangerous as f64;
    println!(
        "{} rules, {dangerous} dangerous mutations, {named} named: {score:.2} %; harmless: {harmless:?}",
        jobs.len()
    );
    assert!(wrong.is_empty(), "{} of {dangerous}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(dangerous > 2000, "{dangerous}");
}

enum Outcome {
    Named,
    Harmless(&'static str),
    Wrong(String),
}

fn judge(world: &World, at: usize) -> Vec<Outcome> {
    let rule = &world.rules[at];
    let outcome = |mutation: Mutation| {
        let said = world.said(&mutation);
        let names = world.names(rule);
        if said.iter().any(|text| names.iter().any(|name| text.contains(name.as_str()))) {
            return Outcome::Named;
        }
        match mutation.harmless {
            Some(why) if said.is_empty() => Outcome::Harmless(why),
            _ => Outcome::Wrong(format!(
                "{} {}: -A {} {}\n  said: {said:?}",
                world.file, mutation.kind, rule.chain, rule.body
            )),
        }
    };
    world.mutations(at).into_iter().map(outcome).collect()
}
