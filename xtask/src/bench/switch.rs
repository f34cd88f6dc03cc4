//! The comparison of ways from kube-proxy's rules to eBPF: tables of docs/benchmarks.md and README.md, and a plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::plot::{Line, plot};
use super::{BENCHMARKS, Shown};

/// What the benchmark wrote.
#[derive(Debug, Deserialize)]
struct Run {
    kernel: String,
    /// Load averages at the beginning and at the end.
    loads: [String; 2],
    compared: Vec<Compared>,
    flows: Vec<Crowd>,
    services: Vec<Large>,
}

#[derive(Debug, Deserialize)]
struct Compared {
    way: String,
    foreign_rules: bool,
    seconds: f64,
    said: Vec<String>,
    flows_total: u64,
    flows_lost: u64,
    connects_total: u64,
    connects_failed: u64,
    connects_refused: u64,
    gap_ms: f64,
    idle_gap_ms: Option<f64>,
    retransmissions: u64,
    foreign_total: usize,
    foreign_damaged: usize,
    leftovers: usize,
}

#[derive(Debug, Deserialize)]
struct Crowd {
    flows: u64,
    flows_lost: u64,
    idle_gap_ms: f64,
    there_gap_ms: f64,
    back_gap_ms: f64,
    there_seconds: f64,
    back_seconds: f64,
    phases: Vec<Stretch>,
}

#[derive(Debug, Deserialize)]
struct Stretch {
    phase: String,
    seconds: f64,
    gap_ms: f64,
    retransmissions: u64,
}

#[derive(Debug, Deserialize)]
struct Large {
    services: usize,
    rules: usize,
    there_seconds: f64,
    back_seconds: f64,
    flows_total: u64,
    flows_lost: u64,
    connects_failed: u64,
    gap_ms: f64,
    idle_gap_ms: Option<f64>,
}

pub(super) fn shown(run: &str) -> Result<Shown> {
    let run: Run = serde_json::from_str(run).context("it is not as the benchmark writes it")?;
    let gaps = || ("docs/benchmarks/gaps.svg", plot("longest gap of one flow, ms", "live flows", &lines(&run)));
    Ok(Shown {
        tables: vec![(BENCHMARKS, "switch", page(&run)?), ("README.md", "switch", compared(&run)?)],
        plot: (!run.flows.is_empty()).then(gaps),
    })
}

/// The ways, as a row says it.
fn words(way: &str) -> &str {
    match way {
        "nothing" => "nothing is done",
        "kpx" => "`kpx migrate apply`",
        "cleanup" => "as `kube-proxy --cleanup`",
        "grep" => "`iptables-save \\| grep -v KUBE \\| …`",
        other => other,
    }
}

/// One row a way and node.
fn compared(run: &Run) -> Result<String> {
    let mut text =
        "| node | way | flows lost | connects failed | refused | longest gap, ms (untouched) | rules of others lost | \
                    lines of kube-proxy's left |\n|---|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in &run.compared {
        writeln!(
            text,
            "| {} | {} | {} of {} | {} of {} | {} | {:.0} ({:.0}) | {} of {} | {} |",
            if row.foreign_rules { "with others' rules" } else { "bare" },
            words(&row.way),
            row.flows_lost,
            row.flows_total,
            row.connects_failed,
            row.connects_total,
            row.connects_refused,
            row.gap_ms,
            row.idle_gap_ms.unwrap_or_default(),
            row.foreign_damaged,
            row.foreign_total,
            row.leftovers,
        )?;
    }
    Ok(text)
}

fn page(run: &Run) -> Result<String> {
    let [first, last] = &run.loads;
    let mut text = format!("Linux {}, load average {first} at the beginning and {last} at the end.\n\n", run.kernel);
    text += &compared(run)?;
    writeln!(text, "\n| node | way | seconds | TCP segments sent again | tools complained |\n|---|---|---|---|---|")?;
    for row in &run.compared {
        let node = if row.foreign_rules { "with others' rules" } else { "bare" };
        let said = if row.said.is_empty() { "–".to_owned() } else { format!("`{}`", row.said.join("`, `")) };
        writeln!(text, "| {node} | {} | {:.1} | {} | {said} |", words(&row.way), row.seconds, row.retransmissions)?;
    }
    if !run.flows.is_empty() {
        text += &flows(run)?;
    }
    if !run.services.is_empty() {
        writeln!(
            text,
            "\n| Services | rules | apply, s | rollback, s | flows lost | connects failed | longest gap, ms (untouched) |\n|---|---|---|---|---|---|---|"
        )?;
    }
    for row in &run.services {
        writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {} of {} | {} | {:.1} ({:.1}) |",
            row.services,
            row.rules,
            row.there_seconds,
            row.back_seconds,
            row.flows_lost,
            row.flows_total,
            row.connects_failed,
            row.gap_ms,
            row.idle_gap_ms.unwrap_or_default(),
        )?;
    }
    Ok(text)
}

/// One row a number of flows, then phase by phase.
fn flows(run: &Run) -> Result<String> {
    let mut text = "\n![longest gap of one flow, by number of live flows](benchmarks/gaps.svg)\n\n\
                    | live flows | lost | longest gap untouched, ms | apply | rollback | apply, s | rollback, s |\n\
                    |---|---|---|---|---|---|---|\n"
        .to_owned();
    for row in &run.flows {
        writeln!(
            text,
            "| {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.1} |",
            row.flows,
            row.flows_lost,
            row.idle_gap_ms,
            row.there_gap_ms,
            row.back_gap_ms,
            row.there_seconds,
            row.back_seconds,
        )?;
    }
    Ok(text + &phases(run)?)
}

/// Phase by phase, one column a number of flows: seconds, longest gap, segments sent again.
fn phases(run: &Run) -> Result<String> {
    let mut order: Vec<&str> = Vec::new();
    let mut found: BTreeMap<(&str, u64), &Stretch> = BTreeMap::new();
    for size in &run.flows {
        for phase in size.phases.iter().filter(|phase| phase.phase != "start" && phase.phase != "between") {
            if !order.contains(&phase.phase.as_str()) {
                order.push(&phase.phase);
            }
            found.insert((&phase.phase, size.flows), phase);
        }
    }
    let sizes: Vec<u64> = run.flows.iter().map(|size| size.flows).collect();
    let heads: Vec<String> = sizes.iter().map(|size| format!("{size} flows")).collect();
    let mut text = format!(
        "\nPhase by phase: seconds, longest gap in ms, TCP segments sent again.\n\n| phase | {} |\n",
        heads.join(" | ")
    );
    writeln!(text, "|---|{}", "---|".repeat(sizes.len()))?;
    for name in order {
        let cell = |size: &u64| match found.get(&(name, *size)) {
            Some(phase) => format!("{:.1} / {:.1} / {}", phase.seconds, phase.gap_ms, phase.retransmissions),
            None => "–".to_owned(),
        };
        let name = name.replace("kpx-back", "rollback").replace("kpx", "apply");
        writeln!(text, "| {name} | {} |", sizes.iter().map(cell).collect::<Vec<_>>().join(" | "))?;
    }
    Ok(text)
}

fn lines(run: &Run) -> Vec<Line> {
    let line = |name: &str, of: fn(&Crowd) -> f64| Line {
        name: name.to_owned(),
        points: run.flows.iter().map(|size| (size.flows as f64, of(size))).collect(),
    };
    vec![
        line("untouched", |size| size.idle_gap_ms),
        line("apply", |size| size.there_gap_ms),
        line("rollback", |size| size.back_gap_ms),
    ]
}
