//! What a kernel is asked to find out whether it can: tiny programs, maps and links that nobody keeps.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use super::{BatchAttr, address, bpf, cmd, descriptor, raw};

const MAP_CREATE: i32 = 0;
const PROG_LOAD: i32 = 5;
const PROG_TEST_RUN: i32 = 10;
const LINK_CREATE: i32 = 28;

/// One instruction (Documentation/bpf/standardization/instruction-set.rst).
pub(crate) const fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    // The two registers share a byte, in the order of the machine's bit fields.
    let registers = if cfg!(target_endian = "little") { source << 4 | destination } else { destination << 4 | source };
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([code, registers, low, high, a, b, c, d])
}

#[repr(C)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    expected_attach_type: u32,
}

/// Loads a program of a type (`enum bpf_prog_type`) for a hook (`enum bpf_attach_type`).
pub(crate) fn load(kind: u32, hook: u32, instructions: &[u64]) -> io::Result<OwnedFd> {
    const NAME: &[u8; 16] = b"kpx_trial\0\0\0\0\0\0\0";
    let mut attr = LoadAttr {
        kind,
        count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: address(instructions),
        license: address(c"GPL".to_bytes_with_nul()),
        log_level: 0,
        log_size: 0,
        log_buf: 0,
        kernel_version: 0,
        flags: 0,
        name: *NAME,
        ifindex: 0,
        expected_attach_type: hook,
    };
    // SAFETY: instructions and licence outlive the call, which only reads them; there is no log.
    unsafe { bpf(PROG_LOAD, &mut attr) }.map(descriptor)
}

#[repr(C)]
struct CreateAttr {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// Creates a map of a type (`enum bpf_map_type`).
pub(crate) fn map(kind: u32, [key, value, entries]: [u32; 3], flags: u32) -> io::Result<OwnedFd> {
    let mut attr = CreateAttr { kind, key_size: key, value_size: value, max_entries: entries, flags };
    // SAFETY: no pointers.
    unsafe { bpf(MAP_CREATE, &mut attr) }.map(descriptor)
}

/// Writes elements to a map of four-byte keys and values in one call.
pub(crate) fn write_batch(map: BorrowedFd<'_>, elements: &[(u32, u32)]) -> io::Result<usize> {
    let (keys, values): (Vec<u32>, Vec<u32>) = elements.iter().copied().unzip();
    let mut attr = BatchAttr {
        keys: address(keys.as_slice()),
        values: address(values.as_slice()),
        count: u32::try_from(keys.len()).map_err(io::Error::other)?,
        map_fd: raw(map),
        ..BatchAttr::default()
    };
    // SAFETY: `count` keys and values of the map's sizes, which the kernel only reads.
    unsafe { bpf(cmd::MAP_UPDATE_BATCH, &mut attr) }?;
    Ok(attr.count as usize)
}

#[repr(C)]
struct LinkAttr {
    program: u32,
    target: u32,
    hook: u32,
    flags: u32,
    more: [u64; 4],
}

/// Links a program to a hook: `target` is the descriptor of a cgroup or the index of a device. The link goes with its
/// descriptor.
pub(crate) fn link(program: &OwnedFd, target: u32, hook: u32, flags: u32) -> io::Result<OwnedFd> {
    let mut attr = LinkAttr { program: raw(program.as_fd()), target, hook, flags, more: [0; 4] };
    // SAFETY: no pointers.
    unsafe { bpf(LINK_CREATE, &mut attr) }.map(descriptor)
}

/// The same to a cgroup.
pub(crate) fn link_to_cgroup(program: &OwnedFd, cgroup: BorrowedFd<'_>, hook: u32) -> io::Result<OwnedFd> {
    let target = u32::try_from(cgroup.as_raw_fd()).map_err(io::Error::other)?;
    link(program, target, hook, 0)
}

#[repr(C)]
struct RunAttr {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// Runs a program of packets on one, outside of any hook, and gives what it returns.
pub(crate) fn run(program: &OwnedFd, packet: &[u8]) -> io::Result<u32> {
    let mut attr = RunAttr {
        program: raw(program.as_fd()),
        result: 0,
        data_size_in: u32::try_from(packet.len()).map_err(io::Error::other)?,
        data_size_out: 0,
        data_in: address(packet),
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the packet has the size given and is only read; nothing is written but the attributes.
    unsafe { bpf(PROG_TEST_RUN, &mut attr) }?;
    Ok(attr.result)
}
