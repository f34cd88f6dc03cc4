//! Any bytes as a recorded connection tracking table: entries or an error, never a panic.
//!
//! Run with `cargo +nightly fuzz run conntrack`.

#![no_main]

use kpx::inspect::conntrack::{Census, decode, read_recorded};
use kpx::model::ServiceTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let table = ServiceTable::default();
    let mut census = Census::new(&table);
    let _ = read_recorded(bytes, |entry| census.add(entry));
    let _ = decode(0x0100, bytes);
    assert!(census.of_services() == 0 && census.translations().values().sum::<u64>() == census.total());
});
