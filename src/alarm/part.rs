//! One part of an incident: what one drop after the other adds to it.

use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::answers::{AnswerReport, Answers};
use super::assess::Assessment;
use super::detector::is_last_packet;
use super::gate_trouble::GateTrouble;
use super::meaning::rate_scan;
use super::subject::PartKey;
use super::{Distinct, Kind, Likely, Scope, Severity, Thresholds};
use crate::clock::Clock;
use crate::drops::{Contacts, DropEvent, DropVerdict, Origin, ReasonCode};

/// How many of each one part remembers. The rest is estimated.
const MAX_DESTINATIONS: usize = 32;
const MAX_PORTS: usize = 32;
const MAX_SOURCES: usize = 16;
const MAX_MACS: usize = 8;
/// Dangerous services that a scan remembers: all that there are, and ports of backdoors.
const MAX_DANGEROUS: usize = 128;
/// The longest interval between two drops, so many times, is how long a part waits for the next one.
const GAPS: u64 = 3;

/// One part of an alarm: what one server did in one way.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// What it is taken for. It only ever becomes more telling.
    pub kind: Kind,
    /// How severe it is. It only ever rises.
    pub severity: Severity,
    /// What it stands for.
    pub scope: Scope,
    /// What it probably is, other than an intrusion.
    pub likely: Likely,
    /// Why the last packet was dropped; `None`: it is about no packet.
    pub reason: Option<ReasonCode>,
    /// Whether the last packet was dropped, or would have been; `None`: it is about no packet.
    pub verdict: Option<DropVerdict>,
    /// Time of the first drop.
    pub first: Timestamp,
    /// Time of the last drop.
    pub last: Timestamp,
    /// How many packets, exactly.
    pub packets: u64,
    /// How many events (samples, ledger rows) reported them.
    pub events: u64,
    /// Their source addresses.
    pub sources: Distinct<IpAddr>,
    /// Their destination addresses.
    pub destinations: Distinct<IpAddr>,
    /// Their ports, as [`DropEvent::port`].
    pub ports: Distinct<u16>,
    /// Their services, by protocol and port.
    pub services: Distinct<(u8, u16)>,
    /// Their source MAC addresses.
    pub source_macs: Distinct<[u8; 6]>,
    /// The machines that were dropped before our eyes: address and MAC, as samples show them together.
    pub senders: Distinct<(IpAddr, [u8; 6])>,
    /// The most frequent sources and destinations, where the ledger has counted them.
    pub frequent: [Option<Arc<Contacts>>; 2],
    /// Of a `callback`: the destination that was contacted again and again.
    pub contacted: Option<IpAddr>,
    /// The last sample. Without any sample, the last event of a ledger row. `None`: it is about no packet.
    pub sample: Option<Arc<DropEvent>>,
    /// Some of the packets came while no daemon ran.
    pub while_away: bool,
    /// No more drops come, as it seems.
    pub is_over: bool,
    /// Of a part about the gate: what is wrong, and the details in words.
    pub trouble: Option<(GateTrouble, Arc<str>)>,
    /// Of a part about a name or a resolver. Its packets are answers, and none of them was dropped.
    pub answers: Option<Answers>,
}

impl Part {
    /// A part without any drop.
    fn new(key: PartKey, kind: Kind, severity: Severity, now: Timestamp) -> Part {
        let (scope, reason) = match key {
            PartKey::Service { reason, .. } => (Scope::Service, Some(reason)),
            PartKey::Reason(reason) => (Scope::Reason, Some(reason)),
            PartKey::Scan => (Scope::Ports, None),
            PartKey::Rest => (Scope::Rest, None),
            PartKey::Trouble(_) => (Scope::Gate, None),
            PartKey::Answers => (Scope::Answers, None),
        };
        Part {
            kind,
            severity,
            scope,
            likely: Likely::Unknown,
            reason,
            verdict: None,
            first: now,
            last: now,
            packets: 0,
            events: 0,
            sources: Distinct::new(MAX_SOURCES),
            destinations: Distinct::new(MAX_DESTINATIONS),
            ports: Distinct::new(MAX_PORTS),
            services: Distinct::new(MAX_PORTS),
            source_macs: Distinct::new(MAX_MACS),
            senders: Distinct::new(MAX_SOURCES),
            frequent: [None, None],
            contacted: None,
            sample: None,
            while_away: false,
            is_over: false,
            trouble: None,
            answers: None,
        }
    }

    /// The service in the words of a need: that of the last sample, or `many`.
    pub fn service(&self) -> String {
        match (self.scope, &self.sample) {
            (Scope::Gate, _) => "gate".to_owned(),
            (Scope::Answers, _) => "dns".to_owned(),
            (Scope::Service | Scope::Reason, Some(sample)) => sample.service(),
            (Scope::Service | Scope::Reason, None) => "any".to_owned(),
            (Scope::Ports | Scope::Rest, _) => "many".to_owned(),
        }
    }

    /// Whether a sample has shown the machine that sent this.
    pub(super) fn is_known_sender(&self, drop: &DropEvent) -> bool {
        let sender = drop.source.zip(drop.source_mac);
        sender.is_some_and(|sender| self.senders.iter().any(|known| *known == sender))
    }

    /// How severe it is, and how telling.
    pub(super) fn rank(&self) -> (Severity, Kind) {
        (self.severity, self.kind)
    }

    /// The part without the means to count on. It takes little memory.
    pub(super) fn snapshot(&self, most: usize) -> Part {
        Part {
            sources: self.sources.snapshot(most),
            destinations: self.destinations.snapshot(most),
            ports: self.ports.snapshot(most),
            services: self.services.snapshot(0),
            source_macs: self.source_macs.snapshot(most),
            senders: self.senders.snapshot(most),
            frequent: self.frequent.clone(),
            sample: self.sample.clone(),
            trouble: self.trouble.clone(),
            answers: self.answers.clone(),
            ..*self
        }
    }
}

/// What was said of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReportedPart {
    pub(super) kind: Kind,
    pub(super) severity: Severity,
    pub(super) sources: Size,
    pub(super) destinations: Size,
    pub(super) verdict: Option<DropVerdict>,
    /// All that is known of it came while no daemon ran.
    pub(super) is_past: bool,
}

/// A number of things. An estimate has news when it doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Size {
    Exact(usize),
    Doublings(u32),
}

impl Size {
    fn of<T: PartialEq + Copy + Hash>(things: &Distinct<T>) -> Size {
        match things.is_estimate() {
            true => Size::Doublings(things.len().max(1).ilog2()),
            false => Size::Exact(things.len()),
        }
    }
}

impl ReportedPart {
    pub(super) fn of(part: &Part) -> ReportedPart {
        ReportedPart {
            kind: part.kind,
            severity: part.severity,
            sources: Size::of(&part.sources),
            destinations: Size::of(&part.destinations),
            verdict: part.verdict,
            is_past: part.sample.as_ref().is_some_and(|sample| sample.while_away),
        }
    }
}

/// A part of an incident that is open.
#[derive(Debug)]
pub(super) struct OpenPart {
    pub(super) key: PartKey,
    pub(super) part: Part,
    /// When the last drop was observed: CLOCK_MONOTONIC, nanoseconds.
    pub(super) last_ns: u64,
    /// The longest interval between two drops, nanoseconds.
    pub(super) longest_gap_ns: u64,
    /// What was said of it; `None`: nothing yet.
    pub(super) reported: Option<ReportedPart>,
    /// It was over, and drops came again since.
    pub(super) came_again: bool,
    /// Of a scan: the dangerous services that it tried, by protocol and port. There are not many.
    pub(super) dangerous: Vec<(u8, u16)>,
}

impl OpenPart {
    /// A part without any drop yet.
    pub(super) fn new(
        key: PartKey,
        kind: Kind,
        severity: Severity,
        since: Timestamp,
        now: Clock,
    ) -> OpenPart {
        let part = Part::new(key, kind, severity, since);
        OpenPart {
            key,
            part,
            last_ns: now.mono_ns,
            longest_gap_ns: 0,
            reported: None,
            came_again: false,
            dangerous: Vec::new(),
        }
    }

    /// A part about the gate.
    pub(super) fn of_trouble(trouble: GateTrouble, detail: &str, now: Clock) -> OpenPart {
        let key = PartKey::Trouble(trouble);
        let mut open = OpenPart::new(key, trouble.kind(), trouble.severity(), now.wall, now);
        open.part.trouble = Some((trouble, detail.into()));
        open
    }

    /// A part about a name or a resolver. `is_rest`: it shares its alarm with others.
    pub(super) fn of_answers(report: &AnswerReport, is_rest: bool, now: Clock) -> OpenPart {
        let mut open = OpenPart::new(PartKey::Answers, report.kind(), Severity::Low, report.first, now);
        open.part.last = report.last;
        open.add_answers(report, is_rest, now);
        open
    }

    /// Adds what was seen of answers since.
    pub(super) fn add_answers(&mut self, report: &AnswerReport, is_rest: bool, now: Clock) {
        let part = &mut self.part;
        part.packets = part.packets.saturating_add(report.answers);
        part.events = part.events.saturating_add(1);
        (part.first, part.last) = (part.first.min(report.first), part.last.max(report.last));
        part.while_away |= report.while_away;
        part.is_over = false;
        report.resolvers.iter().for_each(|address| part.sources.insert(*address));
        report.addresses.iter().for_each(|address| part.destinations.insert(*address));
        part.answers = Some(Answers::of(report, is_rest));
        self.longest_gap_ns = self.longest_gap_ns.max(now.mono_ns.saturating_sub(self.last_ns));
        self.last_ns = now.mono_ns;
    }

    /// The first drop of a part.
    pub(super) fn of_drop(key: PartKey, found: &Assessment, drop: &DropEvent, now: Clock) -> OpenPart {
        let (kind, severity) = match key == PartKey::Scan {
            true => (Kind::Scan, rate_scan(drop)),
            false => (found.kind, found.severity),
        };
        let mut open = OpenPart::new(key, kind, severity, drop.since, now);
        open.part.last = drop.time;
        open
    }

    /// Adds a drop.
    pub(super) fn add(&mut self, found: &Assessment, drop: &DropEvent, now: Clock) {
        let part = &mut self.part;
        // A slow history makes the daemon report earlier drops after those of now.
        let is_older = drop.while_away && drop.time < part.last;
        part.packets = part.packets.saturating_add(drop.drops);
        part.events = part.events.saturating_add(u64::from(!is_last_packet(drop)));
        // Ledger rows come after samples, and times are those of the drops.
        part.first = part.first.min(drop.since);
        part.last = part.last.max(drop.time);
        part.while_away |= drop.while_away;
        if !is_older {
            let gap_ns = now.mono_ns.saturating_sub(self.last_ns);
            self.longest_gap_ns = self.longest_gap_ns.max(gap_ns);
            self.last_ns = self.last_ns.max(now.mono_ns);
            part.is_over = false;
            part.reason = Some(drop.reason);
            part.verdict = Some(drop.verdict);
            let has_sample = part.sample.as_ref().is_some_and(|sample| sample.from == Origin::Sample);
            if drop.from == Origin::Sample || !has_sample {
                part.sample = Some(Arc::new(drop.clone()));
            }
        }
        note_all(&mut part.sources, drop.source, drop.sources.as_deref());
        note_all(&mut part.destinations, drop.destination, drop.destinations.as_deref());
        for (known, contacts) in part.frequent.iter_mut().zip([&drop.sources, &drop.destinations]) {
            if contacts.as_ref().is_some_and(|contacts| !contacts.frequent.is_empty()) {
                known.clone_from(contacts);
            }
        }
        if let Some(mac) = drop.source_mac {
            part.source_macs.insert(mac);
        }
        if let (true, Some(source), Some(mac)) = (is_live_sample(drop), drop.source, drop.source_mac) {
            part.senders.insert((source, mac));
        }
        if !drop.any_protocol && !drop.is_frame() {
            part.ports.insert(drop.port);
            part.services.insert((drop.protocol, drop.port));
        }
        if found.contacted.is_some() {
            part.contacted = found.contacted;
        }
        part.likely = found.likely;
        let service = (drop.protocol, drop.port);
        if found.is_dangerous && !self.dangerous.contains(&service) && self.dangerous.len() < MAX_DANGEROUS {
            self.dangerous.push(service);
        }
        part.severity = part.severity.max(found.severity);
        part.kind = part.kind.max(found.kind);
    }

    /// Adds what another part had that ends in this one.
    pub(super) fn absorb(&mut self, other: &OpenPart) {
        let part = &mut self.part;
        let others = &other.part;
        part.packets = part.packets.saturating_add(others.packets);
        part.events = part.events.saturating_add(others.events);
        part.first = part.first.min(others.first);
        part.last = part.last.max(others.last);
        part.sources.merge(&others.sources);
        part.destinations.merge(&others.destinations);
        part.source_macs.merge(&others.source_macs);
        part.senders.merge(&others.senders);
        part.ports.merge(&others.ports);
        part.services.merge(&others.services);
        part.while_away |= others.while_away;
        part.severity = part.severity.max(others.severity);
        if self.key == PartKey::Rest {
            part.kind = part.kind.max(others.kind);
        }
        if part.sample.is_none() {
            part.sample.clone_from(&others.sample);
            (part.reason, part.verdict) = (others.reason, others.verdict);
        }
        for service in &other.dangerous {
            if !self.dangerous.contains(service) && self.dangerous.len() < MAX_DANGEROUS {
                self.dangerous.push(*service);
            }
        }
        self.last_ns = self.last_ns.max(other.last_ns);
        self.longest_gap_ns = self.longest_gap_ns.max(other.longest_gap_ns);
    }

    /// Whether drops of it may still come.
    pub(super) fn is_live(&self) -> bool {
        !self.part.is_over
    }

    /// Whether it has been quiet for long enough to be over.
    pub(super) fn is_quiet(&self, now_ns: u64, thresholds: &Thresholds) -> bool {
        if self.part.trouble.as_ref().is_some_and(|(trouble, _)| trouble.lasts()) {
            return false;
        }
        let longest_ns = thresholds.max_quiet_ns.max(thresholds.quiet_ns);
        let wait_ns = (GAPS * self.longest_gap_ns).clamp(thresholds.quiet_ns, longest_ns);
        now_ns.saturating_sub(self.last_ns) >= wait_ns
    }
}

/// Whether it shows a machine that is being dropped before our eyes.
pub(super) fn is_live_sample(drop: &DropEvent) -> bool {
    drop.from == Origin::Sample && drop.verdict == DropVerdict::Drop && !drop.while_away
}

/// Notes the address of one packet, and those that the ledger remembers of its row.
fn note_all(known: &mut Distinct<IpAddr>, one: Option<IpAddr>, contacts: Option<&Contacts>) {
    if let Some(address) = one {
        known.insert(address);
    }
    let Some(contacts) = contacts else {
        return;
    };
    contacts.first.iter().for_each(|address| known.insert(*address));
    contacts.frequent.iter().for_each(|(address, _)| known.insert(*address));
    if contacts.is_full {
        known.note_more();
    }
}
