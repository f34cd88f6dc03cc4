//! Borderless layout: what fits stays on one line, what does not is wrapped where a reader would break it.
//!
//! Addresses and names are what operators copy, so the widest columns give way first, cells break at spaces and commas,
//! then after `/`, then after `-`, and inside a word only when nothing else is left.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::table::{Align, Column, Table};

/// Blanks between two columns.
const GAP: usize = 2;

/// A column that must give way is not made narrower than this.
const NARROWEST: usize = 6;

/// Appends the heading and the rows of `table` to `out`.
pub(super) fn rows(table: &Table, width: Option<usize>, headers: bool, color: bool, out: &mut String) {
    let widths = widths(table, width, headers);
    if headers {
        let bold = anstyle::Style::new().bold();
        let cells: Vec<_> = table.columns.iter().map(|c| (vec![c.heading.into()], bold)).collect();
        lines(table, &widths, &cells, color, out);
    }
    for row in &table.rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| (wrap(cell.shown(), *width), cell.tone.style())).collect();
        lines(table, &widths, &cells, color, out);
    }
}

/// Appends a line of words to `out`.
pub(super) fn sentence(text: &str, width: Option<usize>, out: &mut String) {
    for line in wrap(text, width.unwrap_or(usize::MAX)) {
        out.push_str(&line);
        out.push('\n');
    }
}

fn lines(
    table: &Table,
    widths: &[usize],
    cells: &[(Vec<Cow<'_, str>>, anstyle::Style)],
    color: bool,
    out: &mut String,
) {
    let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
    for line in 0..height {
        // Blanks are held back until text follows, so that no line ends in them.
        let mut blanks = 0;
        for (((text, style), column), width) in cells.iter().zip(&table.columns).zip(widths) {
            let text = text.get(line).map_or("", |line| &**line);
            let free = width.saturating_sub(count(text));
            let (before, after) = if column.align == Align::Right { (free, 0) } else { (0, free) };
            if text.is_empty() {
                blanks += width + GAP;
                continue;
            }
            out.extend(std::iter::repeat_n(' ', blanks + before));
            if color && *style != anstyle::Style::new() {
                let _ = write!(out, "{style}{text}{style:#}");
            } else {
                out.push_str(text);
            }
            blanks = after + GAP;
        }
        out.push('\n');
    }
}

/// The width of each column.
fn widths(table: &Table, available: Option<usize>, headers: bool) -> Vec<usize> {
    let columns: Vec<Measure> = (0..table.columns.len()).map(|i| Measure::of(table, i, headers)).collect();
    let mut widths: Vec<usize> = columns.iter().map(|column| column.natural).collect();
    let Some(available) = available else { return widths };
    let room = available.saturating_sub(GAP * columns.len().saturating_sub(1));
    let least = |of: fn(&Measure) -> usize, spare_whole: bool| -> Vec<usize> {
        let keep = |column: &Column| column.align == Align::Right || (column.whole && spare_whole);
        let floor = |(column, measure): (&Column, &Measure)| {
            if keep(column) { measure.natural } else { of(measure).min(measure.natural) }
        };
        table.columns.iter().zip(&columns).map(floor).collect()
    };
    // First between words; then inside the words of ordinary columns; then wherever there is anything left to take.
    for floor in [least(|m| m.piece, true), least(|_| NARROWEST, true), least(|_| NARROWEST, false)] {
        shrink(&columns, &mut widths, &floor, room);
    }
    widths
}

/// What is known of a column before its width is chosen.
struct Measure {
    /// The longest line of a cell or the heading.
    natural: usize,
    /// The longest piece that has no break inside.
    piece: usize,
    /// Length → how many lines of cells have it.
    lengths: BTreeMap<usize, usize>,
}

impl Measure {
    fn of(table: &Table, column: usize, headers: bool) -> Self {
        let heading = if headers { table.columns[column].heading.len() } else { 0 };
        let mut measure = Self { natural: heading, piece: heading, lengths: BTreeMap::new() };
        for line in table.rows.iter().flat_map(|row| row[column].shown().split('\n')) {
            let length = count(line);
            measure.natural = measure.natural.max(length);
            let longest = pieces(line).map(|(piece, _)| count(piece.trim_end())).max().unwrap_or(0);
            measure.piece = measure.piece.max(longest);
            *measure.lengths.entry(length).or_default() += 1;
        }
        measure
    }

    /// How many more lines the cells take when the width goes from `width` to one less.
    fn cost(&self, width: usize) -> usize {
        let more = |length: usize| length.div_ceil(width - 1) - length.div_ceil(width);
        self.lengths.range(width..).map(|(length, cells)| more(*length) * cells).sum()
    }
}

/// Narrows columns, never below `floor`, until all fit into `room`: at each step the column where it costs the fewest
/// new lines, of those the widest.
fn shrink(columns: &[Measure], widths: &mut [usize], floor: &[usize], room: usize) {
    while widths.iter().sum::<usize>() > room {
        let candidates = (0..columns.len()).filter(|i| widths[*i] > floor[*i].max(1));
        let Some(cheapest) = candidates.min_by_key(|i| (columns[*i].cost(widths[*i]), Reverse(widths[*i]))) else {
            return;
        };
        widths[cheapest] -= 1;
    }
}

/// Cuts a cell into lines of at most `width`. What does not fit goes on below the line's own start.
fn wrap<'t>(text: &'t str, width: usize) -> Vec<Cow<'t, str>> {
    let mut out: Vec<Cow<'t, str>> = Vec::new();
    for line in text.split('\n') {
        let indent = &line[..line.len() - line.trim_start_matches(' ').len()];
        // Too little would be left beside a deep indent.
        let indent = if indent.len() + NARROWEST <= width { indent } else { "" };
        let (mut rest, mut room, mut lead) = (line, width, "");
        let piece =
            |lead: &str, text: &'t str| if lead.is_empty() { text.into() } else { format!("{lead}{text}").into() };
        while count(rest) > room {
            let limit = rest.char_indices().nth(room).map_or(rest.len(), |(at, _)| at);
            let cut = best_break(rest, limit).unwrap_or(limit);
            out.push(piece(lead, rest[..cut].trim_end()));
            rest = rest[cut..].trim_start();
            (room, lead) = (width - indent.len(), indent);
        }
        out.push(piece(lead, rest));
    }
    out
}

/// `lead` and a text that wraps below itself, at most `width` columns wide where that is known.
pub(super) fn hang(lead: &str, text: &str, width: Option<usize>) -> String {
    let indent = count(lead);
    let Some(room) = width.and_then(|width| width.checked_sub(indent)).filter(|room| *room >= NARROWEST) else {
        return format!("{lead}{text}");
    };
    let mut out = lead.to_owned();
    for (i, line) in wrap(text, room).into_iter().enumerate() {
        if i > 0 {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
        }
        out.push_str(&line);
    }
    out
}

/// The best place at or before `limit` to break a line: a space or comma, else after a slash, else after a dash.
fn best_break(text: &str, limit: usize) -> Option<usize> {
    let mut best: Option<(u8, usize)> = None;
    let mut at = 0;
    for (piece, rank) in pieces(text) {
        at += piece.len();
        let end = at - (piece.len() - piece.trim_end().len());
        if end > limit || at >= text.len() {
            break;
        }
        if best.is_none_or(|(known, _)| rank <= known) {
            best = Some((rank, at));
        }
    }
    best.map(|(_, at)| at)
}

/// The unbreakable pieces of a text, each with the rank of the break behind it (lower is better).
fn pieces(text: &str) -> impl Iterator<Item = (&str, u8)> {
    text.split_inclusive([' ', ',', '/', '-', '\n']).map(|piece| {
        let rank = match piece.as_bytes().last() {
            Some(b' ' | b',' | b'\n') => 0,
            Some(b'/') => 1,
            _ => 2,
        };
        (piece, rank)
    })
}

fn count(text: &str) -> usize {
    text.chars().count()
}

#[cfg(test)]
mod tests {
    use super::super::table::{Cell, Table, Tone};
    use super::hang;

    fn services() -> Table {
        let mut table = Table::new(&["SERVICE", "PORT", "BACKENDS"]).right(&["PORT"]).footer("2 frontends");
        table.row(["shop/cart:http", "80", "10.244.1.5:8080, +2"]);
        table.row(["a-rather-long-namespace/and-a-service-with-a-longer-name:metrics", "9090", ""]);
        table
    }

    #[test]
    fn piped_tables_have_natural_widths() {
        insta::assert_snapshot!(services().render(None, true, false), @r"
        SERVICE                                                           PORT  BACKENDS
        shop/cart:http                                                      80  10.244.1.5:8080, +2
        a-rather-long-namespace/and-a-service-with-a-longer-name:metrics  9090  <none>
        2 frontends
        ");
    }

    #[test]
    fn the_widest_column_gives_way_where_a_reader_would_break_it() {
        insta::assert_snapshot!(services().render(Some(60), true, false), @r"
        SERVICE                            PORT  BACKENDS
        shop/cart:http                       80  10.244.1.5:8080, +2
        a-rather-long-namespace/           9090  <none>
        and-a-service-with-a-longer-
        name:metrics
        2 frontends
        ");
    }

    #[test]
    fn a_word_breaks_when_nothing_else_is_left() {
        let mut table = Table::new(&["HASH", "N"]).right(&["N"]);
        table.row(["0123456789abcdef0123456789abcdef", "17"]);
        insta::assert_snapshot!(table.render(Some(20), false, false), @r"
        0123456789abcdef  17
        0123456789abcdef
        ");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_or_ends_in_blanks() {
        for width in 30..120u16 {
            let text = services().render(Some(width), true, false);
            for line in text.lines() {
                assert!(line.chars().count() <= usize::from(width), "{width}: {line}");
                assert_eq!(line, line.trim_end());
            }
        }
    }

    #[test]
    fn cells_may_have_lines_and_tones() {
        let mut table = Table::new(&["FRONTEND", "STATE"]);
        table.row([Cell::from("shop/cart:http\nClusterIP 10.96.0.10:80/TCP"), Cell::toned("gone", Tone::Bad)]);
        insta::assert_snapshot!(table.render(Some(80), true, false), @r"
        FRONTEND                     STATE
        shop/cart:http               gone
        ClusterIP 10.96.0.10:80/TCP
        ");
        assert!(table.render(Some(80), true, true).contains("\u{1b}[31mgone\u{1b}[0m"));
    }

    #[test]
    fn an_indented_line_goes_on_below_itself() {
        let mut table = Table::new(&["FINDING"]);
        table.row(["a rule\n    -m comment --comment words -j DROP"]);
        insta::assert_snapshot!(table.render(Some(26), false, false), @r"
        a rule
            -m comment --comment
            words -j DROP
        ");
    }

    #[test]
    fn a_text_wraps_below_itself() {
        insta::assert_snapshot!(hang("load  done  ", "fill the maps with 99 frontends", Some(30)), @r"
        load  done  fill the maps with
                    99 frontends
        ");
        assert_eq!(hang("load  ", "as it is, when piped", None), "load  as it is, when piped");
    }
}
