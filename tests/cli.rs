//! The binary itself: screens, exit codes, streams.

mod config;
mod docs;
pub(crate) mod environment;
mod generated;
mod help;
mod inspect;
mod maps;
mod path;
mod report;
pub(crate) mod schema;
mod streams;
mod tables;
