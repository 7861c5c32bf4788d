//! Folds drops into alarms. Pure: time is an argument.

use std::collections::HashMap;

use super::detector::{Detector, Finding};
use super::key::Key;
use super::meaning::classify;
use super::open_alarm::OpenAlarm;
use super::recent::Recent;
use super::{Alarm, Change, Kind, Step};
use crate::clock::Clock;
use crate::drops::DropEvent;

const S: u64 = 1_000_000_000;

/// Servers whose attempts are followed at a time.
const MAX_DETECTORS: usize = 512;
/// The clocks have to part by so much before it is a step and no slow correction, nanoseconds.
const CLOCK_STEP_NS: u128 = 500_000_000;
/// Room beyond `max_open` for the alarms that fold the rest of a server.
const MAX_FOLDED: usize = 256;

/// Thresholds and bounds of an [`Engine`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The id of the first alarm.
    pub first_id: u64,
    /// So many distinct destinations at one port, within `spread_window_ns`, are a spread. More than 16
    /// count as 16. A server that is fast is detected sooner: `detector.rs`.
    pub spread_destinations: usize,
    /// Nanoseconds.
    pub spread_window_ns: u64,
    /// So many distinct ports of one server, within `scan_window_ns`, are a scan.
    pub scan_ports: usize,
    /// Nanoseconds.
    pub scan_window_ns: u64,
    /// So many attempts at the same destination and port are a callback.
    pub callback_attempts: u32,
    /// An update of an alarm is emitted at most once within this, nanoseconds.
    pub update_interval_ns: u64,
    /// An alarm is closed when no more drops came for this, nanoseconds.
    pub quiet_ns: u64,
    /// Alarms that may be open at a time.
    pub max_open: usize,
    /// Of those, alarms of one server, so that no server takes the room of the others.
    pub max_open_by_server: usize,
}

impl Default for Thresholds {
    fn default() -> Thresholds {
        Thresholds {
            first_id: 1,
            spread_destinations: 10,
            spread_window_ns: 60 * S,
            scan_ports: 20,
            scan_window_ns: 300 * S,
            callback_attempts: 5,
            update_interval_ns: 10 * S,
            quiet_ns: 300 * S,
            max_open: 2048,
            max_open_by_server: 64,
        }
    }
}

/// Folds drops into alarms.
#[derive(Debug)]
pub struct Engine {
    thresholds: Thresholds,
    next_id: u64,
    open: HashMap<Key, OpenAlarm>,
    /// How many are open, by server.
    open_by_server: HashMap<u32, usize>,
    /// One for each server that made attempts lately.
    detectors: Recent<u32, Detector>,
    /// The distance of the two clocks when they were last read.
    clock_offset_ns: Option<i128>,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine::new(Thresholds::default())
    }
}

impl Engine {
    /// An engine that has seen no drop.
    pub fn new(thresholds: Thresholds) -> Engine {
        Engine {
            next_id: thresholds.first_id,
            thresholds,
            open: HashMap::new(),
            open_by_server: HashMap::new(),
            detectors: Recent::new(MAX_DETECTORS),
            clock_offset_ns: None,
        }
    }

    /// Observes a drop, and yields the changes that have to be emitted at once.
    pub fn observe(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let Some(meaning) = classify(drop) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        let finding = self.detect(drop, None, now);
        let mut kind = promote(meaning.kind, finding);
        let mut key = Key::of(drop, &meaning);
        if key.is_single_attempt(kind) && !self.open.contains_key(&key) {
            let ports = Key::Ports { server: drop.server_id() };
            if self.open.contains_key(&ports) {
                key = ports;
            } else if finding.scan {
                (key, kind) = (ports, Kind::Scan);
            }
        }
        if !self.open.contains_key(&key) {
            key = self.find_room(key, drop.server_id());
        }
        self.record(key, kind, finding, drop, now, &mut changes);
        changes
    }

    /// Observes where the last packet of a ledger row went, as
    /// [`Reconciler::last_packets`](crate::drops::Reconciler::last_packets) yields it. Its count comes by
    /// other ways, so it opens no alarm.
    pub fn observe_last_packet(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.observe_destination(drop, None, || None, now)
    }

    /// Observes where the last packet of a hot row went. `new_packets` is how many the row has counted
    /// since its last poll. `take_unreported` is asked for the row's unreported drops if an alarm becomes
    /// more severe, so that it is emitted with its count.
    pub fn observe_hot_row(
        &mut self,
        drop: &DropEvent,
        new_packets: u64,
        take_unreported: impl FnOnce() -> Option<DropEvent>,
        now: Clock,
    ) -> Vec<Change> {
        self.observe_destination(drop, Some(new_packets), take_unreported, now)
    }

    fn observe_destination(
        &mut self,
        drop: &DropEvent,
        new_packets: Option<u64>,
        take_unreported: impl FnOnce() -> Option<DropEvent>,
        now: Clock,
    ) -> Vec<Change> {
        self.follow_clock(now);
        let Some(meaning) = classify(drop) else {
            return Vec::new();
        };
        let finding = self.detect(drop, new_packets, now);
        let kind = promote(meaning.kind, finding);
        let keys = [Key::of(drop, &meaning), Key::Ports { server: drop.server_id() }];
        let is_open = |key: &Key| self.open.contains_key(key);
        let Some(key) = keys.into_iter().find(is_open) else {
            return Vec::new();
        };
        let escalates = self.open.get(&key).is_some_and(|open| open.alarm.kind < kind);
        let counted = if escalates { take_unreported() } else { None };
        let mut changes = Vec::new();
        self.record(key, kind, finding, counted.as_ref().unwrap_or(drop), now, &mut changes);
        changes
    }

    /// Closes alarms that have been quiet, and yields the updates that had to wait. Call it about once a
    /// second.
    pub fn tick(&mut self, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let quiet_ns = self.thresholds.quiet_ns;
        let is_over = |last_ns: u64| now.mono_ns.saturating_sub(last_ns) >= quiet_ns;
        let mut changes = Vec::new();
        let mut over = Vec::new();
        #[expect(clippy::iter_over_hash_type, reason = "changes of one moment have no order")]
        for (key, open) in &mut self.open {
            if is_over(open.last_ns) {
                over.push(*key);
            } else if open.has_news && is_due(open, now, &self.thresholds) {
                changes.push(open.emit(Step::Updated, now));
            }
        }
        for key in over {
            changes.extend(self.close(key, None, now));
        }
        self.detectors.retain(|detector| !is_over(detector.last_ns));
        changes.sort_by_key(|change| change.alarm.id);
        changes
    }

    /// The alarms that are open, the oldest first.
    pub fn open_alarms(&self) -> Vec<&Alarm> {
        let mut alarms: Vec<&Alarm> = self.open.values().map(|open| &open.alarm).collect();
        alarms.sort_by_key(|alarm| alarm.id);
        alarms
    }

    /// Notes what was done about an open alarm, and yields the change; `None` if the alarm is not open.
    pub fn note_response(&mut self, id: u64, response: &str, now: Clock) -> Option<Change> {
        let open = self.open.values_mut().find(|open| open.alarm.id == id)?;
        open.alarm.response = response.to_owned();
        Some(open.emit(Step::Updated, now))
    }

    /// From here on no alarm gets an id up to this one.
    pub fn skip_ids(&mut self, last: u64) {
        self.next_id = self.next_id.max(last.saturating_add(1));
    }

    /// The id that the next alarm gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// Moves the times of open alarms along when the wall clock is stepped. Otherwise an alarm would have
    /// ended before it began, or would lie in the future for as long as the step was wide.
    fn follow_clock(&mut self, now: Clock) {
        let offset_ns = now.wall.as_nanosecond() - i128::from(now.mono_ns);
        let step_ns = offset_ns - *self.clock_offset_ns.get_or_insert(offset_ns);
        if step_ns.unsigned_abs() < CLOCK_STEP_NS {
            return;
        }
        self.clock_offset_ns = Some(offset_ns);
        #[expect(clippy::iter_over_hash_type, reason = "each is shifted by itself")]
        for open in self.open.values_mut() {
            open.shift(step_ns);
        }
    }

    fn detect(&mut self, drop: &DropEvent, new_packets: Option<u64>, now: Clock) -> Finding {
        // A row that a starting daemon finds is one count for all the time before.
        if !drop.reason.is_attempt() || drop.while_away || drop.server.is_none() {
            return Finding::default();
        }
        let detector = self.detectors.entry(drop.server_id());
        detector.note(drop, new_packets, now.mono_ns, &self.thresholds)
    }

    /// The key itself, or that of an alarm that folds the rest, where there is no room for another one.
    fn find_room(&self, key: Key, server: u32) -> Key {
        let by_server = self.open_by_server.get(&server).copied().unwrap_or(0);
        if self.open.len() < self.thresholds.max_open && by_server < self.thresholds.max_open_by_server {
            return key;
        }
        let folded = Key::Server { server };
        if self.open.contains_key(&folded) || self.open.len() < self.thresholds.max_open + MAX_FOLDED {
            return folded;
        }
        Key::Everything
    }

    fn record(
        &mut self,
        key: Key,
        kind: Kind,
        finding: Finding,
        drop: &DropEvent,
        now: Clock,
        changes: &mut Vec<Change>,
    ) {
        if let Some(open) = self.open.get_mut(&key) {
            let step = open.add(kind, finding, drop, now);
            if step != Step::Updated || is_due(open, now, &self.thresholds) {
                changes.push(open.emit(step, now));
            }
            return;
        }
        let mut open = OpenAlarm::new(self.next_id, key, kind, finding, drop, now);
        self.next_id += 1;
        *self.open_by_server.entry(open.server).or_insert(0) += 1;
        let mut folded = Vec::new();
        if let Key::Ports { server } = key {
            for attempt in self.single_attempts(server) {
                folded.extend(self.close(attempt, Some(open.alarm.id), now));
            }
        }
        for change in &folded {
            open.absorb(&change.alarm);
        }
        changes.push(open.emit(Step::Opened, now));
        changes.extend(folded);
        self.open.insert(key, open);
    }

    /// The open alarms of a server that a scan explains, the oldest first. An attempt that turned out to
    /// be part of something else is none of them.
    fn single_attempts(&self, server: u32) -> Vec<Key> {
        let mut attempts: Vec<(u64, Key)> = self
            .open
            .iter()
            .filter(|(key, open)| open.server == server && key.is_single_attempt(open.alarm.kind))
            .filter(|(_, open)| open.alarm.kind == Kind::Attempt)
            .map(|(key, open)| (open.alarm.id, *key))
            .collect();
        attempts.sort_by_key(|(id, _)| *id);
        attempts.into_iter().map(|(_, key)| key).collect()
    }

    fn close(&mut self, key: Key, folded_into: Option<u64>, now: Clock) -> Option<Change> {
        let mut open = self.open.remove(&key)?;
        if let Some(count) = self.open_by_server.get_mut(&open.server) {
            *count -= 1;
            if *count == 0 {
                self.open_by_server.remove(&open.server);
            }
        }
        Some(open.emit(Step::Closed { folded_into }, now))
    }
}

/// An attempt that turned out to be part of something has that kind.
fn promote(kind: Kind, finding: Finding) -> Kind {
    let found = if finding.spread {
        Kind::Spread
    } else if finding.callback.is_some() {
        Kind::Callback
    } else {
        kind
    };
    kind.max(found)
}

fn is_due(open: &OpenAlarm, now: Clock, thresholds: &Thresholds) -> bool {
    now.mono_ns.saturating_sub(open.emitted_ns) >= thresholds.update_interval_ns
}

#[cfg(test)]
impl Engine {
    pub(super) fn open_by_server_len(&self) -> usize {
        self.open_by_server.len()
    }
}
