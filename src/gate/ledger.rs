//! The drop ledger, row by row. What the rows mean is for [`drops`](crate::drops) to say.

use super::Gate;
use super::error::GateError;
use super::mapped_array::Window;
use crate::abi::{ledger_key, ledger_row, quota_key, row_counts, state};
use crate::drops::CountedRow;

/// Rows that are mapped at once, of every CPU.
const ROWS_AT_ONCE: u32 = 1024;
/// How often a CPU's counts are read anew when it counts a drop meanwhile.
const ATTEMPTS: usize = 8;

impl Gate {
    /// Every row of the ledger and of its overflow.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger(&self) -> Result<Vec<(ledger_key, CountedRow)>, GateError> {
        let mut rows = Vec::new();
        self.visit_ledger(|row| rows.push((row.kind, *row)))?;
        Ok(rows)
    }

    /// Shows `visitor` the rows one by one: they take twice the memory of what is made of them.
    ///
    /// A sum lies between the true counts at the beginning and at the end of the reading, and it never
    /// falls, because no CPU's count does.
    ///
    /// # Errors
    /// When the kernel refuses to read. Some rows may have been shown then.
    pub fn visit_ledger(&self, mut visitor: impl FnMut(&CountedRow)) -> Result<(), GateError> {
        let issued =
            self.maps.ledger_quotas.get(&quota_key::QUOTA_ROWS_ISSUED.0)?.map_or(0, |issued| issued.rows);
        let issued = u32::try_from(issued).unwrap_or(u32::MAX).min(self.maps.ledger_rows.capacity());
        let (rows_of_cpu, cpus) = self.shape_of_counts()?;
        for from in (0..issued).step_by(ROWS_AT_ONCE as usize) {
            let count = ROWS_AT_ONCE.min(issued - from);
            let rows = self.maps.ledger_rows.map(from, count)?;
            let parts = (0..cpus)
                .map(|cpu| self.maps.ledger_counts.map(cpu * rows_of_cpu + from, count))
                .collect::<Result<Vec<_>, _>>()?;
            for index in 0..rows.len() {
                let Some(row) = rows.get(index) else { continue };
                let counts = parts.iter().map(|part| read_steadily(part, index));
                let row = add_up(&row, counts);
                // a row that was given out in vain has counted nothing
                if row.packets > 0 {
                    visitor(&row);
                }
            }
        }
        Ok(())
    }

    /// The row of one kind of drop. `None`: it has no row of its own.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger_row(&self, kind: &ledger_key) -> Result<Option<CountedRow>, GateError> {
        let Some(number) = self.maps.ledger.get(kind)? else { return Ok(None) };
        let Some(row) = self.maps.ledger_rows.get(number)? else { return Ok(None) };
        Ok(Some(add_up(&row, self.counts_of(number)?.into_iter())))
    }

    /// The packets that all CPUs have counted in the row `number`.
    pub(super) fn count_packets(&self, number: u32) -> Result<u64, GateError> {
        Ok(self.counts_of(number)?.iter().map(|counts| counts.packets).sum())
    }

    /// What each CPU has counted in the row `number`.
    fn counts_of(&self, number: u32) -> Result<Vec<row_counts>, GateError> {
        let (rows_of_cpu, cpus) = self.shape_of_counts()?;
        let mut parts = Vec::new();
        for cpu in 0..cpus {
            parts.extend(self.maps.ledger_counts.get(cpu * rows_of_cpu + number)?);
        }
        Ok(parts)
    }

    /// How many rows each CPU has in `ledger_counts`, and how many CPUs there are.
    fn shape_of_counts(&self) -> Result<(u32, u32), GateError> {
        let read = |index| Ok(u32::try_from(self.read_state(index)?).unwrap_or(u32::MAX));
        Ok((read(state::STATE_LEDGER_ROWS)?, read(state::STATE_CPUS)?))
    }
}

/// One CPU's counts, the addresses of one packet, unless the CPU counts faster than they are read.
fn read_steadily(part: &Window<row_counts>, index: usize) -> row_counts {
    let mut counts = part.get(index).unwrap_or_default();
    for _ in 0..ATTEMPTS {
        let again = part.get(index).unwrap_or_default();
        let is_steady = (again.packets, again.bytes) == (counts.packets, counts.bytes);
        counts = again;
        if is_steady {
            break;
        }
    }
    counts
}

/// A row with the counts of all CPUs, and the last packet of the CPU that counted last.
fn add_up(row: &ledger_row, parts: impl Iterator<Item = row_counts>) -> CountedRow {
    let mut sum = CountedRow {
        kind: row.kind,
        number: row.number,
        overflow: row.overflow != 0,
        first_ns: row.first_ns,
        sampled_ns: row.sampled_ns,
        sampled_packets: row.sampled_packets,
        ..CountedRow::default()
    };
    for counts in parts.filter(|counts| counts.packets > 0) {
        sum.packets = sum.packets.saturating_add(counts.packets);
        sum.bytes = sum.bytes.saturating_add(counts.bytes);
        if counts.last_ns >= sum.last_ns {
            sum.last_ns = counts.last_ns;
            sum.last_source = counts.last_source;
            sum.last_destination = counts.last_destination;
        }
    }
    // the clocks of two CPUs may differ by a tick
    sum.last_ns = sum.last_ns.max(sum.first_ns);
    sum
}
