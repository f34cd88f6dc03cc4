//! BPF programs of other dataplanes.

use super::super::check::{Area, Severity};
use super::proxy::is_kube_proxy;
use super::{Check, Evidence, Facts, Found};
use crate::capture::BpfProgram;

pub(super) const CHECKS: [Check; 3] = [
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
    Check {
        id: "KPX-A503",
        area: Area::Bpf,
        severity: Severity::Warning,
        title: "A running kube-proxy whose chains Calico's eBPF dataplane cleans up",
        why: "Calico's agent in eBPF mode deletes kube-proxy's chains unless told not to (bpfKubeProxyIptablesCleanupEnabled, on by default), and a \
              running kube-proxy writes them again: restores fail and Services flap.",
        remedy: "Stop kube-proxy on this node, or switch that clean-up off while both run.",
        command: "kubectl get felixconfiguration default -o jsonpath='{.spec.bpfKubeProxyIptablesCleanupEnabled}'",
        run: two_writers,
    },
];

fn two_writers(facts: &Facts<'_>) -> Found {
    let calicos = |p: &&BpfProgram| ["cali_", "calico_"].iter().any(|start| p.name.starts_with(start));
    let Some(program) = facts.bpf()?.programs.iter().find(calicos) else { return Ok(Vec::new()) };
    let running = facts.processes()?.iter().filter(|process| is_kube_proxy(&process.name));
    Ok(running
        .map(|process| {
            Evidence::new(
                format!("process {} ({})", process.pid, process.name),
                format!("runs beside {} program {} ({})", program.kind, program.id, program.name),
            )
        })
        .collect())
}

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
