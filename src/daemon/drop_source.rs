//! The parts of a gate from which the daemon learns of drops. The unit tests of [`Intake`](super::intake::Intake)
//! have a source of their own, without a kernel.

use std::sync::Arc;

use log::debug;

use crate::drops::{DropEvent, Ledger, LedgerEntry, LedgerKey, Names, ReportedRow, add_reportable};
use crate::gate::{Gate, GateError};

/// A place where drops are counted.
pub(crate) trait DropSource {
    /// Names of the servers' ids.
    fn names(&self) -> Result<Names, GateError>;
    /// How many packets were dropped, and how many samples were lost.
    fn counters(&self) -> Result<(u64, u64), GateError>;
    /// The whole ledger.
    fn ledger(&self) -> Result<Ledger, GateError>;
    /// One row of the ledger. `None` if there is none, or if it can't be read now.
    fn row(&self, key: &LedgerKey) -> Option<LedgerEntry>;
    /// Gives rows back, and returns the numbers of those that are gone: see [`Gate::give_rows_back`].
    fn give_rows_back(&self, rows: &[ReportedRow]) -> Result<Vec<u32>, GateError>;
    /// Fills in what the events' servers have looked their destinations up as, where it is known.
    fn add_lookups(&self, events: &mut dyn Iterator<Item = &mut DropEvent>);
    /// Fills in the addresses of the events that came from rows of the ledger, where they can be read.
    fn add_contacts(&self, events: &mut dyn Iterator<Item = &mut DropEvent>);
}

impl DropSource for Gate {
    fn names(&self) -> Result<Names, GateError> {
        self.names_by_id()
    }

    fn counters(&self) -> Result<(u64, u64), GateError> {
        Ok((self.count_dropped()?, self.program_statistics()?.samples_lost))
    }

    fn ledger(&self) -> Result<Ledger, GateError> {
        self.fold_ledger(Ledger::new, add_reportable)
    }

    fn row(&self, key: &LedgerKey) -> Option<LedgerEntry> {
        let row = self.ledger_row(&key.to_raw()).ok().flatten()?;
        Some(LedgerEntry::from(&row))
    }

    fn give_rows_back(&self, rows: &[ReportedRow]) -> Result<Vec<u32>, GateError> {
        Gate::give_rows_back(self, rows)
    }

    fn add_lookups(&self, events: &mut dyn Iterator<Item = &mut DropEvent>) {
        for event in events {
            // whoever answers has looked nobody up
            let Some(destination) = event.destination.filter(|_| !event.own_port) else { continue };
            if let Some(server) = &event.server {
                event.looked_up = self.find_lookup(server.id, destination).ok().flatten();
            }
        }
    }

    fn add_contacts(&self, events: &mut dyn Iterator<Item = &mut DropEvent>) {
        let mut reader = None;
        for event in events {
            let Some(number) = event.row else { continue };
            // only now: most rounds have no event
            if reader.is_none() {
                match self.contact_reader() {
                    Ok(ready) => reader = Some(ready),
                    Err(error) => return debug!("{error}"),
                }
            }
            let Some(reader) = &reader else { return };
            if let Ok(Some((sources, destinations))) = reader.read(number) {
                event.sources = Some(Arc::new(sources));
                event.destinations = Some(Arc::new(destinations));
            }
        }
    }
}
