//! The records that outlive the daemon: alarms, drops by the minute, raw samples. They are in an embedded
//! database that survives a kill and a full disk. It is bounded in rows and in age.
//!
//! The daemon only notes records in memory ([`Pending`]), where everything is bounded as well. A thread of
//! its own ([`HistoryWriter`]) writes them. If the disk is full, they wait in memory until there is room.
//! Counts of drops are folded meanwhile, and stay exact.

mod evidence;
mod pending;
mod query;
mod retention;
mod store;
mod writer;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::alarm::Step;

pub use evidence::{CountedOpening, EvidenceBook, KeptOpening, OpenedService};
pub use pending::{MinuteCounts, Pending};
pub use query::{AlarmFilter, ReportData};
pub use store::{Store, StoreError, list_damaged};
pub use writer::{HistoryStatus, HistoryWriter, PreviousRun};

/// Name of the database in `/var/lib/portcullis/IF/`.
pub const FILE: &str = "history.db";

/// Bounds of the database. With these its file stays below 128 MiB, whatever anybody sends. An alarm takes
/// some 3 KiB and at most 20, a count some 150 bytes, a sample some 700.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many alarms are kept. The oldest are removed first.
    pub alarms: u64,
    /// How many [`MinuteCount`]s are kept. Beyond that, those of the server that has most are folded.
    pub counts: u64,
    /// How many raw samples are kept. The oldest of the server that has most are removed first.
    pub samples: u64,
    /// Older records are removed, seconds.
    pub age_s: i64,
}

impl Limits {
    /// The bounds with an age in days, as the policy has it.
    pub fn of_days(days: u32) -> Limits {
        Limits { alarms: 5_000, counts: 100_000, samples: 10_000, age_s: i64::from(days) * 86_400 }
    }
}

/// Whether an alarm in the history is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// It is open: more drops may come.
    Open,
    /// It was closed after quiet minutes.
    Closed,
    /// Its daemon ended while it was open.
    CutOff,
}

impl AlarmState {
    /// The state of an alarm after a step.
    pub fn after(step: Step) -> AlarmState {
        match step {
            Step::Opened | Step::Updated | Step::Escalated { .. } => AlarmState::Open,
            Step::Closed { .. } => AlarmState::Closed,
        }
    }
}

/// An alarm as the history keeps it: its JSON record, and its state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmEntry {
    /// Counts up, across daemons too.
    pub id: u64,
    /// Whether it is over.
    pub state: AlarmState,
    /// When it last changed.
    pub changed: Timestamp,
    /// The JSON of the [`Alarm`](crate::alarm::Alarm).
    pub alarm: serde_json::Value,
}

impl AlarmEntry {
    /// A text field of the record; empty if there is none.
    pub fn text(&self, key: &str) -> &str {
        self.alarm[key].as_str().unwrap_or_default()
    }

    /// A time field of the record; `None` if there is none.
    pub fn time(&self, key: &str) -> Option<Timestamp> {
        self.text(key).parse().ok()
    }

    /// The entry as it is when no daemon runs: an open alarm is cut off.
    pub fn cut_off(&self) -> AlarmEntry {
        let state = if self.state == AlarmState::Open { AlarmState::CutOff } else { self.state };
        AlarmEntry { state, ..self.clone() }
    }

    /// Reads the JSON of [`AlarmEntry::to_value`].
    pub fn from_value(alarm: serde_json::Value) -> AlarmEntry {
        let state = serde_json::from_value(alarm["state"].clone()).unwrap_or(AlarmState::Open);
        let changed = alarm["changed"].as_str().and_then(|text| text.parse().ok());
        let id = alarm["id"].as_u64().unwrap_or(0);
        AlarmEntry { id, state, changed: changed.unwrap_or(Timestamp::UNIX_EPOCH), alarm }
    }

    /// The JSON that programs read: the record with `state` and `changed` in it.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = self.alarm.clone();
        value["state"] = serde_json::to_value(self.state).unwrap_or_default();
        value["changed"] = self.changed.to_string().into();
        value
    }
}

/// How many drops of one kind there were in one minute: same server, service, reason and destination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MinuteCount {
    /// UNIX time of the minute's beginning, seconds.
    pub minute: i64,
    /// `None`: no server has the source address, or too many servers had drops in this minute.
    pub server: Option<String>,
    /// The service in the words of a need; `any` if there were too many.
    pub service: String,
    /// Name of the reason.
    pub reason: String,
    /// `drop` or `would_drop`.
    pub verdict: String,
    /// The policy denies them without an alarm.
    pub quiet: bool,
    /// They came while no daemon ran. The minute is that of the last packet.
    pub while_away: bool,
    /// `None` where unknown, or if there were too many.
    pub destination: Option<IpAddr>,
    /// How many packets.
    pub packets: u64,
    /// It stands for several services and destinations, for which there was no room.
    #[serde(default)]
    pub folded: bool,
    /// The time that it stands for, seconds. More than a minute if there was no room for each.
    #[serde(default = "minute_s")]
    pub span_s: i64,
}

/// The time that a count stands for when there is room.
pub const SPAN_MINUTE_S: i64 = 60;

fn minute_s() -> i64 {
    SPAN_MINUTE_S
}

/// Counts of one server that the history had no room for. They are in no [`MinuteCount`] any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedCounts {
    /// `None`: no server has the source address, or they are of more servers than are listed.
    pub server: Option<String>,
    /// UNIX times between which they lie, seconds.
    pub from: i64,
    /// As `from`.
    pub to: i64,
    /// How many packets they stood for.
    pub packets: u64,
}

/// The beginning of one dropped frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// When it came.
    pub time: Timestamp,
    /// `None`: no server has the source address.
    pub server: Option<String>,
    /// Source address; `None` for a frame without addresses.
    pub source: Option<IpAddr>,
    /// Destination address; `None` for a frame without addresses.
    pub destination: Option<IpAddr>,
    /// The service in the words of a need.
    pub service: String,
    /// Name of the reason.
    pub reason: String,
    /// `drop` or `would_drop`.
    pub verdict: String,
    /// Length of the whole frame, bytes.
    pub length: Option<u32>,
    /// The beginning of the frame, in hex.
    pub frame: String,
}
