//! kube-proxy's rules that are not as kube-proxy writes them.

use super::super::check::{Area, Severity};
use super::foreign::noticed;
use super::{Check, Facts, Found};
use crate::inspect::iptables::Notice;

/// Forces a full sync: kube-proxy polls for its canary every 30 seconds.
const REBUILD: &str = "iptables -t mangle -X KUBE-PROXY-CANARY";

pub(super) const CHECKS: [Check; 10] = [
    Check {
        id: "KPX-A120",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Unknown rules in kube-proxy's chains",
        why: "No known kube-proxy writes such a rule there, so what it does to a Service's packets is somebody's doing. kube-proxy rewrites \
              its fixed chains at every sync, but those of one Service only when that Service changes, or once an hour.",
        remedy: "Find out who wrote the rule. Where nobody needs it, delete it, or let kube-proxy write everything anew.",
        command: REBUILD,
        run: |facts| about(facts, |n| matches!(n, Notice::UnknownRule { .. })),
    },
    Check {
        id: "KPX-A121",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Chains of kube-proxy that lack a rule or a chain they need",
        why: "Packets that the missing rule should translate, mark or refuse go on as they are: connections hang, keep an address that no \
              answer can come back to, or go past a Service's source ranges.",
        remedy: "Let kube-proxy write everything anew: delete its canary, which it looks for every 30 seconds.",
        command: REBUILD,
        run: |facts| {
            about(facts, |n| {
                matches!(
                    n,
                    Notice::IncompleteChain { .. }
                        | Notice::MissingChain { .. }
                        | Notice::Unrefused { .. }
                        | Notice::Undispatched { .. }
                )
            })
        },
    },
    Check {
        id: "KPX-A122",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Built-in chains without their jump to kube-proxy's chain",
        why: "The chain's rules have no effect there. kube-proxy looks for its jumps at a full sync only: such damage lasts up to an hour.",
        remedy: "Let kube-proxy write everything anew: delete its canary, which it looks for every 30 seconds.",
        command: REBUILD,
        run: |facts| about(facts, |n| matches!(n, Notice::MissingJump { .. })),
    },
    Check {
        id: "KPX-A123",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Jumps to the chain of another Service port or endpoint",
        why: "The hash in a chain's name stands for a Service port or an endpoint. Here a rule names one and jumps to the chain of another, \
              or the chain of an endpoint sends elsewhere: connections reach the wrong pods.",
        remedy: "Let kube-proxy write everything anew: delete its canary, which it looks for every 30 seconds.",
        command: REBUILD,
        run: |facts| about(facts, |n| matches!(n, Notice::HashMismatch { .. })),
    },
    Check {
        id: "KPX-A124",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Endpoints that are chosen with uneven or odd probabilities",
        why: "kube-proxy gives the endpoints of a Service equal shares. Other probabilities come from a rule that was deleted, added or \
              edited: some endpoints get more connections than they should, some none.",
        remedy: "Let kube-proxy write everything anew: delete its canary, which it looks for every 30 seconds.",
        command: REBUILD,
        run: odd_shares,
    },
    Check {
        id: "KPX-A125",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Rules that disagree on how pods are recognised",
        why: "kube-proxy recognises pods in one way (clusterCIDR, the node's CIDR, a bridge, an interface prefix). Where rules disagree, some \
              Services masquerade pods' connections and some do not.",
        remedy: "Restart kube-proxy, so that it writes all rules with its present configuration.",
        command: "kubectl -n kube-system rollout restart daemonset kube-proxy",
        run: |facts| about(facts, |n| matches!(n, Notice::MixedDetectors { .. })),
    },
    Check {
        id: "KPX-A126",
        area: Area::Iptables,
        severity: Severity::Error,
        title: "Refusals of Services that have endpoints",
        why: "The filter table rejects or drops connections to a Service that the nat table has endpoints for: a left-over \
              \"has no endpoints\" rule, or one that was put there by hand.",
        remedy: "Let kube-proxy write everything anew: delete its canary, which it looks for every 30 seconds.",
        command: REBUILD,
        run: |facts| about(facts, |n| matches!(n, Notice::Contradiction { .. })),
    },
    Check {
        id: "KPX-A127",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Several Services on one address, port and protocol",
        why: "Packets follow the first rule; the other Services never see one. kube-proxy in nftables mode keeps one of them, perhaps another, \
              and so does every map that is keyed by address.",
        remedy: "Give one of the Services another external or load-balancer IP.",
        command: "kubectl get services -A -o wide",
        run: |facts| about(facts, |n| matches!(n, Notice::Conflict { .. })),
    },
    Check {
        id: "KPX-A128",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "A drop mark that nothing sets or acts on",
        why: "kube-proxy before 1.25 marks what it wants dropped through KUBE-MARK-DROP and leaves the dropping to the kubelet's \
              KUBE-FIREWALL. A kubelet of 1.28 or later no longer makes either, so what should be dropped goes on.",
        remedy: "Bring kube-proxy to the kubelet's version.",
        command: "kubectl -n kube-system get daemonset kube-proxy -o wide",
        run: |facts| about(facts, |n| matches!(n, Notice::InertDropMark { .. })),
    },
    Check {
        id: "KPX-A129",
        area: Area::Iptables,
        severity: Severity::Warning,
        title: "Service rules without kube-proxy's canary",
        why: "kube-proxy makes KUBE-PROXY-CANARY when it starts, and takes its absence for a flush. Without it the rules were restored from \
              somewhere, or kube-proxy never finished its start, or a flush was a moment ago.",
        remedy: "Look again in a minute; if the canary stays away, see whether kube-proxy runs.",
        command: "curl -s http://127.0.0.1:10256/healthz",
        run: |facts| about(facts, |n| matches!(n, Notice::MissingCanary { .. })),
    },
];

fn about(facts: &Facts<'_>, wanted: fn(&Notice) -> bool) -> Found {
    Ok(noticed(facts.iptables()?, wanted))
}

/// Probabilities that no whole weights give, and weights that are not all one.
fn odd_shares(facts: &Facts<'_>) -> Found {
    let iptables = facts.iptables()?;
    let mut found = noticed(iptables, |n| matches!(n, Notice::OddProbabilities { .. }));
    if let Some(backend) = iptables.kube_proxys() {
        for frontend in backend.lifted.table.frontends() {
            let uneven = |list: &[crate::model::Backend]| list.iter().any(|b| b.weight != list[0].weight);
            if uneven(&frontend.cluster) || uneven(&frontend.local) {
                let mut evidence = super::rule_at(backend, &frontend.origin);
                evidence.text = format!("{} gives its endpoints unequal shares", frontend.display_name());
                found.push(evidence);
            }
        }
    }
    Ok(found)
}
