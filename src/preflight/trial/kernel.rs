//! What needs neither a network nor a cgroup: maps, helpers, BTF, test runs.

use std::io;
use std::os::fd::AsFd as _;

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported, is_map_supported};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{Trials, Tried};
use crate::dataplane;
use crate::inspect::bpf::sys::trial::{self, instruction};

/// `r0 = value; exit`.
pub(super) const fn returns(value: i32) -> [u64; 2] {
    [instruction(0xb7, 0, 0, 0, value), instruction(0x95, 0, 0, 0, 0)]
}

// linux/bpf.h
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const LPM_TRIE: u32 = 11;
const RINGBUF: u32 = 27;
const NO_PREALLOC: u32 = 1;
/// `BPF_PROG_TYPE_SCHED_CLS`.
pub(super) const SCHED_CLS: u32 = 3;

pub(super) fn try_all(trials: &mut Trials) {
    let mut add = |name: &str, tried: Tried| drop(trials.insert(name.to_owned(), tried));
    add("memcg-accounting", memory());
    add("lpm-trie", Tried::of("a map of prefixes created", trial::map(LPM_TRIE, [8, 4, 1], NO_PREALLOC)));
    add("ringbuf", Tried::of("a ring buffer created", trial::map(RINGBUF, [0, 0, BUFFER], 0)));
    add("map-batch", batch());
    add("test-run", test_run());
    let from_hooks = |helper| is_helper_supported(ProgramType::CgroupSockAddr, helper);
    add(
        "sk-storage",
        match is_map_supported(MapType::SkStorage) {
            Ok(true) => {
                helper("bpf_sk_storage_get", "hooks of sockets", from_hooks(BpfHelper::BPF_FUNC_sk_storage_get))
            }
            Ok(false) => Tried::lacks("the kernel refuses such a map"),
            Err(error) => Tried::refused("a map of socket storage created", &error.io_error),
        },
    );
    add(
        "netns-cookie",
        helper("bpf_get_netns_cookie", "hooks of sockets", from_hooks(BpfHelper::BPF_FUNC_get_netns_cookie)),
    );
    add("set-retval", helper("bpf_set_retval", "hooks of sockets", from_hooks(BpfHelper::BPF_FUNC_set_retval)));
    let in_driver = is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_load_bytes);
    add("xdp-load-bytes", helper("bpf_xdp_load_bytes", "XDP programs", in_driver));
    add(
        "programs",
        match dataplane::verify() {
            Ok(()) => Tried::works("the verifier takes all of kpx's programs and maps"),
            Err(error @ dataplane::DataplaneError::Capability { .. }) => {
                Tried::unknown(crate::error::with_causes(&error))
            }
            Err(error) => Tried::lacks(crate::error::with_causes(&error)),
        },
    );
}

/// A ring buffer is a multiple of a page; this is one of every size that pages have.
const BUFFER: u32 = 64 * 1024;

fn helper<E: std::error::Error>(name: &str, place: &str, has: Result<bool, E>) -> Tried {
    match has {
        Ok(true) => Tried::works(format!("{place} may call {name}")),
        Ok(false) => Tried::lacks(format!("{place} may not call {name}")),
        Err(error) => Tried::unknown(format!("cannot ask for {name}: {}", crate::error::with_causes(&error))),
    }
}

fn batch() -> Tried {
    let done =
        trial::map(HASH, [4, 4, 4], 0).and_then(|map| trial::write_batch(map.as_fd(), &[(1, 1), (2, 2), (3, 3)]));
    match done {
        Ok(3) => Tried::works("three elements written in one call"),
        Ok(count) => Tried::lacks(format!("{count} of three elements written in one call")),
        Err(error) => Tried::refused("three elements written in one call", &error),
    }
}

fn test_run() -> Tried {
    const RETURNED: i32 = 42;
    let done = trial::load(SCHED_CLS, 0, &returns(RETURNED)).and_then(|program| trial::run(&program, &[0; 64]));
    match done {
        Ok(42) => Tried::works("a program ran on a made-up packet and returned what it should"),
        Ok(other) => Tried::lacks(format!("a program that returns {RETURNED} returned {other}")),
        Err(error) => Tried::refused("a program run on a made-up packet", &error),
    }
}

/// With a limit of nothing, a map is refused before Linux 5.11 and created since.
fn memory() -> Tried {
    let before = getrlimit(Resource::Memlock);
    let limit = |current| setrlimit(Resource::Memlock, Rlimit { current, maximum: before.maximum });
    if let Err(error) = limit(Some(0)) {
        return Tried::unknown(format!("cannot lower RLIMIT_MEMLOCK: {error}"));
    }
    let created = trial::map(ARRAY, [4, 4, 1], 0);
    let tried = match created {
        Ok(_) => Tried::works("a map created with RLIMIT_MEMLOCK at 0"),
        // Whether the limit is the reason shows without it.
        Err(refused) => {
            match limit(before.maximum).map_err(io::Error::from).and_then(|()| trial::map(ARRAY, [4, 4, 1], 0)) {
                Ok(_) => Tried::lacks(format!("a map is refused with RLIMIT_MEMLOCK at 0: {refused}")),
                Err(error) => Tried::unknown(format!("no map can be created: {error}")),
            }
        }
    };
    // The other trials are to have all the memory there is.
    limit(before.maximum).ok();
    tried
}
