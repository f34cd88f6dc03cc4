//! The result of an audit, for people and for programs.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::cost;
use super::measure::{self, Load};
use crate::audit::{Area, Cost, Evidence, Judged, Severity};
use crate::capture::XtablesLock;
use crate::ui::{Annotation, Cell, Report, Table, Tone, count, to_value};

/// How much evidence a finding shows where space is short.
const FIRST: usize = 3;

/// What became of the checks.
pub(super) struct AuditReport {
    /// What was read.
    pub(super) node: String,
    pub(super) judged: Vec<Judged>,
    /// What serving Services costs.
    pub(super) costs: Vec<Cost>,
    /// Who holds iptables-legacy's lock.
    pub(super) lock: Option<XtablesLock>,
    /// How long the rules take to load, where that was asked for.
    pub(super) loads: Option<Vec<Load>>,
    /// Pieces of evidence that the operator asked to leave out.
    pub(super) ignored: usize,
    /// Findings below are not shown.
    pub(super) min_severity: Severity,
}

impl AuditReport {
    /// Findings that are shown, of one area, the worst first.
    fn findings(&self, area: Area) -> Vec<&Judged> {
        let shown = |j: &&Judged| j.check.area == area && j.fired() && j.check.severity >= self.min_severity;
        let mut findings: Vec<_> = self.judged.iter().filter(shown).collect();
        findings.sort_by_key(|j| std::cmp::Reverse(j.check.severity));
        findings
    }

    fn of_severity(&self, severity: Severity) -> usize {
        self.judged.iter().filter(|j| j.fired() && j.check.severity == severity).count()
    }

    fn passed(&self) -> usize {
        self.judged.iter().filter(|j| !j.fired() && j.found.is_ok()).count()
    }

    /// Checks by the reason for which they were skipped.
    fn skipped(&self) -> BTreeMap<&str, Vec<&'static str>> {
        let mut reasons: BTreeMap<&str, Vec<&'static str>> = BTreeMap::new();
        for judged in &self.judged {
            if let Err(skip) = &judged.found {
                reasons.entry(&skip.0).or_default().push(judged.check.id);
            }
        }
        reasons
    }

    fn summary(&self) -> String {
        let mut parts = vec![
            count(self.of_severity(Severity::Error), "error"),
            count(self.of_severity(Severity::Warning), "warning"),
            format!("{} good to know", self.of_severity(Severity::Info)),
            format!("{} passed", self.passed()),
            format!("{} skipped", self.judged.iter().filter(|j| j.found.is_err()).count()),
        ];
        if self.ignored > 0 {
            parts.push(format!("{} ignored", self.ignored));
        }
        format!("{}: {}", self.node, parts.join(", "))
    }
}

/// The tone of a severity.
const fn tone(severity: Severity) -> Tone {
    match severity {
        Severity::Info => Tone::Quiet,
        Severity::Warning => Tone::Warning,
        Severity::Error => Tone::Bad,
    }
}

/// A finding in one cell: title, evidence, what to do.
fn finding(judged: &Judged, wide: bool) -> String {
    let check = judged.check;
    let evidence = judged.evidence();
    let shown = if wide || evidence.len() <= FIRST + 1 { evidence.len() } else { FIRST };
    let mut lines = vec![check.title.to_owned()];
    for Evidence { at, text, .. } in &evidence[..shown] {
        lines.push(format!("  {at}"));
        lines.extend(text.lines().map(|line| format!("    {line}")));
    }
    if shown < evidence.len() {
        lines.push(format!("  and {} more; -o wide shows all", evidence.len() - shown));
    }
    lines.push(check.remedy.to_owned());
    let one = match evidence {
        [Evidence { command: Some(command), .. }] => command,
        _ => check.command,
    };
    lines.extend(one.lines().map(|line| format!("  $ {line}")));
    lines.join("\n")
}

impl Report for AuditReport {
    fn kind(&self) -> &'static str {
        "AuditReport"
    }

    fn items(&self) -> Vec<Value> {
        let item = |judged: &Judged| {
            let mut item = to_value(judged.check);
            let (result, reason) = match &judged.found {
                Ok(found) if found.is_empty() => ("passed", Value::Null),
                Ok(_) => ("found", Value::Null),
                Err(skip) => ("skipped", Value::String(skip.0.clone())),
            };
            item["result"] = json!(result);
            item["reason"] = reason;
            item["evidence"] = to_value(&judged.evidence());
            item
        };
        self.judged.iter().filter(|j| !j.fired() || j.check.severity >= self.min_severity).map(item).collect()
    }

    fn extra(&self) -> Map<String, Value> {
        let summary = json!({
            "error": self.of_severity(Severity::Error),
            "warning": self.of_severity(Severity::Warning),
            "info": self.of_severity(Severity::Info),
            "passed": self.passed(),
            "skipped": self.judged.iter().filter(|j| j.found.is_err()).count(),
            "ignored": self.ignored,
        });
        Map::from_iter([
            ("node".to_owned(), json!(self.node)),
            ("summary".to_owned(), summary),
            ("costs".to_owned(), to_value(&self.costs)),
            ("xtables_lock".to_owned(), to_value(&self.lock)),
            ("loads".to_owned(), to_value(&self.loads)),
        ])
    }

    fn tables(&self, wide: bool) -> Vec<Table> {
        let mut tables = Vec::new();
        for area in Area::ALL {
            let mut table = Table::new(&["CHECK", "RESULT", "FINDING"]).whole(&["CHECK", "RESULT"]).title(area.word());
            for judged in self.findings(area) {
                let severity = judged.check.severity;
                table.row([
                    Cell::from(judged.check.id),
                    Cell::toned(severity.to_string(), tone(severity)),
                    Cell::from(finding(judged, wide)),
                ]);
            }
            if wide {
                for judged in
                    self.judged.iter().filter(|j| j.check.area == area && j.found.as_ref().is_ok_and(Vec::is_empty))
                {
                    table.row([
                        Cell::from(judged.check.id),
                        Cell::toned("pass", Tone::Good),
                        Cell::from(judged.check.title),
                    ]);
                }
            }
            if !table.rows.is_empty() {
                tables.push(table);
            }
        }
        tables.extend(cost::tables(&self.costs, wide));
        tables.extend(self.loads.as_deref().map(measure::table));
        let mut last = Table::new(&["SKIPPED", "BECAUSE"]);
        for (reason, checks) in self.skipped() {
            last.row([checks.join(", "), reason.to_owned()]);
        }
        tables.push(last.footer(self.summary()));
        tables
    }

    fn annotations(&self) -> Option<Vec<Annotation>> {
        let shown = Area::ALL.into_iter().flat_map(|area| self.findings(area));
        let annotation = |judged: &Judged| Annotation {
            severity: judged.check.severity,
            title: format!("{} {}", judged.check.id, judged.check.title),
            text: finding(judged, false),
        };
        Some(shown.map(annotation).collect())
    }

    fn names(&self) -> Vec<String> {
        Area::ALL.into_iter().flat_map(|area| self.findings(area)).map(|judged| judged.check.id.to_owned()).collect()
    }
}
