//! From a node: live by netlink, recorded from whichever form is there.

use std::num::NonZero;
use std::thread;

use super::decode::{self, ID, NETFILTER_HEADER, STATUS_MASK, SUBSYSTEM, TUPLE_ORIG, ZONE, decode, replay};
use super::entry::{Entry, Status};
use super::text::parse;
use crate::capture::netlink::{Netlink, NetlinkError, Request, attributes};
use crate::capture::{CaptureError, Captured, Item, Node};
use crate::error::Hinted;

/// `IPCTNL_MSG_CT_GET`.
const GET: u8 = 1;
/// `IPCTNL_MSG_CT_DELETE`.
const DELETE: u8 = 2;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// How the entries came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// By ctnetlink, with every status bit.
    Netlink,
    /// As text, which tells no NAT bits.
    Text,
}

/// Why the entries could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// They may be there, but could not be read.
    #[error("cannot read the connection tracking table")]
    Capture(#[source] CaptureError),
    /// The kernel did not tell, or a recording is cut short.
    #[error("cannot read the connection tracking table from {place}")]
    Netlink {
        /// The kernel, or a file.
        place: String,
        /// Why.
        source: NetlinkError,
    },
    /// The table was not captured.
    #[error("no connection tracking table was captured: {reason}")]
    NotCaptured {
        /// Why.
        reason: String,
    },
}

impl Hinted for ConntrackError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Capture(source) => source.hints(),
            Self::Netlink { source, .. } => source.hints(),
            Self::NotCaptured { .. } => vec!["record it on the node with: kpx snapshot node.tar.zst".to_owned()],
        }
    }
}

/// Hands every entry of a node's table to `each`, one at a time.
///
/// On a node with several processors the kernel is asked for parts of the table at once.
pub fn read_node(node: &Node, each: impl FnMut(&Entry)) -> Result<Form, ConntrackError> {
    if node.is_live() {
        let failed = |source| ConntrackError::Netlink { place: "the kernel".to_owned(), source };
        if let Some(netlink) = Netlink::conntrack().map_err(failed)? {
            return walk_at_once(netlink, each).map(|()| Form::Netlink).map_err(failed);
        }
    }
    match node.read(Item::Conntrack).map_err(ConntrackError::Capture)? {
        Captured::Present { bytes, place } => {
            read_recorded(&bytes, each).map_err(|source| ConntrackError::Netlink { place, source })
        }
        Captured::Absent { reason } => Err(ConntrackError::NotCaptured { reason }),
    }
}

/// Processors that are used at most: a node has other work.
const MOST_THREADS: usize = 4;

fn walk_at_once(mut netlink: Netlink, mut each: impl FnMut(&Entry)) -> Result<(), NetlinkError> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST_THREADS);
    if threads == 1 {
        return walk(&mut netlink, |entry, _| each(entry));
    }
    let mut sockets = vec![netlink];
    for _ in 1..threads {
        sockets.extend(Netlink::conntrack()?);
    }
    Netlink::dump_parts(sockets, &parts(threads), |kind, body| {
        if let Some(entry) = decode(kind, body) {
            each(&entry);
        }
    })
}

/// The table in parts: by what nf_nat changes, which is settled before an entry comes into the table, so that each is in one part for
/// good. For each part the kernel walks the whole table, so there are no more than threads.
///
/// Linux before 5.15 does not filter by status.
fn parts(threads: usize) -> Vec<Request> {
    let (destination, source) = (Status::DESTINATION_NAT, Status::SOURCE_NAT);
    let (mask, parts) = if threads < MOST_THREADS {
        (destination, &[destination, 0][..])
    } else {
        (destination | source, &[destination, 0, source, destination | source][..])
    };
    let part = |bits: &u32| {
        Request::netfilter(SUBSYSTEM, GET, 0)
            .with(decode::STATUS, &bits.to_be_bytes())
            .with(STATUS_MASK, &mask.to_be_bytes())
    };
    parts.iter().map(part).collect()
}

/// Hands every entry of this network namespace's table to `each`, one at a time, with the message it came in.
pub fn walk(netlink: &mut Netlink, mut each: impl FnMut(&Entry, &[u8])) -> Result<(), NetlinkError> {
    // Family 0 is every family.
    netlink.dump(&Request::netfilter(SUBSYSTEM, GET, 0), |kind, body| {
        if let Some(entry) = decode(kind, body) {
            each(&entry, body);
        }
    })
}

/// The request that deletes the entry of a message, and no later one of the same addresses; `None` if it is no entry.
pub fn deletion(body: &[u8]) -> Option<Request> {
    let family = *body.first()?;
    let attributes: Vec<_> = attributes(body.get(NETFILTER_HEADER..)?).collect();
    let of = |wanted: u16| attributes.iter().find(|(kind, _)| *kind == wanted).map(|(_, value)| *value);
    let mut request = Request::netfilter(SUBSYSTEM, DELETE, family).with(NESTED | TUPLE_ORIG, of(TUPLE_ORIG)?);
    for kind in [ID, ZONE] {
        if let Some(value) = of(kind) {
            request = request.with(kind, value);
        }
    }
    Some(request)
}

/// The entries in the bytes of [`Item::Conntrack`], of either form.
pub fn read_recorded(bytes: &[u8], each: impl FnMut(&Entry)) -> Result<Form, NetlinkError> {
    // Bytes 4 and 5 of a message are its type, a small number, of which one byte is zero; no text has such a byte.
    let is_text = bytes.get(4..6).is_none_or(|kind| !kind.contains(&0));
    if is_text {
        parse(bytes, each);
        return Ok(Form::Text);
    }
    replay(bytes, each).map(|()| Form::Netlink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_in_one_part() {
        for threads in [2, 3, 4] {
            let parts: Vec<_> = parts(threads)
                .iter()
                .map(|part| {
                    let number = |wanted| {
                        let (_, value) =
                            attributes(&part.body[NETFILTER_HEADER..]).find(|(kind, _)| *kind == wanted)?;
                        value.first_chunk().map(|b| u32::from_be_bytes(*b))
                    };
                    (number(decode::STATUS).expect("a status"), number(STATUS_MASK).expect("a mask"))
                })
                .collect();
            assert!(parts.len() <= threads);
            for bits in 0..1 << 6 {
                assert_eq!(parts.iter().filter(|(status, mask)| bits & mask == *status).count(), 1, "{bits:#x}");
            }
        }
    }
}
