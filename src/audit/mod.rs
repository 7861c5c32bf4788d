//! Audit events: what a person, a tool or the daemon did to a gate, and who did it.
//!
//! A command makes an [`Entry`] and gives it to [`GatePlace::record`](crate::gate::GatePlace::record):
//!
//! ```ignore
//! let before = gate.policy_mark();
//! // ... it does its work ...
//! let entry = Entry::done(Action::Confirm).change(before, gate.policy_mark()).note(note);
//! record(&place, entry, output); // commands/shared.rs: a record that could not be kept is a warning
//! ```
//!
//! The entry becomes an [`Event`], which the file [`Log`] keeps. So an event outlives a router without a daemon,
//! and the next daemon tells it.

mod event;
#[cfg(test)]
pub(crate) mod example;
mod log;
mod parent;
#[cfg(test)]
mod tests;
mod who;

pub use event::{Action, Entry, Event, Outcome, PolicyMark};
pub use log::{Log, Look, Reading};
pub use parent::{Process, find_ssh_connection, list_ancestors};
pub use who::{Who, find_ssh_client};
