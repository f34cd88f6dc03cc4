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
