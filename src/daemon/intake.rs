//! When the daemon reads the ledger, and what it makes of it.

use std::time::{Duration, Instant};

use log::info;

use super::{DROPS_TOLD_A_SECOND, DROPS_TOLD_AT_ONCE, Daemon};
use crate::clock::Clock;
use crate::drops::LedgerKey;

/// A ledger that is larger, because servers call every port, is read less often, unless samples were
/// lost: their kinds are in it alone.
const SMALL_LEDGER: usize = 8192;
const SLOW_SWEEP: Duration = Duration::from_secs(5);

/// What tells whether the ledger may have changed.
#[derive(Default)]
pub(super) struct LedgerCursor {
    dropped: u64,
    /// Samples that were lost, as the programs count them.
    lost: u64,
    /// Some were, since the ledger was last read, or could not be understood.
    pub is_lossy: bool,
    /// How often it was read since `dropped` has changed, when last, and how many rows it had.
    reads: u32,
    read: Option<Instant>,
    rows: usize,
}

impl Daemon<'_> {
    pub(super) fn reconcile_ledger(&mut self) -> anyhow::Result<()> {
        if self.may_have_changed()? {
            self.read_ledger()?;
        }
        self.end_round();
        Ok(())
    }

    /// Whether there may be something in the ledger that was not reported and can't wait. A packet is
    /// counted just before its row is: so it is read once more after the count has come to rest.
    fn may_have_changed(&mut self) -> anyhow::Result<bool> {
        let (dropped, lost) = (self.gate.count_dropped()?, self.gate.statistic()?.samples_lost);
        let glance = &mut self.glance;
        glance.is_lossy |= lost != glance.lost;
        if dropped != glance.dropped {
            glance.reads = 0;
        }
        (glance.dropped, glance.lost) = (dropped, lost);
        let is_old = glance.read.is_none_or(|read| read.elapsed() >= SLOW_SWEEP);
        let is_due = is_old || glance.is_lossy || glance.rows <= SMALL_LEDGER;
        Ok(is_due && (glance.reads < 2 || !self.reconciler.is_complete() || !self.reconciler.has_seen_all()))
    }

    /// Counts begin anew, and what the alarms have waited with is told.
    pub(super) fn end_round(&mut self) {
        if self.untold > 0 {
            info!("{} events were left to the ledger", self.untold);
        }
        self.told.clear();
        self.untold = 0;
        self.reserve = DROPS_TOLD_A_SECOND;
        self.allowance = (self.allowance + DROPS_TOLD_A_SECOND).min(DROPS_TOLD_AT_ONCE);
        for change in self.engine.tick(Clock::now()) {
            self.tell(change);
        }
    }

    /// All that nobody has reported: after the gate is gone too, for its maps live as long as this
    /// process.
    pub(super) fn report_rest(&mut self) {
        let Ok(ledger) = self.gate.ledger_snapshot() else {
            return;
        };
        let mut reconciler = std::mem::take(&mut self.reconciler);
        let rest = reconciler.reconcile_all(&ledger, &self.context());
        self.reconciler = reconciler;
        for drop in rest {
            self.report(drop);
        }
    }

    pub(super) fn read_ledger(&mut self) -> anyhow::Result<()> {
        let ledger = self.gate.ledger_snapshot()?;
        let nameless = |key: &LedgerKey| key.server != 0 && !self.names.contains_key(&key.server);
        // a new server's row is one more
        if ledger.len() != self.glance.rows && ledger.iter().any(|(key, _)| nameless(key)) {
            self.learn_names()?;
        }
        let reads = self.glance.reads.saturating_add(1);
        self.glance = LedgerCursor {
            reads,
            read: Some(Instant::now()),
            rows: ledger.len(),
            is_lossy: false,
            ..self.glance
        };
        let mut reconciler = std::mem::take(&mut self.reconciler);
        for last_packet in reconciler.last_packets(&ledger, &self.context()) {
            for change in self.engine.observe_last_packet(&last_packet, Clock::now()) {
                self.tell(change);
            }
        }
        let missed = reconciler.reconcile(&ledger, &self.context());
        self.reconciler = reconciler;
        for drop in missed {
            self.report(drop);
        }
        Ok(())
    }
}
