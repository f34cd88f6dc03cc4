//! The binary itself: screens, exit codes, streams.

pub(crate) mod environment;
mod generated;
mod help;
mod maps;
mod schema;
mod streams;
mod tables;
