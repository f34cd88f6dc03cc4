//! What keeps the kernel's conntrack and NAT at work for running flows, whatever becomes of kube-proxy's rules.
//!
//! The kernel translates in a network namespace while somebody's rules use conntrack and have a chain of type nat, and no
//! longer: without the table of this module the flows that the rules have begun would stand still with the last rule's
//! removal, though conntrack goes on listing them.

use crate::capture::command::{self, CommandError};
use crate::migrate::marks::Marks;

/// The table, of family `inet`: one for IPv4 and IPv6.
pub(super) const TABLE: &str = "kpx_hold";

/// The table's text. Priorities are numbers, since their names are refused at some hooks.
fn text(unseen: u32) -> String {
    format!(
        "add table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
    chain nat {{ type nat hook prerouting priority -100; }}
    chain conntrack {{ type filter hook forward priority 300; ct state established accept; }}
    chain unseen_in {{ type filter hook prerouting priority -300; meta mark & {unseen:#x} == {unseen:#x} notrack; }}
    chain unseen_out {{ type filter hook output priority -300; meta mark & {unseen:#x} == {unseen:#x} notrack; }}
}}
"
    )
}

/// Whether the table stands as [`put`] makes it.
pub(super) fn stands(marks: Marks) -> Result<bool, CommandError> {
    let listed = command::run("nft", ["list", "table", "inet", TABLE], None)?;
    if !listed.status.success() {
        return Ok(false);
    }
    let listed = String::from_utf8_lossy(&listed.stdout);
    let notrack = format!("meta mark & {0:#010x} == {0:#010x} notrack", marks.unseen);
    Ok(listed.contains("type nat hook prerouting")
        && listed.contains("ct state established accept")
        && listed.matches(&notrack).count() == 2)
}

/// Whether anything of it stands.
pub(super) fn exists() -> Result<bool, CommandError> {
    Ok(command::run("nft", ["list", "table", "inet", TABLE], None)?.status.success())
}

/// Makes the table, in one transaction; one that is there in another form is replaced.
pub(super) fn put(marks: Marks) -> Result<(), CommandError> {
    command::output("nft", ["-f", "-"], Some(text(marks.unseen).as_bytes())).map(drop)
}

/// Deletes the table. Twice is no error.
pub(super) fn away() -> Result<(), CommandError> {
    let text = format!("add table inet {TABLE}\ndelete table inet {TABLE}\n");
    command::output("nft", ["-f", "-"], Some(text.as_bytes())).map(drop)
}
