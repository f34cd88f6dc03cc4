//! kube-proxy itself: whether it runs, who answers for it, and what brings it back.

use std::net::IpAddr;

use super::super::check::{Area, Severity};
use super::super::facts::Rules;
use super::{Check, Evidence, Facts, Found, Skip};
use crate::capture::{Item, Listener};
use crate::inspect::kube::{Source, metric};
use crate::model::{Exposure, KubeVersion};

pub(super) const CHECKS: [Check; 10] = [
    Check {
        id: "KPX-A601",
        area: Area::Node,
        severity: Severity::Error,
        title: "Service rules, but no kube-proxy that keeps them",
        why: "kube-proxy removes nothing when it stops: its rules stay as they were. Services and endpoints that change from then on are wrong on \
              this node, and nobody answers health checks.",
        remedy: "Start kube-proxy again, or finish the change that stopped it.",
        command: "kubectl -n kube-system get pods -l k8s-app=kube-proxy -o wide",
        run: frozen,
    },
    Check {
        id: "KPX-A602",
        area: Area::Node,
        severity: Severity::Error,
        title: "A kube-proxy that is not in sync",
        why: "Its health endpoint answers 503 while a change has been waiting for longer than twice the sync period, or while the node is about to \
              be deleted. Its rules then lag behind the API.",
        remedy: "Read its log for the failing restore or the unreachable API server.",
        command: "kubectl -n kube-system logs -l k8s-app=kube-proxy --tail=50",
        run: out_of_sync,
    },
    Check {
        id: "KPX-A603",
        area: Area::Node,
        severity: Severity::Warning,
        title: "Another program on kube-proxy's ports 10256 or 10249",
        why: "Load balancers of clouds probe 10256 to see whether a node can take traffic, and whatever replaces kube-proxy must answer there. \
              Only one of the two can have the port.",
        remedy: "Find out what the program is for, and who shall answer the probes during a change.",
        command: "ss -ltnp 'sport = :10256 or sport = :10249'",
        run: foreign_ports,
    },
    Check {
        id: "KPX-A604",
        area: Area::Node,
        severity: Severity::Error,
        title: "Health check ports of Services that nobody answers",
        why: "A load balancer asks the healthCheckNodePort of a Service with externalTrafficPolicy Local whether this node has an endpoint. Nobody \
              answers: the node gets no traffic for it.",
        remedy: "See whether kube-proxy runs; the listener is its own, and dies with it.",
        command: "ss -ltn",
        run: health_checks,
    },
    Check {
        id: "KPX-A605",
        area: Area::Node,
        severity: Severity::Warning,
        title: "What would bring kube-proxy back after it is removed",
        why: "kubeadm upgrade recreates the DaemonSet while its ConfigMap is there; add-on managers, static pods, k3s and RKE2 start it again by \
              themselves. Two dataplanes then fight over the node.",
        remedy: "Remove what is listed at its source: the ConfigMap with the DaemonSet, the add-on, --disable-kube-proxy for k3s and RKE2.",
        command: "kubectl -n kube-system get configmap,daemonset kube-proxy",
        run: comes_back,
    },
    Check {
        id: "KPX-A606",
        area: Area::Node,
        severity: Severity::Warning,
        title: "An API server that is reached through its own ClusterIP",
        why: "That address works only while somebody serves Services. A dataplane that learns its Services through it cannot start once kube-proxy \
              is gone.",
        remedy: "Give the new dataplane the API server's real address, and try it from the host first.",
        command: "kubectl get endpoints kubernetes",
        run: through_cluster_ip,
    },
    Check {
        id: "KPX-A612",
        area: Area::Node,
        severity: Severity::Warning,
        title: "kube-proxy and kubelet of versions that do not belong together",
        why: "kube-proxy must not be newer than the kubelet, nor more than three minor versions older (one before 1.25). Chains that one expects of \
              the other are then missing, such as KUBE-MARK-DROP of kubelets before 1.28.",
        remedy: "Bring kube-proxy to the kubelet's version.",
        command: "kubectl get nodes -o wide",
        run: skew,
    },
    Check {
        id: "KPX-A613",
        area: Area::Node,
        severity: Severity::Info,
        title: "A proxy mode that is left to the default",
        why: "An empty mode means iptables up to 1.39, and nftables from 1.40: an upgrade of kube-proxy then changes the dataplane of every node.",
        remedy: "Write the mode into kube-proxy's configuration.",
        command: "kubectl -n kube-system edit configmap kube-proxy",
        run: default_mode,
    },
    Check {
        id: "KPX-A616",
        area: Area::Node,
        severity: Severity::Warning,
        title: "Writes of kube-proxy that have failed",
        why: "kube-proxy counts the restores and transactions that the kernel or the tool refused. Where the number rises, the rules lag \
              behind the API, often because somebody else changes the same tables or refers to a chain that is to go.",
        remedy: "See whether the number rises, and read kube-proxy's log for the line that was refused.",
        command: "curl -s http://127.0.0.1:10249/metrics | grep failures_total",
        run: failures,
    },
    Check {
        id: "KPX-A617",
        area: Area::Node,
        severity: Severity::Info,
        title: "Probes of kube-proxy's health port",
        why: "Load balancers of clouds ask port 10256 of each node whether it may have traffic (KEP-3836). Whoever replaces kube-proxy must \
              answer there without a gap.",
        remedy: "Nothing needs to be done with kpx, which answers there; other replacements have to be told to.",
        command: "curl -si http://127.0.0.1:10256/healthz",
        run: probes,
    },
];

/// Programs that are, or hold, a kube-proxy.
pub(super) fn is_kube_proxy(program: &str) -> bool {
    ["kube-proxy", "k3s", "rke2", "kubelite", "hyperkube", "kpx"].iter().any(|known| program.starts_with(known))
}

fn on_port<'f>(facts: &'f Facts<'_>, port: u16) -> Result<Vec<&'f Listener>, Skip> {
    Ok(facts.listeners()?.iter().filter(|listener| listener.port == port).collect())
}

fn frozen(facts: &Facts<'_>) -> Found {
    let programmed = facts.programmed()?;
    if facts.text(Item::Healthz).is_ok() {
        return Ok(Vec::new());
    }
    let listens = !on_port(facts, 10256)?.is_empty();
    let runs = facts.processes()?.iter().any(|process| is_kube_proxy(&process.name));
    if listens || runs {
        return Ok(Vec::new());
    }
    let frontends = programmed.table.frontends().len();
    let place = match programmed.rules {
        Rules::Iptables(backend) => format!("iptables-{}", backend.variant),
        Rules::Nftables => "nftables".to_owned(),
        Rules::Ipvs => "IPVS".to_owned(),
    };
    Ok(vec![Evidence::new(place, format!("{frontends} frontends; no kube-proxy runs, and nobody listens on 10256"))])
}

fn out_of_sync(facts: &Facts<'_>) -> Found {
    let answer = facts.text(Item::Healthz)?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split_ascii_whitespace().nth(1) == Some("200") {
        return Ok(Vec::new());
    }
    let body = answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")).map_or("", |(_, body)| body);
    Ok(vec![Evidence::new("http://127.0.0.1:10256/healthz", format!("{status} {}", body.trim()))])
}

fn foreign_ports(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    for port in [10256, 10249] {
        for listener in on_port(facts, port)? {
            let Some(program) = &listener.program else { continue };
            if !is_kube_proxy(program) {
                let pid = listener.pid.unwrap_or_default();
                found.push(Evidence::new(
                    format!("port {port}"),
                    format!("{program} (process {pid}) listens on {}", listener.ip),
                ));
            }
        }
    }
    Ok(found)
}

fn health_checks(facts: &Facts<'_>) -> Found {
    let Some(wanted) = &facts.programmed()?.table.health_checks else {
        return Err(Skip("the rules do not tell the health check ports; the API was not read".to_owned()));
    };
    let listeners = facts.listeners()?;
    let unanswered = wanted.iter().filter(|(port, _)| listeners.iter().all(|listener| listener.port != **port));
    Ok(unanswered
        .map(|(port, services)| {
            let names: Vec<_> = services.iter().map(ToString::to_string).collect();
            Evidence::new(format!("healthCheckNodePort {port}"), format!("nobody listens, for {}", names.join(", ")))
                .command(format!("curl -s http://127.0.0.1:{port}/"))
        })
        .collect())
}

fn comes_back(facts: &Facts<'_>) -> Found {
    let mut found = Vec::new();
    let config_map = facts.text(Item::ProxyConfigMap);
    if config_map.is_ok() {
        found.push(Evidence::new(
            "ConfigMap kube-system/kube-proxy",
            "kubeadm upgrade recreates the DaemonSet while it is there",
        ));
    }
    match (facts.setup(), facts.processes(), &config_map) {
        (Err(skip), Err(_), Err(_)) => return Err(skip),
        (setup, processes, _) => {
            for manifest in setup.into_iter().flat_map(|setup| &setup.manifests) {
                let at = format!("{}:{}", manifest.file, manifest.line);
                found.push(Evidence::new(at, format!("started from this file: {}", manifest.text)));
            }
            for process in processes.into_iter().flatten() {
                let embeds = ["k3s", "rke2", "kubelite"].iter().any(|name| process.name.starts_with(name));
                if embeds && !process.flags.iter().any(|flag| flag.starts_with("--disable-kube-proxy")) {
                    let at = format!("process {} ({})", process.pid, process.name);
                    found.push(Evidence::new(at, "has kube-proxy inside, and starts it with itself"));
                }
            }
        }
    }
    Ok(found)
}

/// Host of `server: https://10.96.0.1:443`.
fn server(line: &str) -> Option<IpAddr> {
    let url = line.trim().strip_prefix("server:")?.trim().trim_matches('"');
    let host = url.split_once("://").map_or(url, |(_, rest)| rest).split('/').next()?;
    let host = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(host, |(host, _)| host);
    host.trim_matches(['[', ']']).parse().ok()
}

fn through_cluster_ip(facts: &Facts<'_>) -> Found {
    let mut places: Vec<(String, String)> = Vec::new();
    let config_map = facts.text(Item::ProxyConfigMap);
    if let Ok(text) = &config_map {
        // The kubeconfig is a string inside of JSON: its line feeds are escaped.
        let lines = text.split("\\n").flat_map(str::lines).filter(|line| line.trim().starts_with("server:"));
        places.extend(lines.map(|line| ("ConfigMap kube-system/kube-proxy".to_owned(), line.trim().to_owned())));
    }
    match facts.setup() {
        Ok(setup) => {
            places.extend(
                setup.api_servers.iter().map(|line| (format!("{}:{}", line.file, line.line), line.text.clone())),
            );
        }
        Err(skip) if config_map.is_err() => return Err(skip),
        Err(_) => {}
    }
    let table = match facts.kube() {
        Ok(kube) => &kube.table,
        Err(_) => facts.programmed()?.table,
    };
    let is_cluster_ip =
        |ip: IpAddr| table.frontends().iter().any(|f| f.key.exposure == Exposure::ClusterIp && f.key.ip == ip);
    let through = places.into_iter().filter(|(_, line)| server(line).is_some_and(is_cluster_ip));
    Ok(through.map(|(at, line)| Evidence::new(at, line)).collect())
}

fn skew(facts: &Facts<'_>) -> Found {
    let kube = facts.kube()?;
    let Some(proxy) = kube.config.version.value else {
        return Err(Skip("kube-proxy's version is not known".to_owned()));
    };
    let kubelet = kube
        .objects
        .node(&kube.node_name)
        .and_then(|node| node.status.as_ref()?.node_info.as_ref())
        .and_then(|info| info.kubelet_version.parse::<KubeVersion>().ok());
    let Some(kubelet) = kubelet else { return Err(Skip("the kubelet's version is not known".to_owned())) };
    let oldest = kubelet.minor.saturating_sub(if proxy.minor < 25 { 1 } else { 3 });
    if proxy.major == kubelet.major && (oldest..=kubelet.minor).contains(&proxy.minor) {
        return Ok(Vec::new());
    }
    Ok(vec![Evidence::new(format!("Node {}", kube.node_name), format!("kube-proxy {proxy}, kubelet {kubelet}"))])
}

fn default_mode(facts: &Facts<'_>) -> Found {
    let config = facts.text(Item::Configz).or_else(|_| facts.text(Item::ProxyConfigMap))?;
    // Both spellings: /configz answered in Go's names up to 1.30.
    let empty = ["\"mode\":\"\"", "\"Mode\":\"\"", "\\nmode: \\\"\\\"", "\"mode\": \"\""];
    let left = empty.iter().any(|text| config.contains(text));
    let source = facts.kube().map_or("kube-proxy's configuration".to_owned(), |kube| match &kube.config.mode.source {
        Source::Default => "kube-proxy's configuration".to_owned(),
        source => source.to_string(),
    });
    Ok(if left { vec![Evidence::new(source, "mode: \"\"")] } else { Vec::new() })
}

fn failures(facts: &Facts<'_>) -> Found {
    let text = facts.text(Item::Metrics)?;
    let names = [
        "kubeproxy_sync_proxy_rules_iptables_restore_failures_total",
        "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total",
        "kubeproxy_sync_proxy_rules_nftables_sync_failures_total",
        "kubeproxy_sync_proxy_rules_nftables_cleanup_failures_total",
    ];
    let failed = names.into_iter().filter_map(|name| Some((name, metric(&text, name).filter(|n| *n > 0.0)?)));
    Ok(failed.map(|(name, n)| Evidence::new(name, format!("{n:.0} since kube-proxy's start"))).collect())
}

fn probes(facts: &Facts<'_>) -> Found {
    /// kpx asks too, whenever it looks.
    const FEW: f64 = 20.0;
    let text = facts.text(Item::Metrics)?;
    let names = ["kubeproxy_proxy_healthz_total", "kubeproxy_proxy_livez_total"];
    let asked = names.into_iter().filter_map(|name| Some((name, metric(&text, name).filter(|n| *n > FEW)?)));
    Ok(asked.map(|(name, n)| Evidence::new(name, format!("{n:.0} answers since kube-proxy's start"))).collect())
}
