//! `show audit`: what was done to a gate.

use anyhow::Context as _;
use jiff::Timestamp;

use crate::audit::{Event, Reading};
use crate::commands::shared::find_any_audited;
use crate::gate::{Gate, GatePlace};
use crate::output::Output;

/// Prints the audit events that are kept, the newest last. A gate that is gone has its events all the same.
pub(super) fn show(interface: Option<&str>, since: Option<Timestamp>, output: &Output) -> anyhow::Result<()> {
    let place = find_any_audited(interface.context("no interface was named\nhelp: add -i IF")?)?;
    note_way_back(&place);
    let path = place.audit_log().path();
    let mut reading = place.read_audit().with_context(|| {
        format!(
            "the audit events in {} can't be read\nhelp: run this as root, and see to the disk",
            path.display()
        )
    })?;
    for warning in describe_gaps(&reading) {
        output.warn(&format!("{}: {warning}", path.display()));
    }
    reading.events.retain(|event| since.is_none_or(|since| event.time >= since));
    output.either(&reading.events, || describe(&reading.events))
}

/// The kernel goes back by itself, and whoever looks first notes it. Without the right to, the next one does.
fn note_way_back(place: &GatePlace) {
    let Ok(gate) = Gate::open(place) else { return };
    if matches!(gate.has_ended_trial(), Ok(true))
        && let Ok(_lock) = place.try_lock()
        && let Err(error) = gate.settle_trial(place)
    {
        log::debug!("{error}");
    }
}

/// What is not there any more, in words.
fn describe_gaps(reading: &Reading) -> Vec<String> {
    let mut gaps = Vec::new();
    match reading.damaged {
        0 => {}
        1 => gaps.push("1 line is damaged, and left out".to_owned()),
        count => gaps.push(format!("{count} lines are damaged, and left out")),
    }
    match reading.missing {
        0 => {}
        1 => gaps.push("1 event between the first and the last is missing".to_owned()),
        count => gaps.push(format!("{count} events between the first and the last are missing")),
    }
    gaps
}

fn describe(events: &[Event]) -> String {
    if events.is_empty() {
        return "no such event\n".to_owned();
    }
    events.iter().map(|event| format!("{}\n", event.render_line())).collect()
}
