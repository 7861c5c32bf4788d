//! Any bytes as a policy file: see `src/policy/tests/claims.rs` for what is claimed of them.

#![no_main]

use portcullis::{net, policy};

#[path = "../../src/policy/tests/claims.rs"]
#[allow(dead_code)] // the target of needs uses the rest
mod claims;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        claims::check_policy(text);
    }
});
