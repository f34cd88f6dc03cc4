//! Any bytes as ipvs: a state or an error, never a panic.
//!
//! Run with `cargo +nightly fuzz run ipvs`.

#![no_main]

use kpx::inspect::ipvs::{State, decode, parse_connections};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    parse_connections(bytes);
    let Ok(ipvs) = decode(bytes) else { return };
    let state = State { ipvs, ..State::default() };
    // Without sets and addresses nothing is kube-proxy's.
    assert!(state.lift(&mut Vec::new()).frontends().is_empty());
});
