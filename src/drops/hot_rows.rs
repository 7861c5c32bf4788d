//! Rows of the ledger that grow right now, polled between two rounds of the
//! [`Reconciler`](super::Reconciler). A worm shows one destination a second in its samples. Its ledger
//! row shows the last destination as often as it is read.

use std::collections::HashMap;

use super::ledger::to_event;
use super::reconcile::is_attempt;
use super::{Context, DropEvent, LedgerEntry, LedgerKey};

/// Rows that are polled. A server that tries more ports at a time is detected by its ports.
const MAX_ROWS: usize = 64;
/// Of those, rows of one server, so that no server takes the room of the others.
const MAX_ROWS_BY_SERVER: usize = 8;
/// A row that has not grown for this long is left to the reconciler, nanoseconds.
const IDLE_NS: u64 = 2_000_000_000;

/// The rows that grow right now.
#[derive(Debug, Default)]
pub struct HotRows {
    rows: HashMap<LedgerKey, LastPoll>,
}

/// The last packet of a row that has grown since the last poll.
#[derive(Debug)]
pub struct LastPacket {
    /// The packet. It counts no drops: the row's other readers count them.
    pub drop: DropEvent,
    /// How many packets the row has counted since the last poll.
    pub new_packets: u64,
    /// The row's key.
    pub key: LedgerKey,
    /// The row as it was read.
    pub entry: LedgerEntry,
}

#[derive(Debug)]
struct LastPoll {
    /// Time of the row's last packet, CLOCK_MONOTONIC, nanoseconds.
    last_ns: u64,
    /// Packets in the row; `None` until its first poll.
    packets: Option<u64>,
}

impl HotRows {
    /// Notes a sample: the row of its key has grown.
    pub fn note_sample(&mut self, key: LedgerKey, time_ns: u64) {
        if !is_attempt(&key) || self.rows.contains_key(&key) || self.rows.len() >= MAX_ROWS {
            return;
        }
        if self.rows.keys().filter(|known| known.server == key.server).count() < MAX_ROWS_BY_SERVER {
            self.rows.insert(key, LastPoll { last_ns: time_ns, packets: None });
        }
    }

    /// The last packets of the rows that have grown since the last poll. `read` reads a row of the
    /// ledger. A row that can't be read is left to the reconciler.
    pub fn poll(
        &mut self,
        context: &Context<'_>,
        mut read: impl FnMut(&LedgerKey) -> Option<LedgerEntry>,
    ) -> Vec<LastPacket> {
        let mut last_packets = Vec::new();
        self.rows.retain(|key, last| {
            let Some(entry) = read(key) else {
                return false;
            };
            let (before_ns, now_ns) = (last.last_ns, entry.last_ns);
            let packets = entry.packets;
            if now_ns > before_ns {
                let new_packets = last.packets.map_or(0, |before| entry.packets.saturating_sub(before));
                let drop = to_event(key, &entry, 0, entry.last_ns, context);
                last_packets.push(LastPacket { drop, new_packets, key: *key, entry });
            }
            *last = LastPoll { last_ns: now_ns.max(before_ns), packets: Some(packets) };
            context.clock.mono_ns.saturating_sub(last.last_ns) < IDLE_NS
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
        LedgerKey {
            server: 1,
            port,
            protocol: 6,
            reason: Reason::NewFlow.number(),
            flags: 0,
            overflow: false,
        }
    }

    fn entry(packets: u64, last_ms: u64) -> LedgerEntry {
        LedgerEntry { packets, last_ns: last_ms * MS, ..LedgerEntry::default() }
    }

    fn poll(hot_rows: &mut HotRows, now_ms: u64, entry: Option<LedgerEntry>) -> Vec<u64> {
        let clock = crate::clock::Clock { mono_ns: now_ms * MS, wall: clock().wall };
        let context = Context { interface: "dmz0".into(), clock, names: names() };
        hot_rows
            .poll(&context, |_| entry.clone())
            .into_iter()
            .map(|last_packet| last_packet.new_packets)
            .collect()
    }

    #[test]
    fn a_row_that_grows_is_seen_at_each_poll_with_its_new_packets_and_an_idle_one_is_not() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(key(445), 1000 * MS);
        assert_eq!(poll(&mut hot_rows, 1001, Some(entry(900, 1000))), [0; 0], "the sample reported it");
        assert_eq!(poll(&mut hot_rows, 1100, Some(entry(950, 1099))), [50]);
        assert_eq!(poll(&mut hot_rows, 1200, Some(entry(950, 1099))), [0; 0]);
        assert_eq!(poll(&mut hot_rows, 1300, Some(entry(951, 1250))), [1]);
        assert_eq!(poll(&mut hot_rows, 4000, Some(entry(951, 1250))), [0; 0]);
        assert!(hot_rows.rows.is_empty());
    }

    #[test]
    fn packets_from_before_the_first_poll_are_not_new() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(key(445), 1000 * MS);
        assert_eq!(poll(&mut hot_rows, 1100, Some(entry(9_000, 1050))), [0]);
    }

    #[test]
    fn rows_that_are_gone_and_rows_beyond_the_bound_are_left_to_the_reconciler() {
        let mut hot_rows = HotRows::default();
        hot_rows.note_sample(LedgerKey { reason: Reason::NoFlow.number(), ..key(0) }, MS);
        for port in 0..1000 {
            hot_rows.note_sample(key(port), MS);
        }
        assert_eq!(hot_rows.rows.len(), MAX_ROWS_BY_SERVER);
        for server in 2..1000 {
            hot_rows.note_sample(LedgerKey { server, ..key(445) }, MS);
        }
        assert_eq!(hot_rows.rows.len(), MAX_ROWS);
        poll(&mut hot_rows, 2, None);
        assert!(hot_rows.rows.is_empty());
    }
}
