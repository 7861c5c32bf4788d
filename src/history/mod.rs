//! What outlives the daemon: alarms, drops by the minute, raw samples. In an embedded database
//! that survives a kill and a full disk, bounded in rows and in age.
//!
//! The consumer only notes things down in memory ([`Pending`]), where everything is bounded as
//! well; a thread of its own ([`HistoryWriter`]) writes them. What a full disk refuses waits there and
//! is written when there is room: counts of drops are folded meanwhile, and stay exact.

mod pending;
mod query;
mod retention;
mod store;
mod writer;

use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use pending::{MinuteCounts, Pending};
pub use query::{AlarmFilter, ReportData};
pub use store::{Store, StoreError};
pub use writer::{HistoryStatus, HistoryWriter, PreviousRun};

/// Name of the database in `/var/lib/portcullis/IF/`.
pub const FILE: &str = "history.redb";

/// Bounds of the database: with these its file stays below 128 MiB, whatever anybody sends.
/// Alarms take some 2 KiB each, counts some 150 bytes, samples some 700.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Alarms that are kept; the oldest go.
    pub alarms: u64,
    /// Counts of drops: kinds of drops by minute.
    pub counts: u64,
    /// Raw samples.
    pub samples: u64,
    /// What is older goes, seconds.
    pub age_s: i64,
}

impl Limits {
    /// With an age in days, as the policy has it.
    pub fn of_days(days: u32) -> Limits {
        Limits { alarms: 10_000, counts: 100_000, samples: 10_000, age_s: i64::from(days) * 86_400 }
    }
}

/// How an alarm stands in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlarmState {
    /// More may come.
    Open,
    /// Nothing more came.
    Closed,
    /// It was open when its daemon ended.
    CutOff,
}

/// An alarm as the history keeps it: what `show alarms -j` says of it, and how it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AlarmEntry {
    /// Counts up, also across daemons.
    pub id: u64,
    /// How it stands.
    pub state: AlarmState,
    /// When it last changed.
    pub changed: Timestamp,
    /// The alarm's own record.
    pub alarm: serde_json::Value,
}

impl AlarmEntry {
    /// A text of the record; empty where there is none.
    pub fn text(&self, key: &str) -> &str {
        self.alarm[key].as_str().unwrap_or_default()
    }

    /// A time of the record.
    pub fn time(&self, key: &str) -> Option<Timestamp> {
        self.text(key).parse().ok()
    }

    /// As it stands when no daemon runs.
    pub fn cut_off(&self) -> AlarmEntry {
        let state = if self.state == AlarmState::Open { AlarmState::CutOff } else { self.state };
        AlarmEntry { state, ..self.clone() }
    }

    /// Back from [`AlarmEntry::to_value`].
    pub fn from_value(alarm: serde_json::Value) -> AlarmEntry {
        let state = serde_json::from_value(alarm["state"].clone()).unwrap_or(AlarmState::Open);
        let changed = alarm["changed"].as_str().and_then(|text| text.parse().ok());
        let id = alarm["id"].as_u64().unwrap_or(0);
        AlarmEntry { id, state, changed: changed.unwrap_or(Timestamp::UNIX_EPOCH), alarm }
    }

    /// As programs read it: the record with `state` and `changed` in it.
    pub fn to_value(&self) -> serde_json::Value {
        let mut value = self.alarm.clone();
        value["state"] = serde_json::to_value(self.state).unwrap_or_default();
        value["changed"] = self.changed.to_string().into();
        value
    }
}

/// How many drops of one kind there were in one minute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MinuteCount {
    /// UNIX time of the minute's beginning.
    pub minute: i64,
    /// `None`: no server has the source address, or too many had drops in this minute.
    pub server: Option<String>,
    /// What was called, as in a need; `any` where too much was.
    pub service: String,
    /// Why.
    pub reason: String,
    /// `drop` or `would_drop`.
    pub verdict: String,
    /// Denied without an alarm.
    pub quiet: bool,
    /// It came while no daemon listened: the minute is that of the last one.
    pub while_away: bool,
    /// `None` where unknown, or where there were too many.
    pub destination: Option<IpAddr>,
    /// How many.
    pub packets: u64,
}

/// The beginning of one dropped frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRow {
    /// When it came.
    pub time: Timestamp,
    /// `None`: no server has the source address.
    pub server: Option<String>,
    /// Where it came from.
    pub source: Option<IpAddr>,
    /// Where it was to go.
    pub destination: Option<IpAddr>,
    /// What was called.
    pub service: String,
    /// Why it was dropped.
    pub reason: String,
    /// `drop` or `would_drop`.
    pub verdict: String,
    /// Of the whole frame, bytes.
    pub length: Option<u32>,
    /// In hex.
    pub frame: String,
}
