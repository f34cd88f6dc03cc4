//! The features as documentation: the second part of `docs/checks.md`, and `kpx explain`.

use std::fmt::Write as _;

use super::feature::{Area, Feature};
use super::registry::all;

const HEAD: &str = "
# Features

What `kpx preflight` asks for. An answer is *works*, *does not* or *cannot tell*; it was *tried* on the running kernel, is *known*
from its configuration and BTF, or *inferred* from its version. The severity is that of its absence, for kpx and for Cilium's
replacement of kube-proxy; a dash means that it is not needed.
";

/// The features' part of the page.
pub fn page() -> String {
    let mut out = HEAD.to_owned();
    for area in Area::ALL {
        let _ = writeln!(
            out,
            "\n## Features: {area}\n\n| Check | Name | kpx | Cilium | Asks for |\n| --- | --- | --- | --- | --- |"
        );
        let need =
            |severity: Option<_>| severity.map_or_else(|| "–".to_owned(), |s: crate::severity::Severity| s.to_string());
        for f in all().filter(|f| f.area == area) {
            let anchor = f.id.to_ascii_lowercase();
            let (kpx, cilium) = (need(f.kpx), need(f.cilium));
            let _ = writeln!(out, "| [{}](#{anchor}) | `{}` | {kpx} | {cilium} | {} |", f.id, f.name, f.title);
        }
        for feature in all().filter(|f| f.area == area) {
            let _ = write!(out, "\n{}", section(feature));
        }
    }
    out
}

/// One feature's section of the page.
pub fn section(feature: &Feature) -> String {
    let Feature { id, name, title, why, remedy, without, command, .. } = feature;
    format!("### {id}\n\n{title} (`{name}`)\n\n{why}\n\n{remedy}\n\nWithout it: {without}\n\n    {command}\n")
}
