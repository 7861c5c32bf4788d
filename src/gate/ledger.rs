//! The drop ledger, row by row. What the rows mean is for [`drops`](crate::drops) to say.

use std::thread;
use std::time::{Duration, Instant};

use super::Gate;
use super::error::GateError;
use super::mapped_array::Window;
use crate::abi::{given_back, ledger_key, ledger_row, quota_key, row_class, row_counts, state};
use crate::drops::CountedRow;

/// Rows that are mapped at once, of every CPU.
const ROWS_AT_ONCE: u32 = 1024;
/// How often a CPU's counts are read anew when it counts a drop meanwhile.
const ATTEMPTS: usize = 8;
/// How long a reading is begun again while rows are given back, which takes some milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

impl Gate {
    /// Every row of the ledger and of its overflow, and what rows counted that were given back.
    ///
    /// # Errors
    /// As [`Gate::fold_ledger`].
    pub fn ledger(&self) -> Result<Vec<(ledger_key, CountedRow)>, GateError> {
        self.fold_ledger(Vec::new, |rows, row| rows.push((row.kind, *row)))
    }

    /// Reads the ledger, adds each row to what `begin` makes, and returns that. It begins again if rows were
    /// given back meanwhile.
    ///
    /// A sum lies between the true counts at the beginning and at the end of the reading, and it never
    /// falls, because no CPU's count does.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn fold_ledger<T>(
        &self,
        begin: impl Fn() -> T,
        add: impl Fn(&mut T, &CountedRow),
    ) -> Result<T, GateError> {
        let start = Instant::now();
        loop {
            let sweeps = self.read_state(state::STATE_LEDGER_SWEEPS)?;
            if sweeps.is_multiple_of(2) {
                let mut whole = begin();
                self.visit_rows(|facts, row| {
                    // a row that was given out in vain has counted nothing
                    if row.packets > 0 {
                        add(&mut whole, &hide_retired(facts, row));
                    }
                })?;
                self.maps.ledger_given_back.visit(|kind, kept| add(&mut whole, &show_kept(kind, kept)))?;
                if self.read_state(state::STATE_LEDGER_SWEEPS)? == sweeps {
                    return Ok(whole);
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(GateError::Other {
                    what: "could not read the ledger".to_owned(),
                    why: "its rows are being given back all the time\nhelp: try again".to_owned(),
                });
            }
            #[expect(clippy::disallowed_methods, reason = "a sweep of rows wakes nobody")]
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Shows `visitor` every row that was ever given out, with the counts of all CPUs added up.
    pub(super) fn visit_rows(
        &self,
        mut visitor: impl FnMut(&ledger_row, &CountedRow),
    ) -> Result<(), GateError> {
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
                // The facts before, for the number of sampled packets must not be higher than the count,
                // and after, for a row that was just made is complete before it counts.
                let Some(before) = rows.get(index) else { continue };
                let counted = add_up(parts.iter().map(|part| read_steadily(part, index)));
                let Some(facts) = rows.get(index) else { continue };
                let sampled_packets = before.sampled_packets;
                visitor(&facts, &describe(&ledger_row { sampled_packets, ..facts }, counted));
            }
        }
        Ok(())
    }

    /// The row of one kind of drop. `None`: it has no row of its own, or it is being given back.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger_row(&self, kind: &ledger_key) -> Result<Option<CountedRow>, GateError> {
        let sweeps = self.read_state(state::STATE_LEDGER_SWEEPS)?;
        let Some(number) = self.maps.ledger.get(kind)? else { return Ok(None) };
        let Some(row) = self.maps.ledger_rows.get(number)? else { return Ok(None) };
        let row = describe(&row, add_up(self.counts_of(number)?.into_iter()));
        let is_steady = self.read_state(state::STATE_LEDGER_SWEEPS)? == sweeps && sweeps.is_multiple_of(2);
        Ok(is_steady.then_some(row))
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

/// The counts of all CPUs, and the last packet of the CPU that counted last.
fn add_up(parts: impl Iterator<Item = row_counts>) -> CountedRow {
    let mut sum = CountedRow::default();
    for counts in parts.filter(|counts| counts.packets > 0) {
        sum.packets = sum.packets.saturating_add(counts.packets);
        sum.bytes = sum.bytes.saturating_add(counts.bytes);
        if counts.last_ns >= sum.last_ns {
            sum.last_ns = counts.last_ns;
            sum.last_source = counts.last_source;
            sum.last_destination = counts.last_destination;
        }
    }
    sum
}

/// The counts of a row with its facts.
fn describe(row: &ledger_row, counted: CountedRow) -> CountedRow {
    CountedRow {
        kind: row.kind,
        number: row.number,
        overflow: u32::from(row.class) == row_class::ROW_OVERFLOW.0,
        first_ns: row.first_ns,
        // the clocks of two CPUs may differ by a tick
        last_ns: counted.last_ns.max(row.first_ns),
        sampled_ns: row.sampled_ns,
        sampled_packets: row.sampled_packets,
        ..counted
    }
}

/// A row that is retired is as good as given back: its kind may have another row by now.
fn hide_retired(facts: &ledger_row, row: &CountedRow) -> CountedRow {
    if u32::from(facts.class) != row_class::ROW_RETIRED.0 {
        return *row;
    }
    let kind = ledger_key { port: 0, protocol: 0, ..row.kind };
    CountedRow { kind, overflow: true, given_back: true, ..*row }
}

/// What rows of a server and reason had counted that were given back.
fn show_kept(kind: &ledger_key, kept: &given_back) -> CountedRow {
    CountedRow {
        kind: *kind,
        overflow: true,
        given_back: true,
        packets: kept.packets,
        bytes: kept.bytes,
        first_ns: kept.first_ns,
        last_ns: kept.last_ns,
        last_source: kept.last_source,
        last_destination: kept.last_destination,
        ..CountedRow::default()
    }
}
