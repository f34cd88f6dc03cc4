//! iptables-save's text as lines, and which of them are kube-proxy's: the oracle.

use kpx::capture::{Variant, XtablesTool, command};
use kpx::model::Family;

/// kube-proxy's chains with fixed names, of all versions in iptables mode.
const FIXED: [&str; 9] = [
    "KUBE-SERVICES",
    "KUBE-EXTERNAL-SERVICES",
    "KUBE-NODEPORTS",
    "KUBE-FORWARD",
    "KUBE-PROXY-FIREWALL",
    "KUBE-POSTROUTING",
    "KUBE-MARK-MASQ",
    "KUBE-MARK-DROP",
    "KUBE-PROXY-CANARY",
];

const HASHED: [&str; 6] = ["KUBE-SVC-", "KUBE-SVL-", "KUBE-SEP-", "KUBE-EXT-", "KUBE-FW-", "KUBE-XLB-"];

/// What the tool prints now, without comments and counters.
pub(super) fn saved(variant: Variant, family: Family) -> Vec<String> {
    let text = command::output(XtablesTool::Save.program(family, variant), [] as [&str; 0], None).expect("it prints");
    String::from_utf8(text).expect("text").lines().filter(|line| !line.starts_with('#')).map(uncounted).collect()
}

fn uncounted(line: &str) -> String {
    match line.strip_prefix(':').and_then(|declared| declared.split_once(" [")) {
        Some((declared, _)) => format!(":{declared}"),
        None => line.to_owned(),
    }
}

/// Loads a text, as it is.
pub(super) fn load(variant: Variant, family: Family, text: &str) {
    command::output(XtablesTool::Restore.program(family, variant), [] as [&str; 0], Some(text.as_bytes()))
        .expect("it loads");
}

/// Feeds lines to `iptables-restore --noflush`.
pub(super) fn change(variant: Variant, family: Family, table: &str, lines: &str) {
    let text = format!("*{table}\n{lines}\nCOMMIT\n");
    let program = XtablesTool::Restore.program(family, variant);
    command::output(program, ["--noflush"], Some(text.as_bytes())).unwrap_or_else(|e| panic!("{lines}: {e}"));
}

/// Whether a line is kube-proxy's: one of its chains, a rule in one, or its jump to one; `stay` are those that stay.
pub(super) fn is_kube_proxys(line: &str, stay: &[&str]) -> bool {
    let ours = |chain: &str| {
        !stay.contains(&chain) && (FIXED.contains(&chain) || HASHED.iter().any(|prefix| chain.starts_with(prefix)))
    };
    let named = line.strip_prefix(':').or_else(|| line.strip_prefix("-A "));
    let chain = named.and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let jump = line.contains(r#"--comment "kube"#) && line.rsplit_once(" -j ").is_some_and(|(_, target)| ours(target));
    ours(chain) || jump
}

/// The lines that are to be left.
pub(super) fn others(lines: &[String], stay: &[&str]) -> Vec<String> {
    lines.iter().filter(|line| !is_kube_proxys(line, stay)).cloned().collect()
}

/// Asserts that two texts are the same, naming the first line that is not.
#[track_caller]
pub(super) fn assert_same(found: &[String], wanted: &[String], what: &str) {
    let differs = found.iter().zip(wanted).position(|(f, w)| f != w).unwrap_or(found.len().min(wanted.len()));
    let at = |lines: &[String]| lines.get(differs).cloned();
    assert!(found == wanted, "{what}: line {differs} is {:?}, not {:?}", at(found), at(wanted));
}

/// The rules of one chain, in order, each behind `-A CHAIN `.
pub(super) fn rules_of(lines: &[String], table: &str, chain: &str) -> Vec<String> {
    let table = format!("*{table}");
    let prefix = format!("-A {chain} ");
    let own = lines.iter().skip_while(|line| **line != table).take_while(|line| *line != "COMMIT");
    own.filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect()
}
