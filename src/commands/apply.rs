//! `portcullis apply`: makes a policy the live one, perhaps on trial.

use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use anyhow::bail;
use serde_json::json;

use super::edits::{describe_json, list_kept};
use super::shared::{
    exit_by_attachment, find_place, load_tested_policy, record, record_refusal, save_quarantines,
};
use crate::audit::{Action, Entry};
use crate::cli::{ApplyArgs, ChangeArgs};
use crate::clock::show_duration;
use crate::exit::Exit;
use crate::gate::{
    Gate, GateError, GatePlace, Lock, confirm_policy, confirm_policy_as, find_caveats, find_ssh_session,
    forget_trial, list_carried, list_ended, look_up_new_names, mark_trial,
};
use crate::output::Output;
use crate::policy::{Policy, list_changes};
use crate::policy_file::CompiledPolicy;

/// How a policy is to become the live one, and what the audit event says about it.
pub(super) struct Change<'c> {
    /// The command.
    pub action: Action,
    /// The file that the policy comes from.
    pub file: &'c Path,
    /// On trial or not, why, and whether it may cut the management off.
    pub how: &'c ChangeArgs,
}

/// Makes a policy the live one of a gate in one atomic step, and prints the difference.
///
/// # Errors
/// When the policy is bad, one of its tests fails, or there is no gate. The live policy stays as it was then.
pub fn run(arguments: &ApplyArgs, output: &Output) -> anyhow::Result<Exit> {
    let file = &arguments.policy;
    let note = arguments.change.note.as_deref();
    let refused = |why: &dyn Display| Entry::refused(Action::Apply, why).file(file).note(note);
    record_refusal(&arguments.interface.name, refused, output, || {
        let mut compiled = load_tested_policy(file, output)?;
        let place = find_place(&arguments.interface.name)?;
        for warning in look_up_new_names(&place, &mut compiled.tables) {
            output.warn(&warning);
        }
        let lock = place.lock()?;
        let gate = Gate::open(&place)?;
        gate.settle_trial(&place)?;
        let change = Change { action: Action::Apply, file, how: &arguments.change };
        put_into_force(&gate, &place, lock, &compiled, &change, output)
    })
}

/// Makes a policy the live one, and prints the difference. Nobody else may change the gate meanwhile.
pub(super) fn put_into_force(
    gate: &Gate,
    place: &GatePlace,
    lock: Lock,
    compiled: &CompiledPolicy,
    change: &Change<'_>,
    output: &Output,
) -> anyhow::Result<Exit> {
    let CompiledPolicy { policy, tables } = compiled;
    let interface = place.interface.as_str();
    if gate.trial()?.is_some() {
        return extend_trial(gate, place, policy, change, output);
    }
    if let Some(generation) = gate.find_identical(place, policy, tables)? {
        // an earlier version has not kept it, or a `confirm` was killed before it could
        let unconfirmed = confirm_policy(place, policy);
        drop(lock);
        if let Some(warning) = unconfirmed {
            output.warn(&warning);
        }
        let value = json!({
            "interface": interface, "generation": generation, "changes": [], "quarantines": [], "unchanged": true,
            "trial_s": null,
        });
        output.either(&value, || {
            format!(
                "this policy is live on {interface} already, as generation {generation}: nothing changed\n"
            )
        })?;
        return Ok(exit_by_attachment(gate, place, output));
    }
    warn_of_lost_management(gate, place, compiled, change.how, output)?;
    let changes = gate.changes_to(policy)?;
    let carried = gate.find_carried_quarantines(tables)?;
    let homeless = gate.find_homeless_edits(tables)?;
    let before = gate.policy_mark();
    let note = change.how.note.clone();
    let (generation, unconfirmed) = match change.how.confirm {
        Some(time) => (begin_trial(gate, place, compiled, time, note, output)?, None),
        None => {
            let generation = gate.apply(place, policy, tables)?;
            (generation, confirm_policy_as(place, policy, note))
        }
    };
    let entry = Entry::done(change.action)
        .file(change.file)
        .change(before, gate.policy_mark())
        .note(change.how.note.as_deref());
    record(place, describe_trial(entry, change.how), output);
    drop(lock);
    save_quarantines(gate, place, output);
    let mut caveats = find_caveats(place, policy);
    caveats.extend(gate.find_handover_doubt()?);
    for warning in gate.list_unapplied_sizes(&policy.tables).iter().chain(&caveats).chain(&unconfirmed) {
        output.warn(warning);
    }
    let trial_s = change.how.confirm.map(|time| time.as_secs());
    let edits = gate.edits()?;
    // of a trial they end with `confirm`
    let ended: Vec<_> = if trial_s.is_some() { Vec::new() } else { homeless };
    let value = json!({
        "interface": interface, "generation": generation, "changes": changes, "quarantines": carried,
        "unchanged": false, "trial_s": trial_s,
        "edits": edits.iter().map(describe_json).collect::<Vec<_>>(),
        "edits_ended": ended.iter().map(describe_json).collect::<Vec<_>>(),
    });
    output.either(&value, || {
        let carried = list_carried(&carried) + &list_kept(&edits) + &list_ended(&ended);
        let live = match trial_s {
            None => format!("generation {generation} is live on {interface}\n"),
            Some(seconds) => format!(
                "generation {generation} is live on {interface}, on trial for {}: then the gate goes back by itself\n\
                 confirm it: portcullis confirm -i {interface}\n",
                show_duration(seconds)
            ),
        };
        format!("{}{carried}{live}", list_changes(&changes))
    })?;
    Ok(exit_by_attachment(gate, place, output))
}

/// The policy before is kept in the history first: it is what an attach falls back to if this machine loses its power
/// during the trial.
fn begin_trial(
    gate: &Gate,
    place: &GatePlace,
    CompiledPolicy { policy, tables }: &CompiledPolicy,
    time: Duration,
    note: Option<String>,
    output: &Output,
) -> anyhow::Result<u64> {
    if let Some(live) = gate.live_policy()?
        && let Some(warning) = confirm_policy(place, &live)
    {
        output.warn(&warning);
    }
    mark_trial(place, policy, note)?;
    gate.begin_trial(place, policy, tables, time)
        .inspect_err(|_| forget_trial(place, policy))
        .map_err(anyhow::Error::from)
}

/// The same policy again, with `--confirm`, sets its time anew. Any other one is refused.
fn extend_trial(
    gate: &Gate,
    place: &GatePlace,
    policy: &Policy,
    change: &Change<'_>,
    output: &Output,
) -> anyhow::Result<Exit> {
    let is_same = gate.live_source()?.is_some_and(|(text, _)| text == policy.text);
    let Some(time) = change.how.confirm.filter(|_| is_same) else {
        gate.refuse_during_trial(place)?;
        return Err(GateError::NoTrial { interface: place.interface.clone() }.into());
    };
    let trial = gate.extend_trial(place, time)?;
    let mark = gate.policy_mark();
    let entry = Entry::done(change.action).file(change.file).change(mark.clone(), mark);
    let entry = entry.note(change.how.note.as_deref());
    record(place, describe_trial(entry, change.how), output);
    let value = json!({
        "interface": place.interface, "generation": trial.generation, "changes": [], "quarantines": [],
        "unchanged": true, "trial_s": time.as_secs(),
    });
    output.either(&value, || {
        format!(
            "generation {} stays on trial on {}, for {} from now on\n",
            trial.generation,
            place.interface,
            show_duration(time.as_secs())
        )
    })?;
    Ok(exit_by_attachment(gate, place, output))
}

fn describe_trial(entry: Entry, how: &ChangeArgs) -> Entry {
    match how.confirm {
        Some(time) => entry.detail(format_args!("on trial for {}", show_duration(time.as_secs()))),
        None => entry,
    }
}

/// Nobody may lock himself out by a slip. On trial he gets in again.
fn warn_of_lost_management(
    gate: &Gate,
    place: &GatePlace,
    CompiledPolicy { policy, tables }: &CompiledPolicy,
    how: &ChangeArgs,
    output: &Output,
) -> anyhow::Result<()> {
    let lost = gate.find_cut_off(policy, tables, find_ssh_session())?;
    if lost.is_empty() {
        return Ok(());
    }
    const MOST: usize = 10;
    let mut text = format!("this policy cuts off {}", describe_count(lost.len()));
    for flow in lost.iter().take(MOST) {
        text.push_str(&format!("\n  {flow}"));
    }
    if lost.len() > MOST {
        text.push_str(&format!("\n  and {} more", lost.len() - MOST));
    }
    if how.confirm.is_none() && !how.force {
        bail!(
            "{text}\nNothing was changed.\n\
             help: --confirm 60s tries the policy, and the kernel goes back by itself; --force does without, on {}",
            place.interface
        );
    }
    output.warn(&text);
    Ok(())
}

fn describe_count(count: usize) -> String {
    match count {
        1 => "an open flow of the management:".to_owned(),
        count => format!("{count} open flows of the management:"),
    }
}
