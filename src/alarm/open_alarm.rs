//! An alarm while it is open: what each drop adds to it.

use std::sync::Arc;

use jiff::Timestamp;

use super::detector::{Finding, is_last_packet};
use super::key::Key;
use super::meaning::rate;
use super::{Alarm, Change, Distinct, Kind, Scope, Step};
use crate::clock::Clock;
use crate::drops::{DropEvent, Origin};

/// How many of each one alarm remembers. The rest is estimated.
const MAX_DESTINATIONS: usize = 32;
const MAX_PORTS: usize = 32;
const MAX_SOURCES: usize = 16;
const MAX_MACS: usize = 8;

/// An alarm that is open.
#[derive(Debug)]
pub(super) struct OpenAlarm {
    pub(super) alarm: Alarm,
    /// Id of the server that it counts for; 0: no server.
    pub(super) server: u32,
    /// When the last drop was observed: CLOCK_MONOTONIC, nanoseconds.
    pub(super) last_ns: u64,
    /// When a change was last emitted: CLOCK_MONOTONIC, nanoseconds.
    pub(super) emitted_ns: u64,
    /// Something was added since then.
    pub(super) has_news: bool,
}

impl OpenAlarm {
    pub(super) fn new(
        id: u64,
        key: Key,
        kind: Kind,
        finding: Finding,
        drop: &DropEvent,
        now: Clock,
    ) -> OpenAlarm {
        let server = match key {
            Key::Everything => None,
            _ => drop.server.clone(),
        };
        let alarm = Alarm {
            id,
            kind,
            opened_as: kind,
            severity: rate(kind, drop),
            scope: key.scope(),
            interface: drop.interface.clone(),
            server,
            reason: drop.reason,
            verdict: drop.verdict,
            first: drop.since,
            last: drop.time,
            packets: 0,
            events: 0,
            sources: Distinct::new(MAX_SOURCES),
            destinations: Distinct::new(MAX_DESTINATIONS),
            ports: Distinct::new(MAX_PORTS),
            source_macs: Distinct::new(MAX_MACS),
            contacted: None,
            sample: Arc::new(drop.clone()),
            while_away: false,
            response: String::new(),
        };
        let mut open = OpenAlarm {
            server: alarm.server.as_ref().map_or(0, |server| server.id),
            alarm,
            last_ns: now.mono_ns,
            emitted_ns: now.mono_ns,
            has_news: false,
        };
        open.add(kind, finding, drop, now);
        open
    }

    /// Adds a drop, and says whether it makes the alarm more severe.
    pub(super) fn add(&mut self, kind: Kind, finding: Finding, drop: &DropEvent, now: Clock) -> Step {
        self.has_news = true;
        let alarm = &mut self.alarm;
        // A slow history makes the daemon report earlier drops after those of now.
        let is_older = drop.while_away && drop.time < alarm.last;
        alarm.packets = alarm.packets.saturating_add(drop.drops);
        alarm.events = alarm.events.saturating_add(u64::from(!is_last_packet(drop)));
        // Ledger rows come after samples, and times are those of the drops.
        alarm.first = alarm.first.min(drop.since);
        alarm.last = alarm.last.max(drop.time);
        alarm.while_away |= drop.while_away;
        if !is_older {
            self.last_ns = now.mono_ns;
            alarm.reason = drop.reason;
            alarm.verdict = drop.verdict;
            alarm.interface = drop.interface.clone();
            if alarm.scope != Scope::Everything {
                // A policy may have given the id's server another name.
                alarm.server = drop.server.clone();
            }
            if drop.from == Origin::Sample || alarm.sample.from == Origin::Ledger {
                alarm.sample = Arc::new(drop.clone());
            }
        }
        if let Some(source) = drop.source {
            alarm.sources.insert(source);
        }
        if let Some(destination) = drop.destination {
            alarm.destinations.insert(destination);
        }
        if let Some(mac) = drop.source_mac {
            alarm.source_macs.insert(mac);
        }
        if !drop.any_protocol {
            alarm.ports.insert(drop.port);
        }
        if finding.callback.is_some() {
            alarm.contacted = finding.callback;
        }

        let severity = rate(kind, drop);
        if severity <= alarm.severity && kind <= alarm.kind {
            return Step::Updated;
        }
        let from = alarm.kind;
        alarm.severity = alarm.severity.max(severity);
        alarm.kind = alarm.kind.max(kind);
        Step::Escalated { from }
    }

    /// Adds what an alarm had that ends in this one.
    pub(super) fn absorb(&mut self, other: &Alarm) {
        let alarm = &mut self.alarm;
        alarm.packets = alarm.packets.saturating_add(other.packets);
        alarm.events = alarm.events.saturating_add(other.events);
        alarm.first = alarm.first.min(other.first);
        alarm.last = alarm.last.max(other.last);
        alarm.sources.merge(&other.sources);
        alarm.destinations.merge(&other.destinations);
        alarm.source_macs.merge(&other.source_macs);
        alarm.ports.merge(&other.ports);
        alarm.while_away |= other.while_away;
    }

    /// The alarm as it stands now, for history and sinks.
    pub(super) fn emit(&mut self, step: Step, now: Clock) -> Change {
        self.emitted_ns = now.mono_ns;
        self.has_news = false;
        Change { time: now.wall, step, alarm: self.alarm.clone() }
    }

    /// Moves its times, as the wall clock was moved.
    pub(super) fn shift(&mut self, step_ns: i128) {
        let shift =
            |time: Timestamp| Timestamp::from_nanosecond(time.as_nanosecond() + step_ns).unwrap_or(time);
        let alarm = &mut self.alarm;
        (alarm.first, alarm.last) = (shift(alarm.first), shift(alarm.last));
    }
}
