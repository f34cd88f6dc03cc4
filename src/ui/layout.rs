//! Borderless layout: what fits stays on one line, what does not is wrapped where a reader would break it.
//!
//! Addresses and names are what operators copy, so the widest columns give way first, cells break at spaces, then
//! after `/`, then after `-`, and inside a word only when nothing else is left.

use std::fmt::Write as _;

use super::table::{Align, Cell, Table};

/// Blanks between two columns.
const GAP: usize = 2;

/// A column that must give way is not made narrower than this.
const NARROWEST: usize = 6;

/// Appends the heading and the rows of `table` to `out`.
pub(super) fn rows(table: &Table, width: Option<usize>, headers: bool, color: bool, out: &mut String) {
    let widths = widths(table, width, headers);
    if headers {
        let bold = anstyle::Style::new().bold();
        let cells: Vec<_> = table.columns.iter().map(|c| (vec![c.heading], bold)).collect();
        lines(table, &widths, &cells, color, out);
    }
    for row in &table.rows {
        let cells: Vec<_> =
            row.iter().zip(&widths).map(|(cell, width)| (wrap(cell.shown(), *width), cell.tone.style())).collect();
        lines(table, &widths, &cells, color, out);
    }
}

fn lines(table: &Table, widths: &[usize], cells: &[(Vec<&str>, anstyle::Style)], color: bool, out: &mut String) {
    let height = cells.iter().map(|(lines, _)| lines.len()).max().unwrap_or(0);
    for line in 0..height {
        // Blanks are held back until text follows, so that no line ends in them.
        let mut blanks = 0;
        for (((text, style), column), width) in cells.iter().zip(&table.columns).zip(widths) {
            let text = text.get(line).copied().unwrap_or_default();
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
    let measure = |of: fn(&str) -> usize| -> Vec<usize> {
        let column = |i: usize| {
            let heading = if headers { table.columns[i].heading.len() } else { 0 };
            let longest = table.rows.iter().map(|row| of(Cell::shown(&row[i]))).max().unwrap_or(0);
            longest.max(heading)
        };
        (0..table.columns.len()).map(column).collect()
    };
    let natural = measure(|text| text.split('\n').map(count).max().unwrap_or(0));
    let Some(available) = available else { return natural };
    let gaps = GAP * table.columns.len().saturating_sub(1);
    let room = available.saturating_sub(gaps);
    let fixed = |i: usize| table.columns[i].align == Align::Right;
    let pieces = measure(|text| pieces(text).map(|(piece, _)| count(piece.trim_end())).max().unwrap_or(0));
    let pieces: Vec<usize> = (0..natural.len()).map(|i| if fixed(i) { natural[i] } else { pieces[i] }).collect();
    let widths = shrink(&natural, &pieces, room);
    if widths.iter().sum::<usize>() <= room {
        return widths;
    }
    let narrowest: Vec<usize> =
        (0..natural.len()).map(|i| if fixed(i) { natural[i] } else { widths[i].min(NARROWEST) }).collect();
    shrink(&widths, &narrowest, room)
}

/// Takes from the widest columns until all fit into `room`, never below `least`.
fn shrink(widths: &[usize], least: &[usize], room: usize) -> Vec<usize> {
    let capped = |cap: usize| widths.iter().zip(least).map(move |(w, l)| (*w).min(cap.max(*l)));
    let widest = widths.iter().copied().max().unwrap_or(0);
    let cap = (0..=widest).rev().find(|cap| capped(*cap).sum::<usize>() <= room).unwrap_or(0);
    let mut out: Vec<usize> = capped(cap).collect();
    // What rounding left over goes to columns that were cut.
    let mut left = room.saturating_sub(out.iter().sum());
    for (width, natural) in out.iter_mut().zip(widths) {
        let more = left.min(natural - *width);
        *width += more;
        left -= more;
    }
    out
}

/// Cuts a cell into lines of at most `width`.
fn wrap(text: &str, width: usize) -> Vec<&str> {
    let mut out = Vec::new();
    for line in text.split('\n') {
        let mut rest = line;
        while count(rest) > width {
            let limit = rest.char_indices().nth(width).map_or(rest.len(), |(at, _)| at);
            let cut = best_break(rest, limit).unwrap_or(limit);
            out.push(rest[..cut].trim_end());
            rest = rest[cut..].trim_start();
        }
        out.push(rest);
    }
    out
}

/// The best place at or before `limit` to break a line: a space, else after a slash, else after a dash.
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
    text.split_inclusive([' ', '/', '-', '\n']).map(|piece| {
        let rank = match piece.as_bytes().last() {
            Some(b' ' | b'\n') => 0,
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
}
