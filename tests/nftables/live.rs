//! Reading a live namespace.
