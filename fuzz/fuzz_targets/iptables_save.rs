//! Run with `cargo +nightly fuzz run iptables_save`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kpx_fuzz::iptables_save(bytes));
