//! What kpx does not do yet: the suite fails when one of these passes, so that none stays here by mistake.

/// Behaviours by id, and why.
pub(super) const PENDING: &[(&str, &str)] = &[];
