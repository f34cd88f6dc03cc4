//! BPF programs of other dataplanes.

use super::super::check::{Area, Severity};
use super::{Check, Evidence, Facts, Found};
use crate::capture::BpfProgram;

pub(super) const CHECKS: [Check; 2] = [
    Check {
        id: "KPX-A501",
        area: Area::Bpf,
        severity: Severity::Warning,
        title: "Programs of others that may rewrite addresses at sockets",
        why: "A program on connect or sendmsg of a cgroup may translate a Service's address before anybody else sees it. Two translators on one \
              socket disagree sooner or later; Cilium's socket load balancer is of this kind.",
        remedy: "Find out what the program does. Only one of the two may serve Services on this node.",
        command: "bpftool cgroup tree",
        run: |facts| programs(facts, |p| p.kind == "cgroup_sock_addr"),
    },
    Check {
        id: "KPX-A502",
        area: Area::Bpf,
        severity: Severity::Info,
        title: "Programs of known dataplanes on network devices",
        why: "Cilium, Calico and others translate or filter Services' packets at tc or XDP, beside or instead of kube-proxy. Their clean-up may \
              delete kube-proxy's chains while kube-proxy runs, and the two then fight.",
        remedy: "See whether that program's replacement of kube-proxy is on; if it is, stop kube-proxy on this node.",
        command: "bpftool net",
        run: |facts| programs(facts, |p| matches!(p.kind.as_str(), "sched_cls" | "xdp") && known(&p.name)),
    },
];

/// Starts of program names of other dataplanes.
fn known(name: &str) -> bool {
    ["cil_", "tail_", "cali_", "calico_", "conntrack_clean", "antrea", "kmesh"]
        .iter()
        .any(|start| name.starts_with(start))
}

fn programs(facts: &Facts<'_>, wanted: impl Fn(&BpfProgram) -> bool) -> Found {
    let others = facts.bpf()?.programs.iter().filter(|p| wanted(p) && !p.name.starts_with("kpx_"));
    Ok(others
        .map(|p| {
            Evidence::new(format!("{} program {}", p.kind, p.id), &*p.name)
                .command(format!("bpftool prog show id {}", p.id))
        })
        .collect())
}
