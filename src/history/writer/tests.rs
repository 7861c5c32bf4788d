//! The writer through its life: a run after another, and a disk that refuses for a while.

use std::fs;

use jiff::Timestamp;

use super::*;
use crate::alarm::Engine;
use crate::drops::example::{after_ms, syn};
use crate::history::{AlarmState, FILE};

fn start(folder: &Path) -> HistoryWriter {
    HistoryWriter::start(folder, Limits::of_days(36_500))
}

fn note_all(history: &HistoryWriter) {
    history.note_drop(&syn());
    history.note_alarm(&Engine::default().observe(&syn(), after_ms(0))[0]);
    history.checkpoint(Baseline::default());
}

fn count_packets(store: &Store) -> u64 {
    let rows = store.counts(Timestamp::UNIX_EPOCH, Timestamp::MAX).unwrap();
    rows.iter().map(|row| row.packets).sum()
}

fn wait_until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "the disk is too slow");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_end_of_a_run_writes_what_waits_and_the_next_run_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = start(folder.path());
    assert_eq!(history.wait_for_previous_run(), 0);
    assert!(history.take_previous_run().is_some() && history.take_previous_run().is_none(), "once");
    note_all(&history);
    drop(history);

    let mut history = start(folder.path());
    assert_eq!(history.wait_for_previous_run(), 1, "the id of the alarm");
    let store = history.store();
    assert_eq!(count_packets(&store), 1);
    let alarms = store.alarms(&AlarmFilter::default()).unwrap();
    assert_eq!((alarms.len(), alarms[0].state), (1, AlarmState::CutOff));
}

#[test]
fn an_alarm_that_opens_is_written_without_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = start(folder.path());
    history.wait_for_previous_run();
    note_all(&history);
    wait_until(|| history.status().written > 0);
    assert_eq!(history.status(), HistoryStatus { written: history.status().written, ..Default::default() });
    assert_eq!(count_packets(&history.store()), 1);
}

#[test]
fn a_disk_that_refuses_loses_nothing_and_a_retry_writes_it_all() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path().join("history");
    fs::write(&folder, "no folder").unwrap();
    let mut history = start(&folder);
    assert!(history.wait_for_previous_run() > 0, "unknown, so that no earlier alarm is overwritten");
    note_all(&history);
    wait_until(|| history.status().failures > 0);
    let status = history.status();
    assert!(status.error.is_some() && status.written == 0, "{status:?}");

    fs::remove_file(&folder).unwrap();
    wait_until(|| history.status().written > 0);
    let status = history.status();
    assert!(status.error.is_none() && status.lost == 0, "{status:?}");
    assert_eq!(count_packets(&history.store()), 1);
}

#[test]
fn a_file_that_is_damaged_while_it_is_open_is_put_aside_counted_and_reported() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = start(folder.path());
    history.wait_for_previous_run();
    note_all(&history);
    wait_until(|| history.status().written > 0);
    fs::write(folder.path().join(FILE), [0; 4096]).unwrap();
    wait_until(|| history.status().damaged == 1);
    let reported = history.take_damage();
    assert!(
        reported.len() == 1 && reported[0].contains("is damaged") && history.take_damage().is_empty(),
        "{reported:?}"
    );
    note_all(&history);
    wait_until(|| history.store().alarms(&AlarmFilter::default()).is_ok_and(|alarms| alarms.len() == 1));
    assert_eq!(count_packets(&history.store()), 1);
}

#[test]
fn ids_go_on_beyond_those_of_a_history_that_was_put_aside() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), "this is no database").unwrap();
    let mut history = start(folder.path());
    assert!(history.wait_for_previous_run() > 1_000_000);
}
