//! Dispatch: gives drops and changes of alarms to everybody who is to have them. That is the history,
//! the sinks, the clients that follow and the metrics. It waits for none of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use log::info;

use super::control::Followers;
use super::drop_budget::DropBudget;
use super::metrics::snapshot::Snapshot;
use crate::alarm::{Change, Engine, Handling};
use crate::audit::Event as AuditEvent;
use crate::drops::{Baseline, DropEvent};
use crate::history::{HistoryWriter, Limits, PreviousRun, Store};
use crate::policy::{Alarms, Policy};
use crate::sink::{Event, Fanout, Matter, SinkStatus, build_fanout};

/// How long the sinks may take for their last events when the daemon ends.
const LAST_WRITES: Duration = Duration::from_secs(2);

/// Between two lists of the open alarms for the sinks.
const OPEN_INTERVAL: Duration = Duration::from_secs(60);

/// Everybody who is given events.
pub(super) struct Dispatch {
    interface: Arc<str>,
    /// Alarms on standard error are coloured.
    colour: bool,
    /// The sinks that the policy asks for.
    settings: Alarms,
    fanout: Fanout,
    budget: DropBudget,
    history: HistoryWriter,
    followers: Option<Followers>,
    /// When the sinks last heard which alarms are open.
    open_sent: Option<Instant>,
    snapshot: Arc<Snapshot>,
}

impl Dispatch {
    /// With the sinks of a policy. `followers` is `None` where the control socket can't be had.
    pub(super) fn start(
        interface: Arc<str>,
        colour: bool,
        settings: &Alarms,
        history: HistoryWriter,
        followers: Option<Followers>,
        snapshot: Arc<Snapshot>,
    ) -> Dispatch {
        let fanout = build_fanout(settings, &interface, colour);
        let (settings, budget) = (settings.clone(), DropBudget::default());
        Dispatch {
            interface,
            colour,
            settings,
            fanout,
            budget,
            history,
            followers,
            open_sent: None,
            snapshot,
        }
    }

    /// Gives a drop to the history, and to the sinks if the budget admits it.
    pub(super) fn send_drop(&mut self, drop: DropEvent) {
        self.history.note_drop(&drop);
        if self.budget.admit(drop.server_id()) {
            self.fanout.send(Event::of_drop(drop));
        }
    }

    /// Gives a change of an alarm to everybody.
    pub(super) fn send_change(&mut self, change: Change) {
        info!("alarm #{} {}", change.alarm.id, change.step.name());
        self.history.note_alarm(&change);
        self.snapshot.note_alarm(&change);
        if let Some(followers) = &self.followers {
            followers.send(&change);
        }
        self.fanout.send(Event::of_alarm(change));
    }

    /// Gives an audit event to everybody but the history, whose file of them it comes from.
    pub(super) fn send_audit(&mut self, event: AuditEvent) {
        info!("{}", event.describe());
        if let Some(followers) = &self.followers {
            followers.send_audit(&event);
        }
        self.fanout.send(Event::of_audit(event));
    }

    /// How each sink does.
    pub(super) fn sink_status(&self) -> Vec<SinkStatus> {
        self.fanout.status()
    }

    /// Gives the history the record of an alarm that goes on without news.
    pub(super) fn note_record(&self, change: &Change) {
        self.history.note_alarm(change);
    }

    /// Says which alarms are open to the sinks that repeat them.
    pub(super) fn send_open(&mut self, engine: &Engine) {
        if self.open_sent.is_none_or(|sent| sent.elapsed() >= OPEN_INTERVAL) {
            self.open_sent = Some(Instant::now());
            self.fanout.send(Event::new(Matter::OpenAlarms(engine.open_ids())));
        }
    }

    /// Begins the next second of the budget.
    pub(super) fn end_second(&mut self) {
        let suppressed = self.budget.refill();
        if suppressed > 0 {
            info!("{suppressed} drops were suppressed; the ledger has them");
        }
    }

    /// Goes by another policy. Sinks that it does not change stay as they are.
    pub(super) fn follow(&mut self, policy: &Policy) {
        self.history.set_limits(Limits::of_days(policy.response.history_days));
        if policy.alarms != self.settings {
            self.settings = policy.alarms.clone();
            self.fanout = build_fanout(&self.settings, &self.interface, self.colour);
        }
    }

    /// Opens the files of the sinks anew, for log rotation.
    pub(super) fn reopen(&self) {
        self.fanout.reopen();
    }

    /// Whether each sink that works has written all its events. A drop is not called reported before:
    /// after a kill the next daemon reports it. Reported twice is better than never.
    pub(super) fn has_caught_up(&self) -> bool {
        self.fanout.status().iter().all(|sink| sink.error.is_some() || sink.pending == 0)
    }

    /// Notes in the history what has been reported.
    pub(super) fn checkpoint(&self, baseline: Baseline) {
        self.history.checkpoint(baseline);
    }

    /// The records of the daemon before, once, as soon as the history has read them.
    pub(super) fn take_previous_run(&mut self) -> Option<PreviousRun> {
        self.history.take_previous_run()
    }

    /// What was found damaged in the history since the last call, in words.
    pub(super) fn take_history_damage(&self) -> Vec<String> {
        self.history.take_damage()
    }

    /// The history, for clients.
    pub(super) fn store(&self) -> Arc<Store> {
        self.history.store()
    }

    /// Publishes how alarms, sinks and history do.
    pub(super) fn publish(&self, handling: &Handling) {
        self.snapshot.publish(handling.count_open(), self.fanout.status(), self.history.status());
    }

    /// Has every sink write its last events, and ends the sinks.
    pub(super) fn close_sinks(&mut self) {
        std::mem::take(&mut self.fanout).close(LAST_WRITES);
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::drops::example::{after_ms, syn};
    use crate::policy::parse;

    fn policy(alarms: &str) -> Policy {
        let text = format!("[servers.web1]\naddresses = [\"192.0.2.10\"]\n[alarms]\n{alarms}");
        parse(&text, "p.toml").unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// A dispatch whose EVE file and history are in a folder of its own.
    fn dispatch() -> (Dispatch, TempDir, Policy) {
        let folder = tempfile::tempdir().unwrap();
        let policy = policy(&format!("eve = \"{}\"\n", folder.path().join("eve.json").display()));
        let mut history = HistoryWriter::start(folder.path(), Limits::of_days(36_500));
        history.wait_for_previous_run();
        let dispatch = Dispatch::start("dmz0".into(), false, &policy.alarms, history, None, Arc::default());
        (dispatch, folder, policy)
    }

    fn count(folder: &TempDir, event_type: &str) -> usize {
        let text = std::fs::read_to_string(folder.path().join("eve.json")).unwrap_or_default();
        text.lines().filter(|line| line.contains(&format!("\"event_type\":\"{event_type}\""))).count()
    }

    fn wait_until(condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(60), "the disk is too slow");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_flood_of_drops_is_suppressed_in_the_sinks_and_exact_in_the_history() {
        let (mut dispatch, folder, _) = dispatch();
        for _ in 0..5_000 {
            dispatch.send_drop(syn());
        }
        let change = Engine::default().observe(&syn(), after_ms(0)).remove(0);
        dispatch.send_change(change);
        dispatch.checkpoint(Baseline::default());
        wait_until(|| dispatch.has_caught_up() && dispatch.history.status().written > 0);
        dispatch.close_sinks();
        assert_eq!(count(&folder, "drop"), 1024);
        assert_eq!(count(&folder, "alert"), 1);
        let alarms = dispatch.snapshot.state().alarms;
        assert_eq!(alarms.values().sum::<u64>(), 1);
        let store = dispatch.store();
        drop(dispatch);
        let (from, to) = (jiff::Timestamp::UNIX_EPOCH, jiff::Timestamp::MAX);
        let counts = store.counts(from, to).unwrap();
        assert_eq!(counts.iter().map(|row| row.packets).sum::<u64>(), 5_000);
    }

    #[test]
    fn a_policy_with_the_same_sinks_keeps_them_and_another_one_replaces_them() {
        let (mut dispatch, _folder, same) = dispatch();
        dispatch.send_drop(syn());
        dispatch.follow(&same);
        dispatch.follow(&policy(""));
        dispatch.send_drop(syn());
        assert_eq!(dispatch.fanout.status().len(), 1, "standard error alone");
        dispatch.close_sinks();
    }
}
