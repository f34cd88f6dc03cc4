//! The ways that packets take: those that are told, and the packets yet to be followed.

use super::trail::Trail;
use super::{End, Packet, Path};

/// Most ways of one packet: more than any Service has endpoints.
const MOST_WAYS: usize = 20_000;

/// Most rules compared and steps kept for all ways of a packet together, so that rules which call each other in every way there is
/// come to an end, too: some ten times what the largest clusters' take.
const MOST_STEPS: usize = 1 << 20;

/// A packet, and where in the rules it stands.
#[derive(Clone)]
pub(super) struct Place<A> {
    pub(super) trail: Trail,
    pub(super) at: A,
}

/// Ways told, and packets yet to be followed, the last one first.
pub(super) struct Ways<A> {
    path: Path,
    open: Vec<Place<A>>,
    steps: usize,
}

impl<A> Ways<A> {
    /// Of a packet that is yet to be followed.
    pub(super) fn of(packet: &Packet, at: A) -> Self {
        Self { path: Path::default(), open: vec![Place { trail: Trail::new(packet), at }], steps: 0 }
    }

    /// The next packet to be followed.
    pub(super) fn next(&mut self) -> Option<Place<A>> {
        self.open.pop()
    }

    /// Leaves a packet for later; `false` if there are too many.
    pub(super) fn later(&mut self, place: Place<A>) -> bool {
        let room = self.open.len() + self.path.ways.len() < MOST_WAYS;
        if room {
            self.steps += place.trail.steps.len();
            self.open.push(place);
        } else {
            self.note(format!("more than {MOST_WAYS} ways: only so many were followed"));
        }
        room
    }

    /// Counts a rule that the packet is compared with; `false` if it has been compared with too many.
    pub(super) fn compare(&mut self, trail: &mut Trail) -> bool {
        trail.compared += 1;
        self.steps += 1;
        if self.steps > MOST_STEPS {
            self.note("the rules lead on and on: the packet was not followed to its end");
        }
        self.steps <= MOST_STEPS
    }

    /// Notes what was taken for granted.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.path.notes.insert(text.into());
    }

    /// A packet has come to its end.
    pub(super) fn end(&mut self, trail: Trail, packet: &Packet, verdict: Option<End>) {
        self.path.ways.push(trail.ends(packet, verdict));
    }

    /// All ways, once every packet was followed.
    pub(super) fn path(self) -> Path {
        self.path
    }
}
