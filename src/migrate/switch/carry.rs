//! Flows of IPVS that the packet path cannot have: of the node's own sockets, and to them. nf_nat carries them on, in a zone of
//! conntrack, and table `inet kpx_carry` says which packets are in it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::packets;
use crate::capture::command::{self, CommandError};
use crate::dataplane::handover::{SETTLE, Unfit, come_back, go_beside, leave, stands_beside};
use crate::inspect::conntrack::{Entry, Translator};
use crate::inspect::proxy_rules::RulesMode;
use crate::migrate::phase::{Check, Lasting, Step};
use crate::migrate::steps::Facts;
use crate::migrate::world::{NodeWorld, StepError};

const TABLE: &str = "kpx_carry";
/// The zone: nobody's but kpx's.
const ZONE: u16 = 0x6b70;
/// How often it is looked for flows that IPVS has begun meanwhile.
const LOOKS: usize = 5;

/// Makes the table if it is not there; what its sets hold stays.
fn table() -> String {
    let mut text = format!("add table inet {TABLE}\n");
    for (number, kind) in [(4, "ipv4_addr"), (6, "ipv6_addr")] {
        let _ = writeln!(
            text,
            "add set inet {TABLE} flows{number} {{ type {kind} . inet_proto . inet_service . {kind} . inet_service; }}"
        );
    }
    for hook in ["prerouting", "output"] {
        let _ = writeln!(text, "add chain inet {TABLE} {hook} {{ type filter hook {hook} priority -300; }}");
        let _ = writeln!(text, "flush chain inet {TABLE} {hook}");
        for (number, family) in [(4, "ip"), (6, "ip6")] {
            let _ = writeln!(
                text,
                "add rule inet {TABLE} {hook} {family} saddr . meta l4proto . th sport . {family} daddr . th dport @flows{number} ct \
                 zone set {ZONE}"
            );
        }
    }
    text
}

fn element(from: SocketAddr, to: SocketAddr, protocol: u8) -> String {
    let number = if from.is_ipv4() { 4 } else { 6 };
    let tuple = format!("{} . {protocol} . {} . {} . {}", from.ip(), from.port(), to.ip(), to.port());
    format!("add element inet {TABLE} flows{number} {{ {tuple} }}\n")
}

/// Both directions of these flows, as conntrack meets them.
fn elements(flows: &[Entry]) -> String {
    let of = |entry: &Entry| {
        let (there, back) = (entry.original, entry.reply);
        element(there.source, there.destination, entry.protocol)
            + &element(back.source, back.destination, entry.protocol)
    };
    flows.iter().map(of).collect()
}

/// Whether the table is there.
pub(super) fn exists() -> Result<bool, CommandError> {
    let listed = command::run("nft", ["list", "chains", "inet"], None)?;
    Ok(String::from_utf8_lossy(&listed.stdout).contains(&format!("table inet {TABLE} ")))
}

/// Deletes the table, in one transaction. Twice is no error.
pub(super) fn away() -> Result<(), CommandError> {
    let text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
    command::output("nft", ["-f", "-"], Some(text.as_bytes())).map(drop)
}

/// Brings the flows back out of the zone, to IPVS where that has them still, to nf_nat else; how many.
pub(super) fn back(world: &NodeWorld<'_>) -> Result<usize, StepError> {
    if world.facts.mode != Some(RulesMode::Ipvs) || !exists()? {
        return Ok(0);
    }
    let beside: Vec<Entry> = world.entries()?.into_iter().filter(|entry| stands_beside(entry, ZONE)).collect();
    let flows = come_back(&beside)?.len();
    away()?;
    std::thread::sleep(SETTLE);
    leave(&beside, 0)?;
    Ok(flows)
}

/// Lets nf_nat carry what IPVS has and the packet path cannot have.
pub(in crate::migrate) struct CarrySockets;

impl Step<NodeWorld<'_>> for CarrySockets {
    fn id(&self) -> &'static str {
        "carry-sockets"
    }

    /// Whoever detaches the packet path brings them back.
    fn lasting(&self) -> Lasting {
        Lasting::Record
    }

    fn describe(&self, _facts: &Facts) -> String {
        format!(
            "let nf_nat carry the flows of IPVS that are of the node's own sockets or end at them, by overlap: in a conntrack \
             zone that nftables table inet {TABLE} puts their packets in"
        )
    }

    fn check(&self, world: &mut NodeWorld<'_>) -> Result<Check, StepError> {
        packets::attached(world)
    }

    fn perform(&self, world: &mut NodeWorld<'_>) -> Result<(), StepError> {
        let mut carried = 0;
        for look in 0..LOOKS {
            let (entries, ipvs) = (world.entries()?, world.ipvs_connections()?);
            let left = world.installed()?.importable(&entries, &ipvs)?.left;
            let wanted = |(entry, why): &(Entry, Unfit)| {
                let of_sockets = matches!(why, Unfit::OwnSocket | Unfit::OwnBackend);
                of_sockets && entry.zone == 0 && entry.translator() != Some(Translator::Netfilter)
            };
            let left: Vec<Entry> = left.into_iter().filter(wanted).map(|(entry, _)| entry).collect();
            if left.is_empty() && look > 0 {
                break;
            }
            let made = go_beside(&left, ZONE)?;
            let text = table() + &elements(&made);
            command::output("nft", ["-f", "-"], Some(text.as_bytes()))?;
            std::thread::sleep(SETTLE);
            leave(&made, ZONE)?;
            carried += made.len();
        }
        world.count("flows_carried_beside", carried);
        world.note(format!("{carried} flows of IPVS to or from sockets of the node are nf_nat's now"));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::conntrack::{Status, Tuple};

    #[test]
    fn both_directions_are_named_as_conntrack_meets_them() {
        let at = |text: &str| text.parse().expect("an address with a port");
        let entry = Entry {
            protocol: 6,
            original: Tuple { source: at("10.96.0.10:4000"), destination: at("10.96.0.10:80") },
            reply: Tuple { source: at("10.244.2.2:8080"), destination: at("192.0.2.1:5000") },
            status: Status::all(0),
            state: Some("ESTABLISHED"),
            timeout: Some(9),
            counters: None,
            mark: 0,
            zone: 0,
            id: None,
        };
        assert_eq!(
            elements(&[entry]),
            "add element inet kpx_carry flows4 { 10.96.0.10 . 6 . 4000 . 10.96.0.10 . 80 }\n\
             add element inet kpx_carry flows4 { 10.244.2.2 . 6 . 8080 . 192.0.2.1 . 5000 }\n"
        );
    }
}
