//! `portcullis apply`: makes a policy the live one.

use std::fmt::Display;
use std::path::Path;

use serde_json::json;

use super::shared::{exit_by_attachment, find_place, load_policy, record, record_refusal, save_quarantines};
use crate::audit::{Action, Entry};
use crate::exit::Exit;
use crate::gate::{Gate, confirm_policy, find_caveats, list_carried};
use crate::output::Output;
use crate::policy::list_changes;

/// Makes a policy the live one of a gate in one atomic step, and prints the difference.
///
/// # Errors
/// When the policy is bad or there is no gate. The live policy stays as it was then.
pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Apply, why).file(policy);
    record_refusal(interface, refused, output, || apply(interface, policy, output))
}

fn apply(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load_policy(policy, output)?;
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = Gate::open(&place)?;
    if let Some(generation) = gate.find_identical(&place, &compiled.policy, &compiled.tables)? {
        // an earlier version has not kept it
        let unconfirmed = confirm_policy(&place, &compiled.policy);
        drop(lock);
        if let Some(warning) = unconfirmed {
            output.warn(&warning);
        }
        let value = json!({
            "interface": interface, "generation": generation, "changes": [], "quarantines": [], "unchanged": true,
        });
        output.either(&value, || {
            format!(
                "this policy is live on {interface} already, as generation {generation}: nothing changed\n"
            )
        })?;
        return Ok(exit_by_attachment(&gate, &place, output));
    }
    let changes = gate.changes_to(&compiled.policy)?;
    let carried = gate.find_carried_quarantines(&compiled.tables)?;
    let before = gate.policy_mark();
    let generation = gate.apply(&place, &compiled.policy, &compiled.tables)?;
    let unconfirmed = confirm_policy(&place, &compiled.policy);
    let entry = Entry::done(Action::Apply).file(policy).change(before, gate.policy_mark());
    record(&place, entry, output);
    drop(lock);
    save_quarantines(&gate, &place, output);
    let caveats = find_caveats(&place, &compiled.policy);
    for warning in
        gate.list_unapplied_sizes(&compiled.policy.tables).iter().chain(&caveats).chain(&unconfirmed)
    {
        output.warn(warning);
    }
    let value = json!({
        "interface": interface, "generation": generation, "changes": changes, "quarantines": carried,
        "unchanged": false,
    });
    output.either(&value, || {
        let carried = list_carried(&carried);
        format!("{}{carried}generation {generation} is live on {interface}\n", list_changes(&changes))
    })?;
    Ok(exit_by_attachment(&gate, &place, output))
}
