//! Any bytes as ipset: a state or an error, never a panic.
//!
//! Run with `cargo +nightly fuzz run ipset`.

#![no_main]

use kpx::inspect::ipset::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(sets) = parse(text) else { return };
    for (name, set) in &sets {
        assert!(!name.is_empty() && !set.kind.is_empty());
        set.entries.iter().for_each(|entry| assert!(!entry.to_string().contains(' ')));
    }
});
