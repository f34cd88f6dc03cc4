//! A packet on its way through rules, with what was decided so far.

use std::net::SocketAddr;

use super::{Around, End, Packet, Step, Way};
use crate::model::TrafficSource;

/// Where in the stack a packet is: netfilter's hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

impl Hook {
    /// nftables' name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }
}

/// A packet on its way.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) probability: f64,
    pub(super) steps: Vec<Step>,
    pub(super) compared: usize,
    pub(super) hook: Hook,
    pub(super) destination: SocketAddr,
    pub(super) mark: u32,
    pub(super) translated: bool,
    pub(super) masqueraded: bool,
    /// Whether IPVS has given it a server.
    pub(super) served: bool,
    /// The number it has drawn in the balance that it comes to next, where that is settled.
    pub(super) lot: Option<usize>,
    /// Whether it has left a socket of the node and comes in by `lo`.
    pub(super) looped: bool,
}

impl Trail {
    pub(super) const fn new(packet: &Packet) -> Self {
        Self {
            probability: 1.0,
            steps: Vec::new(),
            compared: 0,
            hook: match packet.origin {
                TrafficSource::Node => Hook::Output,
                TrafficSource::Outside | TrafficSource::Pod => Hook::Prerouting,
            },
            destination: packet.destination,
            mark: 0,
            translated: false,
            masqueraded: false,
            served: false,
            lot: None,
            looped: false,
        }
    }

    /// Takes the packet to the next hook; `false` at the end of the way.
    pub(super) fn go_on(&mut self, around: &Around) -> bool {
        let local = around.is_local(self.destination.ip()) == Some(true);
        self.hook = match self.hook {
            Hook::Prerouting if local => Hook::Input,
            Hook::Prerouting => Hook::Forward,
            Hook::Forward | Hook::Output => Hook::Postrouting,
            Hook::Postrouting if local && !self.looped => {
                self.looped = true;
                Hook::Prerouting
            }
            Hook::Postrouting | Hook::Input => return false,
        };
        true
    }

    /// Splits off the part of the packets that goes another way.
    pub(super) fn split(&mut self, probability: f64) -> Self {
        let mut other = self.clone();
        other.probability *= probability;
        self.probability *= 1.0 - probability;
        other
    }

    pub(super) fn step(&mut self, at: String, does: impl Into<String>, text: String) {
        self.steps.push(Step { hook: self.hook.name(), at, does: does.into(), text });
    }

    /// The interface that the packet came in by, as rules at this hook see it; `None` where it came in by none.
    pub(super) fn incoming<'a>(&self, packet: &'a Packet) -> Option<&'a str> {
        match (self.hook, self.looped) {
            (Hook::Output | Hook::Postrouting, _) => None,
            (_, true) => Some("lo"),
            (_, false) => packet.interface.as_deref(),
        }
    }

    pub(super) fn ends(self, packet: &Packet, verdict: Option<End>) -> Way {
        let nodes_source = self.masqueraded || packet.origin == TrafficSource::Node;
        let arrives =
            if self.translated { End::Backend { to: self.destination, nodes_source } } else { End::Untouched };
        let end = verdict.unwrap_or(arrives);
        Way { probability: self.probability, steps: self.steps, compared: self.compared, end }
    }
}
