//! `portcullis diff`: compares a policy file with the live policy.

use std::path::Path;

use serde_json::json;

use super::shared::{live_policy, load_policy};
use crate::clock::show_duration;
use crate::exit::Exit;
use crate::gate::{Gate, GatePlace};
use crate::output::Output;
use crate::policy::{diff, list_changes};

/// Prints what the file would change. A quarantine is a difference too, because no file has it.
///
/// # Errors
/// When the policy is bad or there is no gate.
pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load_policy(policy, output)?;
    let place = GatePlace::of(interface)?;
    let gate = Gate::open(&place)?;
    let changes = diff(&live_policy(&gate, interface)?, &compiled.policy);
    let quarantined = gate.quarantined()?;
    output.either(&json!({ "changes": changes, "quarantined": quarantined }), || {
        let mut text = list_changes(&changes);
        for (server, left_s) in &quarantined {
            let until =
                left_s.map_or(String::new(), |seconds| format!(" for {} more", show_duration(seconds)));
            text.push_str(&format!("! {server} is in quarantine{until}, whatever the file says\n"));
        }
        text
    })?;
    Ok(if changes.is_empty() && quarantined.is_empty() { Exit::Done } else { Exit::Failed })
}
