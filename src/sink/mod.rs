//! Where events go: one event model, and one file for each sink. Every sink has a thread and a queue of its
//! own ([`Fanout`]). One that fails, hangs or is slow is counted and retried, and it never holds up the
//! daemon or another sink.

mod alertmanager;
mod audit;
mod build;
mod cef;
mod command;
mod connection;
mod ecs;
mod eve;
mod fanout;
mod fields;
mod file;
mod headers;
mod http;
mod journald;
mod lines;
mod mail;
mod pcapng;
mod receipt;
mod secret;
mod stderr;
mod syslog;
mod tls;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::alarm::Change;
use crate::audit::Event as AuditEvent;
use crate::drops::DropEvent;

pub use crate::escape::escape;
use crate::escape::escape_json;
pub use alertmanager::Alertmanager;
pub use build::build_fanout;
pub use fanout::{Fanout, SinkStatus};
pub use file::Rotation;
pub(crate) use file::check_log_file;
pub use journald::Journald;
pub use pcapng::Pcapng;
pub use receipt::{Receipt, SinkAnswer};
pub(crate) use secret::check_secret_file;
pub use stderr::render_line;
pub use syslog::Syslog;

/// An event for the sinks.
#[derive(Debug)]
pub struct Event {
    matter: Matter,
    /// The JSON of its own fields, once a sink has needed it.
    record: OnceLock<Result<String, String>>,
    /// Of a test: where each sink says whether it took it.
    receipt: Option<Receipt>,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "nearly all are drops: a box would cost each an allocation")]
pub enum Matter {
    /// A drop, as a sample or the ledger reported it.
    Drop(DropEvent),
    /// A change of an alarm.
    Alarm(Box<Change>),
    /// What was done to the gate.
    Audit(Box<AuditEvent>),
    /// The ids of all alarms that are open. A sink that repeats open alarms forgets the others.
    OpenAlarms(Vec<u64>),
}

impl Event {
    /// An event about this.
    pub fn new(matter: Matter) -> Event {
        Event { matter, record: OnceLock::new(), receipt: None }
    }

    /// An event about a change of an alarm.
    pub fn of_alarm(change: Change) -> Event {
        Event::new(Matter::Alarm(Box::new(change)))
    }

    /// A change of a test alarm: each sink says whether it took it.
    pub fn of_test(change: Change, receipt: Receipt) -> Event {
        Event { receipt: Some(receipt), ..Event::of_alarm(change) }
    }

    /// An event about what was done to the gate.
    pub fn of_audit(event: AuditEvent) -> Event {
        Event::new(Matter::Audit(Box::new(event)))
    }

    /// An event about a drop.
    pub fn of_drop(drop: DropEvent) -> Event {
        Event::new(Matter::Drop(drop))
    }

    /// The object `portcullis` of EVE and ECS, and what a command reads: rendered once for all of them.
    fn record(&self) -> anyhow::Result<&str> {
        let record = self.record.get_or_init(|| {
            let text = match &self.matter {
                Matter::Drop(drop) => serde_json::to_string(drop),
                Matter::Alarm(change) => serde_json::to_string(change),
                // an object of its own, so that nobody takes it for an alarm
                Matter::Audit(event) => serde_json::to_string(&serde_json::json!({ "audit": event })),
                Matter::OpenAlarms(ids) => serde_json::to_string(ids),
            };
            text.map(escape_json).map_err(|error| error.to_string())
        });
        record.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// A line of JSON with the record as its last field.
    fn with_record(&self, line: String) -> anyhow::Result<String> {
        let mut line = escape_json(line);
        line.pop();
        line.push_str(",\"portcullis\":");
        line.push_str(self.record()?);
        line.push('}');
        Ok(line)
    }
}

/// Which events a sink is given. The others never enter its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFilter {
    /// Changes of alarms, and what was done to the gate.
    Alarms,
    /// Drops, but no quiet ones.
    Drops,
    /// All of these.
    Everything,
    /// Changes of alarms, and which ones are open.
    OpenAlarms,
}

impl EventFilter {
    fn accepts(self, event: &Event) -> bool {
        match (self, &event.matter) {
            (EventFilter::Drops | EventFilter::Everything, Matter::Drop(drop)) => !drop.quiet,
            (EventFilter::Alarms | EventFilter::OpenAlarms | EventFilter::Everything, Matter::Alarm(_)) => {
                true
            }
            (EventFilter::Alarms | EventFilter::Everything, Matter::Audit(_))
            | (EventFilter::OpenAlarms, Matter::OpenAlarms(_)) => true,
            (EventFilter::Alarms | EventFilter::OpenAlarms, Matter::Drop(_))
            | (EventFilter::Drops, Matter::Alarm(_))
            | (EventFilter::Drops | EventFilter::OpenAlarms, Matter::Audit(_))
            | (EventFilter::Alarms | EventFilter::Drops | EventFilter::Everything, Matter::OpenAlarms(_)) => {
                false
            }
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

    /// Tries what a write needs, without an event. It is called once when the daemon begins, and for a test where the
    /// sink takes no alarms. A sink that takes audit events is tried by the first of them.
    ///
    /// # Errors
    /// As [`Sink::write`].
    fn try_out(&mut self) -> anyhow::Result<()> {
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

    /// Writes what it has kept back, before it ends.
    fn finish(&mut self) {}

    /// How many events it counted as written, and has lost all the same, since the last time.
    fn take_lost(&mut self) -> u64 {
        0
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
