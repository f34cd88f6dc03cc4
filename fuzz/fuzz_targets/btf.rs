//! Run with `cargo +nightly fuzz run btf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpx_fuzz::btf(bytes));
