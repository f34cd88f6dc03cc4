//! The report of traffic, as `kpx lab traffic` and `kpx lab demo` print it.

use serde_json::{Map, Value};

use crate::lab::{Latency, TrafficReport};
use crate::ui::{Cell, Report, Table, Tone, to_value};

/// A traffic report as the commands print it.
pub(super) struct TrafficView<'a>(pub(super) &'a TrafficReport);

impl Report for TrafficView<'_> {
    fn kind(&self) -> &'static str {
        "TrafficReport"
    }

    fn items(&self) -> Vec<Value> {
        self.0.phases.iter().map(to_value).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        match to_value(self.0) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }

    fn tables(&self, _wide: bool) -> Vec<Table> {
        let mut tables = vec![self.phases(), self.classes()];
        if !self.0.troubles.is_empty() {
            tables.push(self.troubles());
        }
        tables
    }

    fn names(&self) -> Vec<String> {
        self.0.phases.iter().map(|phase| phase.phase.clone()).collect()
    }
}

/// More troubles than these say nothing new on a screen; `-o json` has them all.
const TROUBLES: usize = 12;

impl TrafficView<'_> {
    fn phases(&self) -> Table {
        let headings = ["PHASE", "SECONDS", "OPEN", "LOST", "GAP-MS", "RESENT", "CONN", "FAILED", "P50-US", "P99-US"];
        let mut table = Table::new(&headings).right(&headings[1..]);
        for phase in &self.0.phases {
            let latency = |pick: fn(&Latency) -> u32| phase.connect.as_ref().map(pick).map(|us| us.to_string());
            table.row([
                Cell::from(phase.phase.as_str()),
                format!("{:.1}", phase.seconds).into(),
                phase.flows_open.to_string().into(),
                count(phase.flows_lost),
                format!("{:.1}", phase.longest_gap_ms).into(),
                phase.retransmissions.to_string().into(),
                phase.connects.to_string().into(),
                count(phase.connects_failed),
                latency(|l| l.p50_us).unwrap_or_default().into(),
                latency(|l| l.p99_us).unwrap_or_default().into(),
            ]);
        }
        table
    }

    fn classes(&self) -> Table {
        let report = self.0;
        let headings = ["FLOWS", "TOTAL", "LOST", "GAP-MS", "IDLE-GAP-MS"];
        let mut table = Table::new(&headings).right(&headings[1..]);
        for class in &report.classes {
            table.row([
                Cell::from(class.class.name()),
                class.flows_total.to_string().into(),
                count(class.flows_lost),
                format!("{:.1}", class.longest_gap_ms).into(),
                class.idle_gap_ms.map(|ms| format!("{ms:.1}")).unwrap_or_default().into(),
            ]);
        }
        table.footer(format!(
            "flows: {} of {} lost, records lost: {}, connects: {} of {} failed, probes of Services without backends: {} of {} unexpected",
            report.flows_lost,
            report.flows_total,
            report.records_lost,
            report.connects_failed,
            report.connects_total,
            report.probes_unexpected,
            report.probes_total,
        ))
    }

    fn troubles(&self) -> Table {
        let mut table = Table::new(&["WHAT", "FROM", "SERVICE", "ADDRESS", "PHASE", "REASON"]);
        for trouble in self.0.troubles.iter().take(TROUBLES) {
            table.row([
                trouble.what.as_str(),
                trouble.place.as_str(),
                trouble.service.as_str(),
                trouble.addr.as_str(),
                trouble.phase.as_str(),
                trouble.reason.as_str(),
            ]);
        }
        match self.0.troubles.len().saturating_sub(TROUBLES) {
            0 => table,
            more => table.footer(format!("and {more} more; -o json lists them")),
        }
    }
}

/// A number of things gone wrong.
fn count(number: u64) -> Cell {
    Cell::toned(number.to_string(), if number == 0 { Tone::Good } else { Tone::Bad })
}
