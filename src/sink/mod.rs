//! Where events go: one event model, one file per rendering. A sink that fails is counted and
//! retried later, and never stops another one ([`Outlet`]).

mod escape;
mod eve;
mod headers;
mod outlet;
mod stderr;

use crate::alarm::Change;
use crate::drops::Drop;

pub use escape::escape;
pub use eve::EveFile;
pub use outlet::{Outlet, SinkStatus};
pub use stderr::{Stderr, render_line};

/// What sinks are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A drop, as a sample or the ledger told it.
    Drop(Drop),
    /// A change of an alarm.
    Alarm(Change),
}

/// One place that events go to.
pub trait Sink: Send {
    /// What it is called in messages and metrics, such as `eve /var/log/portcullis/eve.json`.
    fn name(&self) -> &str;

    /// Writes an event, or ignores it if it is none of its business. An event that fails is
    /// offered again later, so it should leave nothing half-written behind.
    fn write(&mut self, event: &Event) -> anyhow::Result<()>;

    /// Opens its file anew, as log rotation asks for. What has no file has nothing to do.
    fn reopen(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
