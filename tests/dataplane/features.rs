//! What the running kernel has of what kpx uses: docs/kernels.md is made of what this prints.

use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;

use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use kpx::capture::command;
use kpx::dataplane::{Attachment, Mode};
use kpx::model::Protocol;

use super::ground::{Ground, cluster_ip, table};

/// Whether the kernel has a function, by its own list of symbols; copies that compilers make have suffixes.
pub(crate) fn has_function(name: &str) -> bool {
    let symbols = fs_err::read_to_string("/proc/kallsyms").expect("the kernel lists its symbols");
    symbols.lines().any(|line| line.split_whitespace().nth(2).is_some_and(|s| s.split('.').next() == Some(name)))
}

/// Whether address hooks may call a helper.
pub(crate) fn has_helper(helper: BpfHelper) -> bool {
    is_helper_supported(ProgramType::CgroupSockAddr, helper).expect("root can ask")
}

/// Whether a socket tells the cookie of its network namespace: `SO_NETNS_COOKIE`.
pub(crate) fn tells_netns_cookie() -> bool {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket can be made");
    let (mut cookie, mut size) = (0_u64, 8);
    // SAFETY: room for eight bytes, and its size.
    #[expect(unsafe_code, reason = "no crate has this option")]
    let done =
        unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, 71, (&raw mut cookie).cast(), &raw mut size) };
    done == 0 && cookie != 0
}

fn works(program: &str, args: &str) -> bool {
    command::output(program, args.split(' '), None).is_ok()
}

#[test]
fn programs_load_and_attach_with_what_this_kernel_has() {
    Ground::with(|ground| {
        let frontends = table([cluster_ip("10.96.0.10:80", Protocol::Tcp, &["127.0.0.1:8080"])]);
        let dataplane = ground.dataplane(&frontends, Mode::Active);
        assert_eq!(dataplane.attachment().unwrap(), Attachment::Attached);
        // Not `bpftool cgroup`, which asks for every kind of hook that it knows and gives up where the kernel is older.
        let cgroup = fs_err::metadata(&ground.paths.cgroup).expect("it is there").ino();
        let shown = command::output("bpftool", ["-j", "link", "show"], None).expect("bpftool lists links");
        let shown: serde_json::Value = serde_json::from_slice(&shown).expect("JSON");
        let hooks = shown.as_array().expect("a list").iter().filter(|link| link["cgroup_id"] == cgroup).count();
        let links = fs_err::read_dir(ground.paths.pins.join("links")).expect("links are pinned").count();
        assert_eq!(hooks, links, "{shown}");
        println!("feature socket hooks attached (5.8): {hooks}");
        for (feature, since, has) in [
            ("bpf_set_retval in them", "5.18", has_helper(BpfHelper::BPF_FUNC_set_retval)),
            ("bpf_get_netns_cookie in them", "5.7", has_helper(BpfHelper::BPF_FUNC_get_netns_cookie)),
            ("SO_NETNS_COOKIE", "5.14", tells_netns_cookie()),
            ("map operations in batches", "5.6", has_function("bpf_map_do_batch")),
            ("link detach", "5.9", has_function("bpf_cgroup_link_detach")),
            ("clsact", "4.5", works("tc", "qdisc add dev lo clsact")),
            ("tcx links", "6.6", has_function("tcx_link_attach")),
            ("conntrack for programs (bpf_skb_ct_lookup)", "5.18", has_function("bpf_skb_ct_lookup")),
            ("nftables", "3.13", works("nft", "add table ip features")),
            ("iptables, legacy", "2.4", works("iptables-legacy", "-t nat -S")),
            ("IPVS", "2.6", std::path::Path::new("/proc/net/ip_vs").exists()),
        ] {
            println!("feature {feature} ({since}): {}", if has { "yes" } else { "no" });
        }
    });
}
