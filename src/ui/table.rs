//! Tables as values: columns, rows, tones. How they are laid out is [`super::layout`]'s business.

use std::fmt::Write as _;

use super::layout;

/// Side on which a column's cells stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// Left: text.
    #[default]
    Left,
    /// Right: numbers. Such a column is never wrapped.
    Right,
}

/// A column with its heading.
#[derive(Clone, Debug)]
pub struct Column {
    /// Upper-case heading without spaces.
    pub heading: &'static str,
    /// Alignment of the cells.
    pub align: Align,
    /// Whether its cells are wrapped only when no other column can give way: for what people copy.
    pub whole: bool,
}

impl From<&'static str> for Column {
    fn from(heading: &'static str) -> Self {
        Self { heading, align: Align::Left, whole: false }
    }
}

/// What a cell says besides its text; becomes a colour where colour is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Fine.
    Good,
    /// To be looked at.
    Warning,
    /// Wrong.
    Bad,
    /// Of less interest.
    Quiet,
}

impl Tone {
    /// The style of the tone on a terminal with colour.
    pub(super) const fn style(self) -> anstyle::Style {
        match self {
            Self::Plain => anstyle::Style::new(),
            Self::Good => anstyle::AnsiColor::Green.on_default(),
            Self::Warning => anstyle::AnsiColor::Yellow.on_default(),
            Self::Bad => anstyle::AnsiColor::Red.on_default(),
            Self::Quiet => anstyle::Style::new().dimmed(),
        }
    }
}

/// Text and tone of one cell. A line feed in the text starts a new line inside the cell.
#[derive(Clone, Debug, Default)]
pub struct Cell {
    /// The text; empty is shown as `<none>`.
    pub text: String,
    /// The tone.
    pub tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }

    /// A place left empty because the row above says it: blank, not `<none>`.
    pub fn blank() -> Self {
        Self::from(" ")
    }

    /// The text as shown.
    pub(super) fn shown(&self) -> &str {
        if self.text.is_empty() { "<none>" } else { &self.text }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

/// A table with an optional title and closing line.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// A heading above the table.
    pub title: Option<String>,
    /// Columns.
    pub columns: Vec<Column>,
    /// Rows, each as long as `columns`.
    pub rows: Vec<Vec<Cell>>,
    /// A line below, such as a count.
    pub footer: Option<String>,
    /// Whether most of it is sentences, which wrap wherever they go.
    pub prose: bool,
}

/// What sentences wrap at where no terminal says how wide it is.
const PAGE: u16 = 80;

impl Table {
    /// A table with these headings, all left-aligned; see [`Self::right`].
    pub fn new(headings: &[&'static str]) -> Self {
        Self { columns: headings.iter().map(|h| Column::from(*h)).collect(), ..Self::default() }
    }

    /// Aligns the named columns right.
    #[must_use]
    pub fn right(mut self, headings: &[&str]) -> Self {
        for column in &mut self.columns {
            if headings.contains(&column.heading) {
                column.align = Align::Right;
            }
        }
        self
    }

    /// Keeps the cells of the named columns on one line as long as others can give way.
    #[must_use]
    pub fn whole(mut self, headings: &[&str]) -> Self {
        for column in &mut self.columns {
            column.whole |= headings.contains(&column.heading);
        }
        self
    }

    /// Sets the title.
    #[must_use]
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.title = Some(title.into());
        self
    }

    /// Sets the closing line.
    #[must_use]
    pub fn footer(mut self, footer: impl Into<String>) -> Self {
        self.footer = Some(footer.into());
        self
    }

    /// Wraps the cells at 80 columns also where the output is piped: they are there to be read, and no address is in them.
    #[must_use]
    pub const fn prose(mut self) -> Self {
        self.prose = true;
        self
    }

    /// Adds a row.
    pub fn row<I, C>(&mut self, cells: I)
    where
        I: IntoIterator<Item = C>,
        C: Into<Cell>,
    {
        let cells: Vec<Cell> = cells.into_iter().map(Into::into).collect();
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has one cell a column");
        self.rows.push(cells);
    }

    /// Renders to text. `width` is the terminal's, `None` when piped; `color` allows ANSI sequences.
    pub fn render(&self, width: Option<u16>, headers: bool, color: bool) -> String {
        let mut out = String::new();
        let width = width.or(self.prose.then_some(PAGE)).map(usize::from);
        if let Some(title) = &self.title {
            layout::sentence(title, width, &mut out);
        }
        if !self.rows.is_empty() {
            layout::rows(self, width, headers, color, &mut out);
        }
        if let Some(footer) = &self.footer {
            layout::sentence(footer, width, &mut out);
        }
        out
    }

    /// Renders as a table of GitHub's Markdown.
    pub fn markdown(&self) -> String {
        let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut out = String::new();
        if let Some(title) = &self.title {
            let _ = writeln!(out, "## {title}\n");
        }
        if !self.rows.is_empty() {
            out += &row(self.columns.iter().map(|c| c.heading.to_owned()).collect());
            let rule = |column: &Column| if column.align == Align::Right { "---:" } else { "---" }.to_owned();
            out += &row(self.columns.iter().map(rule).collect());
        }
        for cells in &self.rows {
            out += &row(cells.iter().map(|cell| escaped(cell.shown())).collect());
        }
        if let Some(footer) = &self.footer {
            let gap = if self.rows.is_empty() { "" } else { "\n" };
            let _ = writeln!(out, "{gap}{footer}");
        }
        out
    }
}

/// The text of a cell where `|` ends the cell and a line feed the row.
fn escaped(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(|line| line.trim().replace('|', "\\|").replace('<', "&lt;")).collect();
    lines.join("<br>")
}
