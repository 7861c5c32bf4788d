//! Gives rows of the ledger back that have been idle, so that a server which once called every port gets
//! rows again. A program moves the counts, see `bpf/sweep.h`. A death between two runs of it leaves rows
//! that are retired: they count on for whoever reads the ledger, and the next sweep gives them back.

use std::collections::HashMap;

use plain::Plain;

use super::Gate;
use super::error::GateError;
use super::fault;
use crate::abi::{layout, ledger_row, quota_key, row_class, sweep_request, sweep_row, sweep_step};
use crate::drops::ReportedRow;

/// Rows that one sweep gives back at most. Whoever reads the ledger meanwhile has to begin again.
const MAX_ROWS: usize = 8192;

/// The limits of one class of quotas.
#[derive(Clone, Copy, Debug, Default)]
struct ClassLimits {
    guaranteed: u64,
    max: u64,
    shared: u64,
}

/// A quota that is more than three quarters used up is crowded.
fn is_crowded(used: u64, limit: u64) -> bool {
    used.saturating_mul(4) > limit.saturating_mul(3)
}

/// What the quotas have given out, and their limits.
#[derive(Debug)]
struct QuotaUse {
    /// Rows by the key of the quota.
    used: HashMap<u32, u64>,
    /// By class: own, outside, reserve.
    limits: [ClassLimits; 3],
}

impl QuotaUse {
    /// The class of a key, and whether the key is what all owners of the class share. `None`: it counts
    /// something else.
    fn classify(key: u32) -> Option<(usize, bool)> {
        let (bits, owner) = (key / quota_key::QUOTA_OUTSIDE.0, key % quota_key::QUOTA_OUTSIDE.0);
        match bits {
            0..=2 => Some((bits as usize, false)),
            _ if owner <= 2 => Some((owner as usize, true)),
            _ => None,
        }
    }

    fn shared(&self, class: usize) -> u64 {
        self.used.get(&(quota_key::QUOTA_SHARED.0 + class as u32)).copied().unwrap_or(0)
    }

    fn is_any_crowded(&self) -> bool {
        self.used.iter().any(|(key, rows)| {
            let Some((class, is_shared)) = QuotaUse::classify(*key) else { return false };
            let limits = self.limits.get(class).copied().unwrap_or_default();
            is_crowded(*rows, if is_shared { limits.shared } else { limits.max })
        })
    }

    /// The rows to give back: of crowded quotas, those that have been idle longest, until half of the quota
    /// is free.
    fn choose(mut self, mut rows: Vec<(u32, ReportedRow)>) -> Vec<ReportedRow> {
        let begin = QuotaUse { used: self.used.clone(), limits: self.limits };
        rows.sort_by_key(|(_, row)| (row.last_ns, row.number));
        rows.retain(|(key, _)| {
            let Some((class, false)) = QuotaUse::classify(*key) else { return false };
            let limits = self.limits.get(class).copied().unwrap_or_default();
            let used = self.used.get(key).copied().unwrap_or(0);
            let shared = self.shared(class);
            let was_crowded = |key: u32, limit| is_crowded(begin.used.get(&key).copied().unwrap_or(0), limit);
            let shared_key = quota_key::QUOTA_SHARED.0 + class as u32;
            let for_owner = was_crowded(*key, limits.max) && used > limits.max / 2;
            let for_all = was_crowded(shared_key, limits.shared)
                && used > limits.guaranteed
                && shared > limits.shared / 2;
            if !for_owner && !for_all {
                return false;
            }
            self.used.insert(*key, used.saturating_sub(1));
            if used > limits.guaranteed {
                self.used.insert(shared_key, shared.saturating_sub(1));
            }
            true
        });
        rows.truncate(MAX_ROWS);
        rows.into_iter().map(|(_, row)| row).collect()
    }
}

impl Gate {
    /// Whether rows should be given back, for a quota is nearly used up.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn is_ledger_crowded(&self) -> Result<bool, GateError> {
        Ok(self.read_quota_use()?.is_any_crowded())
    }

    /// Gives rows back, as many as crowded quotas need, and returns the numbers of those that are gone: no
    /// packet counts in them any more. `rows`: all of their drops were reported. A row that has counted
    /// another drop by now stays. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses. Rows may be retired then, and the next call gives them back.
    pub fn give_rows_back(&self, rows: &[ReportedRow]) -> Result<Vec<u32>, GateError> {
        let mut with_quota = Vec::new();
        for row in rows {
            if let Some(facts) = self.maps.ledger_rows.get(row.number)?
                && is_same(&facts, row)
            {
                with_quota.push((facts.quota, *row));
            }
        }
        let chosen = self.read_quota_use()?.choose(with_quota);
        let left = self.find_left_rows()?;
        if chosen.is_empty() && left.is_empty() {
            return Ok(Vec::new());
        }
        self.run_sweep(sweep_step::SWEEP_RETIRE, &chosen)?;
        // Cached verdicts name rows by their numbers. No program that ends after this knows one of ours.
        self.outdate_verdict_cache()?;
        self.wait_for_programs()?;
        self.run_sweep(sweep_step::SWEEP_RECLAIM, &[&left[..], &chosen].concat())?;
        self.rebuild_bloom()?;
        let mut gone = Vec::new();
        for row in &chosen {
            let facts = self.maps.ledger_rows.get(row.number)?.unwrap_or_default();
            if !is_same(&facts, row) {
                gone.push(row.number);
            }
        }
        Ok(gone)
    }

    /// Rows that a sweep left which was cut short, and rows that two CPUs made for one kind, so that one of
    /// the two counts nothing.
    fn find_left_rows(&self) -> Result<Vec<ReportedRow>, GateError> {
        let mut left = Vec::new();
        self.visit_rows(|facts, counted| {
            let is_retired = u32::from(facts.class) == row_class::ROW_RETIRED.0;
            let is_vain = u32::from(facts.class) == row_class::ROW_OWN.0 && counted.packets == 0;
            if facts.first_ns != 0 && (is_retired || is_vain) && left.len() < MAX_ROWS {
                left.push(ReportedRow {
                    number: counted.number,
                    first_ns: facts.first_ns,
                    packets: facts.retired_packets,
                    last_ns: counted.last_ns,
                });
            }
        })?;
        Ok(left)
    }

    fn read_quota_use(&self) -> Result<QuotaUse, GateError> {
        let entries = self.maps.ledger_quotas.entries()?;
        let mut limits = [ClassLimits::default(); 3];
        let of_classes = self.live_settings()?.unwrap_or_default().limits;
        for (limits, of_class) in limits.iter_mut().zip(of_classes) {
            limits.guaranteed = u64::from(of_class.guaranteed);
            limits.max = u64::from(of_class.max);
            limits.shared = u64::from(of_class.shared);
        }
        Ok(QuotaUse { used: entries.into_iter().map(|(key, quota)| (key, quota.rows)).collect(), limits })
    }

    /// Runs a step of the sweep for all rows, some at a time.
    fn run_sweep(&self, step: sweep_step, rows: &[ReportedRow]) -> Result<(), GateError> {
        for rows in rows.chunks(layout::SWEEP_ROWS.0 as usize) {
            let request = sweep_request { step: step.0, rows: rows.len() as u32, zero: 0 };
            let mut frame = bytes_of(&request).to_vec();
            for row in rows {
                let ReportedRow { number, first_ns, packets, .. } = *row;
                frame.extend_from_slice(bytes_of(&sweep_row { number, first_ns, packets, zero: 0 }));
            }
            fault::point();
            self.programs.run_sweep(&frame).map_err(|errno| GateError::Kernelside {
                what: "could not give rows of the ledger back".to_owned(),
                errno,
            })?;
        }
        Ok(())
    }
}

/// Whether the row is still the one that was read.
fn is_same(facts: &ledger_row, row: &ReportedRow) -> bool {
    facts.first_ns == row.first_ns && u32::from(facts.class) == row_class::ROW_OWN.0
}

fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: requests and rows are integers without padding.
    unsafe { plain::as_bytes(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota_use(used: &[(u32, u64)], own: ClassLimits) -> QuotaUse {
        let limits = [own, ClassLimits::default(), ClassLimits { guaranteed: 0, max: 24, shared: 100 }];
        QuotaUse { used: used.iter().copied().collect(), limits }
    }

    fn row(number: u32, last_ns: u64) -> ReportedRow {
        ReportedRow { number, first_ns: 1, packets: 1, last_ns }
    }

    fn numbers(rows: &[ReportedRow]) -> Vec<u32> {
        rows.iter().map(|row| row.number).collect()
    }

    const OWN: ClassLimits = ClassLimits { guaranteed: 10, max: 20, shared: 40 };

    #[test]
    fn a_quota_that_is_used_up_gives_back_its_oldest_rows_until_half_of_it_is_free() {
        let rows = || (0..18).map(|number| (1, row(number, 100 - u64::from(number)))).collect();
        let crowded = quota_use(&[(1, 18), (2, 3)], OWN);
        assert!(crowded.is_any_crowded());
        assert_eq!(numbers(&crowded.choose(rows())), (10..18).rev().collect::<Vec<u32>>());
        let roomy = quota_use(&[(1, 15), (2, 3)], OWN);
        assert!(!roomy.is_any_crowded());
        assert_eq!(numbers(&roomy.choose(rows())), [0; 0]);
    }

    #[test]
    fn shared_rows_that_are_used_up_come_from_those_who_have_more_than_their_own() {
        let shared = quota_key::QUOTA_SHARED.0;
        let crowded = quota_use(&[(1, 15), (2, 14), (3, 10), (shared, 35)], OWN);
        assert!(crowded.is_any_crowded());
        let rows = (0..10).flat_map(|number| (1..=3).map(move |owner| (owner, row(10 * owner + number, 5))));
        let chosen = numbers(&crowded.choose(rows.collect()));
        let of = |owner: u32| chosen.iter().filter(|number| **number / 10 == owner).count();
        // each down to its own rows: 9 of the shared ones, although 20 are used by others that are busy
        assert_eq!((of(1), of(2), of(3)), (5, 4, 0));
    }

    #[test]
    fn the_reserve_and_what_outsiders_cause_are_classes_of_their_own() {
        let (outside, reserve) = (quota_key::QUOTA_OUTSIDE.0, quota_key::QUOTA_RESERVE.0);
        assert_eq!(QuotaUse::classify(7), Some((0, false)));
        assert_eq!(QuotaUse::classify(outside + 7), Some((1, false)));
        assert_eq!(QuotaUse::classify(reserve + 7), Some((2, false)));
        assert_eq!(QuotaUse::classify(quota_key::QUOTA_SHARED.0 + 2), Some((2, true)));
        assert_eq!(QuotaUse::classify(quota_key::QUOTA_ROWS_ISSUED.0), None);
        let crowded = quota_use(&[(reserve + 1, 24), (1, 5)], OWN);
        let rows = (0..24).map(|number| (reserve + 1, row(number, 5))).chain([(1, row(99, 1))]);
        assert_eq!(numbers(&crowded.choose(rows.collect())), (0..12).collect::<Vec<u32>>());
    }
}
