//! nfacct objects: counters with a name that rules may use, by nfnetlink_acct's own messages.

use std::io;

use super::kernel::Part;
use super::netlink::{Netlink, NetlinkError, Request, attributes};

// linux/netfilter/nfnetlink.h, nfnetlink_acct.h
const SUBSYSTEM: u8 = 7;
const NEW: u8 = 0;
const GET: u8 = 1;
const DELETE: u8 = 3;
const NAME: u16 = 1;

/// The names of all objects of this network namespace; none where the kernel has no such objects.
pub fn counters() -> Result<Vec<String>, NetlinkError> {
    if !Part::Nfacct.is_there().map_err(NetlinkError::Socket)? {
        return Ok(Vec::new());
    }
    let mut netlink = Netlink::netfilter()?;
    netlink.dump_steady(&Request::netfilter(SUBSYSTEM, GET, 0), |_, body| {
        let (_, name) = attributes(body.get(4..)?).find(|(kind, _)| *kind == NAME)?;
        Some(String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(name)).into_owned())
    })
}

/// Makes objects; those that are there already stay as they are.
pub fn make_counters(names: &[String]) -> Result<(), NetlinkError> {
    tell(names, NEW, true, io::ErrorKind::AlreadyExists)
}

/// Deletes objects; those that are not there are no error.
pub fn delete_counters(names: &[String]) -> Result<(), NetlinkError> {
    tell(names, DELETE, false, io::ErrorKind::NotFound)
}

fn tell(names: &[String], message: u8, create: bool, fine: io::ErrorKind) -> Result<(), NetlinkError> {
    if names.is_empty() {
        return Ok(());
    }
    let mut netlink = Netlink::netfilter()?;
    let request =
        |name: &String| Request::netfilter(SUBSYSTEM, message, 0).with(NAME, &[name.as_bytes(), b"\0"].concat());
    for outcome in netlink.tell(&names.iter().map(request).collect::<Vec<_>>(), create)? {
        match outcome {
            Err(error) if error.kind() != fine => return Err(NetlinkError::Refused(error)),
            _ => {}
        }
    }
    Ok(())
}
