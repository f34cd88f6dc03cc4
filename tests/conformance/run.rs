//! Running behaviours against a subject, and judging what was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kpx::model::{Exposure, Family, FrontendKey, Protocol, ServiceTable};

use super::behaviour::{Behaviour, Expect, Node, Place, Probe, Source, Step, To};
use super::cluster::Cluster;
use super::names;
use super::probe::{Ask, Heard, How, Request};
use super::state::{State, World, Worlds};
use super::subject::{Subject, table};

/// How long an answer may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long silence has to last.
const SILENCE: Duration = Duration::from_millis(1200);
/// Longer than an affinity of a second, as xt_recent counts seconds.
const FORGOTTEN: Duration = Duration::from_millis(2200);
/// How often a client that is forgotten comes back: it meets the same of two each time once in 8192.
const ROUNDS: usize = 14;
/// What an ICMP error for want of a route becomes, in IPv4 and IPv6.
const EHOSTUNREACH: i32 = 113;
const ENETUNREACH: i32 = 101;
/// Attempts for each endpoint that is to answer: one that is among three and never meets them is one in ten million.
const ATTEMPTS: usize = 24;

/// A subject serving a cluster.
pub(super) struct Stage<'a> {
    worlds: &'a Worlds,
    subject: Subject,
    state: State,
    scene: Scene,
}

/// A cluster in some state, as clients see it.
pub(super) struct Scene {
    cluster: Cluster,
    now: Arc<World>,
    before: Arc<World>,
    /// What kpx's maps hold, node by node; `None` for the rules.
    maps: Option<Vec<ServiceTable>>,
}

/// A step that did not go as it should, with what was heard.
pub(super) type Fault = String;

impl<'a> Stage<'a> {
    pub(super) fn new(worlds: &'a Worlds, kpx: bool) -> Self {
        let cluster = Cluster::new(worlds);
        let now = worlds.get(State::Node).expect("the project carries it");
        let mut subject =
            if kpx { Subject::kpx(&cluster, &table(&cluster.nodes[0], &now)) } else { Subject::Rules(Vec::new()) };
        subject.become_(&cluster, &now);
        let maps = subject.tables();
        Self { worlds, subject, state: State::Node, scene: Scene { cluster, before: now.clone(), now, maps } }
    }

    /// The cluster as it is now.
    pub(super) const fn scene(&self) -> &Scene {
        &self.scene
    }

    /// Runs a behaviour that changes the world, in all these families at once.
    pub(super) fn change(&mut self, behaviour: &Behaviour, families: &[Family]) -> Vec<(Family, Result<(), Fault>)> {
        let mut flows = BTreeMap::new();
        let mut outcomes: Vec<_> = families.iter().map(|family| (*family, Ok(()))).collect();
        for (i, step) in behaviour.steps.iter().enumerate() {
            match step {
                Step::Become(state) => self.become_(*state),
                Step::Restart => self.subject.restart(),
                other => {
                    for (family, outcome) in outcomes.iter_mut().filter(|(_, outcome)| outcome.is_ok()) {
                        let done = self.scene.step(behaviour, other, *family, &mut flows);
                        *outcome = done.map_err(|fault| format!("step {}: {fault}", i + 1));
                    }
                }
            }
        }
        outcomes
    }

    fn become_(&mut self, state: State) {
        let next = self.worlds.get(state).expect("callers know that it is there");
        if self.state != state {
            self.subject.become_(&self.scene.cluster, &next);
        }
        self.state = state;
        self.scene.before = std::mem::replace(&mut self.scene.now, next);
        self.scene.maps = self.subject.tables();
    }
}

impl Scene {
    const fn is_kpx(&self) -> bool {
        self.maps.is_some()
    }

    /// Runs a behaviour that leaves the world as it is.
    pub(super) fn still(&self, behaviour: &Behaviour, family: Family) -> Result<(), Fault> {
        let mut flows = BTreeMap::new();
        for (i, step) in behaviour.steps.iter().enumerate() {
            self.step(behaviour, step, family, &mut flows).map_err(|fault| format!("step {}: {fault}", i + 1))?;
        }
        Ok(())
    }

    fn step<'s>(
        &self,
        behaviour: &Behaviour,
        step: &'s Step,
        family: Family,
        flows: &mut BTreeMap<(&'static str, Family), (&'s Probe, Vec<Heard>)>,
    ) -> Result<(), Fault> {
        let flow = |name: &str| format!("{}/{family}/{name}", behaviour.id);
        match step {
            Step::Probe(probe) => {
                let heard = self.cluster.client(probe.from).ask(Request::Try(self.ask(behaviour, probe, family)?));
                self.judge(probe, family, &heard)
            }
            Step::Open(name, probe) => {
                let ask = Ask { count: 1, ..self.ask(behaviour, probe, family)? };
                let heard = self.cluster.client(probe.from).ask(Request::Open(flow(name), ask));
                let judged = self.judge_one(probe, family, &heard);
                flows.insert((name, family), (probe, heard));
                judged
            }
            Step::Again(name, expect) => {
                let (probe, first) = flows.get(&(*name, family)).expect("a flow opened in a step before");
                let heard = self.cluster.client(probe.from).ask(Request::Again(flow(name)));
                if probe.how == How::Tcp && heard != *first {
                    return Err(format!("{name} was {first:?} and is {heard:?}"));
                }
                judge(probe, expect, true, family, &heard)
            }
            Step::Forgets(probe) => self.forgets(behaviour, probe, family),
            Step::Programmed(to) => self.programmed(*to, family),
            Step::Become(_) | Step::Restart => unreachable!("the caller does these"),
        }
    }

    fn forgets(&self, behaviour: &Behaviour, probe: &Probe, family: Family) -> Result<(), Fault> {
        let wanted = self.expect(probe).endpoints();
        let mut met = BTreeSet::new();
        for _ in 0..ROUNDS {
            let ask = Ask { count: 1, ..self.ask(behaviour, probe, family)? };
            let heard = self.cluster.client(probe.from).ask(Request::Try(ask));
            self.judge_one(probe, family, &heard)?;
            met.extend(heard.iter().filter_map(|heard| seen(probe, family, heard)).map(|(name, _)| name));
            if met.len() == wanted.len() {
                return Ok(());
            }
            std::thread::sleep(FORGOTTEN);
        }
        Err(format!("never met another than {met:?}"))
    }

    /// What a probe asks. What is known to fail is not waited for.
    fn ask(&self, behaviour: &Behaviour, probe: &Probe, family: Family) -> Result<Ask, Fault> {
        let world = if probe.before { &self.before } else { &self.now };
        let to = world.resolve(probe.to, family).ok_or_else(|| format!("{:?} has no address", probe.to))?;
        let bound = probe.from == Place::Listed || probe.port.is_some();
        let ip = if bound { Cluster::address(probe.from, family) } else { family.unspecified() };
        let from = SocketAddr::new(ip, probe.port.unwrap_or(0));
        let expect = self.expect(probe);
        let count = match expect {
            _ if probe.port.is_some() => 1,
            Expect::Answers(all) => ATTEMPTS * all.len(),
            Expect::OneOf(..) => ATTEMPTS / 2,
            Expect::Refused | Expect::Silence | Expect::Unserved | Expect::Error(_) => 1,
        };
        let hopeless = *expect == Expect::Silence || (self.is_kpx() && behaviour.pending.is_some());
        let patience = if hopeless { SILENCE } else { PATIENCE };
        Ok(Ask { netns: self.cluster.netns(probe.from), from, to, how: probe.how, count, patience })
    }

    fn expect<'p>(&self, probe: &'p Probe) -> &'p Expect {
        probe.by_design.as_ref().filter(|_| self.is_kpx()).map_or(&probe.expect, |by_design| &by_design.expect)
    }

    /// One attempt: it may be any of the endpoints expected.
    fn judge_one(&self, probe: &Probe, family: Family, heard: &[Heard]) -> Result<(), Fault> {
        judge(probe, self.expect(probe), true, family, heard)
    }

    fn judge(&self, probe: &Probe, family: Family, heard: &[Heard]) -> Result<(), Fault> {
        // With a fixed port there is one attempt.
        judge(probe, self.expect(probe), probe.port.is_some(), family, heard)
    }

    /// Whether every node's maps have this SCTP frontend, with backends; rules have it by the tests of the readers.
    fn programmed(&self, to: To, family: Family) -> Result<(), Fault> {
        let at = self.now.resolve(to, family).ok_or("no address")?;
        let (ip, exposure) = match to {
            To::NodePort(..) => (family.unspecified(), Exposure::NodePort),
            _ => (at.ip(), Exposure::ClusterIp),
        };
        let key = FrontendKey { ip, port: at.port(), protocol: Protocol::Sctp, exposure };
        for table in self.maps.iter().flatten() {
            if !table.get(&key).iter().any(|f| f.cluster.len() == 2) {
                return Err(format!("{key} is not in the maps"));
            }
        }
        Ok(())
    }
}

/// Compares what was heard with what was to be. A `single` attempt may meet any of the endpoints.
fn judge(probe: &Probe, expect: &Expect, single: bool, family: Family, heard: &[Heard]) -> Result<(), Fault> {
    let mut found: BTreeSet<(String, Source)> = BTreeSet::new();
    let wrong = |what: &dyn std::fmt::Debug| {
        Err(format!("{:?} {:?} to {:?}: expected {expect:?}, but {what:?}", probe.from, probe.how, probe.to))
    };
    for heard in heard {
        match (heard, expect) {
            (Heard::Answer { .. }, Expect::Answers(_) | Expect::OneOf(..)) => match seen(probe, family, heard) {
                Some(seen) => drop(found.insert(seen)),
                None => return wrong(heard),
            },
            (Heard::Refused, Expect::Refused)
            | (Heard::Silence, Expect::Silence)
            | (Heard::Error(EHOSTUNREACH | ENETUNREACH), Expect::Unserved) => {}
            (Heard::Error(number), Expect::Error(wanted)) if number == wanted => {}
            _ => return wrong(heard),
        }
    }
    let wanted = expect.endpoints().into_iter().map(|(name, source)| (name.to_owned(), source));
    let wanted: BTreeSet<_> = wanted.collect();
    let right = match expect {
        Expect::Answers(_) if !single => found == wanted,
        Expect::Answers(_) | Expect::OneOf(..) => found.len() == 1 && found.is_subset(&wanted),
        Expect::Refused | Expect::Silence | Expect::Unserved | Expect::Error(_) => true,
    };
    if right { Ok(()) } else { wrong(&found) }
}

/// Who answered and whom it saw; `None` if it saw neither the client nor the node between them.
fn seen(probe: &Probe, family: Family, heard: &Heard) -> Option<(String, Source)> {
    let Heard::Answer { server, seen, own } = heard else { return None };
    let name = names::name(*server);
    let node = match (probe.to, probe.from) {
        (To::NodePort(_, Node::B), _) | (To::ClusterIp(_) | To::LoadBalancer(_), Place::NodeB | Place::PodB) => 'b',
        _ => 'a',
    };
    // The address that this node has on the way to that server.
    let of_node = if name.starts_with(node) { names::pod(node, "1", family) } else { names::node(node, family) };
    let at_a_node = matches!(probe.from, Place::NodeA | Place::NodeB);
    // Only a port that was asked for is one that nothing may change: conntrack gives another where two flows would look
    // alike, as two Services with the same endpoints can make them.
    let port_kept = probe.port.is_none() || seen.port() == *own;
    if !at_a_node && seen.ip() == Cluster::address(probe.from, family) && port_kept {
        Some((name, Source::Client))
    } else {
        (seen.ip() == of_node).then_some((name, Source::Node))
    }
}
