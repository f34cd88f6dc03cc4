//! The connection tracking table and its statistics, by ctnetlink (linux/netfilter/nfnetlink_conntrack.h).
//!
//! `/proc/net/nf_conntrack` is left out of many kernels, the conntrack tool is on few nodes, and both keep quiet about the bits
//! that tell who translates.

use std::fmt::Write as _;
use std::io;

use fs_err as fs;

use super::error::CaptureError;
use super::item::Item;
use super::kernel::Part;
use super::netlink::{Netlink, Request, attributes};
use super::{Captured, live};

pub(super) const PLACE: &str = "ctnetlink";
/// Of this thread, so that a thread in another namespace than the process sees its own.
const TEXT: &str = "/proc/thread-self/net/nf_conntrack";

/// `NFNL_SUBSYS_CTNETLINK`.
const SUBSYSTEM: u8 = 1;
const GET: u8 = 1;
const GET_STATS_CPU: u8 = 4;
/// Length of `nfgenmsg`, whose last two bytes are the number of the processor, big-endian.
const NETFILTER_HEADER: usize = 4;

/// `enum ctattr_stats_cpu`, as `conntrack -S` calls and orders them.
const COUNTERS: [(u16, &str); 10] = [
    (2, "found"),
    (4, "invalid"),
    (8, "insert"),
    (9, "insert_failed"),
    (10, "drop"),
    (11, "early_drop"),
    (12, "error"),
    (13, "search_restart"),
    (14, "clash_resolve"),
    (15, "chaintoolong"),
];

pub(super) fn table() -> Result<Captured, CaptureError> {
    let item = Item::Conntrack;
    let failed = |source| CaptureError::Netlink { item, source };
    if let Some(mut netlink) = Netlink::conntrack().map_err(failed)? {
        let mut bytes = Vec::new();
        // Family 0 is every family.
        netlink.record(&Request::netfilter(SUBSYSTEM, GET, 0), &mut bytes).map_err(failed)?;
        return Ok(Captured::Present { bytes, place: PLACE.to_owned() });
    }
    match fs::read(TEXT) {
        Ok(bytes) => Ok(Captured::Present { bytes, place: TEXT.replace("/thread-self", "") }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(live::nothing(Part::Ctnetlink, b"")),
        Err(source) => Err(CaptureError::Kernel { item, place: TEXT, source }),
    }
}

/// The statistics in the form of `conntrack -S`.
pub(super) fn stats() -> Result<Captured, CaptureError> {
    let failed = |source| CaptureError::Netlink { item: Item::ConntrackStats, source };
    let Some(mut netlink) = Netlink::conntrack().map_err(failed)? else {
        return Ok(live::nothing(Part::Ctnetlink, b""));
    };
    let mut text = String::new();
    netlink
        .dump(&Request::netfilter(SUBSYSTEM, GET_STATS_CPU, 0), |_, body| text.push_str(&line(body)))
        .map_err(failed)?;
    Ok(Captured::Present { bytes: text.into_bytes(), place: PLACE.to_owned() })
}

fn line(body: &[u8]) -> String {
    let Some((header, rest)) = body.split_first_chunk::<NETFILTER_HEADER>() else { return String::new() };
    let mut line = format!("cpu={}   \t", u16::from_be_bytes([header[2], header[3]]));
    for (kind, name) in COUNTERS {
        let value = attributes(rest).find(|(k, _)| *k == kind).and_then(|(_, value)| value.first_chunk());
        // Writing to a string cannot fail.
        let _ = value.map(|b| write!(line, "{name}={} ", u32::from_be_bytes(*b)));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::super::netlink::attribute;
    use super::*;

    #[test]
    fn a_processor_is_a_line_as_of_the_tool() {
        let mut body = vec![0, 0, 0, 3];
        attribute(&mut body, 4, &7_u32.to_be_bytes());
        attribute(&mut body, 2, &1_u32.to_be_bytes());
        assert_eq!(line(&body), "cpu=3   \tfound=1 invalid=7 \n");
        assert_eq!(line(&[0]), "");
    }
}
