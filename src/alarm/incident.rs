//! An incident while it is open: its parts, and what is to be said of it.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::answers::AnswerReport;
use super::assess::Assessment;
use super::detector::Scan;
use super::meaning::rate_scan;
use super::news::{describe_news, has_news, magnitude};
use super::part::{OpenPart, Part, ReportedPart, is_live_sample};
use super::subject::{PartKey, Subject};
use super::{Alarm, Change, Distinct, Kind, Likely, Severity, Step, Thresholds};
use crate::clock::Clock;
use crate::drops::{DropEvent, ServerRef};

/// Parts of one incident, beside the rest.
const MAX_PARTS: usize = 16;
/// When it has so many single attempts among its parts and no room, they are a scan.
const MANY_ATTEMPTS: usize = 12;
/// Parts of which the first drop pages. A server that has more is known to do everything.
const MAX_PAGED: usize = 64;
/// The pause between two updates doubles so often: to five minutes.
const MAX_DOUBLINGS: u32 = 5;
/// A scan of so many destinations explains an attempt at any other.
const WIDE_SCAN: usize = 4;
/// Addresses and ports that a change carries of each part.
const LISTED: usize = 16;

/// An incident that is open.
#[derive(Debug)]
pub(super) struct Incident {
    pub(super) id: u64,
    pub(super) subject: Subject,
    pub(super) server: Option<ServerRef>,
    pub(super) opened_ns: u64,
    /// When a change was last emitted: CLOCK_MONOTONIC, nanoseconds.
    emitted_ns: u64,
    /// When it was last looked for news. That takes time, and a flood brings thousands of drops a second.
    checked_ns: u64,
    /// When the history last got its record.
    pub(super) recorded_ns: u64,
    /// Something was added since then.
    pub(super) is_unrecorded: bool,
    /// Something was added since a change was last emitted.
    is_changed: bool,
    /// A change that pages waits, because one was just emitted: the kind until then.
    waiting_page: Option<Kind>,
    /// The first drop of a part waits likewise.
    has_first: bool,
    /// Updates since it last paged. The next one waits twice as long.
    updates: u32,
    reported_magnitude: u32,
    has_response_news: bool,
    /// A machine was seen that the responder was not asked about yet.
    has_new_sender: bool,
    /// When one was last seen.
    asked_ns: u64,
    /// The parts whose first drop was looked at.
    paged: Vec<(PartKey, Kind)>,
    interface: Arc<str>,
    has_machines: bool,
    opened_as: Kind,
    follows: Option<u64>,
    parts: Vec<OpenPart>,
    response: String,
}

/// What an incident begins with.
pub(super) struct Opening {
    pub id: u64,
    pub subject: Subject,
    pub interface: Arc<str>,
    pub server: Option<ServerRef>,
    pub has_machines: bool,
    pub follows: Option<u64>,
}

impl Incident {
    /// An incident with its first part.
    pub(super) fn new(opening: Opening, first: OpenPart, now: Clock) -> Incident {
        let Opening { id, subject, interface, server, has_machines, follows } = opening;
        Incident {
            id,
            subject,
            server,
            opened_ns: now.mono_ns,
            emitted_ns: now.mono_ns,
            checked_ns: now.mono_ns,
            recorded_ns: now.mono_ns,
            is_unrecorded: false,
            is_changed: false,
            waiting_page: None,
            has_first: false,
            updates: 0,
            reported_magnitude: 0,
            has_response_news: false,
            has_new_sender: false,
            asked_ns: now.mono_ns,
            paged: vec![(first.key, first.part.kind)],
            interface,
            has_machines,
            opened_as: first.part.kind,
            follows,
            parts: vec![first],
            response: String::new(),
        }
    }

    pub(super) fn parts(&self) -> &[OpenPart] {
        &self.parts
    }

    pub(super) fn part(&self, key: PartKey) -> Option<&OpenPart> {
        self.parts.iter().find(|open| open.key == key)
    }

    /// Whether it has this part, and drops of it may still come.
    pub(super) fn has_live(&self, key: PartKey) -> bool {
        self.part(key).is_some_and(OpenPart::is_live)
    }

    /// How many packets, exactly.
    pub(super) fn packets(&self) -> u64 {
        self.parts.iter().fold(0, |sum, open| sum.saturating_add(open.part.packets))
    }

    /// How severe it is, and how telling: as its most severe part.
    pub(super) fn rank(&self) -> (Severity, Kind) {
        let ranks = self.parts.iter().map(|open| open.part.rank());
        ranks.max().unwrap_or((Severity::Low, self.opened_as))
    }

    /// When its last drop was observed.
    pub(super) fn last_ns(&self) -> u64 {
        self.parts.iter().map(|open| open.last_ns).max().unwrap_or(self.opened_ns)
    }

    /// Whether it has a frame or packet of this sender.
    pub(super) fn has_mac(&self, mac: [u8; 6]) -> bool {
        self.parts.iter().any(|open| open.part.source_macs.iter().any(|known| *known == mac))
    }

    /// Whether its scan explains an attempt, so that this is no part of its own.
    pub(super) fn explains(&self, drop: &DropEvent, found: &Assessment) -> bool {
        let Some(scan) = self.part(PartKey::Scan).filter(|scan| scan.is_live()) else {
            return false;
        };
        let destinations = &scan.part.destinations;
        let is_known =
            drop.destination.is_some_and(|address| destinations.iter().any(|known| *known == address));
        let has_port = match found.is_dangerous {
            // A login elsewhere is more than one port of a scan, unless the scan tries it everywhere.
            true => destinations.len() >= WIDE_SCAN && scan.dangerous.contains(&(drop.protocol, drop.port)),
            false => {
                destinations.len() >= WIDE_SCAN || scan.part.ports.iter().any(|known| *known == drop.port)
            }
        };
        drop.any_protocol || is_known || has_port || found.scan == Scan::Here
    }

    /// Adds a drop to a part, which is made if it is missing.
    pub(super) fn add(
        &mut self,
        key: PartKey,
        found: &Assessment,
        drop: &DropEvent,
        now: Clock,
        thresholds: &Thresholds,
    ) {
        let (severity, kind) = self.rank();
        let place = self.find_place(key, found, drop, now, thresholds);
        let Some(open) = self.parts.get_mut(place) else {
            return;
        };
        open.came_again |= !open.is_live() && open.reported.is_some();
        let machines = open.part.sources.len();
        let is_known = open.part.is_known_sender(drop);
        open.add(found, drop, now);
        // A sender that nobody was cut off for may have been looked up in vain.
        let is_due = now.mono_ns.saturating_sub(self.asked_ns) >= thresholds.update_interval_ns;
        if is_live_sample(drop) && (!is_known || is_due) {
            (self.has_new_sender, self.asked_ns) = (true, now.mono_ns);
        }
        // Each machine may have to be cut off. Beyond the first few nobody could follow.
        let sources = &open.part.sources;
        let has_new_machine = self.has_machines
            && open.part.severity >= Severity::High
            && !sources.is_estimate()
            && sources.len() > machines;
        let (key, reported) = (open.key, open.reported);
        let (part_severity, part_kind) = open.part.rank();
        if drop.server.is_some() && self.subject != Subject::Everything {
            // A policy may have given the id's server another name.
            self.server.clone_from(&drop.server);
        }
        self.interface = Arc::clone(&drop.interface);
        (self.is_changed, self.is_unrecorded) = (true, true);
        self.has_first |= reported.is_none() || has_new_machine || self.parts[place].came_again;
        if self.pages((key, part_kind), part_severity, severity, found.is_dangerous) {
            self.waiting_page.get_or_insert(kind);
        }
    }

    /// Adds a part about the gate, or notes that it is still so.
    pub(super) fn add_trouble(&mut self, trouble: OpenPart) {
        let (severity, kind) = self.rank();
        let (key, part_kind, part_severity) = (trouble.key, trouble.part.kind, trouble.part.severity);
        match self.parts.iter_mut().find(|open| open.key == key) {
            Some(open) => {
                open.came_again |= !open.is_live();
                let first = open.part.first;
                (open.last_ns, open.part) = (trouble.last_ns, Part { first, ..trouble.part });
            }
            None => self.parts.push(trouble),
        }
        (self.is_changed, self.is_unrecorded, self.has_first) = (true, true, true);
        if self.pages((key, part_kind), part_severity, severity, true) {
            self.waiting_page.get_or_insert(kind);
        }
    }

    /// Adds what was seen of answers.
    pub(super) fn add_answers(&mut self, report: &AnswerReport, is_rest: bool, now: Clock) {
        let Some(open) = self.parts.first_mut() else {
            return;
        };
        open.came_again |= !open.is_live();
        open.add_answers(report, is_rest, now);
        (self.is_changed, self.is_unrecorded) = (true, true);
        self.has_first |= open.came_again;
    }

    /// Ends a part.
    pub(super) fn end_part(&mut self, key: PartKey) {
        if let Some(open) = self.parts.iter_mut().find(|open| open.key == key) {
            open.part.is_over = true;
            self.is_unrecorded = true;
        }
    }

    /// Whether a person should look again: it is more severe, does something of another kind, or does
    /// something that is as severe as the rest or dangerous for the first time. What is low never pages
    /// again.
    fn pages(
        &mut self,
        first: (PartKey, Kind),
        severity: Severity,
        before: Severity,
        is_dangerous: bool,
    ) -> bool {
        let is_first = !self.paged.contains(&first);
        let is_new_kind = !self.paged.iter().any(|(_, kind)| *kind == first.1);
        let has_room = self.paged.len() < MAX_PAGED;
        if is_first && has_room {
            self.paged.push(first);
        }
        let is_low = matches!(self.subject, Subject::Low { .. });
        let is_severe = severity >= before || is_dangerous;
        !is_low && (severity > before || is_first && has_room && (is_new_kind || is_severe))
    }

    /// The index of a part, which is made if it is missing.
    fn find_place(
        &mut self,
        key: PartKey,
        found: &Assessment,
        drop: &DropEvent,
        now: Clock,
        thresholds: &Thresholds,
    ) -> usize {
        let place_of = |parts: &[OpenPart], key: PartKey| parts.iter().position(|open| open.key == key);
        let key = match (key, place_of(&self.parts, key)) {
            (PartKey::Scan, place) => {
                let all = place.is_none() && found.scan != Scan::Here;
                return self.fold_into_scan(all, drop, now, thresholds.scan_window_ns);
            }
            (_, Some(place)) => return place,
            (key, None) => key,
        };
        let is_rest = |open: &OpenPart| open.key == PartKey::Rest;
        if self.parts.iter().filter(|open| !is_rest(open)).count() >= MAX_PARTS {
            let attempts = self.parts.iter().filter(|open| is_plain_attempt(open)).count();
            if key.is_single_attempt(found.kind) && attempts >= MANY_ATTEMPTS && self.is_of_few_machines() {
                let scan = self.fold_into_scan(true, drop, now, u64::MAX);
                // What is dangerous is a part of its own.
                return match found.is_dangerous {
                    true => self.push(OpenPart::of_drop(key, found, drop, now)),
                    false => scan,
                };
            }
            // What is severe has a part of its own, whatever came before.
            let least = self.parts.iter().enumerate().filter(|(_, open)| !is_rest(open));
            let least = least.min_by_key(|(_, open)| (open.part.rank(), open.last_ns));
            let is_more = |open: &OpenPart| (found.severity, found.kind) >= open.part.rank();
            let evicted = match least {
                Some((place, open)) if found.severity >= Severity::High || is_more(open) => {
                    Some(self.parts.remove(place))
                }
                _ => None,
            };
            let rest = place_of(&self.parts, PartKey::Rest).unwrap_or_else(|| {
                let (kind, severity) = evicted
                    .as_ref()
                    .map_or((found.kind, found.severity), |open| (open.part.kind, open.part.severity));
                self.push(OpenPart::new(PartKey::Rest, kind, severity, drop.since, now))
            });
            match evicted {
                Some(evicted) => self.parts[rest].absorb(&evicted),
                None => return rest,
            }
        }
        self.push(OpenPart::of_drop(key, found, drop, now))
    }

    /// The index of the scan. It takes up the single attempts that are not older than this: all of them, or
    /// those at its own destinations.
    fn fold_into_scan(&mut self, all: bool, drop: &DropEvent, now: Clock, window_ns: u64) -> usize {
        let severity = rate_scan(drop);
        let mut scan = match self.parts.iter().position(|open| open.key == PartKey::Scan) {
            Some(place) => self.parts.remove(place),
            None => OpenPart::new(PartKey::Scan, Kind::Scan, severity, drop.since, now),
        };
        let targets = scan.part.destinations.clone();
        let is_target = |address: &IpAddr| {
            drop.destination == Some(*address) || targets.iter().any(|known| known == address)
        };
        let is_of_scan = |open: &OpenPart| {
            let is_recent = now.mono_ns.saturating_sub(open.last_ns) <= window_ns;
            is_plain_attempt(open) && is_recent && (all || open.part.destinations.iter().all(is_target))
        };
        for open in self.parts.extract_if(.., |open| is_of_scan(open)) {
            scan.absorb(&open);
        }
        self.push(scan)
    }

    /// Whether few machines made the single attempts. Otherwise they are no scan.
    fn is_of_few_machines(&self) -> bool {
        let attempts: Vec<&OpenPart> = self.parts.iter().filter(|open| is_plain_attempt(open)).collect();
        let mut machines = Distinct::new(MANY_ATTEMPTS);
        attempts.iter().for_each(|open| machines.merge(&open.part.sources));
        4 * machines.len() <= attempts.len()
    }

    fn push(&mut self, open: OpenPart) -> usize {
        self.parts.push(open);
        self.parts.len() - 1
    }

    /// Marks the parts that have been quiet, and says whether all are.
    pub(super) fn end_quiet_parts(&mut self, now_ns: u64, thresholds: &Thresholds) -> bool {
        for open in &mut self.parts {
            open.part.is_over |= open.is_quiet(now_ns, thresholds);
        }
        !self.parts.iter().any(OpenPart::is_live)
    }

    /// The change that is due now.
    pub(super) fn take_due(&mut self, now: Clock, thresholds: &Thresholds) -> Option<Change> {
        if !self.is_changed {
            return None;
        }
        let passed_ns = now.mono_ns.saturating_sub(self.emitted_ns);
        if passed_ns >= thresholds.page_gap_ns
            && let Some(from) = self.waiting_page
        {
            return Some(self.emit(Step::Escalated { from }, now));
        }
        let wait_ns = match self.has_first {
            true => thresholds.page_gap_ns,
            false => thresholds.update_interval_ns << self.updates.min(MAX_DOUBLINGS),
        };
        let is_checked =
            !self.has_first && now.mono_ns.saturating_sub(self.checked_ns) < thresholds.page_gap_ns;
        if self.waiting_page.is_some() || passed_ns < wait_ns || is_checked {
            return None;
        }
        self.checked_ns = now.mono_ns;
        if self.has_news() {
            return Some(self.emit(Step::Updated, now));
        }
        self.is_changed = false;
        None
    }

    /// Whether there is anything new.
    fn has_news(&self) -> bool {
        self.reported_magnitude != magnitude(self.packets())
            || self.has_response_news
            || self.parts.iter().any(has_news)
    }

    /// Whether a change waits that is due soon.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_changed && (self.waiting_page.is_some() || self.has_first)
    }

    /// The alarm as it stands now, if a machine has joined it that nobody asked about lately. Its address may have
    /// been known, so that it is no news.
    pub(super) fn take_joined(&mut self) -> Option<Alarm> {
        std::mem::take(&mut self.has_new_sender).then(|| self.snapshot())
    }

    /// Notes what was done about it.
    pub(super) fn note_response(&mut self, response: &str, now: Clock) -> Change {
        response.clone_into(&mut self.response);
        self.has_response_news = true;
        let step = self.waiting_page.map_or(Step::Updated, |from| Step::Escalated { from });
        self.emit(step, now)
    }

    /// The alarm as it stands now, for history and sinks.
    pub(super) fn emit(&mut self, step: Step, now: Clock) -> Change {
        let news = match step {
            Step::Updated | Step::Escalated { .. } => {
                describe_news(&self.parts, self.packets(), self.reported_magnitude)
            }
            Step::Opened | Step::Closed { .. } => String::new(),
        };
        (self.emitted_ns, self.recorded_ns) = (now.mono_ns, now.mono_ns);
        (self.is_changed, self.is_unrecorded) = (false, false);
        self.updates = if step == Step::Updated && !self.has_first { self.updates + 1 } else { 0 };
        (self.waiting_page, self.has_first, self.has_response_news) = (None, false, false);
        self.reported_magnitude = magnitude(self.packets());
        for open in &mut self.parts {
            (open.reported, open.came_again) = (Some(ReportedPart::of(&open.part)), false);
        }
        Change { time: now.wall, step, news, is_muted: false, alarm: self.snapshot() }
    }

    /// The alarm as it stands now.
    pub(super) fn snapshot(&self) -> Alarm {
        let mut parts: Vec<Part> = self.parts.iter().map(|open| open.part.snapshot(LISTED)).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.rank()));
        let times = |time: fn(&Part) -> Timestamp| parts.iter().map(time);
        Alarm {
            id: self.id,
            opened_as: self.opened_as,
            follows: self.follows,
            interface: Arc::clone(&self.interface),
            server: self.server.clone(),
            has_machines: self.has_machines,
            is_for_all: self.subject == Subject::Everything,
            first: times(|part| part.first).min().unwrap_or_default(),
            last: times(|part| part.last).max().unwrap_or_default(),
            packets: self.packets(),
            events: parts.iter().map(|part| part.events).sum(),
            sources: self.merge(|part| &part.sources),
            destinations: self.merge(|part| &part.destinations),
            ports: self.merge(|part| &part.ports),
            source_macs: self.merge(|part| &part.source_macs),
            while_away: parts.iter().any(|part| part.while_away),
            response: self.response.clone(),
            acknowledged: None,
            silenced: None,
            rated: None,
            parts,
        }
    }

    /// The distinct things of all parts.
    fn merge<T: PartialEq + Copy + std::hash::Hash>(&self, of: fn(&Part) -> &Distinct<T>) -> Distinct<T> {
        let Some((first, others)) = self.parts.split_first() else {
            return Distinct::new(LISTED);
        };
        if others.is_empty() {
            return of(&first.part).snapshot(LISTED);
        }
        let mut all = of(&first.part).clone();
        for other in others {
            all.merge(of(&other.part));
        }
        all.snapshot(LISTED)
    }

    /// Moves its times, as the wall clock was moved.
    pub(super) fn shift(&mut self, step_ns: i128) {
        let shift =
            |time: Timestamp| Timestamp::from_nanosecond(time.as_nanosecond() + step_ns).unwrap_or(time);
        for OpenPart { part, .. } in &mut self.parts {
            (part.first, part.last) = (shift(part.first), shift(part.last));
        }
    }

    pub(super) fn set_machines(&mut self, has_machines: bool) {
        self.has_machines = has_machines;
    }
}

/// Whether a scan would explain a part.
fn is_plain_attempt(open: &OpenPart) -> bool {
    open.key.is_single_attempt(open.part.kind) && open.part.likely == Likely::Unknown
}
