//! From a node: live by netlink, recorded from whichever form is there.

use super::decode::{ID, NETFILTER_HEADER, SUBSYSTEM, TUPLE_ORIG, ZONE, decode, replay};
use super::entry::Entry;
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
pub fn read_node(node: &Node, mut each: impl FnMut(&Entry)) -> Result<Form, ConntrackError> {
    if node.is_live() {
        let failed = |source| ConntrackError::Netlink { place: "the kernel".to_owned(), source };
        if let Some(mut netlink) = Netlink::conntrack().map_err(failed)? {
            return walk(&mut netlink, |entry, _| each(entry)).map(|()| Form::Netlink).map_err(failed);
        }
    }
    match node.read(Item::Conntrack).map_err(ConntrackError::Capture)? {
        Captured::Present { bytes, place } => {
            read_recorded(&bytes, each).map_err(|source| ConntrackError::Netlink { place, source })
        }
        Captured::Absent { reason } => Err(ConntrackError::NotCaptured { reason }),
    }
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
