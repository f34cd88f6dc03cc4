//! The committed object against the types.
