//! Where events go: one event model, one file per rendering. Every sink has a thread and a
//! queue of its own ([`Fanout`]): one that fails, hangs or crawls is counted and retried, and
//! never stops the consumer or another sink.

mod alertmanager;
mod build;
mod cef;
mod command;
mod ecs;
mod escape;
mod eve;
mod fanout;
mod fields;
mod file;
mod headers;
mod journald;
mod lines;
mod pcapng;
mod stderr;
mod syslog;
mod tls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::alarm::Change;
use crate::drops::DropEvent;

pub use alertmanager::Alertmanager;
pub use build::build_fanout;
pub use command::Command;
pub use escape::escape;
pub use fanout::{Fanout, SinkStatus};
pub use file::{LogFile, Rotation};
pub use journald::{JOURNAL, Journald};
pub use lines::Lines;
pub use pcapng::Pcapng;
pub use stderr::{Stderr, render_line};
pub use syslog::Syslog;

/// What sinks are given.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A drop, as a sample or the ledger told it.
    Drop(DropEvent),
    /// A change of an alarm.
    Alarm(Change),
}

/// What a sink wants to be given; the rest never enters its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Changes of alarms.
    Alarms,
    /// Drops, but not the quiet ones.
    Drops,
    /// Both.
    Everything,
}

impl EventFilter {
    fn wants(self, event: &Event) -> bool {
        match event {
            Event::Drop(drop) => self != EventFilter::Alarms && !drop.quiet,
            Event::Alarm(_) => self != EventFilter::Drops,
        }
    }
}

/// One place that events go to. It lives in a thread of its own, so it may wait, but not for
/// ever: whatever it waits for has a time limit.
pub trait Sink: Send {
    /// What it is called in messages and metrics, such as `eve /var/log/portcullis/eve.json`.
    fn name(&self) -> &str;

    /// What it wants to be given.
    fn filter(&self) -> EventFilter {
        EventFilter::Alarms
    }

    /// Writes an event. One that fails is offered again later, so it should leave nothing
    /// half-written behind. The error [`PermanentError`] says that it is the event's fault.
    fn write(&mut self, event: &Event) -> anyhow::Result<()>;

    /// Opens its file anew, as log rotation asks for. What has no file has nothing to do.
    fn reopen(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// What breaks off a write that is under way, when all ends and it takes too long.
    fn cancel_flag(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// How often [`Sink::tick`] is called.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// Does what is due without an event.
    fn tick(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The other side works, and does not take this very event: it is tried a few times and then
/// left out, for else it would hold up all that come after it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PermanentError(pub String);
