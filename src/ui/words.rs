//! Small grammar for people.

/// `1 frontend`, `2 frontends`, `0 frontends`: a count with its noun.
pub fn count(n: usize, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}
