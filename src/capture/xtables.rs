//! The tables of legacy iptables as the kernel holds them: for a question that needs no tool and no text.

use std::io;
use std::mem::size_of;
use std::os::fd::AsRawFd as _;

use rustix::net::{AddressFamily, SocketType, socket};

use crate::model::Family;

// linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h: the numbers are the same.
const SO_GET_INFO: i32 = 64;
const SO_GET_ENTRIES: i32 = 65;
const NAME: usize = 32;

/// `struct ipt_getinfo`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct Info {
    name: [u8; NAME],
    valid_hooks: u32,
    hook_entry: [u32; 5],
    underflow: [u32; 5],
    num_entries: u32,
    size: u32,
}

/// `struct ipt_get_entries` up to the entries, which begin at a multiple of eight.
const ENTRIES: usize = NAME + 8;

/// How often a table is asked for again that has changed between the question for its size and the other.
const TRIES: usize = 5;

/// The entries of a table of this network namespace; `None` where it has no such table. Asking for one would make it.
pub fn legacy_table(family: Family, table: &str) -> io::Result<Option<Vec<u8>>> {
    let names = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs_err::read_to_string(names) {
        Ok(names) if names.lines().any(|name| name == table) => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let (domain, level) = match family {
        Family::V4 => (AddressFamily::INET, libc::IPPROTO_IP),
        Family::V6 => (AddressFamily::INET6, libc::IPPROTO_IPV6),
    };
    let socket = socket(domain, SocketType::DGRAM, None)?;
    let mut name = [0; NAME];
    name.iter_mut().zip(table.bytes().take(NAME - 1)).for_each(|(to, from)| *to = from);
    for _ in 0..TRIES {
        let mut info = Info { name, ..Info::default() };
        // SAFETY: `Info` is plain numbers.
        #[expect(unsafe_code, reason = "no crate asks xtables; the structure is the kernel's own")]
        let room = unsafe { std::slice::from_raw_parts_mut((&raw mut info).cast::<u8>(), size_of::<Info>()) };
        ask(socket.as_raw_fd(), level, SO_GET_INFO, room)?;
        let mut answer = vec![0; ENTRIES + info.size as usize];
        answer[..NAME].copy_from_slice(&name);
        answer[NAME..NAME + 4].copy_from_slice(&info.size.to_ne_bytes());
        match ask(socket.as_raw_fd(), level, SO_GET_ENTRIES, &mut answer) {
            Ok(()) => {
                answer.drain(..ENTRIES);
                return Ok(Some(answer));
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

fn ask(socket: i32, level: i32, option: i32, room: &mut [u8]) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(room.len()).map_err(io::Error::other)?;
    // SAFETY: `room` is valid for as many bytes as `length` says, and the kernel writes no more than that.
    #[expect(unsafe_code, reason = "no crate asks xtables")]
    let result = unsafe { libc::getsockopt(socket, level, option, room.as_mut_ptr().cast(), &raw mut length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
