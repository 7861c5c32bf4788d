//! Kinds of tries that go on right now, to be looked at between two sweeps: a worm shows one
//! destination a second in samples, and the last one of its row as often as somebody looks.

use std::collections::HashMap;

use super::ledger::to_drop;
use super::reconcile::is_try;
use super::{Context, DropEvent, LedgerEntry, LedgerKey};

/// Kinds that are looked at. A server that calls more ports at a time is found out by that.
const MOST: usize = 64;
/// Of those, of one server: none may take the room of the others.
const MOST_BY_SERVER: usize = 8;
/// What has been idle for this long is left to the reconciler, nanoseconds.
const IDLE_NS: u64 = 2_000_000_000;

/// What goes on.
#[derive(Debug, Default)]
pub struct HotRows {
    kinds: HashMap<LedgerKey, Seen>,
}

/// A kind that went on.
#[derive(Debug)]
pub struct LastPacket {
    /// The last packet, without a count.
    pub drop: DropEvent,
    /// How many came since the last look.
    pub since: u64,
    /// Of its row.
    pub key: LedgerKey,
    /// Its row.
    pub entry: LedgerEntry,
}

#[derive(Debug)]
struct Seen {
    /// Of the last packet, CLOCK_MONOTONIC, nanoseconds.
    last_ns: u64,
    /// In the row; `None` until it was looked at.
    packets: Option<u64>,
}

impl HotRows {
    /// EventFilter note of a sample: its kind goes on.
    pub fn note_sample(&mut self, key: LedgerKey, time_ns: u64) {
        if !is_try(&key) || self.kinds.contains_key(&key) || self.kinds.len() >= MOST {
            return;
        }
        if self.kinds.keys().filter(|known| known.server == key.server).count() < MOST_BY_SERVER {
            self.kinds.insert(key, Seen { last_ns: time_ns, packets: None });
        }
    }

    /// Those that went on since the last look, and their rows: where their last packets went.
    /// `read` reads a row of the ledger; one that can't be read is left to the reconciler.
    pub fn poll(
        &mut self,
        context: &Context<'_>,
        mut read: impl FnMut(&LedgerKey) -> Option<LedgerEntry>,
    ) -> Vec<LastPacket> {
        let mut last_packets = Vec::new();
        self.kinds.retain(|key, seen| {
            let Some(entry) = read(key) else {
                return false;
            };
            if entry.last_ns > seen.last_ns {
                let packets = seen.packets.map_or(0, |before| entry.packets.saturating_sub(before));
                let drop = to_drop(key, &entry, 0, entry.last_ns, context);
                last_packets.push(LastPacket { drop, since: packets, key: *key, entry });
            }
            *seen = Seen { last_ns: entry.last_ns.max(seen.last_ns), packets: Some(entry.packets) };
            context.clock.mono_ns.saturating_sub(seen.last_ns) < IDLE_NS
        });
        last_packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::drops::example::{clock, names};

    const MS: u64 = 1_000_000;

    fn key(port: u16) -> LedgerKey {
        LedgerKey { server: 1, port, protocol: 6, reason: Reason::NewFlow.number(), flags: 0, rest: false }
    }

    fn entry(packets: u64, last_ms: u64) -> LedgerEntry {
        LedgerEntry { packets, last_ns: last_ms * MS, ..LedgerEntry::default() }
    }

    fn look(hot_rows: &mut HotRows, now_ms: u64, entry: Option<LedgerEntry>) -> Vec<u64> {
        let clock = crate::clock::Clock { mono_ns: now_ms * MS, wall: clock().wall };
        let context = Context { interface: "dmz0".into(), clock, names: names() };
        hot_rows.poll(&context, |_| entry).into_iter().map(|last_packet| last_packet.since).collect()
    }

    #[test]
    fn what_goes_on_is_seen_at_each_look_with_what_came_since_and_what_rests_is_not() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(key(445), 1000 * MS);
        assert_eq!(look(&mut hot_rows, 1001, Some(entry(900, 1000))), [0; 0], "the sample has told of it");
        assert_eq!(look(&mut hot_rows, 1100, Some(entry(950, 1099))), [50]);
        assert_eq!(look(&mut hot_rows, 1200, Some(entry(950, 1099))), [0; 0]);
        assert_eq!(look(&mut hot_rows, 1300, Some(entry(951, 1250))), [1]);
        assert_eq!(look(&mut hot_rows, 4000, Some(entry(951, 1250))), [0; 0]);
        assert!(hot_rows.kinds.is_empty());
    }

    #[test]
    fn what_was_counted_before_anybody_looked_is_nothing_new() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(key(445), 1000 * MS);
        assert_eq!(look(&mut hot_rows, 1100, Some(entry(9_000, 1050))), [0]);
    }

    #[test]
    fn a_row_that_is_gone_and_kinds_beyond_the_bound_are_left_to_the_sweep() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(LedgerKey { reason: Reason::NoFlow.number(), ..key(0) }, MS);
        for port in 0..1000 {
            hot_rows.note_sample(key(port), MS);
        }
        assert_eq!(hot_rows.kinds.len(), MOST_BY_SERVER);
        for server in 2..1000 {
            hot_rows.note_sample(LedgerKey { server, ..key(445) }, MS);
        }
        assert_eq!(hot_rows.kinds.len(), MOST);
        look(&mut hot_rows, 2, None);
        assert!(hot_rows.kinds.is_empty());
    }
}
