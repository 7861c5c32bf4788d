//! Audit events: the daemon's own, and those of commands.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::audit::{Action, Entry, Event, PolicyMark, Who};

/// How long the disk may take for the last events when the daemon ends.
const LAST_EVENTS: Duration = Duration::from_secs(2);

impl Daemon<'_> {
    /// Keeps and tells what the daemon has done.
    pub(super) fn note_audit(&mut self, entry: Entry) {
        let event = entry.into_event(&self.monitor.place().attached_as);
        self.audit.note(event, Instant::now());
    }

    /// As [`Daemon::note_audit`], of what changed no policy.
    pub(super) fn note_audit_unchanged(&mut self, entry: Entry) {
        let mark = self.gate.policy_mark();
        self.note_audit(entry.change(mark.clone(), mark));
    }

    /// Keeps and tells a reload: once for everybody who asked for it, or as the daemon's own after SIGHUP alone.
    pub(super) fn note_reload(
        &mut self,
        before: Option<PolicyMark>,
        refusal: Option<&str>,
        askers: Vec<Who>,
    ) {
        let entry = match refusal {
            None => Entry::done(Action::Reload),
            Some(why) => Entry::refused(Action::Reload, &why),
        };
        let after = self.gate.policy_mark();
        let entry = entry.file(self.reload.policy_file()).change(before, after);
        if askers.is_empty() {
            self.note_audit(entry);
        } else {
            askers.into_iter().for_each(|who| self.note_audit(entry.clone().by(who)));
        }
    }

    /// Tells what could not be kept before the daemon had its thread.
    pub(in crate::daemon) fn tell_unkept(&mut self, events: Vec<Event>) {
        for event in events {
            self.audit.tell_unkept(event);
        }
    }

    /// Tells everybody what was done to the gate.
    pub(super) fn tell_audit(&mut self) {
        for event in self.audit.take(Instant::now()) {
            self.dispatch.send_audit(event);
        }
    }

    /// Notes which sinks have failed or are back, and which events each of them has.
    pub(super) fn check_sinks(&mut self) {
        for entry in self.sink_watch.compare(Instant::now(), &self.dispatch.sink_status()) {
            self.note_audit_unchanged(entry);
        }
        if self.audit.has_news() && self.dispatch.has_caught_up() {
            self.audit.note_reported();
        }
    }

    /// The last events, before the sinks end.
    pub(super) fn end_audit(&mut self) {
        self.note_audit_unchanged(Entry::done(Action::DaemonStop));
        for event in self.audit.drain(LAST_EVENTS) {
            self.dispatch.send_audit(event);
        }
    }

    /// After the sinks have ended: what they were given is reported.
    pub(super) fn finish_audit(&mut self) {
        self.audit.finish(LAST_EVENTS);
    }
}
