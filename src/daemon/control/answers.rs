//! What answers are made of: alarms and the history, one value at a time, so that a long history needs
//! little memory. The daemon uses it, and the client where no daemon runs.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;

use super::protocol::ReportPart;
use crate::alarm::{Alarm, Change, Step};
use crate::history::{AlarmEntry, AlarmFilter, AlarmState, Store, StoreError};
use crate::sink::render_line;

/// Samples in a report.
const MOST_SAMPLES: usize = 2_000;

/// Passes the alarms of the history to `each`, ordered by id. Alarms that are open replace what the
/// history has of them.
pub(super) fn each_alarm(
    store: &Store,
    open: Vec<AlarmEntry>,
    filter: &AlarmFilter,
    mut each: impl FnMut(&AlarmEntry) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut open: BTreeMap<u64, AlarmEntry> = open.into_iter().map(|entry| (entry.id, entry)).collect();
    let mut pass = |entry: &AlarmEntry| if filter.matches(entry) { each(entry) } else { Ok(()) };
    store.each_alarm(|known| {
        while let Some(first) = open.first_entry().filter(|first| *first.key() < known.id) {
            pass(&first.remove())?;
        }
        pass(open.remove(&known.id).as_ref().unwrap_or(&known))
    })?;
    for entry in open.values() {
        pass(entry)?;
    }
    Ok(())
}

/// Passes the data of a report to `each`.
pub(super) fn each_report_part(
    store: &Store,
    open: Vec<AlarmEntry>,
    (from, to): (Timestamp, Timestamp),
    mut each: impl FnMut(ReportPart) -> io::Result<()>,
) -> Result<(), StoreError> {
    let filter = AlarmFilter { from: Some(from), to: Some(to), ..AlarmFilter::default() };
    each_alarm(store, open, &filter, |entry| each(ReportPart::Alarm(entry.clone())))?;
    store.each_count(from, to, |row| each(ReportPart::Count(row)))?;
    for sample in store.samples(from, to, MOST_SAMPLES)? {
        each(ReportPart::Sample(sample))?;
    }
    Ok(())
}

/// One line: the alarm's record, what happened to it, and the line for people.
pub(super) fn render_change(alarm: &Alarm, step: Step, state: AlarmState, time: Timestamp) -> Option<String> {
    let record = serde_json::to_value(alarm).ok()?;
    let mut value = AlarmEntry { id: alarm.id, state, changed: time, alarm: record }.to_value();
    value["step"] = step.name().into();
    value["line"] = render_line(&Change { time, step, alarm: alarm.clone() }, false).into();
    Some(format!("{value}\n"))
}
