//! A behaviour as data: what is sent, from where, and what both ends see.

use std::collections::BTreeMap;

use kpx::model::Family;

use super::probe::How;
use super::state::State;

/// Section of the list of Kubernetes' own tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Services,
    Granular,
    Others,
    LoadBalancers,
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Outside of both nodes.
    Outside,
    /// The same, with an address inside the source ranges of `edge/lb-sources-dual`.
    Listed,
    NodeA,
    NodeB,
    PodA,
    PodB,
    /// The pod `a13`, itself an endpoint.
    Own,
    /// A pod of node-a whose sockets are outside of the cgroup that kpx is attached to.
    Unseen,
    /// The pod `a13`, outside of that cgroup.
    UnseenOwn,
}

/// What is spoken to. Services are written `namespace/name:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    ClusterIp(&'static str),
    /// A node's address and the Service's NodePort.
    NodePort(&'static str, Node),
    /// The loopback address and the Service's NodePort.
    Loopback(&'static str),
    /// The first ingress IP.
    LoadBalancer(&'static str),
    /// The first external IP.
    External(&'static str),
    /// An endpoint itself.
    Pod(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    A,
    B,
}

/// Whom the server sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The client's own address and port.
    Client,
    /// The address that the node has on the way to the endpoint.
    Node,
}

/// What comes back. Endpoints are written `a13`: the node's letter and the end of the address, with `:port` unless 8080.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// All of these, each seen as said, and no other.
    Answers(Vec<(&'static str, Source)>),
    /// Always the same one of these.
    OneOf(&'static str, Source),
    Refused,
    /// Nothing: the node drops it.
    Silence,
    /// The node does not know the address and sends it on; the world outside says that nobody has it.
    Unserved,
    /// The call fails with this error number.
    Error(i32),
}

/// What kpx does otherwise, and why that is meant.
#[derive(Clone, Debug)]
pub(super) struct ByDesign {
    pub(super) expect: Expect,
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug)]
pub(super) struct Probe {
    pub(super) from: Place,
    /// A fixed source port.
    pub(super) port: Option<u16>,
    pub(super) to: To,
    /// Whether `to` is what it was before the last change.
    pub(super) before: bool,
    pub(super) how: How,
    pub(super) expect: Expect,
    pub(super) by_design: Option<ByDesign>,
}

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// The objects, and with them the rules, become these.
    Become(State),
    Probe(Probe),
    /// A flow that stays open, under a name.
    Open(&'static str, Probe),
    /// The flow still works, and with what it was opened to (TCP), or one of the endpoints expected (UDP).
    Again(&'static str, Expect),
    /// A client with affinity of a second that waits longer meets each endpoint sooner or later.
    Forgets(Probe),
    /// kpx ends, and another takes up its dataplane; the rules have nothing that could end.
    Restart,
    /// The maps have an entry for this SCTP port; kernels without SCTP cannot try it.
    Programmed(To),
}

/// One behaviour.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) id: &'static str,
    pub(super) section: Section,
    /// Names of Kubernetes' tests.
    pub(super) tests: &'static [&'static str],
    pub(super) says: &'static str,
    pub(super) steps: Vec<Step>,
    /// The family that it is about, if not both.
    pub(super) only: Option<Family>,
    /// Why kpx does not do it yet.
    pub(super) pending: Option<&'static str>,
}

impl Behaviour {
    pub(super) const fn new(
        id: &'static str,
        section: Section,
        tests: &'static [&'static str],
        says: &'static str,
    ) -> Self {
        Self { id, section, tests, says, steps: Vec::new(), only: None, pending: None }
    }

    pub(super) fn step(mut self, step: impl Into<Step>) -> Self {
        self.steps.push(step.into());
        self
    }

    pub(super) const fn only(mut self, family: Family) -> Self {
        self.only = Some(family);
        self
    }

    /// Whether the world stays as it was recorded throughout.
    pub(super) fn is_still(&self) -> bool {
        !self.steps.iter().any(|s| matches!(s, Step::Become(_) | Step::Restart))
    }

    /// The states that it goes through.
    pub(super) fn states(&self) -> impl Iterator<Item = State> {
        self.steps.iter().filter_map(|step| match step {
            Step::Become(state) => Some(*state),
            _ => None,
        })
    }

    /// The probes, of flows too.
    pub(super) fn probes(&self) -> impl Iterator<Item = &Probe> {
        self.steps.iter().filter_map(|step| match step {
            Step::Probe(probe) | Step::Open(_, probe) | Step::Forgets(probe) => Some(probe),
            _ => None,
        })
    }
}

impl From<Probe> for Step {
    fn from(probe: Probe) -> Self {
        Self::Probe(probe)
    }
}

/// A probe over TCP.
pub(super) const fn tcp(from: Place, to: To) -> Probe {
    Probe { from, port: None, to, before: false, how: How::Tcp, expect: Expect::Silence, by_design: None }
}

/// A probe by an unconnected UDP socket.
pub(super) const fn udp(from: Place, to: To) -> Probe {
    tcp(from, to).how(How::Udp)
}

impl Probe {
    pub(super) const fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }

    pub(super) const fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    pub(super) const fn before(mut self) -> Self {
        self.before = true;
        self
    }

    pub(super) fn expect(mut self, expect: Expect) -> Self {
        self.expect = expect;
        self
    }

    /// These endpoints answer and see this source.
    pub(super) fn answers(self, endpoints: &'static str, source: Source) -> Self {
        self.expect(answers(endpoints, source))
    }

    pub(super) fn by_design(mut self, expect: Expect, reason: &'static str) -> Self {
        self.by_design = Some(ByDesign { expect, reason });
        self
    }
}

pub(super) fn answers(endpoints: &'static str, source: Source) -> Expect {
    Expect::Answers(endpoints.split(' ').map(|name| (name, source)).collect())
}

/// The endpoints of an expectation with what they see.
impl Expect {
    pub(super) fn endpoints(&self) -> BTreeMap<&'static str, Source> {
        match self {
            Self::Answers(all) => all.iter().copied().collect(),
            Self::OneOf(names, source) => names.split(' ').map(|name| (name, *source)).collect(),
            Self::Refused | Self::Silence | Self::Unserved | Self::Error(_) => BTreeMap::new(),
        }
    }
}
