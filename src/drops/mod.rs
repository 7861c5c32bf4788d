//! Dropped packets. The kernel tells of them in two ways: a sample of some packets ([`Sample`]), and a
//! count of all of them ([`Ledger`]). Both become a [`DropEvent`]. [`Reconciler`] makes sure that each
//! drop is reported once, and [`HotRows`] shows where busy attempts go between two rounds of it.

mod event;
#[cfg(test)]
pub(crate) mod example;
mod hash;
mod hot_rows;
mod ledger;
mod reason;
mod reconcile;
mod sample;

pub use event::{Context, DropEvent, Names, Origin, ServerRef};
pub(crate) use event::{name_service, show_hex};
pub use hot_rows::{HotRows, LastPacket};
pub use ledger::{Ledger, LedgerEntry, LedgerKey, LedgerRow};
pub use reason::{DropVerdict, ReasonCode};
pub use reconcile::{Baseline, Reconciler};
pub(crate) use sample::read_addresses;
pub use sample::{DecodeError, Sample, decode};
