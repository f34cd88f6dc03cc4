//! Any bytes: neither the parser of BTF nor what shows values by it panics, or works longer than its bound.
//!
//! Run with `cargo +nightly fuzz run btf fuzz/corpus/btf /sys/kernel/btf`. The last 64 bytes are taken for a value.

#![no_main]

use kpx::inspect::btf::{Btf, Hint, Shape};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (btf, value) = bytes.split_at(bytes.len().saturating_sub(64));
    let Ok(btf) = Btf::parse(btf) else { return };
    for id in 0..64 {
        for hint in [Hint::None, Hint::Network] {
            let Some(shape) = Shape::of(&btf, id, hint) else { continue };
            let mut text = String::new();
            shape.text(value, &mut text);
            shape.json(value);
        }
    }
});
