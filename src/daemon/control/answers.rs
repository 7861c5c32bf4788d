//! The data of answers: alarms and the history, one value at a time, so that a long history needs little
//! memory. The daemon uses it, and the client where no daemon runs.

use std::collections::BTreeMap;
use std::io;

use jiff::Timestamp;

use super::protocol::ReportPart;
use crate::alarm::Change;
use crate::audit::Event;
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
    for removed in store.removed(from, to)? {
        each(ReportPart::Removed(removed))?;
    }
    for sample in store.samples(from, to, MOST_SAMPLES)? {
        each(ReportPart::Sample(sample))?;
    }
    Ok(())
}

/// One line: the audit event, and the line for people.
pub(super) fn render_audit(event: &Event) -> Option<String> {
    let event_value = serde_json::to_value(event).ok()?;
    let value = serde_json::json!({ "audit": event_value, "line": event.render_line() });
    Some(format!("{value}\n"))
}

/// One line: the alarm's record, what happened to it, and the line for people.
pub(super) fn render_change(change: &Change, state: AlarmState) -> Option<String> {
    let Change { time, step, alarm, news: _, is_muted: _ } = change;
    let record = serde_json::to_value(change).ok()?;
    let mut value = AlarmEntry { id: alarm.id, state, changed: *time, alarm: record }.to_value();
    value["step"] = step.name().into();
    value["line"] = render_line(change, false).into();
    Some(format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::{Engine, Step};
    use crate::drops::example::{after_ms, syn};
    use crate::history::{Limits, Pending};

    fn entry(id: u64, state: AlarmState) -> AlarmEntry {
        AlarmEntry {
            id,
            state,
            changed: after_ms(0).wall,
            alarm: serde_json::json!({ "id": id, "severity": "high" }),
        }
    }

    #[test]
    fn open_alarms_replace_those_of_the_history_and_all_come_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(folder.path());
        let mut pending = Pending::default();
        let mut change = Engine::default().observe(&syn(), after_ms(0)).remove(0);
        for id in [2, 4, 6] {
            change.alarm.id = id;
            change.step = Step::Closed { folded_into: None };
            pending.add_alarm(&change);
        }
        store.write(&pending, &Limits::of_days(36_500), after_ms(0).wall).unwrap();
        let open = [1, 4, 5, 7].map(|id| entry(id, AlarmState::Open)).to_vec();
        let list = |filter: &AlarmFilter| {
            let mut alarms = Vec::new();
            each_alarm(&store, open.clone(), filter, |entry| {
                alarms.push((entry.id, entry.state == AlarmState::Open));
                Ok(())
            })
            .unwrap();
            alarms
        };
        assert_eq!(
            list(&AlarmFilter::default()),
            [(1, true), (2, false), (4, true), (5, true), (6, false), (7, true)]
        );
        let filter = AlarmFilter { open: true, ..AlarmFilter::default() };
        assert_eq!(list(&filter), [(1, true), (4, true), (5, true), (7, true)]);
    }

    #[test]
    fn a_change_is_one_line_for_programs_with_one_for_people_in_it() {
        let change = Engine::default().observe(&syn(), after_ms(0)).remove(0);
        let line = render_change(&change, AlarmState::Open).unwrap();
        assert_eq!(line.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["step"], &value["state"]), (&"opened".into(), &"open".into()));
        assert!(value["line"].as_str().unwrap().contains("alarm #1 opened"), "{value}");
    }
}
