//! Run with `cargo +nightly fuzz run conntrack`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpx_fuzz::conntrack(bytes));
