//! Grants as they are kept over a reboot: `grants.json` in the gate's state folder, with times of the wall clock. It
//! is as the files of quarantines and edits, but where these are in doubt about the clock, a grant is over: it only
//! ever opens something, and the next answer brings it back.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::clock::{Clock, NS_PER_S};
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::saved_file::{self, read_rows, read_version};

const FILE: &str = "grants.json";
const VERSION: u32 = 1;
/// No grant is older, and the sums stay in range.
const OLDEST_S: i64 = 400 * 86_400;

/// All grants of one gate, and the connections that they have let pass. Times are seconds since 1970, rounded down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Saved {
    version: u32,
    pub(super) saved_s: i64,
    pub(super) grants: Vec<SavedGrant>,
    pub(super) connections: Vec<SavedConnection>,
}

/// An address that a name was seen to have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedGrant {
    /// `None`: all servers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) answered_s: i64,
    pub(super) until_s: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) used_s: Option<i64>,
}

/// A connection that a grant has let pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedConnection {
    pub(super) server: String,
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) peer: IpAddr,
    pub(super) peer_port: u16,
    pub(super) last_s: i64,
}

/// The times of a grant, of CLOCK_MONOTONIC. Those before boot are below zero, which programs read as they are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Times {
    pub(super) answered_ns: u64,
    pub(super) until_ns: u64,
    /// 0: never.
    pub(super) used_ns: u64,
}

impl Saved {
    pub(super) fn new(clock: &Clock, grants: Vec<SavedGrant>, connections: Vec<SavedConnection>) -> Saved {
        Saved { version: VERSION, saved_s: clock.wall.as_second(), grants, connections }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.grants.is_empty() && self.connections.is_empty()
    }

    /// Whether the clock is behind the one that this was written by: then nobody knows how much time has passed.
    pub(super) fn is_of_the_future(&self, clock: &Clock) -> bool {
        !self.is_empty() && clock.wall.as_second() < self.saved_s
    }

    /// The times of a grant with what is left of them. `None`: it is over.
    pub(super) fn find_times(&self, row: &SavedGrant, clock: &Clock) -> Option<Times> {
        let now_s = clock.wall.as_second();
        let left_s = row.until_s.min(self.saved_s + OLDEST_S) - now_s;
        if self.is_of_the_future(clock) || left_s <= 0 || row.answered_s > self.saved_s {
            return None;
        }
        let left_ns = left_s.unsigned_abs().saturating_mul(NS_PER_S);
        Some(Times {
            answered_ns: find_past_ns(row.answered_s, clock)?,
            until_ns: clock.mono_ns.saturating_add(left_ns),
            used_ns: match row.used_s {
                Some(used_s) => find_past_ns(used_s, clock)?,
                None => 0,
            },
        })
    }

    /// When a connection's last segment came. `None`: it has been idle for longer than `patience_s`.
    pub(super) fn find_last_ns(&self, row: &SavedConnection, patience_s: u64, clock: &Clock) -> Option<u64> {
        let idle_s = clock.wall.as_second() - row.last_s;
        let is_idle = u64::try_from(idle_s).map_or(true, |idle_s| idle_s >= patience_s);
        if self.is_of_the_future(clock) || is_idle {
            return None;
        }
        find_past_ns(row.last_s, clock)
    }
}

/// CLOCK_MONOTONIC at a second in the past. `None`: it is not in the past, or too far.
fn find_past_ns(second: i64, clock: &Clock) -> Option<u64> {
    let age_s = clock.wall.as_second().checked_sub(second).filter(|age_s| (0..OLDEST_S).contains(age_s))?;
    // 0 stands for never
    Some(clock.mono_ns.wrapping_sub(age_s.unsigned_abs().saturating_mul(NS_PER_S)).max(1))
}

/// The second of the wall clock at a moment of CLOCK_MONOTONIC, which may be below zero.
pub(super) fn to_wall_s(mono_ns: u64, clock: &Clock) -> i64 {
    let ahead_ns = i128::from(mono_ns.wrapping_sub(clock.mono_ns).cast_signed());
    let second = (clock.wall.as_nanosecond() + ahead_ns).div_euclid(i128::from(NS_PER_S));
    i64::try_from(second).unwrap_or(i64::MAX)
}

/// The file of a gate.
pub(super) fn path_of(place: &GatePlace) -> PathBuf {
    place.history().join(FILE)
}

/// The file as it is read: row by row, so that a bad one costs no other.
#[derive(Deserialize)]
struct Rows {
    version: u32,
    saved_s: i64,
    #[serde(default)]
    grants: Vec<serde_json::Value>,
    #[serde(default)]
    connections: Vec<serde_json::Value>,
}

impl Rows {
    fn read(self, bad: &mut Vec<String>) -> Saved {
        Saved {
            version: VERSION,
            saved_s: self.saved_s,
            grants: read_rows(self.grants, bad),
            connections: read_rows(self.connections, bad),
        }
    }
}

pub(super) fn read_each(path: &Path, bad: &mut Vec<String>) -> io::Result<Saved> {
    let rows = read_version(path, VERSION, |rows: &Rows| rows.version)?;
    Ok(rows.map_or_else(Saved::default, |rows| rows.read(bad)))
}

/// What another router has printed of its grants. Of another version nothing is read.
pub(super) fn from_value(value: serde_json::Value, bad: &mut Vec<String>) -> Saved {
    match serde_json::from_value::<Rows>(value) {
        Ok(rows) if rows.version == VERSION => rows.read(bad),
        Ok(rows) => {
            bad.push(format!(
                "the grants of names have version {} of their form, and not {VERSION}",
                rows.version
            ));
            Saved::default()
        }
        Err(error) => {
            bad.push(format!("the grants of names can't be read: {error}"));
            Saved::default()
        }
    }
}

/// Writes the file. Without grants there is none.
pub(super) fn write(path: &Path, saved: &Saved) -> Result<(), GateError> {
    saved_file::write(path, (!saved.is_empty()).then_some(saved))
}
