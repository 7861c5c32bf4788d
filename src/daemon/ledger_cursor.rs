//! When the ledger is to be read. Reading it costs a core some milliseconds, and while nothing is
//! dropped there is nothing new in it.

use std::time::{Duration, Instant};

/// A larger ledger, because servers call every port, is read less often. Lost samples change that: the
/// ledger alone knows of their drops.
const SMALL_LEDGER_ROWS: usize = 8192;
/// How old the last reading of a large ledger may become.
const LARGE_LEDGER_PERIOD: Duration = Duration::from_secs(5);

/// The state of the ledger, as far as it is known without reading it.
#[derive(Debug, Default)]
pub(super) struct LedgerCursor {
    /// Drops, as the programs count them.
    dropped: u64,
    /// Lost samples, as the programs count them.
    lost: u64,
    /// Samples were lost or could not be decoded since the last reading.
    is_lossy: bool,
    /// Readings since `dropped` last changed.
    reads: u32,
    read_at: Option<Instant>,
    /// Rows of the last reading.
    rows: usize,
}

impl LedgerCursor {
    /// Notes that samples were lost or could not be decoded.
    pub(super) fn note_loss(&mut self) {
        self.is_lossy = true;
    }

    /// Notes the counters of the programs.
    pub(super) fn note_counters(&mut self, dropped: u64, lost: u64) {
        self.is_lossy |= lost != self.lost;
        if dropped != self.dropped {
            self.reads = 0;
        }
        (self.dropped, self.lost) = (dropped, lost);
    }

    /// Whether to read the ledger now. `has_backlog`: the last reading left drops to be reported. The
    /// programs count a packet just before its row, so the ledger is read once more after the counter
    /// has come to rest.
    pub(super) fn is_due(&self, has_backlog: bool, now: Instant) -> bool {
        let is_old = self.read_at.is_none_or(|read_at| now.duration_since(read_at) >= LARGE_LEDGER_PERIOD);
        let is_allowed = is_old || self.is_lossy || self.rows <= SMALL_LEDGER_ROWS;
        is_allowed && (self.reads < 2 || has_backlog)
    }

    /// Notes a reading.
    pub(super) fn note_reading(&mut self, rows: usize, now: Instant) {
        self.reads = self.reads.saturating_add(1);
        self.read_at = Some(now);
        self.rows = rows;
        self.is_lossy = false;
    }

    /// Whether a reading has other rows than the one before, as far as their number shows.
    pub(super) fn has_grown_or_shrunk(&self, rows: usize) -> bool {
        rows != self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_at_rest_is_read_twice_and_then_no_more() {
        let now = Instant::now();
        let mut cursor = LedgerCursor::default();
        for expected in [true, true, false, false] {
            cursor.note_counters(7, 0);
            assert_eq!(cursor.is_due(false, now), expected);
            if expected {
                cursor.note_reading(1, now);
            }
        }
        cursor.note_counters(8, 0);
        assert!(cursor.is_due(false, now), "something was dropped");
    }

    #[test]
    fn a_backlog_is_read_until_it_is_gone() {
        let now = Instant::now();
        let mut cursor = LedgerCursor::default();
        for _ in 0..10 {
            cursor.note_reading(1, now);
        }
        assert!(cursor.is_due(true, now));
        assert!(!cursor.is_due(false, now));
    }

    #[test]
    fn a_large_ledger_is_read_every_five_seconds_or_when_samples_were_lost() {
        let start = Instant::now();
        let mut cursor = LedgerCursor::default();
        cursor.note_reading(SMALL_LEDGER_ROWS + 1, start);
        let soon = start + Duration::from_secs(1);
        assert!(!cursor.is_due(true, soon));
        assert!(cursor.is_due(true, start + LARGE_LEDGER_PERIOD));
        cursor.note_counters(1, 1);
        assert!(cursor.is_due(true, soon), "the programs have lost a sample");
        cursor.note_reading(SMALL_LEDGER_ROWS + 1, start);
        assert!(!cursor.is_due(true, soon));
        cursor.note_loss();
        assert!(cursor.is_due(true, soon), "the perf buffer has lost a sample");
    }
}
