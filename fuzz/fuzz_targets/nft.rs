//! Any bytes as `nft -j list ruleset`: kube-proxy's tables and those of others or an error, never a panic.
//!
//! Run with `cargo +nightly fuzz run nft`.

#![no_main]

use kpx::inspect::nftables::{lift, others, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    let _ = others(json);
    let Ok(ruleset) = parse(json) else { return };
    let lifted = lift(&ruleset);
    assert!(!ruleset.is_empty() || lifted.table.frontends().is_empty());
});
