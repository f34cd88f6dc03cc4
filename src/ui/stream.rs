//! Tables whose rows come one by one, so that their columns' widths have to be known before.

use std::fmt::Write as _;

use super::Cell;

/// What stands between two columns.
const GAP: usize = 2;

/// The columns of such a table, each with what its cells mostly need; a longer cell moves what follows.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    columns: &'static [(&'static str, usize)],
}

impl Stream {
    /// A table with these headings and widths.
    pub const fn new(columns: &'static [(&'static str, usize)]) -> Self {
        Self { columns }
    }

    /// The line of headings.
    pub(super) fn headings(self) -> String {
        let cells: Vec<Cell> = self.columns.iter().map(|(heading, _)| Cell::from(*heading)).collect();
        self.row(&cells, false)
    }

    /// A row; `color` allows ANSI sequences.
    pub(super) fn row(self, cells: &[Cell], color: bool) -> String {
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has one cell a column");
        let (mut line, mut blanks) = (String::new(), 0);
        for (cell, (_, width)) in cells.iter().zip(self.columns) {
            let (text, style) = (cell.shown(), cell.tone.style());
            line.extend(std::iter::repeat_n(' ', blanks));
            if color && style != anstyle::Style::new() {
                let _ = write!(line, "{style}{text}{style:#}");
            } else {
                line.push_str(text);
            }
            blanks = width.saturating_sub(text.chars().count()) + GAP;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ui::Tone;

    #[test]
    fn columns_stand_below_their_headings_as_long_as_cells_fit() {
        let stream = Stream::new(&[("TIME", 8), ("EVENT", 5), ("SERVICE", 0)]);
        let row = |event: &str| stream.row(&["12:00:01".into(), Cell::toned(event, Tone::Bad), "a/b".into()], false);
        assert_eq!(stream.headings(), "TIME      EVENT  SERVICE");
        assert_eq!(row("left"), "12:00:01  left   a/b");
        assert_eq!(row("refused"), "12:00:01  refused  a/b");
        assert_eq!(row(""), "12:00:01  <none>  a/b");
        let coloured = stream.row(&["1".into(), Cell::toned("left", Tone::Bad), "a/b".into()], true);
        assert!(coloured.contains("\u{1b}[31mleft\u{1b}[0m   a/b"), "{coloured:?}");
    }
}
