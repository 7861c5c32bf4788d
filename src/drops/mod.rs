//! Dropped packets. The kernel reports them in two ways: samples of some packets ([`Sample`]), and a
//! count of all packets ([`Ledger`]). Both become [`DropEvent`]s. The [`Reconciler`] makes sure that each
//! drop is reported once. Between two of its rounds, [`HotRows`] shows where busy attempts go.

mod addresses;
mod contacts;
mod event;
#[cfg(test)]
pub(crate) mod example;
mod hash;
mod hot_rows;
mod ledger;
mod lookup;
mod reconcile;
mod sample;
mod verdict;

/// A row or a sample carries it as a number.
pub use crate::abi::ReasonCode;
pub(crate) use addresses::read_addresses;
pub use contacts::Contacts;
pub use event::{Context, DropEvent, Names, Origin, ServerRef};
pub(crate) use event::{name_service, show_hex};
pub(crate) use hash::Seeded;
pub use hot_rows::{HotRows, LastPacket};
pub use ledger::{
    CountedRow, Ledger, LedgerEntry, LedgerKey, LedgerRow, WholeLedger, add_reportable, add_whole,
};
pub use lookup::LookedUp;
pub use reconcile::{Baseline, Reconciler, ReportedRow};
pub use sample::{DecodeError, Sample, decode};
pub use verdict::DropVerdict;
