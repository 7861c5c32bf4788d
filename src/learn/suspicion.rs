//! The alarm engine's opinion. It sees each opening of a server as a drop, as if no policy permitted anything, and
//! remembers who had a part in what. `judge` decides what weighs how much.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use super::scope::ServerId;
use crate::abi::Reason;
use crate::alarm::{Alarm, Change, Engine, Kind, Part, Scope};
use crate::capture::{Facts, Frame, Position, Timestamp};
use crate::clock::Clock;
use crate::drops::{DropEvent, DropVerdict, Origin, ReasonCode, Seeded, ServerRef};
use crate::net::is_icmp;

/// The engine's time at the first packet. Not 0: it compares with times before.
const START_NS: u64 = 1_000_000_000_000_000;
const TICK_NS: u64 = 1_000_000_000;
/// The same opening again within this, nanoseconds, is not shown to the engine, as the gate sends no sample.
const SAMPLE_GAP_NS: u64 = 1_000_000_000;
/// Openings that are remembered for that.
const MAX_RECENT: usize = 8192;
/// Of a frame, as much as a sample has.
const SAMPLE_BYTES: usize = 128;
/// Services of one server in whose troubles it had a part.
const MAX_SERVICES: usize = 64;

/// Kinds of alarms, each with the destination that was called again and again.
pub(super) type Kinds = BTreeSet<(Kind, Option<IpAddr>)>;

/// What a server had a part in.
#[derive(Clone, Debug, Default)]
pub(super) struct Troubles {
    /// Kinds by service.
    pub(super) by_service: BTreeMap<(u8, u16), Kinds>,
    /// It tried many ports.
    pub(super) is_scan: bool,
    /// When the first of them began.
    pub(super) first_ns: Option<Timestamp>,
}

/// An engine for captures.
pub(super) struct Suspicion {
    engine: Engine,
    interface: Arc<str>,
    troubles: BTreeMap<ServerId, Troubles>,
    recent: HashMap<u64, Timestamp, Seeded>,
    hasher: Seeded,
    first_ns: Option<Timestamp>,
    latest_ns: Timestamp,
    ticked_ns: u64,
}

impl Suspicion {
    pub(super) fn new() -> Suspicion {
        Suspicion {
            engine: Engine::default(),
            interface: "capture".into(),
            troubles: BTreeMap::new(),
            recent: HashMap::default(),
            hasher: Seeded::default(),
            first_ns: None,
            latest_ns: 0,
            ticked_ns: 0,
        }
    }

    /// Follows the time of the capture, which never runs backwards.
    fn follow_time(&mut self, time_ns: Timestamp) -> Clock {
        let first_ns = *self.first_ns.get_or_insert(time_ns);
        self.latest_ns = self.latest_ns.max(time_ns);
        let now_ns = START_NS.saturating_add(self.latest_ns.saturating_sub(first_ns));
        let wall = super::wording::to_wall(self.latest_ns);
        Clock { mono_ns: now_ns, wall }
    }

    /// Notes an opening by a server.
    pub(super) fn note(&mut self, server: ServerId, frame: &Frame, facts: &Facts) {
        use std::hash::BuildHasher as _;
        let key = self.hasher.hash_one((server, facts.protocol, facts.destination_port, facts.destination));
        let is_again =
            self.recent.get(&key).is_some_and(|last| frame.time_ns.saturating_sub(*last) < SAMPLE_GAP_NS);
        if is_again {
            return;
        }
        if self.recent.len() >= MAX_RECENT {
            self.recent.clear();
        }
        self.recent.insert(key, frame.time_ns);
        let now = self.follow_time(frame.time_ns);
        if now.mono_ns.saturating_sub(self.ticked_ns) >= TICK_NS {
            self.ticked_ns = now.mono_ns;
            let changes = self.engine.tick(now);
            self.take(changes);
        }
        let drop = self.drop_of(server, frame, facts, now);
        let changes = self.engine.observe(&drop, now);
        self.take(changes);
    }

    /// As [`Suspicion::note`], of an opening of which no packet is known: both ends, and what was opened.
    pub(super) fn note_opening(
        &mut self,
        server: ServerId,
        time_ns: Timestamp,
        (source, destination): (IpAddr, IpAddr),
        (protocol, port): (u8, u16),
    ) {
        let facts = Facts {
            source,
            destination,
            protocol,
            source_port: 0,
            destination_port: port,
            tcp_flags: if protocol == crate::net::TCP { crate::net::tcp_flags::SYN } else { 0 },
            hop_limit: 64,
            position: Position::Whole,
            is_tagged: false,
            ip_at: 0,
            transport_at: 0,
        };
        self.note(server, &Frame { bytes: Vec::new(), time_ns, ..Frame::default() }, &facts);
    }

    fn drop_of(&self, server: ServerId, frame: &Frame, facts: &Facts, now: Clock) -> DropEvent {
        let has_ports = crate::net::has_ports(facts.protocol);
        let icmp_type = u8::try_from(facts.destination_port).ok().filter(|_| is_icmp(facts.protocol));
        DropEvent {
            time: now.wall,
            since: now.wall,
            interface: Arc::clone(&self.interface),
            verdict: DropVerdict::Drop,
            reason: ReasonCode::Known(Reason::NewFlow),
            quiet: false,
            own_port: false,
            presumed: false,
            edit: None,
            server: Some(ServerRef { id: server, name: format!("#{server}").into() }),
            source: Some(facts.source),
            destination: Some(facts.destination),
            source_port: has_ports.then_some(facts.source_port),
            destination_port: has_ports.then_some(facts.destination_port),
            port: facts.destination_port,
            protocol: facts.protocol,
            any_protocol: false,
            tcp_flags: (facts.protocol == crate::net::TCP).then_some(facts.tcp_flags),
            icmp_type,
            icmp_code: None,
            length: Some(frame.length),
            ethertype: None,
            vlan: None,
            source_mac: frame.source_mac,
            destination_mac: None,
            frame: frame.bytes.get(..SAMPLE_BYTES).unwrap_or(&frame.bytes).to_vec(),
            row: None,
            sources: None,
            destinations: None,
            drops: 1,
            from: Origin::Sample,
            while_away: false,
            looked_up: None,
        }
    }

    /// What the servers had a part in.
    pub(super) fn finish(mut self) -> BTreeMap<ServerId, Troubles> {
        let alarms = self.engine.open_alarms();
        alarms.iter().for_each(|alarm| self.note_alarm(alarm));
        self.troubles
    }

    fn take(&mut self, changes: Vec<Change>) {
        for change in changes {
            self.note_alarm(&change.alarm);
        }
    }

    fn note_alarm(&mut self, alarm: &Alarm) {
        let Some(server) = alarm.server.as_ref().map(|server| server.id) else { return };
        for part in &alarm.parts {
            let is_trouble = match part.kind {
                Kind::Spread
                | Kind::Scan
                | Kind::Callback
                | Kind::Fetch
                | Kind::Backdoor
                | Kind::Spoof
                | Kind::Question => true,
                Kind::Stray
                | Kind::Attempt
                | Kind::Burst
                | Kind::Gate
                | Kind::Rebinding
                | Kind::ForgedAnswer => false,
            };
            if is_trouble {
                self.troubles.entry(server).or_default().note(part);
            }
        }
    }
}

impl Troubles {
    fn note(&mut self, part: &Part) {
        let began_ns = u64::try_from(part.first.as_nanosecond()).unwrap_or(0);
        let services: Vec<(u8, u16)> = match (&part.sample, part.scope) {
            (None, _) => Vec::new(),
            (Some(sample), Scope::Service | Scope::Reason) => vec![(sample.protocol, sample.port)],
            (Some(sample), Scope::Ports | Scope::Rest | Scope::Gate | Scope::Answers) => {
                part.ports.iter().map(|port| (sample.protocol, *port)).collect()
            }
        };
        self.note_kind(part.kind, began_ns, services, part.contacted);
    }

    /// Notes a part of an alarm.
    pub(super) fn note_kind(
        &mut self,
        kind: Kind,
        began_ns: Timestamp,
        services: Vec<(u8, u16)>,
        contacted: Option<IpAddr>,
    ) {
        // a fetch may be the update of every night, so it does not say that a server was taken over
        if kind != Kind::Fetch {
            self.first_ns = Some(self.first_ns.map_or(began_ns, |first| first.min(began_ns)));
        }
        self.is_scan |= kind == Kind::Scan;
        for service in services {
            if self.by_service.len() < MAX_SERVICES || self.by_service.contains_key(&service) {
                self.by_service.entry(service).or_default().insert((kind, contacted));
            }
        }
    }
}
