//! BPF programs, links and maps of the host, as the kernel lists them.

use std::fmt::Debug;
use std::io;

use aya::maps::{MapError, loaded_maps};
use aya::programs::links::LinkError;
use aya::programs::{ProgramError, loaded_links, loaded_programs};
use serde::{Deserialize, Serialize};

/// The content of `bpf.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfObjects {
    /// Loaded programs, by id.
    pub programs: Vec<BpfProgram>,
    /// Links, by id. Attachments without a link (`BPF_PROG_ATTACH`, netlink) are not among them.
    pub links: Vec<BpfLink>,
    /// Maps, by id.
    pub maps: Vec<BpfMap>,
}

/// A loaded program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfProgram {
    /// Id, unique until reboot.
    pub id: u32,
    /// `enum bpf_prog_type` in lower case, without its prefix: `cgroup_sock_addr`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name, cut by the kernel at 15 bytes.
    pub name: String,
    /// Hash of the instructions, 16 hexadecimal digits.
    pub tag: String,
    /// Ids of the maps that it uses.
    pub map_ids: Vec<u32>,
}

/// A link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfLink {
    /// Id, unique until reboot.
    pub id: u32,
    /// `enum bpf_link_type` in lower case, without its prefix: `cgroup`, `tcx`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Id of the program.
    pub prog_id: u32,
}

/// A map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfMap {
    /// Id, unique until reboot.
    pub id: u32,
    /// Type in lower case with underscores: `lru_hash`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Name, cut by the kernel at 15 bytes.
    pub name: String,
    /// Size of a key in bytes.
    pub key_size: u32,
    /// Size of a value in bytes.
    pub value_size: u32,
    /// Most entries.
    pub max_entries: u32,
    /// `BPF_F_…` flags.
    pub flags: u32,
}

impl BpfObjects {
    /// Lists them all. Objects that go away meanwhile are left out.
    pub fn read() -> io::Result<Self> {
        let mut objects = Self::default();
        for program in loaded_programs() {
            let Some(program) = there(program.map_err(of_program))? else { continue };
            let Some(map_ids) = there(program.map_ids().map_err(of_program))? else { continue };
            objects.programs.push(BpfProgram {
                id: program.id(),
                kind: lower(&program.program_type(), "BPF_PROG_TYPE_"),
                name: text(program.name()),
                tag: format!("{:016x}", program.tag()),
                map_ids: map_ids.unwrap_or_default(),
            });
        }
        for link in loaded_links() {
            let Some(link) = there(link.map_err(of_link))? else { continue };
            let kind = link.link_type().map_or_else(|_| "unknown".to_owned(), |kind| snake(&kind));
            objects.links.push(BpfLink { id: link.id(), kind, prog_id: link.program_id() });
        }
        for map in loaded_maps() {
            let Some(map) = there(map.map_err(of_map))? else { continue };
            objects.maps.push(BpfMap {
                id: map.id(),
                kind: map.map_type().map_or_else(|_| "unknown".to_owned(), |kind| snake(&kind)),
                name: text(map.name()),
                key_size: map.key_size(),
                value_size: map.value_size(),
                max_entries: map.max_entries(),
                flags: map.map_flags(),
            });
        }
        Ok(objects)
    }
}

/// Between its id and its description an object can vanish.
fn there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn of_program(error: ProgramError) -> io::Error {
    match error {
        ProgramError::SyscallError(e) => e.io_error,
        ProgramError::IOError(e) => e,
        other => io::Error::other(other),
    }
}

fn of_link(error: LinkError) -> io::Error {
    match error {
        LinkError::SyscallError(e) => e.io_error,
        other => io::Error::other(other),
    }
}

fn of_map(error: MapError) -> io::Error {
    match error {
        MapError::SyscallError(e) => e.io_error,
        MapError::IoError(e) => e,
        other => io::Error::other(other),
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn lower(name: &impl Debug, prefix: &str) -> String {
    let name = format!("{name:?}");
    name.strip_prefix(prefix).unwrap_or(&name).to_lowercase()
}

/// `LruHash` → `lru_hash`.
fn snake(name: &impl Debug) -> String {
    let mut out = String::new();
    for c in format!("{name:?}").chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
