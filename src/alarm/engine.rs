//! Folds drops into alarms. Pure: time is an argument.

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::detector::{Finding, Recent, Watch, is_last_packet};
use super::{Alarm, Change, Distinct, Kind, Scope, Severity, Step};
use crate::abi::Reason;
use crate::clock::Clock;
use crate::drops::{DropEvent, Origin};

const S: u64 = 1_000_000_000;

/// How many of each one alarm remembers; the rest is counted.
const DESTINATIONS: usize = 32;
const PORTS: usize = 32;
const SOURCES: usize = 16;
const MACS: usize = 8;

/// Servers whose tries are followed at a time.
const SERVERS_WATCHED: usize = 512;
/// By so much the clocks have to part before it is a step and no slow correction, nanoseconds.
const STEP_NS: u128 = 500_000_000;
/// Room beyond `max_open` for the alarms that fold the rest of a server.
const MAX_FOLDED: usize = 256;

/// Thresholds and bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// The id of the first alarm.
    pub first_id: u64,
    /// So many distinct destinations at one port, within `spread_window_ns`, are a spread.
    /// (More than 16 count as 16. A server that calls fast is found out sooner: `watch.rs`.)
    pub spread_destinations: usize,
    /// Nanoseconds.
    pub spread_window_ns: u64,
    /// So many distinct ports of one server, within `scan_window_ns`, are a scan.
    pub scan_ports: usize,
    /// Nanoseconds.
    pub scan_window_ns: u64,
    /// So many tries at the same destination and port are a callback.
    pub callback_tries: u32,
    /// An alarm is told as updated at most once within this, nanoseconds.
    pub update_interval_ns: u64,
    /// An alarm is closed when nothing more came for this, nanoseconds.
    pub quiet_ns: u64,
    /// Alarms that may be open at a time.
    pub max_open: usize,
    /// Of those, by one server: no server may take the room of the others.
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
            callback_tries: 5,
            update_interval_ns: 10 * S,
            quiet_ns: 300 * S,
            max_open: 2048,
            max_open_by_server: 64,
        }
    }
}

/// What is folded into one alarm. Servers by id; 0: nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Service { server: u32, protocol: u8, port: u16, reason: u8 },
    Reason { server: u32, reason: u8 },
    Ports { server: u32 },
    Server { server: u32 },
    Everything,
}

impl Key {
    fn of(drop: &DropEvent, kind: Kind) -> Key {
        let server = drop.server_id();
        let reason = drop.reason.number();
        let by_service = match drop.reason.known() {
            Some(
                Reason::NewFlow
                | Reason::Destination
                | Reason::Protocol
                | Reason::Rate
                | Reason::UnlistedService,
            ) => true,
            // A quarantined or broken server is one fact, whatever it goes on to send.
            _ => false,
        };
        if by_service && kind != Kind::Spoof && !drop.any_protocol {
            Key::Service { server, protocol: drop.protocol, port: drop.port, reason }
        } else {
            Key::Reason { server, reason }
        }
    }

    fn scope(self) -> Scope {
        match self {
            Key::Service { .. } => Scope::Service,
            Key::Reason { .. } => Scope::Reason,
            Key::Ports { .. } => Scope::Ports,
            Key::Server { .. } => Scope::Server,
            Key::Everything => Scope::Everything,
        }
    }
}

/// An alarm that is open.
#[derive(Debug)]
struct Open {
    alarm: Alarm,
    /// Id of the server it counts for; 0: nobody's.
    server: u32,
    /// When the last drop was observed, CLOCK_MONOTONIC, nanoseconds.
    last_ns: u64,
    /// When a change was last told, as `last_ns`.
    told_ns: u64,
    /// There is more than was told.
    untold: bool,
}

/// Folds drops into alarms.
#[derive(Debug)]
pub struct Engine {
    settings: Thresholds,
    next_id: u64,
    open: HashMap<Key, Open>,
    /// How many are open by server.
    by_server: HashMap<u32, usize>,
    watches: Recent<u32, Watch>,
    /// Between the two clocks, as they were read last.
    offset_ns: Option<i128>,
}

impl Default for Engine {
    fn default() -> Engine {
        Engine::new(Thresholds::default())
    }
}

impl Engine {
    /// An engine that has seen nothing.
    pub fn new(settings: Thresholds) -> Engine {
        Engine {
            next_id: settings.first_id,
            settings,
            open: HashMap::new(),
            by_server: HashMap::new(),
            watches: Recent::new(SERVERS_WATCHED),
            offset_ns: None,
        }
    }

    /// EventFilter note of the last packet of a kind, as the ledger shows it ([`Reconciler::last_packet`]):
    /// where it went. Its count comes by other ways, so it opens nothing.
    ///
    /// [`Reconciler::last_packet`]: crate::drops::Reconciler::last_packet
    pub fn observe_last_packet(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.observe_hot_row(drop, None, || None, now)
    }

    /// As [`Engine::last_packet`], between two sweeps. `since` is how many packets came since the last
    /// look; `claim` is asked for those that nobody has reported yet, if an alarm becomes graver
    /// and is to be told with its count.
    pub fn observe_hot_row(
        &mut self,
        drop: &DropEvent,
        since: Option<u64>,
        claim: impl FnOnce() -> Option<DropEvent>,
        now: Clock,
    ) -> Vec<Change> {
        self.follow_clock(now);
        let Some(kind) = Kind::of(drop) else {
            return Vec::new();
        };
        let finding = self.watch(drop, since, now);
        let kind = promote(kind, finding);
        let (own, ports) = (Key::of(drop, kind), Key::Ports { server: drop.server_id() });
        let is_open = |key: &Key| self.open.contains_key(key);
        let Some(key) = [own, ports].into_iter().find(is_open) else {
            return Vec::new();
        };
        let rises = self.open.get(&key).is_some_and(|open| open.alarm.kind < kind);
        let counted = if rises { claim() } else { None };
        let mut changes = Vec::new();
        self.record(key, kind, finding, counted.as_ref().unwrap_or(drop), now, &mut changes);
        changes
    }

    /// EventFilter note of a drop, and yields what has to be told at once.
    pub fn observe(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let Some(kind) = Kind::of(drop) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        let finding = self.watch(drop, None, now);
        let mut kind = promote(kind, finding);
        let mut key = Key::of(drop, kind);
        if is_single_try(key, kind) && !self.open.contains_key(&key) {
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

    /// Closes what has been quiet, and yields the updates that had to wait. To be called about
    /// once a second.
    pub fn tick(&mut self, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let quiet_ns = self.settings.quiet_ns;
        let is_over = |last_ns: u64| now.mono_ns.saturating_sub(last_ns) >= quiet_ns;
        let mut changes = Vec::new();
        let mut over = Vec::new();
        for (key, open) in &mut self.open {
            if is_over(open.last_ns) {
                over.push(*key);
            } else if open.untold && is_due(open, now, &self.settings) {
                changes.push(open.tell(Step::Updated, now));
            }
        }
        for key in over {
            changes.extend(self.close(key, None, now));
        }
        self.watches.retain(|watch| !is_over(watch.last_ns));
        changes.sort_by_key(|change| change.alarm.id);
        changes
    }

    /// The alarms that are open, the oldest first.
    pub fn open_alarms(&self) -> Vec<&Alarm> {
        let mut alarms: Vec<&Alarm> = self.open.values().map(|open| &open.alarm).collect();
        alarms.sort_by_key(|alarm| alarm.id);
        alarms
    }

    /// Notes what was done about an open alarm, and yields what has to be told of it.
    pub fn note_response(&mut self, id: u64, response: &str, now: Clock) -> Option<Change> {
        let open = self.open.values_mut().find(|open| open.alarm.id == id)?;
        open.alarm.response = response.to_owned();
        Some(open.tell(Step::Updated, now))
    }

    /// No further alarm gets an id up to this one.
    pub fn skip_ids(&mut self, last: u64) {
        self.next_id = self.next_id.max(last.saturating_add(1));
    }

    /// The id that the next alarm gets.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    /// When the wall clock was stepped, the times of what is open go with it: else an alarm
    /// would have ended before it began, or lie in the future for as long as the step was wide.
    fn follow_clock(&mut self, now: Clock) {
        let offset_ns = now.wall.as_nanosecond() - i128::from(now.mono_ns);
        let step_ns = offset_ns - *self.offset_ns.get_or_insert(offset_ns);
        if step_ns.unsigned_abs() < STEP_NS {
            return;
        }
        self.offset_ns = Some(offset_ns);
        let shift =
            |time: Timestamp| Timestamp::from_nanosecond(time.as_nanosecond() + step_ns).unwrap_or(time);
        for open in self.open.values_mut() {
            let alarm = &mut open.alarm;
            (alarm.first, alarm.last) = (shift(alarm.first), shift(alarm.last));
        }
    }

    fn watch(&mut self, drop: &DropEvent, since: Option<u64>, now: Clock) -> Finding {
        let is_try = matches!(drop.reason.known(), Some(Reason::NewFlow | Reason::Destination));
        // A row that was found at start is one count for all the time before.
        if !is_try || drop.while_away || drop.server.is_none() {
            return Finding::default();
        }
        let watch = self.watches.entry(drop.server_id());
        watch.see(drop, since, now.mono_ns, &self.settings)
    }

    /// The key itself, or that of an alarm that folds what there is no room for.
    fn find_room(&self, key: Key, server: u32) -> Key {
        let by_server = self.by_server.get(&server).copied().unwrap_or(0);
        if self.open.len() < self.settings.max_open && by_server < self.settings.max_open_by_server {
            return key;
        }
        let folded = Key::Server { server };
        if self.open.contains_key(&folded) || self.open.len() < self.settings.max_open + MAX_FOLDED {
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
            if step != Step::Updated || is_due(open, now, &self.settings) {
                changes.push(open.tell(step, now));
            }
            return;
        }
        let mut open = Open::new(self.next_id, key, kind, finding, drop, now);
        self.next_id += 1;
        *self.by_server.entry(open.server).or_insert(0) += 1;
        let mut folded = Vec::new();
        if let Key::Ports { server } = key {
            for tried in self.single_tries(server) {
                folded.extend(self.close(tried, Some(open.alarm.id), now));
            }
        }
        for change in &folded {
            open.absorb(&change.alarm);
        }
        changes.push(open.tell(Step::Opened, now));
        changes.extend(folded);
        self.open.insert(key, open);
    }

    /// The open alarms of a server that a scan explains, the oldest first. Not those that
    /// have turned out to be more than a try.
    fn single_tries(&self, server: u32) -> Vec<Key> {
        let mut tries: Vec<(u64, Key)> = self
            .open
            .iter()
            .filter(|(key, open)| open.server == server && is_single_try(**key, open.alarm.kind))
            .filter(|(_, open)| open.alarm.kind == Kind::Attempt)
            .map(|(key, open)| (open.alarm.id, *key))
            .collect();
        tries.sort_by_key(|(id, _)| *id);
        tries.into_iter().map(|(_, key)| key).collect()
    }

    fn close(&mut self, key: Key, folded_into: Option<u64>, now: Clock) -> Option<Change> {
        let mut open = self.open.remove(&key)?;
        if let Some(count) = self.by_server.get_mut(&open.server) {
            *count -= 1;
            if *count == 0 {
                self.by_server.remove(&open.server);
            }
        }
        Some(open.tell(Step::Closed { folded_into }, now))
    }
}

/// A try that turned out to be part of something is that.
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

/// One that a scan would explain.
fn is_single_try(key: Key, kind: Kind) -> bool {
    let tried = matches!(key, Key::Service { reason, .. }
        if reason == Reason::NewFlow.number() || reason == Reason::Destination.number());
    tried && matches!(kind, Kind::Attempt | Kind::Fetch)
}

fn is_due(open: &Open, now: Clock, settings: &Thresholds) -> bool {
    now.mono_ns.saturating_sub(open.told_ns) >= settings.update_interval_ns
}

impl Open {
    fn new(id: u64, key: Key, kind: Kind, finding: Finding, drop: &DropEvent, now: Clock) -> Open {
        let server = match key {
            Key::Everything => None,
            _ => drop.server.clone(),
        };
        let alarm = Alarm {
            id,
            kind,
            opened_as: kind,
            severity: Severity::of(kind, drop),
            scope: key.scope(),
            interface: drop.interface.clone(),
            server,
            reason: drop.reason,
            verdict: drop.verdict,
            first: drop.since,
            last: drop.time,
            packets: 0,
            events: 0,
            sources: Distinct::new(SOURCES),
            destinations: Distinct::new(DESTINATIONS),
            ports: Distinct::new(PORTS),
            source_macs: Distinct::new(MACS),
            called: None,
            sample: Arc::new(drop.clone()),
            while_away: false,
            response: String::new(),
        };
        let mut open = Open {
            server: alarm.server.as_ref().map_or(0, |server| server.id),
            alarm,
            last_ns: now.mono_ns,
            told_ns: now.mono_ns,
            untold: false,
        };
        open.add(kind, finding, drop, now);
        open
    }

    /// Adds a drop, and says whether it makes the alarm graver.
    fn add(&mut self, kind: Kind, finding: Finding, drop: &DropEvent, now: Clock) -> Step {
        self.untold = true;
        let alarm = &mut self.alarm;
        // A history may answer late, and what came before its daemon is told after what came since.
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
            alarm.called = finding.callback;
        }

        let severity = Severity::of(kind, drop);
        if severity <= alarm.severity && kind <= alarm.kind {
            return Step::Updated;
        }
        let from = alarm.kind;
        alarm.severity = alarm.severity.max(severity);
        alarm.kind = alarm.kind.max(kind);
        Step::Escalated { from }
    }

    /// Adds what an alarm had that ends in this one.
    fn absorb(&mut self, other: &Alarm) {
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

    fn tell(&mut self, step: Step, now: Clock) -> Change {
        self.told_ns = now.mono_ns;
        self.untold = false;
        Change { time: now.wall, step, alarm: self.alarm.clone() }
    }
}

#[cfg(test)]
impl Engine {
    pub(super) fn by_server_len(&self) -> usize {
        self.by_server.len()
    }
}
