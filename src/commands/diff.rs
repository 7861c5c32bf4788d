//! `portcullis diff`: compares a policy file with the live policy.

use std::path::Path;

use serde_json::json;

use super::edits::{describe_edit, describe_json};
use super::shared::{find_place, live_policy, load_policy};
use crate::clock::show_duration;
use crate::exit::Exit;
use crate::gate::{Gate, TrialStatus, list_carried, list_ended};
use crate::output::Output;
use crate::policy::{diff, list_changes};

/// Prints what the file would change. A quarantine and an edit are differences too, because no file has them.
///
/// # Errors
/// When the policy is bad or there is no gate.
pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load_policy(policy, output)?;
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let gate = Gate::open(&place)?;
    let changes = diff(&live_policy(&gate, interface)?, &compiled.policy);
    let quarantined = gate.quarantined()?;
    let addresses = gate.quarantined_addresses()?;
    let carried = gate.find_carried_quarantines(&compiled.tables)?;
    let edits = gate.edits()?;
    let trial = gate.trial()?.map(TrialStatus::from);
    let homeless = gate.find_homeless_edits(&compiled.tables)?;
    let value = json!({
        "changes": changes, "quarantined": quarantined, "quarantined_addresses": addresses,
        "quarantines": carried, "edits": edits.iter().map(describe_json).collect::<Vec<_>>(), "trial": trial,
    });
    output.either(&value, || {
        let mut text = trial.map_or(String::new(), |trial| {
            format!(
                "! the live policy is on trial: unless somebody confirms it, generation {} is live again in {}\n",
                trial.before,
                show_duration(trial.left_s)
            )
        });
        text.push_str(&list_changes(&changes));
        let named = quarantined.iter().map(|(server, left_s)| (server.clone(), left_s));
        let single = addresses.iter().map(|row| (row.describe(), &row.left_s));
        for (server, left_s) in named.chain(single) {
            let until =
                left_s.map_or(String::new(), |seconds| format!(" for {} more", show_duration(seconds)));
            text.push_str(&format!("! {server} is in quarantine{until}, whatever the file says\n"));
        }
        for edit in &edits {
            text.push_str(&format!("! {}, whatever the file says\n", describe_edit(edit)));
        }
        text + &list_carried(&carried) + &list_ended(&homeless)
    })?;
    Ok(if changes.is_empty() && quarantined.is_empty() && addresses.is_empty() && edits.is_empty() {
        Exit::Done
    } else {
        Exit::Failed
    })
}
