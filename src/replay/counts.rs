//! Drops by server, service and reason, each with its destinations. Memory is bounded.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::capture::{Facts, Timestamp};
use crate::drops::Seeded;
use crate::gate::{Decision, Verdict};

/// Rows at most. What finds no room is counted by server and reason.
const MAX_ROWS: usize = 65_536;
/// Addresses of a row that are counted one by one.
const MAX_ADDRESSES: usize = 1024;

/// One kind of drop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Kind {
    pub(super) server: u32,
    /// The reason's number.
    pub(super) reason: u8,
    pub(super) protocol: u8,
    pub(super) port: u16,
    /// The port is the server's own.
    pub(super) own_port: bool,
    pub(super) quiet: bool,
    pub(super) would: bool,
    /// It stands for all services that found no room.
    pub(super) is_rest: bool,
}

impl Kind {
    pub(super) fn of(decision: &Decision) -> Kind {
        Kind {
            server: decision.server,
            reason: decision.reason.map_or(0, |reason| reason.number()),
            protocol: decision.protocol,
            port: decision.port,
            own_port: decision.own_port,
            quiet: decision.quiet,
            would: decision.verdict == Verdict::WouldDrop,
            is_rest: false,
        }
    }
}

/// Addresses with their packets.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    pub(super) packets: BTreeMap<IpAddr, u64>,
    /// Packets of addresses that found no room.
    pub(super) others: u64,
}

impl Addresses {
    pub(super) fn note(&mut self, address: IpAddr) {
        if let Some(packets) = self.packets.get_mut(&address) {
            *packets += 1;
        } else if self.packets.len() < MAX_ADDRESSES {
            self.packets.insert(address, 1);
        } else {
            self.others += 1;
        }
    }

    /// The addresses, the most frequent first.
    pub(super) fn ranked(&self) -> Vec<(IpAddr, u64)> {
        let mut list: Vec<_> = self.packets.iter().map(|(address, packets)| (*address, *packets)).collect();
        list.sort_by(|(a, more), (b, fewer)| fewer.cmp(more).then(a.cmp(b)));
        list
    }
}

/// The packets of one kind.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) kind: Kind,
    pub(super) packets: u64,
    pub(super) bytes: u64,
    /// Packets of connections that begin with one of these. They would never have been sent.
    pub(super) followers: u64,
    pub(super) first_ns: Timestamp,
    pub(super) last_ns: Timestamp,
    pub(super) sources: Addresses,
    pub(super) destinations: Addresses,
}

/// Packets by kind.
#[derive(Default)]
pub(super) struct Counts {
    numbers: HashMap<Kind, usize, Seeded>,
    rows: Vec<Row>,
}

impl Counts {
    /// Counts a packet, and returns the number of its row.
    pub(super) fn note(
        &mut self,
        kind: Kind,
        facts: Option<&Facts>,
        time_ns: Timestamp,
        bytes: u32,
    ) -> usize {
        let kind = match self.rows.len() < MAX_ROWS || self.numbers.contains_key(&kind) {
            true => kind,
            false => Kind { protocol: 0, port: 0, own_port: false, is_rest: true, ..kind },
        };
        let number = *self.numbers.entry(kind).or_insert_with(|| {
            self.rows.push(Row {
                kind,
                packets: 0,
                bytes: 0,
                followers: 0,
                first_ns: time_ns,
                last_ns: time_ns,
                sources: Addresses::default(),
                destinations: Addresses::default(),
            });
            self.rows.len() - 1
        });
        if let Some(row) = self.rows.get_mut(number) {
            row.packets += 1;
            row.bytes += u64::from(bytes);
            row.last_ns = row.last_ns.max(time_ns);
            if let Some(facts) = facts {
                row.sources.note(facts.source);
                row.destinations.note(facts.destination);
            }
        }
        number
    }

    /// Counts a packet of a connection whose first packet is in this row.
    pub(super) fn note_follower(&mut self, number: usize) {
        if let Some(row) = self.rows.get_mut(number) {
            row.followers += 1;
        }
    }

    /// The rows, the most packets first.
    pub(super) fn ranked(&self) -> Vec<&Row> {
        let mut rows: Vec<&Row> = self.rows.iter().collect();
        rows.sort_by(|a, b| b.packets.cmp(&a.packets).then(a.kind.cmp(&b.kind)));
        rows
    }

    /// All packets.
    pub(super) fn packets(&self) -> u64 {
        self.rows.iter().map(|row| row.packets).sum()
    }

    /// The row of this number.
    pub(super) fn row(&self, number: usize) -> Option<&Row> {
        self.rows.get(number)
    }
}
