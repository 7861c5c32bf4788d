//! `portcullis diff`

use std::path::Path;

use anyhow::Context;

use crate::exit::Exit;
use crate::gate::{Gate, GatePlace};
use crate::output::Output;
use crate::policy::diff;
use crate::policy::list_changes;
use crate::policy_file::load;

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = GatePlace::of(interface)?;
    let gate = Gate::open(&place)?;
    let live = gate
        .live_policy()?
        .with_context(|| format!("the gate on {interface} has no policy yet\nhelp: portcullis apply"))?;
    let changes = diff(&live, &compiled.policy);
    // `diff` is of what the file would do; a quarantine is not in any file
    let quarantined = gate.quarantined()?;
    output.either(&serde_json::json!({ "changes": changes, "quarantined": quarantined }), || {
        let mut text = list_changes(&changes);
        for (server, left) in &quarantined {
            let until = left.map_or(String::new(), |seconds| format!(" for {seconds} s more"));
            text.push_str(&format!("! {server} is in quarantine{until}, whatever the file says\n"));
        }
        text
    })?;
    Ok(if changes.is_empty() && quarantined.is_empty() { Exit::Done } else { Exit::Failed })
}
