//! The binary itself: screens, exit codes, streams.

mod environment;
mod generated;
mod help;
mod streams;
mod tables;
