//! IP sets: the text of `ipset save`, typed.

mod parse;

pub use parse::{Entry, ParseError, Part, Problem, Set, Sets, parse};
