//! Alarms: what a person or a SIEM is told of drops. [`Engine`] folds drops into alarms,
//! [`Kind`] says what each means, and an [`Alarm`] explains itself (`describe.rs`).
//!
//! One worm is one alarm, whatever it sends, and memory is bounded whatever anybody sends.
//! Counts of packets are exact; distinct addresses and ports, of those packets that were looked
//! at, are estimated beyond the first few (`distinct.rs`).

mod describe;
mod detector;
mod distinct;
mod engine;
mod kind;
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
pub use kind::{KINDS, Kind, SEVERITIES, Severity};
pub use technique::Technique;

/// What one alarm stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One service (protocol and port) that a server called, or answered from.
    Service,
    /// Everything that was dropped for one reason.
    Reason,
    /// Many ports of one server: a scan.
    Ports,
    /// Everything else of one server, which has too many alarms open.
    Server,
    /// Everything else of everybody: too many alarms are open.
    Everything,
}

/// An alarm as it stood at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Alarm {
    /// Counts up from the engine's first.
    pub id: u64,
    /// What it is taken for. It may become graver, never less grave.
    pub kind: Kind,
    /// What it was taken for at first.
    pub opened_as: Kind,
    /// How grave it is.
    pub severity: Severity,
    /// What it stands for.
    pub scope: Scope,
    /// Name of the interface.
    pub interface: Arc<str>,
    /// `None`: no server has the source address.
    pub server: Option<ServerRef>,
    /// Why the last one was dropped.
    pub reason: ReasonCode,
    /// What became of the last one.
    pub verdict: DropVerdict,
    /// Time of the first drop.
    pub first: Timestamp,
    /// Time of the last drop.
    pub last: Timestamp,
    /// Packets, exactly.
    pub packets: u64,
    /// Events (samples, differences of the ledger) that told of them.
    pub events: u64,
    /// Where they came from.
    pub sources: Distinct<IpAddr>,
    /// Where they were to go.
    pub destinations: Distinct<IpAddr>,
    /// As [`DropEvent::port`].
    pub ports: Distinct<u16>,
    /// Where they came from on the link: all that a spoofed address leaves.
    pub source_macs: Distinct<[u8; 6]>,
    /// The destination that was called again and again, of a `callback`.
    pub called: Option<IpAddr>,
    /// The last sample; the last difference of the ledger where there is none.
    pub sample: Arc<DropEvent>,
    /// Some of it came while no daemon listened.
    pub while_away: bool,
    /// What the daemon did about it by itself, in words; empty: nothing.
    pub response: String,
}

/// What happened to an alarm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is new.
    Opened,
    /// More of the same.
    Updated,
    /// It turned out to be graver.
    Escalated {
        /// What it was taken for until now.
        from: Kind,
    },
    /// Nothing more came.
    Closed {
        /// The id of the alarm that goes on in its place.
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

/// A change of an alarm: what sinks write.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// When.
    pub time: Timestamp,
    /// What happened.
    pub step: Step,
    /// The alarm afterwards.
    pub alarm: Alarm,
}
