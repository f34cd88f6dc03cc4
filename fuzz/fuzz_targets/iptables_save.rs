//! Any bytes: the parser never panics, what it accepts prints back the same, and the lift takes whatever it accepts.
//!
//! Run with `cargo +nightly fuzz run iptables_save fuzz/corpus/iptables_save tests/data/iptables`.

#![no_main]

use kpx::inspect::iptables::{lift, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(dump) = parse(text) else { return };
    let printed = dump.to_bytes();
    let again = parse(&printed).expect("what was printed parses");
    // Only leading zeros of counters are not kept: iptables-save never prints them.
    assert_eq!(again.to_bytes(), printed);
    assert_eq!(dump.tables().len(), again.tables().len());
    for (a, b) in dump.tables().iter().zip(again.tables()) {
        assert_eq!((a.name(), a.chains(), a.rules()), (b.name(), b.chains(), b.rules()));
    }
    lift(Some(&dump), Some(&again));
});
