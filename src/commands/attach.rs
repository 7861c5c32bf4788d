//! `portcullis attach`: attaches the gate without a daemon.

use std::fmt::Display;
use std::path::Path;

use serde_json::json;

use super::shared::{
    find_place, load_policy_file, load_tested_policy, record, record_refusal, save_quarantines,
};
use crate::audit::{Action, Entry, PolicyMark};
use crate::daemon::describe_attachment;
use crate::exit::Exit;
use crate::gate::{
    Attachment, Gate, GateError, GatePlace, Lock, confirm_policy, look_up_new_names, read_mark,
    refuse_during_trial, refuse_unconfirmed,
};
use crate::output::Output;
use crate::policy::Policy;
use crate::policy_file::CompiledPolicy;
use crate::stderr::notice;

/// Attaches the gate, or replaces the programs of one that is attached, without a gap.
///
/// # Errors
/// When the policy is bad, one of its tests fails, or the gate can't be attached.
pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Attach, why).file(policy);
    record_refusal(interface, refused, output, || attach(interface, policy, output))
}

fn attach(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let mut compiled = load_tested_policy(policy, output)?;
    let place = find_place(interface)?;
    warn_of_each(&look_up_new_names(&place, &mut compiled.tables), output);
    let lock = place.lock()?;
    refuse_during_trial(&place)?;
    let before = read_mark(&place);
    if let Err(refusal) = refuse_unconfirmed(&place, &compiled.policy) {
        return fall_back(&place, lock, &refusal.into(), policy, before, output);
    }
    let (gate, mut attachment) = Gate::attach(&place, &compiled.policy, &compiled.tables)?;
    attachment.warnings.extend(confirm_policy(&place, &compiled.policy));
    record(&place, attachment.to_entry(&gate, before, policy), output);
    drop(lock);
    finish(&gate, &place, &attachment, &compiled.policy, output)?;
    Ok(Exit::Done)
}

/// As [`run`]. If the policy is refused, a gate that is attached stays, or one with the last confirmed policy is
/// attached.
///
/// # Errors
/// When the interface can't be had, or another command is changing the gate.
pub fn run_with_fall_back(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Attach, why).file(policy);
    record_refusal(interface, refused, output, || attach_or_fall_back(interface, policy, output))
}

fn attach_or_fall_back(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let file = policy;
    let place = find_place(interface)?;
    let compiled = load_policy_file(policy, output).map(|mut compiled| {
        warn_of_each(&look_up_new_names(&place, &mut compiled.tables), output);
        compiled
    });
    let lock = place.lock()?;
    let before = read_mark(&place);
    let attached = compiled.and_then(|CompiledPolicy { policy, tables }| {
        refuse_during_trial(&place)?;
        refuse_unconfirmed(&place, &policy)?;
        let (gate, attachment) = Gate::attach_or_rebuild(&place, &policy, &tables)?;
        Ok((gate, attachment, policy))
    });
    match attached {
        Ok((gate, mut attachment, policy)) => {
            attachment.warnings.extend(confirm_policy(&place, &policy));
            record(&place, attachment.to_entry(&gate, before, file), output);
            drop(lock);
            finish(&gate, &place, &attachment, &policy, output)?;
            Ok(Exit::Done)
        }
        Err(refusal) => fall_back(&place, lock, &refusal, file, before, output),
    }
}

/// Keeps the gate that is attached, or attaches one with the last confirmed policy.
fn fall_back(
    place: &GatePlace,
    lock: Lock,
    refusal: &anyhow::Error,
    policy: &Path,
    before: Option<PolicyMark>,
    output: &Output,
) -> anyhow::Result<Exit> {
    let interface = place.interface.as_str();
    notice!("portcullis: {refusal:#}");
    let file = policy.display();
    // the refusal says what to do about a trial, and about a policy that nobody has confirmed
    let is_on_trial = GateError::is_trial(refusal);
    let help = match is_on_trial || GateError::is_unconfirmed(refusal) {
        true => String::new(),
        false => format!("\nhelp: repair {file}, then: portcullis attach -i {interface} -p {file}"),
    };
    match Gate::fall_back(place) {
        Ok(kept) => {
            // nobody fell back: the policy before the trial is the kernel's to put back
            let entry = match is_on_trial {
                true => Entry::refused(Action::Attach, refusal).file(policy).change(before.clone(), before),
                false => kept.to_entry(place, refusal, policy, before),
            };
            record(place, entry, output);
            drop(lock);
            finish(&kept.gate, place, &kept.attachment, &kept.compiled.policy, output)?;
            notice!("portcullis: {}{help}", kept.describe(place));
            Ok(Exit::Failed)
        }
        Err(failed) => {
            record(place, Entry::refused(Action::FallBack, refusal).file(policy).detail(&failed), output);
            notice!("portcullis: {failed}{help}");
            Ok(if failed.is_attached { Exit::Failed } else { Exit::Trouble })
        }
    }
}

fn warn_of_each(warnings: &[String], output: &Output) {
    warnings.iter().for_each(|warning| output.warn(warning));
}

/// Saves the quarantines of a gate that was attached, and prints how it is.
fn finish(
    gate: &Gate,
    place: &GatePlace,
    attachment: &Attachment,
    policy: &Policy,
    output: &Output,
) -> anyhow::Result<()> {
    let interface = &*place.interface;
    save_quarantines(gate, place, output);
    for warning in &attachment.warnings {
        output.warn(warning);
    }
    let value = json!({
        "interface": interface,
        "attached": attachment.mode.name(),
        "tracker": attachment.hook.name(),
        "generation": attachment.generation,
        "replaced": attachment.replaced,
        "quarantines": attachment.quarantines,
        "edits": attachment.edits,
        "grants": attachment.grants,
    });
    output.either(&value, || {
        let how = if attachment.replaced { " (replaced without a gap)" } else { "" };
        let mut text = format!("{}{how}\n", describe_attachment(interface, attachment, policy));
        for quarantine in attachment.quarantines.iter().chain(&attachment.edits) {
            text.push_str(&format!("as before: {quarantine}\n"));
        }
        if let Some(grants) = attachment.describe_grants() {
            text.push_str(&format!("as before: {grants}\n"));
        }
        text
    })
}
