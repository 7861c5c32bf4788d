//! Alarms: what a person or a SIEM is told of drops. The [`Engine`] folds drops into alarms. Two tables
//! hold the words: `kind.rs` for kinds, `meaning.rs` for reasons.
//!
//! What one server does within minutes is one incident: one alarm with parts. A worm is one part, whatever
//! it sends, and so is a scan. Memory is bounded whatever anybody sends. Counts of packets are exact.
//! Distinct addresses and ports are those of the packets that were seen, and beyond the first few they are
//! estimated (`distinct.rs`).
//!
//! | part | work |
//! | --- | --- |
//! | `meaning`, `assess` | what one drop means: kind, severity |
//! | `detector`, `likely` | what many drops mean together, and what only looks bad |
//! | `subject` | who an alarm is about, and which drops are one part of it |
//! | `engine` | finds the incident of a drop, opens and closes incidents |
//! | `incident`, `part` | an incident while it is open, and what each drop adds to it |
//! | `news` | what a change says that was not said before |
//! | `describe`, `next_steps`, `record` | the words, the commands to type, the JSON |
//! | `answers` | reports about names and resolvers, to which no drop leads |
//! | `handling`, `silence`, `rating` | what people and the policy say of an alarm: acknowledged, silenced, its severity |
//! | `causes` | who can cause what |

mod answers;
mod assess;
mod causes;
mod describe;
mod detector;
mod distinct;
mod engine;
#[cfg(test)]
pub(crate) mod example;
mod gate_trouble;
mod handling;
mod incident;
mod kind;
mod likely;
mod meaning;
mod news;
mod next_steps;
mod part;
mod rating;
mod recent;
mod record;
mod severity;
mod silence;
mod subject;
mod technique;
#[cfg(test)]
mod tests;
mod thresholds;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::drops::{DropEvent, DropVerdict, ReasonCode, ServerRef};

pub use answers::{About, AnswerReport, Answers};
pub(crate) use causes::may_quarantine;
pub use causes::{Causer, can_cause, can_cause_answers, kinds_of};
pub use distinct::Distinct;
pub use engine::Engine;
pub use gate_trouble::GateTrouble;
pub use handling::{Acknowledgement, Handling};
pub use kind::{KINDS, Kind};
pub use likely::Likely;
pub(crate) use next_steps::QUARANTINE;
pub use part::Part;
pub use rating::{Rated, Ratings};
pub use severity::{SEVERITIES, Severity};
pub use silence::{MAX_SILENCE_S, NewSilence, Silence, SilenceRecord, Silenced, Target};
pub use technique::Technique;
pub use thresholds::Thresholds;

/// What a part of an alarm stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One service (protocol and port) that a server tried, or answered from.
    Service,
    /// All drops for one reason.
    Reason,
    /// Many services of one server: a scan.
    Ports,
    /// What had no room as a part of its own.
    Rest,
    /// The gate itself.
    Gate,
    /// Answers about a name, or in the name of a resolver.
    Answers,
}

/// An alarm as it stood at one moment: an incident with its parts.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// Counts up from the engine's first.
    pub id: u64,
    /// What it was taken for at first.
    pub opened_as: Kind,
    /// The alarm of the same server that this one follows.
    pub follows: Option<u64>,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// `None`: no server has the source address, or it is about several servers, the gate, a name or a resolver.
    pub server: Option<ServerRef>,
    /// The server is a prefix: its machines are known by address.
    pub has_machines: bool,
    /// It is about several servers, for which there is no room.
    pub is_for_all: bool,
    /// Time of the first drop.
    pub first: Timestamp,
    /// Time of the last drop.
    pub last: Timestamp,
    /// How many packets, exactly.
    pub packets: u64,
    /// How many events (samples, ledger rows) reported them.
    pub events: u64,
    /// Their source addresses.
    pub sources: Distinct<IpAddr>,
    /// Their destination addresses.
    pub destinations: Distinct<IpAddr>,
    /// Their ports, as [`DropEvent::port`].
    pub ports: Distinct<u16>,
    /// Their source MAC addresses. For a spoofed address this is the only trace of the sender.
    pub source_macs: Distinct<[u8; 6]>,
    /// Some of the packets came while no daemon ran.
    pub while_away: bool,
    /// What the daemon did about it by itself, in words. Empty: nothing.
    pub response: String,
    /// Who is at it.
    pub acknowledged: Option<Acknowledgement>,
    /// The silence that covers it.
    pub silenced: Option<Silenced>,
    /// The gate's own severity, where the policy gives it another one.
    pub rated: Option<Severity>,
    /// Its parts, the most severe first. There is at least one.
    pub parts: Vec<Part>,
}

impl Alarm {
    /// The part that gives the alarm its kind and severity.
    pub fn lead(&self) -> &Part {
        &self.parts[0]
    }

    /// What it is taken for.
    pub fn kind(&self) -> Kind {
        self.lead().kind
    }

    /// How severe it is.
    pub fn severity(&self) -> Severity {
        self.lead().severity
    }

    /// Why the last packet of its first part was dropped; `None`: it is about no packet.
    pub fn reason(&self) -> Option<ReasonCode> {
        self.lead().reason
    }

    /// Whether the last packet of its first part was dropped; `None`: it is about no packet.
    pub fn verdict(&self) -> Option<DropVerdict> {
        self.lead().verdict
    }

    /// The mode of the policy that its first part met: `enforce` or `observe`; `None`: it is about no packet.
    pub fn mode(&self) -> Option<&'static str> {
        self.verdict().map(record::mode_of)
    }

    /// The sample of its first part; `None`: it is about no packet.
    pub fn sample(&self) -> Option<&Arc<DropEvent>> {
        self.lead().sample.as_ref()
    }

    /// The service of its first part.
    pub fn service(&self) -> String {
        self.lead().service()
    }
}

/// What happened to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is new.
    Opened,
    /// There is news of it.
    Updated,
    /// It turned out to be more: a person should look again.
    Escalated {
        /// What it was taken for until now.
        from: Kind,
    },
    /// It ended.
    Closed {
        /// The id of the alarm that goes on in its place; `None`: no more drops came.
        folded_into: Option<u64>,
    },
}

impl Step {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Step::Opened => "opened",
            Step::Updated => "updated",
            Step::Escalated { .. } => "escalated",
            Step::Closed { .. } => "closed",
        }
    }
}

impl Change {
    /// A change that says nothing new: a record of the alarm as it stands.
    pub fn unnoted(time: Timestamp, alarm: Alarm) -> Change {
        Change { time, step: Step::Updated, news: String::new(), is_muted: false, alarm }
    }
}

/// A change of an alarm, as sinks and history get it. Its JSON is the alarm's with the change in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When it changed.
    pub time: Timestamp,
    /// What happened.
    pub step: Step,
    /// What it says that was not said before, in words. Empty for an alarm that opens or closes.
    pub news: String,
    /// Nobody is to be called because of it: it is silenced, or somebody knows.
    pub is_muted: bool,
    /// The alarm afterwards.
    pub alarm: Alarm,
}
