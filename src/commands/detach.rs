//! `portcullis detach`: detaches the gate and removes its pins.

use serde_json::json;

use super::edits::describe_edit;
use super::shared::{find_any_place, open_gate, record, record_refusal, save_quarantines};
use crate::audit::{Action, Entry};
use crate::daemon::describe_kept_quarantines;
use crate::exit::Exit;
use crate::gate::{
    Detached, GateError, GatePlace, GateState, RemovedGate, detach, detach_by_name, hint_at_orphans,
    is_pinned, list_gates, list_saved_quarantines, read_mark, refuse_during_trial,
};
use crate::output::Output;

/// Detaches the gate of an interface, or removes an orphaned gate by its name.
///
/// # Errors
/// When the interface is not there, or something pinned can't be removed.
pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    record_refusal(
        interface,
        |why| Entry::refused(Action::Detach, why),
        output,
        || detach_from(interface, output),
    )
}

fn detach_from(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    // No interface's name has a colon, and that of an orphaned gate has two.
    if interface.contains("::") {
        record_orphan(&detach_by_name(interface)?, output);
        output.either(&json!({ "gate": interface, "detached": true }), || describe_orphan(interface))?;
        return Ok(Exit::Done);
    }
    // The gate of an interface that is gone can be detached too.
    let place = find_any_place(interface)?;
    if !is_pinned(&place)? {
        GatePlace::of(interface)?;
    }
    let interface = place.interface.as_str();
    let _lock = place.lock()?;
    refuse_during_trial(&place)?;
    let opened = open_gate(&place, output);
    let before = read_mark(&place);
    // As the kernel has them last: a gate without its tables can't be asked.
    let mut edits = Vec::new();
    match opened {
        Ok(gate) => {
            save_quarantines(&gate, &place, output);
            if let Err(error) = gate.save_evidence(&place) {
                log::warn!(
                    "what `learn` could have read of this gate since the last minute is lost: {error}"
                );
            }
            edits = gate.edits().unwrap_or_default();
        }
        // It may be whole, so its quarantines would be lost.
        Err(error @ (GateError::Kernelside { .. } | GateError::ForeignPins { .. })) => {
            return Err(error.into());
        }
        Err(error) => log::debug!("{error}"),
    }
    // The note comes first: a daemon that finds the gate gone looks for it.
    place.mark_detached(true);
    let detached = detach(&place).inspect_err(|error| {
        if !matches!(error, GateError::PinsLeft { .. }) {
            place.mark_detached(false);
        }
    })?;
    if detached != Detached::Nothing {
        record(&place, Entry::done(Action::Detach).change(before, None), output);
    }
    let (kept, trouble) = list_saved_quarantines(&place);
    if let Some(trouble) = trouble {
        output.warn(&trouble);
    }
    let value = json!({
        "interface": interface, "detached": detached != Detached::Nothing, "quarantines": kept,
        "edits": edits.iter().map(ToString::to_string).collect::<Vec<_>>(),
    });
    output.either(&value, || {
        let mut text = match detached {
            Detached::Gate => format!("detached from {interface}: nothing is dropped any more\n"),
            Detached::Unpinned => format!(
                "the pins of the gate on {interface} were gone, but its filter was still attached; it is detached \
                 now: nothing is dropped any more\n"
            ),
            Detached::Nothing => format!("there was no gate on {interface}{}\n", hint_at_orphans(interface)),
        };
        if let Some(kept) = describe_kept_quarantines(interface, &kept) {
            text.push_str(&format!("{kept}\n"));
        }
        for edit in &edits {
            text.push_str(&format!("the next attach puts back {}\n", describe_edit(edit)));
        }
        if !edits.is_empty() {
            text.push_str(&format!("next: portcullis allow -i {interface} --cancel N, for those that are to end\n"));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// `detach --orphans`: removes every orphaned gate.
///
/// # Errors
/// When the gates can't be listed. A gate that can't be removed is a warning and a failed exit.
pub fn run_on_orphans(output: &Output) -> anyhow::Result<Exit> {
    let mut detached = Vec::new();
    let mut failed = 0;
    for gate in list_gates()?.into_iter().filter(|gate| gate.state == GateState::Orphaned) {
        match detach_by_name(&gate.name) {
            Ok(removed) => {
                record_orphan(&removed, output);
                detached.push(removed.gate.name);
            }
            // Its namespace is there after all, or somebody else has removed it.
            Err(GateError::NamespaceLives { .. } | GateError::NoSuchPins { .. }) => {}
            Err(error) => {
                failed += 1;
                output.warn(&error.to_string());
            }
        }
    }
    output.either(&json!({ "detached": detached }), || match detached.is_empty() {
        true => "there is no orphaned gate\n".to_owned(),
        false => detached.iter().map(|name| describe_orphan(name)).collect(),
    })?;
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

/// In the state folder of that gate, where `show audit -i NAME` finds it.
fn record_orphan(removed: &RemovedGate, output: &Output) {
    record(&removed.place, Entry::done(Action::Detach).change(removed.before.clone(), None), output);
}

fn describe_orphan(name: &str) -> String {
    format!("removed the pins of {name}, whose network namespace is gone\n")
}
