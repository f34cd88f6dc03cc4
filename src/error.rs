//! What every error of kpx can tell besides its message: what to type next.

/// An error that knows what the operator can do about it.
///
/// The edge ([`crate::ui`]) prints the message, the chain of sources and these hints; library code only attaches them.
pub trait Hinted: std::error::Error {
    /// Lines to print after `hint:`, each a sentence or a command to paste.
    fn hints(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An error and its causes in one line, for places where a line is all there is.
///
/// Some libraries repeat a cause in the error itself; it is told once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        cause = error.source();
    }
    line
}
