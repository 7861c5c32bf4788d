//! `portcullis diff`

use std::path::Path;

use anyhow::Context;

use super::Exit;
use super::apply::list;
use super::output::Output;
use super::policy_file::load;
use crate::gate::{Gate, Place};
use crate::policy::diff;

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = Place::of(interface)?;
    let gate = Gate::open(&place)?;
    let live = gate
        .live_policy()?
        .with_context(|| format!("the gate on {interface} has no policy yet\nhelp: portcullis apply"))?;
    let changes = diff(&live, &compiled.policy);
    // `diff` is of what the file would do; a quarantine is not in any file
    let quarantined = gate.quarantined()?;
    output.either(&serde_json::json!({ "changes": changes, "quarantined": quarantined }), || {
        let mut text = list(&changes);
        for (server, left) in &quarantined {
            let until = left.map_or(String::new(), |seconds| format!(" for {seconds} s more"));
            text.push_str(&format!("! {server} is in quarantine{until}, whatever the file says\n"));
        }
        text
    })?;
    Ok(if changes.is_empty() && quarantined.is_empty() { Exit::Done } else { Exit::Failed })
}
