//! `portcullis confirm`: keeps the policy that is on trial.

use serde_json::json;

use super::edits::describe_json;
use super::shared::{exit_by_attachment, find_place, record, record_refusal, save_quarantines};
use crate::audit::{Action, Entry};
use crate::exit::Exit;
use crate::gate::{Gate, confirm_policy, list_ended};
use crate::output::Output;

/// Makes the policy on trial the live one for good.
///
/// # Errors
/// When no policy is on trial, or its time is all but over.
pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    record_refusal(
        interface,
        |why| Entry::refused(Action::Confirm, why),
        output,
        || confirm(interface, output),
    )
}

fn confirm(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = Gate::open(&place)?;
    let policy = gate.live_policy()?;
    // what can't be listed keeps nobody from a `confirm`
    let mut ended = gate.edits().unwrap_or_default();
    let trial = gate.confirm_trial(&place)?;
    let left = gate.edits().unwrap_or_default();
    ended.retain(|edit| edit.left_s() > 0 && left.iter().all(|left| left.number != edit.number));
    let unconfirmed = policy.as_ref().and_then(|policy| confirm_policy(&place, policy));
    let mark = gate.policy_mark();
    record(&place, Entry::done(Action::Confirm).change(mark.clone(), mark), output);
    drop(lock);
    save_quarantines(&gate, &place, output);
    if let Some(warning) = unconfirmed {
        output.warn(&warning);
    }
    let value = json!({
        "interface": interface, "generation": trial.generation, "before": trial.before,
        "edits_ended": ended.iter().map(describe_json).collect::<Vec<_>>(),
    });
    output.either(&value, || {
        let ended = list_ended(&ended);
        format!("{ended}generation {} is confirmed, and stays live on {interface}\n", trial.generation)
    })?;
    Ok(exit_by_attachment(&gate, &place, output))
}
