//! What two policies decide otherwise about the same capture. Memory is bounded.

use std::collections::HashMap;

use super::counts::Addresses;
use super::lane::Judgement;
use crate::capture::{Frame, Timestamp};
use crate::drops::Seeded;

/// Rows at most. What comes beyond is counted in one number.
const MAX_ROWS: usize = 65_536;

/// What one policy decided, as far as it tells differences apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Side {
    pub(super) drops: bool,
    pub(super) server: u32,
    /// The reason's number.
    pub(super) reason: u8,
    pub(super) rule: u32,
    pub(super) protocol: u8,
    pub(super) port: u16,
}

impl Side {
    fn of(judgement: &Judgement) -> Side {
        let decision = &judgement.decision;
        Side {
            drops: judgement.drops(),
            server: decision.server,
            reason: decision.reason.map_or(0, |reason| reason.number()),
            rule: decision.rule,
            protocol: decision.protocol,
            port: decision.port,
        }
    }
}

/// One difference.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) packets: u64,
    pub(super) first_ns: Timestamp,
    pub(super) last_ns: Timestamp,
    pub(super) sources: Addresses,
    pub(super) destinations: Addresses,
}

/// All differences.
#[derive(Default)]
pub(super) struct Differences {
    rows: HashMap<[Option<Side>; 2], Row, Seeded>,
    /// Packets of differences that found no room.
    pub(super) others: u64,
}

impl Differences {
    pub(super) fn note(&mut self, frame: &Frame, judgements: [Option<Judgement>; 2]) {
        let sides = judgements.map(|judgement| judgement.as_ref().map(Side::of));
        let drops = |side: &Option<Side>| side.is_some_and(|side| side.drops);
        let [one, other] = &sides;
        // where only one policy has a server, the other one says nothing
        if drops(one) == drops(other) {
            return;
        }
        if self.rows.len() >= MAX_ROWS && !self.rows.contains_key(&sides) {
            self.others += 1;
            return;
        }
        let row = self.rows.entry(sides).or_insert_with(|| Row {
            packets: 0,
            first_ns: frame.time_ns,
            last_ns: frame.time_ns,
            sources: Addresses::default(),
            destinations: Addresses::default(),
        });
        row.packets += 1;
        row.last_ns = row.last_ns.max(frame.time_ns);
        if let Some(facts) = &frame.facts {
            row.sources.note(facts.source);
            row.destinations.note(facts.destination);
        }
    }

    /// The differences, the most packets first.
    pub(super) fn ranked(&self) -> Vec<([Option<Side>; 2], &Row)> {
        let mut rows: Vec<_> = self.rows.iter().map(|(sides, row)| (*sides, row)).collect();
        rows.sort_by(|(a, one), (b, other)| other.packets.cmp(&one.packets).then(a.cmp(b)));
        rows
    }
}
