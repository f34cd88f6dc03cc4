//! Names of the kernel's numbers, as bpftool has them.

/// `enum bpf_map_type`.
const MAPS: [&str; 34] = [
    "unspec",
    "hash",
    "array",
    "prog_array",
    "perf_event_array",
    "percpu_hash",
    "percpu_array",
    "stack_trace",
    "cgroup_array",
    "lru_hash",
    "lru_percpu_hash",
    "lpm_trie",
    "array_of_maps",
    "hash_of_maps",
    "devmap",
    "sockmap",
    "cpumap",
    "xskmap",
    "sockhash",
    "cgroup_storage",
    "reuseport_sockarray",
    "percpu_cgroup_storage",
    "queue",
    "stack",
    "sk_storage",
    "devmap_hash",
    "struct_ops",
    "ringbuf",
    "inode_storage",
    "task_storage",
    "bloom_filter",
    "user_ringbuf",
    "cgrp_storage",
    "arena",
];

/// `enum bpf_prog_type`.
const PROGRAMS: [&str; 33] = [
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

/// `enum bpf_link_type`.
const LINKS: [&str; 15] = [
    "unspec",
    "raw_tracepoint",
    "tracing",
    "cgroup",
    "iter",
    "netns",
    "xdp",
    "perf_event",
    "kprobe_multi",
    "struct_ops",
    "netfilter",
    "tcx",
    "uprobe_multi",
    "netkit",
    "sockmap",
];

/// `BPF_TCX_INGRESS`.
pub(super) const TCX_INGRESS: u32 = 46;
/// `BPF_TCX_EGRESS`.
pub(super) const TCX_EGRESS: u32 = 47;
/// `BPF_NETKIT_PRIMARY`.
pub(super) const NETKIT_PRIMARY: u32 = 54;
/// `BPF_NETKIT_PEER`.
pub(super) const NETKIT_PEER: u32 = 55;

/// The hooks of interfaces and sockets among `enum bpf_attach_type`.
const OTHER_HOOKS: [(u32, &str); 5] = [
    (36, "sk_lookup"),
    (TCX_INGRESS, "tcx_ingress"),
    (TCX_EGRESS, "tcx_egress"),
    (NETKIT_PRIMARY, "netkit_primary"),
    (NETKIT_PEER, "netkit_peer"),
];

/// The hooks of cgroups among `enum bpf_attach_type`.
const CGROUP_HOOKS: [(u32, &str); 29] = [
    (0, "ingress"),
    (1, "egress"),
    (2, "sock_create"),
    (3, "sock_ops"),
    (6, "device"),
    (8, "bind4"),
    (9, "bind6"),
    (10, "connect4"),
    (11, "connect6"),
    (12, "post_bind4"),
    (13, "post_bind6"),
    (14, "sendmsg4"),
    (15, "sendmsg6"),
    (18, "sysctl"),
    (19, "recvmsg4"),
    (20, "recvmsg6"),
    (21, "getsockopt"),
    (22, "setsockopt"),
    (29, "getpeername4"),
    (30, "getpeername6"),
    (31, "getsockname4"),
    (32, "getsockname6"),
    (34, "sock_release"),
    (43, "lsm_cgroup"),
    (49, "connect_unix"),
    (50, "sendmsg_unix"),
    (51, "recvmsg_unix"),
    (52, "getpeername_unix"),
    (53, "getsockname_unix"),
];

fn name(table: &[&str], number: u32) -> String {
    table.get(number as usize).map_or_else(|| format!("type {number}"), ToString::to_string)
}

pub(super) fn map(number: u32) -> String {
    name(&MAPS, number)
}

pub(super) fn program(number: u32) -> String {
    name(&PROGRAMS, number)
}

pub(super) fn link(number: u32) -> String {
    name(&LINKS, number)
}

/// Name of a hook.
pub(crate) fn attach_type(number: u32) -> String {
    let known = CGROUP_HOOKS.iter().chain(&OTHER_HOOKS).find(|(n, _)| *n == number);
    known.map_or_else(|| format!("attach type {number}"), |(_, name)| (*name).to_owned())
}

/// Numbers and names of the hooks of cgroups.
pub(super) fn cgroup_hooks() -> impl Iterator<Item = (u32, &'static str)> {
    CGROUP_HOOKS.iter().copied()
}
