//! Where events go: one event model, and one file for each sink. Every sink has a thread and a queue of its
//! own ([`Fanout`]). One that fails, hangs or is slow is counted and retried, and it never holds up the
//! daemon or another sink.

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
pub use escape::escape;
pub use fanout::{Fanout, SinkStatus};
pub use file::Rotation;
pub use journald::Journald;
pub use pcapng::Pcapng;
pub use stderr::render_line;
pub use syslog::Syslog;

/// An event for the sinks.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A drop, as a sample or the ledger reported it.
    Drop(DropEvent),
    /// A change of an alarm.
    Alarm(Change),
}

/// Which events a sink is given. The others never enter its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Changes of alarms.
    Alarms,
    /// Drops, but no quiet ones.
    Drops,
    /// Both.
    Everything,
}

impl EventFilter {
    fn accepts(self, event: &Event) -> bool {
        match (self, event) {
            (EventFilter::Drops | EventFilter::Everything, Event::Drop(drop)) => !drop.quiet,
            (EventFilter::Alarms | EventFilter::Everything, Event::Alarm(_)) => true,
            (EventFilter::Alarms, Event::Drop(_)) | (EventFilter::Drops, Event::Alarm(_)) => false,
        }
    }
}

/// One place that events go to. It has a thread of its own, so it may wait, but not for ever: each of its
/// waits has a time limit.
///
/// A sink's file also has `from_policy`, which makes the sink if the policy asks for it. `build.rs` lists
/// them.
pub trait Sink: Send {
    /// Its name in messages and metrics, such as `eve /var/log/portcullis/eve.json`.
    fn name(&self) -> &str;

    /// Which events it is given.
    fn filter(&self) -> EventFilter {
        EventFilter::Alarms
    }

    /// Writes an event. After a failure the event is offered again, so nothing should be left half-written.
    ///
    /// # Errors
    /// [`PermanentError`] if another attempt at this event would fail as well. Any other error says that the
    /// sink fails, and is retried until it works.
    fn write(&mut self, event: &Event) -> anyhow::Result<()>;

    /// Opens its file anew, as log rotation asks for. A sink without a file has nothing to do.
    ///
    /// # Errors
    /// If the new file can't be opened.
    fn reopen(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// A flag that ends a write that is under way. It is set when the daemon ends and the write takes too
    /// long.
    fn cancel_flag(&self) -> Option<Arc<AtomicBool>> {
        None
    }

    /// How often [`Sink::tick`] is called; `None`: never.
    fn tick_interval(&self) -> Option<Duration> {
        None
    }

    /// Does work that is due without an event.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn tick(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// Facts that a sink needs besides the policy.
#[derive(Clone, Copy, Debug)]
struct Site<'a> {
    /// Name of the interface.
    interface: &'a str,
    /// Whether standard error shows colours.
    colour: bool,
}

/// The other side works, and refuses this event. After a few attempts the event is left out. Otherwise it
/// would hold up all later events.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct PermanentError(pub String);
