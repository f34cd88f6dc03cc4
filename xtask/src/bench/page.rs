//! The comparison with kube-proxy's rules as a table of docs/benchmarks.md, and as a plot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::plot::{Line, number, plot};
use super::{BENCHMARKS, Shown};

/// What the benchmark wrote.
#[derive(Debug, Deserialize)]
struct Run {
    kernel: String,
    load: String,
    sizes: Vec<Size>,
}

#[derive(Debug, Deserialize)]
struct Size {
    services: usize,
    recorded_rules: bool,
    rows: Vec<Row>,
    kpx: Own,
}

#[derive(Debug, Deserialize)]
struct Row {
    what: String,
    subject: String,
    median: f64,
    against_direct: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct Own {
    first_fill_ms: f64,
    change_p50_us: f64,
    change_p99_us: f64,
    bytes_a_service: f64,
    nanoseconds_a_packet: BTreeMap<String, f64>,
}

const SUBJECTS: [&str; 7] = ["direct", "iptables-legacy", "iptables-nft", "nftables", "kpx-sockets", "kpx", "kpx-xdp"];

pub(super) fn shown(run: &str) -> Result<Shown> {
    let run: Run = serde_json::from_str(run).context("it is not as the benchmark writes it")?;
    let plot = plot("connect() to the last Service, µs (median)", "Services", &lines(&run));
    Ok(Shown { tables: vec![(BENCHMARKS, "rules", tables(&run)?)], plot: Some(("docs/benchmarks/connect.svg", plot)) })
}

fn tables(run: &Run) -> Result<String> {
    let mut text = "![connect() to the last Service, by number of Services](benchmarks/connect.svg)\n\n".to_owned();
    writeln!(
        text,
        "Linux {}, load average at the end {}. Medians; in brackets against the direct connection.",
        run.kernel, run.load
    )?;
    for size in &run.sizes {
        let known = |what: &str, subject: &str| size.rows.iter().find(|row| row.what == what && row.subject == subject);
        let subjects: Vec<&str> =
            SUBJECTS.into_iter().filter(|subject| size.rows.iter().any(|row| row.subject == *subject)).collect();
        let unrecorded = if size.recorded_rules { "" } else { " (generated: no kube-proxy was recorded with so many)" };
        writeln!(text, "\n**{} Services**{unrecorded}\n\n| | {} |", size.services, subjects.join(" | "))?;
        writeln!(text, "|---|{}", "---|".repeat(subjects.len()))?;
        let mut all: Vec<&str> = Vec::new();
        for what in ["connect, first Service", "connect, middle Service", "connect, last Service"] {
            all.push(what);
        }
        for row in &size.rows {
            if !all.contains(&row.what.as_str()) {
                all.push(&row.what);
            }
        }
        for what in all {
            let unit = if what.contains("a second") { "" } else { ", µs" };
            let cell = |subject: &&str| match known(what, subject) {
                None => "–".to_owned(),
                Some(Row { median, against_direct: Some(ratio), .. }) if **subject != *"direct" => {
                    format!("{} ({ratio:.2}×)", number(*median))
                }
                Some(row) => number(row.median),
            };
            writeln!(text, "| {what}{unit} | {} |", subjects.iter().map(cell).collect::<Vec<_>>().join(" | "))?;
        }
    }
    writeln!(
        text,
        "\n| kpx | {} |",
        run.sizes.iter().map(|s| format!("{} Services", s.services)).collect::<Vec<_>>().join(" | ")
    )?;
    writeln!(text, "|---|{}", "---|".repeat(run.sizes.len()))?;
    let mut row = |what: &str, cell: &dyn Fn(&Own) -> String| {
        writeln!(text, "| {what} | {} |", run.sizes.iter().map(|size| cell(&size.kpx)).collect::<Vec<_>>().join(" | "))
    };
    row("first fill, ms", &|own| number(own.first_fill_ms))?;
    row("one endpoint changed, µs, p50 / p99", &|own| {
        format!("{} / {}", number(own.change_p50_us), number(own.change_p99_us))
    })?;
    row("maps that grow with Services, bytes a Service", &|own| format!("{:.0}", own.bytes_a_service))?;
    for program in ["kpx_ingress", "kpx_egress"] {
        let time =
            |own: &Own| own.nanoseconds_a_packet.get(program).map_or_else(|| "–".to_owned(), |ns| format!("{ns:.0}"));
        row(&format!("`{program}`, ns a packet"), &time)?;
    }
    Ok(text)
}

fn lines(run: &Run) -> Vec<Line> {
    let of = |subject: &str| {
        let point = |size: &Size| {
            let row = size.rows.iter().find(|row| row.subject == subject && row.what == "connect, last Service")?;
            Some((size.services as f64, row.median))
        };
        Line { name: subject.to_owned(), points: run.sizes.iter().filter_map(point).collect() }
    };
    // The short cut in the driver has nothing to do with the node's own connections.
    SUBJECTS.into_iter().filter(|name| *name != "kpx-xdp").map(of).filter(|line| !line.points.is_empty()).collect()
}
