//! `portcullis rollback`: makes an earlier policy of the history the live one, or ends a trial at once.

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use super::apply::{Change, put_into_force};
use super::shared::{
    exit_by_attachment, find_place, record, record_refusal, refuse_policy, save_quarantines,
};
use crate::audit::{Action, Entry as AuditEntry};
use crate::cli::RollbackArgs;
use crate::compile::compile;
use crate::exit::Exit;
use crate::gate::{ConfirmedPolicy, Facts, Gate, GatePlace, read_confirmed};
use crate::output::{Output, align};
use crate::policy::parse;
use crate::policy_file::CompiledPolicy;
use crate::policy_tests::require_tests;

/// Added to the name of the file that a policy of the history came from: the file itself may say something else by
/// now, and a reload must not take the two for one.
const MARK: &str = " (rollback)";

/// Makes an earlier policy the live one, or lists them.
///
/// # Errors
/// When there is no such policy, or it can't become the live one.
pub fn run(arguments: &RollbackArgs, output: &Output) -> anyhow::Result<Exit> {
    let interface = &arguments.interface.name;
    if arguments.list {
        return list(&find_place(interface)?, output);
    }
    let refused = |why: &dyn std::fmt::Display| AuditEntry::refused(Action::Rollback, why);
    record_refusal(interface, refused, output, || roll_back(arguments, output))
}

fn roll_back(arguments: &RollbackArgs, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(&arguments.interface.name)?;
    let lock = place.lock()?;
    let gate = Gate::open(&place)?;
    gate.settle_trial(&place)?;
    if gate.trial()?.is_some() && arguments.number.is_none() {
        let before = gate.policy_mark();
        let trial = gate.end_trial(&place)?;
        let entry = AuditEntry::done(Action::Rollback).change(before, gate.policy_mark());
        record(&place, entry.detail("the trial was ended").note(arguments.change.note.as_deref()), output);
        drop(lock);
        save_quarantines(&gate, &place, output);
        let interface = place.interface.as_str();
        let value = json!({ "interface": interface, "generation": trial.before, "ended": trial.generation });
        output.either(&value, || {
            format!(
                "the trial of generation {} is over: generation {} is live on {interface} again\n",
                trial.generation, trial.before
            )
        })?;
        return Ok(exit_by_attachment(&gate, &place, output));
    }
    let number = usize::from(arguments.number.unwrap_or(1));
    let earlier = read_earlier(&gate, &place, output)?;
    let Some(Entry { policy: ConfirmedPolicy { facts, text, .. }, .. }) =
        earlier.iter().find(|entry| entry.number == number)
    else {
        let most = earlier.iter().map(|entry| entry.number).max().unwrap_or(0);
        bail!(
            "there is no policy {number} to go back to: {}",
            match most {
                0 => "the history has no earlier one".to_owned(),
                most => format!(
                    "the history has {most} earlier\nhelp: portcullis rollback -i {} --list",
                    place.interface
                ),
            }
        );
    };
    let file = facts.file.strip_suffix(MARK).unwrap_or(&facts.file);
    let policy = parse(text, &format!("{file}{MARK}")).map_err(|errors| refuse_policy(&errors, output))?;
    let tables = compile(&policy).map_err(|errors| refuse_policy(&errors, output))?;
    let change = Change { action: Action::Rollback, file: Path::new(file), how: &arguments.change };
    let compiled = CompiledPolicy { policy, tables };
    let exit = put_into_force(&gate, &place, lock, &compiled, &change, output)?;
    // It was live once, and whoever needs it back now does not wait for its tests.
    if let Err(refused) = require_tests(&compiled) {
        output.warn(&format!("it is live again, although an apply would refuse it: {refused}"));
    }
    output.warn(&format!(
        "a policy file may still say something else, and the next boot attaches it: \
         portcullis show -i {0} policy > /etc/portcullis/{0}.toml puts the live text there",
        place.interface
    ));
    Ok(exit)
}

/// A policy of the history. Number 0 is the live one.
struct Entry {
    number: usize,
    policy: ConfirmedPolicy,
}

/// The policies of the history, the last one first.
fn read_earlier(gate: &Gate, place: &GatePlace, output: &Output) -> anyhow::Result<Vec<Entry>> {
    let live = gate.live_source()?.map(|(text, _)| text);
    let mut number = 1;
    let mut entries = Vec::new();
    for (index, policy) in read_confirmed(place)?.into_iter().enumerate() {
        match policy {
            Ok(policy) if index == 0 && live.as_deref() == Some(&policy.text) => {
                entries.push(Entry { number: 0, policy });
            }
            Ok(policy) => {
                entries.push(Entry { number, policy });
                number += 1;
            }
            Err(damage) => output.warn(&damage),
        }
    }
    Ok(entries)
}

fn list(place: &GatePlace, output: &Output) -> anyhow::Result<Exit> {
    let gate = Gate::open(place)?;
    let entries = read_earlier(&gate, place, output)?;
    let values: Vec<_> = entries
        .iter()
        .map(|Entry { number, policy: ConfirmedPolicy { facts, path, .. } }| {
            json!({
                "number": number, "live": *number == 0, "since": facts.since, "file": facts.file,
                "hash": facts.hash, "note": facts.note, "uid": facts.uid, "sudo_user": facts.sudo_user,
                "command": facts.command, "path": path,
            })
        })
        .collect();
    output.either(&values, || {
        if entries.is_empty() {
            return "the history has no policy yet\n".to_owned();
        }
        let heads = ["N", "SINCE", "WHO", "FILE", "HASH", "NOTE"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(entries.iter().map(|Entry { number, policy: ConfirmedPolicy { facts, .. } }| {
            vec![
                if *number == 0 { "live".to_owned() } else { number.to_string() },
                format!("{:.0}", facts.since),
                describe_person(facts),
                facts.file.escape_debug().to_string(),
                facts.hash.chars().take(12).collect(),
                facts.note.as_deref().unwrap_or("-").escape_debug().to_string(),
            ]
        }));
        align(&rows)
    })?;
    Ok(Exit::Done)
}

fn describe_person(facts: &Facts) -> String {
    match &facts.sudo_user {
        Some(user) => user.escape_debug().to_string(),
        None => format!("uid {}", facts.uid),
    }
}
