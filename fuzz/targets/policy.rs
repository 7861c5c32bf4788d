//! Any bytes as a policy file. `src/policy/tests/claims.rs` has the claims that are checked.

#![no_main]

use portcullis::{net, policy};

#[path = "../../src/policy/tests/claims.rs"]
#[expect(dead_code, reason = "the target of needs uses the rest")]
mod claims;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data) {
        claims::check_policy(text);
    }
});
