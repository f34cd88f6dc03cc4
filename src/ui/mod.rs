//! The one owner of the terminal: data to stdout, everything else to stderr.
//!
//! Commands hand a [`Report`] to [`Ui::report`]; the format, the envelope, colour, widths and exit codes are decided
//! here, once for all of them.

mod failure;
mod html;
mod layout;
mod log;
mod progress;
mod report;
mod stream;
mod table;
mod terminal;
mod words;

pub use failure::{Exit, Failure};
pub use html::{Section, page};
pub use log::LOG_VARIABLE;
pub use progress::Progress;
pub use report::{Annotation, Report, markdown, to_value};
pub use stream::Stream;
pub use table::{Align, Cell, Column, Table, Tone};
pub use terminal::{Buffer, ColorChoice, Format, Ui, UiOptions};
pub use words::{count, unicode};
