//! Run with `cargo +nightly fuzz run ipvs`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpx_fuzz::ipvs(bytes));
