//! Alarms: what a person or a SIEM is told of drops. The [`Engine`] folds drops into alarms. Two tables
//! hold the words: `kind.rs` for kinds, `meaning.rs` for reasons.
//!
//! One worm is one alarm, whatever it sends, and memory is bounded whatever anybody sends. Counts of
//! packets are exact. Distinct addresses and ports are those of the packets that were seen, and beyond the
//! first few they are estimated (`distinct.rs`).

mod describe;
mod detector;
mod distinct;
mod engine;
#[cfg(test)]
pub(crate) mod example;
mod key;
mod kind;
mod meaning;
mod open_alarm;
mod recent;
mod record;
mod severity;
mod technique;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::drops::{DropEvent, DropVerdict, ReasonCode, ServerRef};

pub use distinct::Distinct;
pub use engine::{Engine, Thresholds};
pub use kind::{KINDS, Kind};
pub use severity::{SEVERITIES, Severity};
pub use technique::Technique;

/// What one alarm stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One service (protocol and port) that a server tried, or answered from.
    Service,
    /// All drops of one server for one reason.
    Reason,
    /// Many ports of one server: a scan.
    Ports,
    /// The other drops of one server, which has too many alarms open.
    Server,
    /// The other drops of all servers, when too many alarms are open.
    Everything,
}

/// An alarm as it stood at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// Counts up from the engine's first.
    pub id: u64,
    /// What it is taken for. It only ever becomes more severe.
    pub kind: Kind,
    /// What it was taken for at first.
    pub opened_as: Kind,
    /// How severe it is. It only ever rises.
    pub severity: Severity,
    /// What it stands for.
    pub scope: Scope,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// `None`: no server has the source address.
    pub server: Option<ServerRef>,
    /// Why the last packet was dropped.
    pub reason: ReasonCode,
    /// Whether the last packet was dropped, or would have been.
    pub verdict: DropVerdict,
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
    /// Of a `callback`: the destination that was contacted again and again.
    pub contacted: Option<IpAddr>,
    /// The last sample. Without any sample, the last event of a ledger row.
    pub sample: Arc<DropEvent>,
    /// Some of the packets came while no daemon ran.
    pub while_away: bool,
    /// What the daemon did about it by itself, in words. Empty: nothing.
    pub response: String,
}

/// What happened to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is new.
    Opened,
    /// More of the same.
    Updated,
    /// It turned out to be more severe.
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

/// A change of an alarm, as sinks and history get it. Its JSON is the alarm's with the change in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When it changed.
    pub time: Timestamp,
    /// What happened.
    pub step: Step,
    /// The alarm afterwards.
    pub alarm: Alarm,
}
