//! The drop ledger, row by row. What the rows mean is for [`drops`](crate::drops) to say.

use super::Gate;
use super::error::GateError;
use crate::abi::{ledger_key, ledger_row, quota_key};

impl Gate {
    /// Every row of the ledger and of its overflow.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger(&self) -> Result<Vec<(ledger_key, ledger_row)>, GateError> {
        let mut rows = Vec::new();
        self.visit_ledger(|row| rows.push((row.kind, *row)))?;
        Ok(rows)
    }

    /// Shows `visitor` the rows one by one: they take twice the memory of what is made of them.
    ///
    /// # Errors
    /// When the kernel refuses to read. Some rows may have been shown then.
    pub fn visit_ledger(&self, mut visitor: impl FnMut(&ledger_row)) -> Result<(), GateError> {
        let issued =
            self.maps.ledger_quotas.get(&quota_key::QUOTA_ROWS_ISSUED.0)?.map_or(0, |issued| issued.rows);
        let issued = usize::try_from(issued).unwrap_or(usize::MAX);
        self.maps.ledger_rows.visit_first(issued, |_, row| {
            // a row that was given back has counted nothing
            if row.packets > 0 {
                visitor(row);
            }
        })
    }

    /// The row of one kind of drop. `None`: it has no row of its own.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger_row(&self, kind: &ledger_key) -> Result<Option<ledger_row>, GateError> {
        match self.maps.ledger.get(kind)? {
            Some(number) => self.maps.ledger_rows.get(&number),
            None => Ok(None),
        }
    }
}
