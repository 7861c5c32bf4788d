//! One policy on its way through a capture: each frame goes through the filter or the tracker, in the order and by the
//! time of the capture.

use std::collections::BTreeMap;

use super::alarms::AlarmRun;
use super::conversations::{Conversations, Ends, State};
use super::copies::Copies;
use super::counts::{Counts, Kind};
use super::direction::{Direction, Directions};
use crate::abi::Reason;
use crate::capture::{Facts, Frame, LinkType, Position, Timestamp, Trouble};
use crate::clock::Clock;
use crate::compile::ServerRow;
use crate::gate::{Decision, GateError, ReplayGate, Verdict};
use crate::net::tcp_flags::{ACK, SYN};
use crate::net::{TCP, UDP};
use crate::policy::Direction as NeedDirection;
use crate::policy_file::CompiledPolicy;

/// The programs' time at the first packet. Not 0: they compare with times before.
const START_NS: u64 = 1_000_000_000_000_000;
/// How long after the begin of a capture a datagram may answer a question from before: as long as the kernel's
/// conntrack waits for the first answer.
const ANSWER_NS: u64 = 30_000_000_000;

/// What a policy decided about a frame from a server.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    /// About a packet of a connection that was refused, it is the one about the first packet.
    pub(super) decision: Decision,
}

impl Judgement {
    pub(super) fn drops(&self) -> bool {
        self.decision.verdict != Verdict::Pass
    }
}

/// How many frames went where.
#[derive(Clone, Debug, Default)]
pub(super) struct Totals {
    pub(super) frames: u64,
    pub(super) passed: BTreeMap<u8, u64>,
    pub(super) dropped: u64,
    pub(super) would_drop: u64,
    pub(super) followers: u64,
    pub(super) to_servers: u64,
    pub(super) copies: u64,
    pub(super) arriving: u64,
    pub(super) neither: u64,
    pub(super) troubles: BTreeMap<Trouble, u64>,
    /// Dated before the packet that stands before them.
    pub(super) backwards: u64,
    /// From servers whose MAC or VLAN the policy has, in frames that do not show it.
    pub(super) without_mac: u64,
    /// Frames without the receiver's MAC.
    pub(super) without_receiver: u64,
}

/// One policy.
pub(super) struct Lane<'a> {
    pub(super) compiled: &'a CompiledPolicy,
    gate: &'a ReplayGate,
    directions: Directions<'a>,
    copies: Copies,
    conversations: Conversations,
    pub(super) drops: Counts,
    /// Packets of connections that began before the capture.
    pub(super) before: Counts,
    pub(super) picked_up: Counts,
    pub(super) totals: Totals,
    pub(super) alarms: AlarmRun<'a>,
    pub(super) first_ns: Option<Timestamp>,
    pub(super) last_ns: Timestamp,
    is_strict: bool,
}

impl<'a> Lane<'a> {
    pub(super) fn new(
        compiled: &'a CompiledPolicy,
        gate: &'a ReplayGate,
        own_mac: Option<[u8; 6]>,
    ) -> Result<Lane<'a>, GateError> {
        let settings = &compiled.tables.settings;
        if settings.is_strict() && settings.pickup_s > 0 {
            gate.take_over_until(START_NS + u64::from(settings.pickup_s) * 1_000_000_000)?;
        }
        gate.set_clock(START_NS);
        Ok(Lane {
            compiled,
            gate,
            directions: Directions::new(&compiled.tables, own_mac),
            copies: Copies::default(),
            conversations: Conversations::default(),
            drops: Counts::default(),
            before: Counts::default(),
            picked_up: Counts::default(),
            totals: Totals::default(),
            alarms: AlarmRun::new(gate, &compiled.policy)?,
            first_ns: None,
            last_ns: 0,
            is_strict: settings.is_strict(),
        })
    }

    /// Runs a frame through the programs. `None`: it is not one that a server sent.
    pub(super) fn judge(&mut self, frame: &mut Frame) -> Result<Option<Judgement>, GateError> {
        self.totals.frames += 1;
        let now_ns = self.follow_time(frame.time_ns)?;
        if let Some(trouble) = frame.trouble {
            *self.totals.troubles.entry(trouble).or_default() += 1;
            return Ok(None);
        }
        match self.directions.find(frame, &self.copies) {
            Direction::FromServer(row) => {
                if let Some(row) = row {
                    self.fill_in(frame, row);
                }
                let judgement = self.judge_sent(frame, now_ns)?;
                if let Some(facts) = &frame.facts
                    && self.may_be_copied(frame)
                {
                    let is_dropped = judgement.is_some_and(|judgement| judgement.drops());
                    self.copies.note(frame, facts, is_dropped);
                }
                return Ok(judgement);
            }
            Direction::ToServer => self.track(frame)?,
            Direction::Copy => self.totals.copies += 1,
            Direction::Arriving => self.totals.arriving += 1,
            Direction::Neither => self.totals.neither += 1,
        }
        Ok(None)
    }

    /// Ends the capture: what the daemon would still say.
    pub(super) fn finish(&mut self) -> Result<(), GateError> {
        self.alarms.finish()
    }

    /// What the capture calls now, as the programs' time. It never runs backwards.
    fn follow_time(&mut self, time_ns: Timestamp) -> Result<u64, GateError> {
        let first_ns = *self.first_ns.get_or_insert(time_ns);
        if time_ns < self.last_ns {
            self.totals.backwards += 1;
        }
        self.last_ns = self.last_ns.max(time_ns);
        let now_ns = START_NS.saturating_add(self.last_ns.saturating_sub(first_ns));
        self.alarms.run_until(Clock { mono_ns: now_ns, wall: to_wall(self.last_ns) })?;
        self.gate.set_clock(now_ns);
        Ok(now_ns)
    }

    /// Gives a frame the MAC and the tag that the policy asks for, where the capture can't show them.
    fn fill_in(&mut self, frame: &mut Frame, row: &ServerRow) {
        if frame.link == LinkType::Ethernet {
            return;
        }
        self.totals.without_receiver += 1;
        let mac = row.macs.first().filter(|_| frame.source_mac.is_none());
        if let Some(mac) = mac {
            frame.set_source_mac(*mac);
        }
        let vlan = row.vlan.filter(|_| frame.facts.is_some_and(|facts| !facts.is_tagged));
        if let Some(vlan) = vlan {
            frame.set_vlan(vlan);
        }
        self.totals.without_mac += u64::from(mac.is_some() || vlan.is_some());
    }

    fn may_be_copied(&self, frame: &Frame) -> bool {
        frame.has_siblings || frame.facts.is_some_and(|facts| self.directions.is_server(facts.destination))
    }

    fn track(&mut self, frame: &Frame) -> Result<(), GateError> {
        self.totals.to_servers += 1;
        if let Some(facts) = &frame.facts {
            if frame.has_siblings {
                self.copies.note(frame, facts, false);
            }
            let ends = ends_to_server(facts);
            match self.conversations.get(&ends) {
                // An answer to what was refused. Only a new opening of the peer counts.
                Some(State::Refused(_)) if !is_bare_syn(facts) => return Ok(()),
                _ => {}
            }
            if begins(facts) {
                self.conversations.set(&ends, State::Begun);
            }
        }
        match self.is_strict {
            true => self.gate.track(&frame.bytes),
            false => Ok(()),
        }
    }

    fn judge_sent(&mut self, frame: &Frame, now_ns: u64) -> Result<Option<Judgement>, GateError> {
        let Some(facts) = frame.facts.filter(|facts| facts.position != Position::Later) else {
            return self.run_filter(frame, None).map(|(judgement, _)| Some(judgement));
        };
        let ends = ends_from_server(&facts);
        let state = self.conversations.get(&ends);
        let is_segment = facts.protocol == TCP && !is_bare_syn(&facts);
        // also an answer of one server to what was refused to another
        let refused = match (state, is_segment) {
            (Some(State::Refused(row)), true) => Some(row),
            _ if is_bare_syn(&facts) => None,
            _ => match self.conversations.get(&ends_to_server(&facts)) {
                Some(State::Refused(row)) => Some(row),
                Some(State::Begun) | None => None,
            },
        };
        if let Some(row) = refused {
            self.totals.followers += 1;
            self.drops.note_follower(row);
            return Ok(self.drops.row(row).map(|row| Judgement { decision: decision_of(&row.kind) }));
        }
        let began_before = state.is_none()
            && (is_segment
                || (facts.protocol == UDP && now_ns < START_NS + ANSWER_NS && self.answers(&facts)));
        if began_before && self.would_be_stray(frame, is_segment)? {
            let decision = self.describe_stray(frame, &facts)?;
            self.before.note(Kind::of(&decision), Some(&facts), frame.time_ns, frame.length);
            return Ok(None);
        }
        let (judgement, row) = self.run_filter(frame, Some(&facts))?;
        match row {
            Some(row) if facts.protocol == UDP || is_bare_syn(&facts) => {
                self.conversations.set(&ends, State::Refused(row));
            }
            None if begins(&facts) && !matches!(state, Some(State::Begun)) => {
                self.conversations.set(&ends, State::Begun);
            }
            _ => {}
        }
        Ok(Some(judgement))
    }

    /// Runs the filter and counts its verdict. Returns the row of a drop as well.
    fn run_filter(
        &mut self,
        frame: &Frame,
        facts: Option<&Facts>,
    ) -> Result<(Judgement, Option<usize>), GateError> {
        let decision = self.gate.filter(&frame.bytes)?;
        let judgement = Judgement { decision };
        let facts = facts.or(frame.facts.as_ref());
        if !judgement.drops() {
            let reason = decision.reason.map_or(0, |reason| reason.number());
            *self.totals.passed.entry(reason).or_default() += 1;
            if decision.reason == Some(Reason::Pickup) {
                let port = facts.map_or(decision.port, |facts| facts.source_port);
                let kind = Kind { port, own_port: true, ..Kind::of(&decision) };
                self.picked_up.note(kind, facts, frame.time_ns, frame.length);
            }
            return Ok((judgement, None));
        }
        match decision.verdict {
            Verdict::WouldDrop => self.totals.would_drop += 1,
            Verdict::Drop | Verdict::Pass => self.totals.dropped += 1,
        }
        let row = self.drops.note(Kind::of(&decision), facts, frame.time_ns, frame.length);
        self.alarms.note_drop()?;
        Ok((judgement, Some(row)))
    }

    /// Would the filter drop a packet only because it has not seen its connection begin?
    fn would_be_stray(&self, frame: &Frame, is_segment: bool) -> Result<bool, GateError> {
        let answer = self.gate.explain(&frame.bytes)?;
        Ok(answer.verdict != Verdict::Pass
            && (answer.reason == Some(Reason::NoFlow)
                || (!is_segment && answer.reason == Some(Reason::NewFlow))))
    }

    fn describe_stray(&self, frame: &Frame, facts: &Facts) -> Result<Decision, GateError> {
        let answer = self.gate.explain(&frame.bytes)?;
        let own_port = self.answers(facts);
        Ok(Decision {
            verdict: Verdict::Drop,
            reason: Some(Reason::NoFlow),
            server: answer.server,
            rule: 0,
            protocol: facts.protocol,
            port: if own_port { facts.source_port } else { facts.destination_port },
            quiet: false,
            own_port,
        })
    }

    /// Whether a packet comes from a port of an `in` service that its receiver may use.
    fn answers(&self, facts: &Facts) -> bool {
        let tables = &self.compiled.tables;
        self.directions.find_server(facts.source).is_some_and(|row| {
            let (protocol, port) = (facts.protocol, facts.source_port);
            tables.decide(row.profile, NeedDirection::In, protocol, port, facts.destination) != 0
        })
    }
}

fn decision_of(kind: &Kind) -> Decision {
    Decision {
        verdict: if kind.would { Verdict::WouldDrop } else { Verdict::Drop },
        reason: Reason::from_number(kind.reason),
        server: kind.server,
        rule: 0,
        protocol: kind.protocol,
        port: kind.port,
        quiet: kind.quiet,
        own_port: kind.own_port,
    }
}

fn ends_from_server(facts: &Facts) -> Ends {
    ((facts.source, facts.source_port), (facts.destination, facts.destination_port), facts.protocol)
}

fn ends_to_server(facts: &Facts) -> Ends {
    ((facts.destination, facts.destination_port), (facts.source, facts.source_port), facts.protocol)
}

fn is_bare_syn(facts: &Facts) -> bool {
    facts.protocol == TCP && facts.tcp_flags & (SYN | ACK) == SYN
}

/// Whether a packet may be the first one of a connection.
fn begins(facts: &Facts) -> bool {
    is_bare_syn(facts) || facts.protocol == UDP
}

/// A time of a capture. One beyond the calendar becomes its last.
pub(super) fn to_wall(time_ns: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_nanosecond(i128::from(time_ns)).unwrap_or(jiff::Timestamp::MAX)
}
