//! Folds drops into incidents. Pure: time is an argument.

mod place;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::answers::{AnswerReport, MAX_ABOUT};
use super::assess::{Assessment, assess};
use super::detector::{Detector, Finding};
use super::gate_trouble::GateTrouble;
use super::incident::{Incident, Opening};
use super::meaning::{Meaning, classify};
use super::part::OpenPart;
use super::recent::Recent;
use super::subject::{PartKey, Subject};
use super::{Alarm, Change, Kind, Severity, Step, Thresholds};
use crate::abi::Reason;
use crate::clock::Clock;
use crate::drops::{DropEvent, ServerRef};
use place::{DropPlace, low_subject};

/// Servers whose attempts are followed at a time.
const MAX_DETECTORS: usize = 512;
/// How long attempts are remembered, nanoseconds: a beacon may be slow.
const DETECTOR_NS: u64 = 3_600_000_000_000;
/// Subjects whose last alarm is remembered.
const MAX_CLOSED: usize = 512;
/// Open incidents of one subject. Each is there because something of an earlier hour goes on.
const MAX_INCIDENTS: usize = 16;
/// The clocks have to part by so much before it is a step and no slow correction, nanoseconds.
const CLOCK_STEP_NS: u128 = 500_000_000;

/// Folds drops into incidents.
#[derive(Debug)]
pub struct Engine {
    thresholds: Thresholds,
    next_id: u64,
    open: BTreeMap<u64, Incident>,
    /// The open incidents of each subject, the newest last.
    by_subject: HashMap<Subject, Vec<u64>>,
    /// How many are open, by server.
    open_by_server: HashMap<u32, usize>,
    /// Incidents with a change that is due soon.
    waiting: Vec<u64>,
    /// The last incident of a subject that was closed.
    closed: Recent<Subject, Option<Closed>>,
    /// One for each server that made attempts lately.
    detectors: Recent<u32, Detector>,
    /// Servers that are prefixes.
    prefix_servers: HashSet<Arc<str>>,
    /// The distance of the two clocks when they were last read.
    clock_offset_ns: Option<i128>,
}

/// An incident that was closed.
#[derive(Clone, Copy, Debug)]
struct Closed {
    id: u64,
    /// When its last drop was observed: CLOCK_MONOTONIC, nanoseconds.
    last_ns: u64,
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
            open: BTreeMap::new(),
            by_subject: HashMap::new(),
            open_by_server: HashMap::new(),
            waiting: Vec::new(),
            closed: Recent::new(MAX_CLOSED),
            detectors: Recent::new(MAX_DETECTORS),
            prefix_servers: HashSet::new(),
            clock_offset_ns: None,
        }
    }

    /// Notes which servers are prefixes. Their machines are known by address.
    pub fn set_prefix_servers(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.prefix_servers = names.into_iter().collect();
        for incident in self.open.values_mut() {
            let has_machines =
                incident.server.as_ref().is_some_and(|server| self.prefix_servers.contains(&server.name));
            incident.set_machines(has_machines);
        }
    }

    /// Observes a drop, and yields the changes that have to be emitted at once.
    pub fn observe(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let Some(meaning) = classify(drop) else {
            return Vec::new();
        };
        let found = assess(drop, &meaning, self.detect(drop, &meaning, None, now));
        let place = self.place(drop, &meaning, &found);
        let mut changes = Vec::new();
        self.record(place, &found, drop, now, &mut changes);
        changes
    }

    /// Observes where the last packet of a ledger row went, as
    /// [`Reconciler::last_packets`](crate::drops::Reconciler::last_packets) yields it. Its count comes by
    /// other ways, so it opens no alarm.
    pub fn observe_last_packet(&mut self, drop: &DropEvent, now: Clock) -> Vec<Change> {
        self.observe_destination(drop, None, || None, now)
    }

    /// Observes where the last packet of a hot row went. `new_packets` is how many the row has counted
    /// since its last poll. `take_unreported` is asked for the row's unreported drops if a part of an alarm
    /// turns out to be more, so that it is emitted with its count.
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
        let found = assess(drop, &meaning, self.detect(drop, &meaning, new_packets, now));
        let place = self.place(drop, &meaning, &found);
        let key = PartKey::of(drop, &meaning);
        let server = DropPlace { subject: Subject::Server(drop.server_id()), key };
        // What was low until now may turn out to be more.
        let low = DropPlace { subject: low_subject(drop, &meaning), key };
        let Some(kind) = [place, server, low].iter().find_map(|place| self.live_kind(*place)) else {
            return Vec::new();
        };
        let counted = if kind < found.kind { take_unreported() } else { None };
        let mut changes = Vec::new();
        self.record(place, &found, counted.as_ref().unwrap_or(drop), now, &mut changes);
        changes
    }

    /// Yields the changes that have waited for a moment after another one. Call it often.
    pub fn flush(&mut self, now: Clock) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in std::mem::take(&mut self.waiting) {
            let Some(incident) = self.open.get_mut(&id) else {
                continue;
            };
            changes.extend(incident.take_due(now, &self.thresholds));
            if incident.is_waiting() {
                self.waiting.push(id);
            }
        }
        changes
    }

    /// Closes incidents that have been quiet, and yields the updates that had to wait. Call it about once a
    /// second.
    pub fn tick(&mut self, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        self.waiting.clear();
        let mut changes = Vec::new();
        let mut over = Vec::new();
        for (id, incident) in &mut self.open {
            if incident.end_quiet_parts(now.mono_ns, &self.thresholds) {
                over.push(*id);
                continue;
            }
            changes.extend(incident.take_due(now, &self.thresholds));
            if incident.is_waiting() {
                self.waiting.push(*id);
            }
        }
        for id in over {
            changes.extend(self.close(id, None, now));
        }
        let now_ns = now.mono_ns;
        self.detectors.retain(|detector| now_ns.saturating_sub(detector.last_ns) < DETECTOR_NS);
        changes.sort_by_key(|change| change.alarm.id);
        changes
    }

    /// The records of alarms that go on without news, each at most once in ten seconds. They are for the
    /// history alone, which has to be true after a kill.
    pub fn take_unrecorded(&mut self, now: Clock) -> Vec<Change> {
        let mut changes = Vec::new();
        for incident in self.open.values_mut() {
            let passed_ns = now.mono_ns.saturating_sub(incident.recorded_ns);
            if incident.is_unrecorded && passed_ns >= self.thresholds.update_interval_ns {
                (incident.is_unrecorded, incident.recorded_ns) = (false, now.mono_ns);
                let alarm = incident.snapshot();
                changes.push(Change::unnoted(now.wall, alarm));
            }
        }
        changes
    }

    /// Reports trouble of the gate itself, which is an alarm at once.
    pub fn report_trouble(
        &mut self,
        trouble: GateTrouble,
        detail: &str,
        interface: &Arc<str>,
        now: Clock,
    ) -> Vec<Change> {
        self.follow_clock(now);
        let part = OpenPart::of_trouble(trouble, detail, now);
        let mut changes = Vec::new();
        let newest = self.by_subject.get(&Subject::Gate).and_then(|ids| ids.last()).copied();
        if let Some(incident) = newest.and_then(|id| self.open.get_mut(&id)) {
            incident.add_trouble(part);
            changes.extend(incident.take_due(now, &self.thresholds));
            if incident.is_waiting() {
                self.waiting.push(incident.id);
            }
            return changes;
        }
        let opening = self.opening(Subject::Gate, interface, now);
        let incident = Incident::new(opening, part, now);
        self.insert(incident, now, &mut changes);
        changes
    }

    /// Notes that trouble of the gate is over, and closes its alarm when all of it is.
    pub fn end_trouble(&mut self, trouble: GateTrouble, now: Clock) -> Vec<Change> {
        let mut over = Vec::new();
        for id in self.by_subject.get(&Subject::Gate).into_iter().flatten() {
            if let Some(incident) = self.open.get_mut(id) {
                incident.end_part(PartKey::Trouble(trouble));
                if !incident.parts().iter().any(OpenPart::is_live) {
                    over.push(*id);
                }
            }
        }
        over.into_iter().filter_map(|id| self.close(id, None, now)).collect()
    }

    /// Reports answers that opened nothing. Their alarm is low, and about a name or a resolver alone.
    pub fn report_answers(&mut self, report: &AnswerReport, interface: &Arc<str>, now: Clock) -> Vec<Change> {
        self.follow_clock(now);
        let kind = report.kind();
        let own = Subject::Answers { kind, about: Some(report.about) };
        let rest = Subject::Answers { kind, about: None };
        let of_kind = self.by_subject.keys().filter(
            |subject| matches!(subject, Subject::Answers { kind: other, about: Some(_) } if *other == kind),
        );
        let has_room = self.newest(own).is_some() || of_kind.count() < MAX_ABOUT;
        let (subject, is_rest) = if has_room { (own, false) } else { (rest, true) };
        let mut changes = Vec::new();
        let newest = self.by_subject.get(&subject).and_then(|ids| ids.last()).copied();
        if let Some(incident) = newest.and_then(|id| self.open.get_mut(&id)) {
            incident.add_answers(report, is_rest, now);
            changes.extend(incident.take_due(now, &self.thresholds));
            if incident.is_waiting() && !self.waiting.contains(&incident.id) {
                self.waiting.push(incident.id);
            }
            return changes;
        }
        let mut part = OpenPart::of_answers(report, is_rest, now);
        part.longest_gap_ns = self.recently_closed(subject, now).map_or(0, |(_, gap_ns)| gap_ns);
        let opening = self.opening(subject, interface, now);
        self.insert(Incident::new(opening, part, now), now, &mut changes);
        changes
    }

    /// The alarms that machines have joined since the last call.
    pub fn take_joined(&mut self) -> Vec<Alarm> {
        self.open.values_mut().filter_map(Incident::take_joined).collect()
    }

    /// The alarms that are open, the oldest first.
    pub fn open_alarms(&self) -> Vec<Alarm> {
        self.open.values().map(Incident::snapshot).collect()
    }

    /// An alarm that is open.
    pub fn open_alarm(&self, id: u64) -> Option<Alarm> {
        self.open.get(&id).map(Incident::snapshot)
    }

    /// The ids of the alarms that are open, the oldest first.
    pub fn open_ids(&self) -> Vec<u64> {
        self.open.keys().copied().collect()
    }

    /// How many alarms are open, by severity.
    pub fn count_open(&self) -> BTreeMap<Severity, u64> {
        let mut open = BTreeMap::new();
        for incident in self.open.values() {
            *open.entry(incident.rank().0).or_default() += 1;
        }
        open
    }

    /// Notes what was done about an open alarm, and yields the change; `None` if the alarm is not open.
    pub fn note_response(&mut self, id: u64, response: &str, now: Clock) -> Option<Change> {
        Some(self.open.get_mut(&id)?.note_response(response, now))
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
        for incident in self.open.values_mut() {
            incident.shift(step_ns);
        }
    }

    fn detect(
        &mut self,
        drop: &DropEvent,
        meaning: &Meaning,
        new_packets: Option<u64>,
        now: Clock,
    ) -> Finding {
        // A row that a starting daemon finds is one count for all the time before. Answers are no attempts: an
        // outsider who asks many ports would make the server's next packet a scan.
        if drop.any_protocol || drop.while_away || drop.server.is_none() || meaning.kind == Kind::Stray {
            return Finding::default();
        }
        if drop.reason.known() == Some(Reason::Protocol) {
            let detector = self.detectors.entry(drop.server_id());
            return detector.note_protocol(drop, now.mono_ns, &self.thresholds);
        }
        if !drop.reason.is_attempt() {
            return Finding::default();
        }
        let age_ns = now.wall.duration_since(drop.since).as_nanos();
        let age_ns = u64::try_from(age_ns.max(0)).unwrap_or(u64::MAX);
        let detector = self.detectors.entry(drop.server_id());
        detector.note(drop, new_packets, (now.mono_ns, age_ns), &self.thresholds)
    }

    fn newest(&self, subject: Subject) -> Option<&Incident> {
        self.by_subject.get(&subject)?.last().and_then(|id| self.open.get(id))
    }

    /// The open incident that a drop belongs to: the one that has its part, or the newest one while parts
    /// may still join it.
    fn find(&self, place: DropPlace, now: Clock) -> Option<u64> {
        let ids = self.by_subject.get(&place.subject)?;
        let has_part = |id: &&u64| self.open.get(id).is_some_and(|incident| incident.has_live(place.key));
        if let Some(id) = ids.iter().rev().find(has_part) {
            return Some(*id);
        }
        let newest = self.newest(place.subject)?;
        let age_ns = now.mono_ns.saturating_sub(newest.opened_ns);
        (age_ns < self.thresholds.join_ns).then_some(newest.id)
    }

    /// The kind of the live part at a place.
    fn live_kind(&self, place: DropPlace) -> Option<Kind> {
        let ids = self.by_subject.get(&place.subject)?;
        let part = |id: &u64| self.open.get(id)?.part(place.key).filter(|open| open.is_live());
        ids.iter().rev().find_map(part).map(|open| open.part.kind)
    }

    fn record(
        &mut self,
        mut place: DropPlace,
        found: &Assessment,
        drop: &DropEvent,
        now: Clock,
        changes: &mut Vec<Change>,
    ) {
        let mut found_at = self.find(place, now);
        if found_at.is_none() && !self.has_room(place.subject) {
            place = self.find_room(place);
            found_at = self.find(place, now);
        }
        if let Some(incident) = found_at.and_then(|id| self.open.get_mut(&id)) {
            incident.add(place.key, found, drop, now, &self.thresholds);
            changes.extend(incident.take_due(now, &self.thresholds));
            if incident.is_waiting() && !self.waiting.contains(&incident.id) {
                self.waiting.push(incident.id);
            }
            return;
        }
        let mut opening = self.opening(place.subject, &drop.interface, now);
        if place.subject != Subject::Everything {
            opening.server.clone_from(&drop.server);
            let is_prefix = |server: &ServerRef| self.prefix_servers.contains(&server.name);
            opening.has_machines = drop.server.as_ref().is_some_and(is_prefix);
        }
        let mut first = OpenPart::of_drop(place.key, found, drop, now);
        // A slow beacon would open an alarm each time.
        first.longest_gap_ns = self.recently_closed(place.subject, now).map_or(0, |(_, gap_ns)| gap_ns);
        first.add(found, drop, now);
        let incident = Incident::new(opening, first, now);
        self.insert(incident, now, changes);
    }

    fn opening(&mut self, subject: Subject, interface: &Arc<str>, now: Clock) -> Opening {
        let id = self.next_id;
        self.next_id += 1;
        let recent = self.recently_closed(subject, now).map(|(id, _)| id);
        let follows = self.newest(subject).map(|incident| incident.id).or(recent);
        let interface = Arc::clone(interface);
        Opening { id, subject, interface, server: None, has_machines: false, follows }
    }

    /// The subject's last incident, if it was closed not long ago, and how long ago its last drop came.
    fn recently_closed(&mut self, subject: Subject, now: Clock) -> Option<(u64, u64)> {
        let Closed { id, last_ns } = (*self.closed.entry(subject))?;
        let gap_ns = now.mono_ns.saturating_sub(last_ns);
        (gap_ns < self.thresholds.max_quiet_ns).then_some((id, gap_ns))
    }

    fn insert(&mut self, mut incident: Incident, now: Clock, changes: &mut Vec<Change>) {
        changes.push(incident.emit(Step::Opened, now));
        let (id, subject) = (incident.id, incident.subject);
        self.open.insert(id, incident);
        *self.open_by_server.entry(subject.server()).or_insert(0) += 1;
        let ids = self.by_subject.entry(subject).or_default();
        ids.push(id);
        if ids.len() > MAX_INCIDENTS {
            let oldest = ids[0];
            changes.extend(self.close(oldest, Some(id), now));
        }
    }

    fn has_room(&self, subject: Subject) -> bool {
        let by_server = self.open_by_server.get(&subject.server()).copied().unwrap_or(0);
        self.open.len() < self.thresholds.max_open && by_server < self.thresholds.max_open_by_server
    }

    /// Where a drop goes when there is no room for another incident: to those of the same reason, whoever
    /// sent them, or to one for all servers.
    fn find_room(&self, place: DropPlace) -> DropPlace {
        let shared = DropPlace { subject: place.subject.without_machine(), ..place };
        let is_machine = shared.subject != place.subject;
        if is_machine && (self.newest(shared.subject).is_some() || self.open.len() < self.thresholds.max_open)
        {
            return shared;
        }
        DropPlace { subject: Subject::Everything, key: PartKey::Rest }
    }

    fn close(&mut self, id: u64, folded_into: Option<u64>, now: Clock) -> Option<Change> {
        let mut incident = self.open.remove(&id)?;
        let subject = incident.subject;
        if let Some(count) = self.open_by_server.get_mut(&subject.server()) {
            *count -= 1;
            if *count == 0 {
                self.open_by_server.remove(&subject.server());
            }
        }
        if let Some(ids) = self.by_subject.get_mut(&subject) {
            ids.retain(|known| *known != id);
            if ids.is_empty() {
                self.by_subject.remove(&subject);
            }
        }
        *self.closed.entry(subject) = Some(Closed { id, last_ns: incident.last_ns() });
        Some(incident.emit(Step::Closed { folded_into }, now))
    }
}

#[cfg(test)]
impl Engine {
    pub(super) fn indices_len(&self) -> usize {
        self.open_by_server.len() + self.by_subject.len() + self.waiting.len()
    }
}
