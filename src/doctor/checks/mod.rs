//! The questions, in the order in which a connection would fail.

mod attached;
mod kept;
mod known;
mod met;
mod served;

use super::patient::Patient;
use super::{Ailment, Cause, Check, Evidence, Finding};

const fn check(name: &'static str, question: &'static str, run: fn(&Patient<'_>) -> Finding) -> Check {
    Check { name, question, run }
}

/// All of them.
pub const CHECKS: [Check; 14] = [
    check("api", "Is it in the API?", known::api),
    check("endpoints", "Has it endpoints?", known::endpoints),
    check("serves", "Does anybody serve here?", served::serves),
    check("programmed", "Is it served as asked?", served::programmed),
    check("sockets", "Are hooks on its sockets?", attached::sockets),
    check("devices", "Are programs on devices?", attached::devices),
    check("first", "Is somebody in front?", attached::first),
    check("way", "Where do packets end?", met::way),
    check("host", "Does it answer the host?", met::host),
    check("pod", "Does it answer a pod?", met::pod),
    check("source", "Whose address is seen?", met::source),
    check("affinity", "Do clients stick?", kept::affinity),
    check("udp", "Do datagrams arrive?", kept::udp),
    check("drops", "Does a drop count move?", kept::drops),
];
