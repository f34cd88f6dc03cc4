//! Borderless tables, about 80 columns, readable without colour.

use comfy_table::{CellAlignment, ColumnConstraint, ContentArrangement, Width};

/// Side on which a column's cells stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Align {
    /// Left: text.
    #[default]
    Left,
    /// Right: numbers.
    Right,
}

/// A column with its heading.
#[derive(Clone, Debug)]
pub struct Column {
    /// Upper-case heading without spaces.
    pub heading: &'static str,
    /// Alignment of the cells.
    pub align: Align,
}

impl From<&'static str> for Column {
    fn from(heading: &'static str) -> Self {
        Self { heading, align: Align::Left }
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

/// Text and tone of one cell.
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
}

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
        if let Some(title) = &self.title {
            out.push_str(title);
            out.push('\n');
        }
        if !self.rows.is_empty() {
            self.render_rows(width, headers, color, &mut out);
        }
        if let Some(footer) = &self.footer {
            out.push_str(footer);
            out.push('\n');
        }
        out
    }

    fn render_rows(&self, width: Option<u16>, headers: bool, color: bool, out: &mut String) {
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if headers {
            table.set_header(self.columns.iter().map(|c| c.heading));
        }
        for row in &self.rows {
            table.add_row(row.iter().map(|cell| if cell.text.is_empty() { "<none>" } else { cell.text.as_str() }));
        }
        match width {
            Some(width) => {
                table.set_content_arrangement(ContentArrangement::Dynamic);
                table.set_width(width);
            }
            None => {
                table.set_content_arrangement(ContentArrangement::Disabled);
            }
        }
        for (i, column) in self.columns.iter().enumerate() {
            let last = i + 1 == self.columns.len();
            if let Some(c) = table.column_mut(i) {
                c.set_padding((0, if last { 0 } else { 2 }));
                if column.align == Align::Right {
                    c.set_cell_alignment(CellAlignment::Right);
                }
                // Numbers and short words stay whole; long text wraps.
                let longest = self.rows.iter().map(|r| r[i].text.chars().count()).max().unwrap_or(0);
                let longest = longest.max(column.heading.len());
                if longest <= 12 {
                    c.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(longest as u16 + 2)));
                }
            }
        }
        let text = table.to_string();
        let tones = if color { Some(&self.rows) } else { None };
        for line in text.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        if let Some(rows) = tones {
            colour(out, rows);
        }
    }
}

/// Colours each toned cell's text where it stands; done on the text so that widths never count escape sequences.
fn colour(out: &mut String, rows: &[Vec<Cell>]) {
    let mut at = 0;
    for cell in rows.iter().flatten() {
        let style = match cell.tone {
            Tone::Plain => continue,
            Tone::Good => anstyle::AnsiColor::Green.on_default(),
            Tone::Warning => anstyle::AnsiColor::Yellow.on_default(),
            Tone::Bad => anstyle::AnsiColor::Red.on_default(),
            Tone::Quiet => anstyle::Style::new().dimmed(),
        };
        if let Some(found) = out[at..].find(cell.text.as_str()) {
            let start = at + found;
            let painted = format!("{style}{}{style:#}", cell.text);
            out.replace_range(start..start + cell.text.len(), &painted);
            at = start + painted.len();
        }
    }
}
