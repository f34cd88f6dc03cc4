//! Reports as one page of HTML that needs nothing beside it: no script, no font, no picture from elsewhere.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::table::{Align, Cell, Table, Tone};

/// One part of a page: what a command says.
#[derive(Clone, Debug)]
pub struct Section {
    /// A heading.
    pub title: String,
    /// What to type for the same on a terminal.
    pub command: String,
    /// Its tables as [`super::Format::Html`] gives them.
    pub body: String,
    /// What it said besides, a line each: warnings, hints, and why there is nothing else.
    pub remarks: Vec<String>,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--bar:#5b8def55;--quiet:#888}
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem}
h1{font-size:1.5rem;margin-bottom:0}h2{font-size:1.15rem;margin:2.5rem 0 .25rem;border-bottom:2px solid var(--line)}
h3{font-size:1rem;margin:1.2rem 0 .3rem}
nav{margin:1rem 0}nav a{margin-right:1rem}
code,pre,td{font-family:ui-monospace,monospace;font-size:13px}
.command,.about,.foot{color:var(--quiet);margin:.2rem 0}
.scroll{overflow-x:auto}
table{border-collapse:collapse}
th{text-align:left;font-size:12px;color:var(--quiet);font-weight:600}
th,td{padding:.2rem .8rem .2rem 0;border-bottom:1px solid var(--line);vertical-align:top;white-space:pre-wrap}
.right{text-align:right;background-repeat:no-repeat;background-position:right}
td.right{white-space:nowrap;min-width:5rem;background-image:linear-gradient(var(--bar),var(--bar))}
.good{color:#2a8a3e}.warning{color:#b26a00}.bad{color:#c62828}.quiet{color:var(--quiet)}
details>summary{cursor:pointer;margin:.4rem 0}
ul.remarks{color:var(--quiet);font-size:14px}";

/// So many rows are shown at once; longer tables open on a click.
const OPEN: usize = 60;

/// The page.
pub fn page(title: &str, about: &str, sections: &[Section]) -> String {
    let anchor = |index: usize| format!("s{}", index + 1);
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (title) }
                p class="about" { (about) }
                nav {
                    @for (index, section) in sections.iter().enumerate() {
                        a href={ "#" (anchor(index)) } { (section.title) }
                    }
                }
                @for (index, section) in sections.iter().enumerate() {
                    section id=(anchor(index)) {
                        h2 { (section.title) }
                        p class="command" { code { "$ " (section.command) } }
                        (PreEscaped(&section.body))
                        @if !section.remarks.is_empty() {
                            ul class="remarks" { @for remark in &section.remarks { li { (remark) } } }
                        }
                    }
                }
            }
        }
    };
    markup.into_string()
}

/// A table for a page.
pub(super) fn table(table: &Table) -> String {
    let rows = html! {
        div class="scroll" {
            table {
                thead { tr { @for column in &table.columns { th class=[class(column.align)] { (column.heading) } } } }
                tbody { @for row in &table.rows { (cells(table, row)) } }
            }
        }
    };
    let markup = html! {
        @if let Some(title) = &table.title { h3 { (title) } }
        @match table.rows.len() {
            0 => {}
            1..=OPEN => (rows),
            n => details { summary { (n) " rows" } (rows) },
        }
        @if let Some(footer) = &table.footer { @for line in footer.lines() { p class="foot" { (line) } } }
    };
    markup.into_string()
}

fn cells(table: &Table, row: &[Cell]) -> Markup {
    html! {
        tr {
            @for (index, cell) in row.iter().enumerate() {
                @let column = &table.columns[index];
                td class=[class(column.align).or(tone(cell.tone))] style=[bar(table, index, cell)] {
                    @if column.align == Align::Right && tone(cell.tone).is_some() {
                        span class=[tone(cell.tone)] { (cell.shown()) }
                    } @else {
                        (cell.shown())
                    }
                }
            }
        }
    }
}

const fn class(align: Align) -> Option<&'static str> {
    match align {
        Align::Left => None,
        Align::Right => Some("right"),
    }
}

const fn tone(tone: Tone) -> Option<&'static str> {
    match tone {
        Tone::Plain => None,
        Tone::Good => Some("good"),
        Tone::Warning => Some("warning"),
        Tone::Bad => Some("bad"),
        Tone::Quiet => Some("quiet"),
    }
}

/// Behind a number its share of the largest in its column, where there is something to compare.
fn bar(table: &Table, index: usize, cell: &Cell) -> Option<String> {
    if table.columns[index].align != Align::Right {
        return None;
    }
    let number = |cell: &Cell| cell.text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    let share = || {
        let largest = table.rows.iter().filter_map(|row| number(&row[index])).fold(0.0, f64::max);
        let share = number(cell)? / largest * 100.0;
        (table.rows.len() > 1 && share.is_finite()).then_some(share)
    };
    Some(format!("background-size:{:.1}% 100%", share().unwrap_or(0.0)))
}

#[cfg(test)]
mod tests {
    use super::{Section, page, table};
    use crate::ui::{Cell, Table, Tone};

    #[test]
    fn numbers_have_bars_and_texts_are_texts() {
        let mut flows = Table::new(&["STATE", "FLOWS"]).right(&["FLOWS"]).title("by <state>");
        flows.row([Cell::from("A&B"), Cell::from("50")]);
        flows.row([Cell::toned("C", Tone::Bad), Cell::from("200")]);
        flows.row([Cell::from("D"), Cell::from("")]);
        let text = table(&flows);
        assert!(text.contains("<h3>by &lt;state&gt;</h3>") && text.contains("<td>A&amp;B</td>"), "{text}");
        assert!(text.contains("background-size:25.0% 100%\">50<") && text.contains("100.0% 100%\">200<"), "{text}");
        assert!(text.contains("0.0% 100%\">&lt;none&gt;<") && text.contains("<td class=\"bad\">C</td>"), "{text}");
    }

    #[test]
    fn long_tables_open_on_a_click() {
        let mut long = Table::new(&["N"]);
        (0..100).for_each(|n| long.row([n.to_string()]));
        assert!(table(&long).starts_with("<details><summary>100 rows</summary>"));
    }

    #[test]
    fn a_page_fetches_nothing() {
        let section = Section {
            title: "Findings".to_owned(),
            command: "kpx audit".to_owned(),
            body: String::new(),
            remarks: vec!["warning: <script>".to_owned()],
        };
        let text = page("node <a>", "now", &[section]);
        assert!(!text.contains("<script") && !text.contains("src=") && !text.contains("http"), "{text}");
        assert!(text.contains("<a href=\"#s1\">Findings</a>"), "{text}");
    }
}
