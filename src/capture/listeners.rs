//! Who listens on which TCP port, from /proc.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fs_err as fs;
use serde::{Deserialize, Serialize};

/// A listening TCP socket of the network namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Listener {
    /// Port.
    pub port: u16,
    /// Address; unspecified for all of the family.
    pub ip: IpAddr,
    /// Process that holds it, where the kernel lets us see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The process's name, cut by the kernel at 15 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
}

/// The content of `listeners.json`: sorted by port.
pub(super) fn read() -> io::Result<Vec<Listener>> {
    let mut found = Vec::new();
    for file in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        match fs::read_to_string(file) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(listening)),
            // A kernel without IPv6.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    let holders = holders();
    let mut listeners: Vec<_> = found
        .into_iter()
        .map(|(ip, port, inode)| {
            let (pid, program) = holders.get(&inode).cloned().unzip();
            Listener { port, ip, pid, program }
        })
        .collect();
    listeners.sort();
    listeners.dedup();
    Ok(listeners)
}

/// Address, port and inode of one line, if its socket listens.
fn listening(line: &str) -> Option<(IpAddr, u16, u64)> {
    const LISTEN: &str = "0A";
    let mut words = line.split_ascii_whitespace();
    let local = words.nth(1)?;
    if words.nth(1)? != LISTEN {
        return None;
    }
    let inode = words.nth(5)?.parse().ok()?;
    let (ip, port) = local.split_once(':')?;
    Some((address(ip)?, u16::from_str_radix(port, 16).ok()?, inode))
}

/// The kernel prints an address as 32-bit words in its own byte order.
fn address(hex: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for word in hex.as_bytes().chunks(8) {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        bytes.extend(word.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into()),
        16 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into()),
        _ => None,
    }
}

/// Process and name by the inode of a socket that it holds. Processes that end meanwhile, or are not ours to see, are left out.
fn holders() -> HashMap<u64, (u32, String)> {
    let mut holders = HashMap::new();
    for (pid, comm) in super::processes::names() {
        let Ok(open) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in open.flatten() {
            let Ok(target) = fs::read_link(file.path()) else { continue };
            let inode = target.to_str().and_then(|t| t.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                holders.insert(inode, (pid, comm.clone()));
            }
        }
    }
    holders
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::{listening, read};

    #[test]
    fn a_socket_of_ours_is_found_with_its_process() {
        for bind in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(socket) = TcpListener::bind(bind) else { continue };
            let local = socket.local_addr().expect("it is bound");
            let all = read().expect("/proc can be read");
            let ours = all.iter().find(|l| l.port == local.port() && l.ip == local.ip()).expect("it is listed");
            assert_eq!(ours.pid, Some(std::process::id()));
        }
    }

    #[test]
    fn only_listening_sockets() {
        let line = "   0: 0100007F:2809 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 23456 1 0 100 0";
        assert_eq!(listening(line), Some(([127, 0, 0, 1].into(), 10249, 23456)));
        assert_eq!(listening(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(listening("  sl  local_address rem_address   st"), None);
    }
}
