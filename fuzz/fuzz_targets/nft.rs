//! Run with `cargo +nightly fuzz run nft`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpx_fuzz::nft(bytes));
