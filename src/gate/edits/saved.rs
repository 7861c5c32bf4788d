//! The edits as they are kept over a reboot: `edits.json` in the gate's state folder, with times of the wall
//! clock. As the file of quarantines, to which `gate/quarantine/saved.rs` has the reasons.

use std::io;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Edit, EditAction};
use crate::clock::{Clock, wall_now};
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::quarantine::{Left, Span};
use crate::gate::saved_file::{self, failed, read_rows, read_strictly, read_version};
use crate::policy::Direction;

const FILE: &str = "edits.json";
const VERSION: u32 = 1;

/// All edits of one gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Saved {
    version: u32,
    /// The last number that was given: numbers go on behind it.
    pub(super) last_number: u32,
    pub(super) edits: Vec<SavedEdit>,
}

/// An edit, as [`Edit`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedEdit {
    pub(super) number: u32,
    pub(super) server: String,
    pub(super) action: EditAction,
    pub(super) direction: Direction,
    pub(super) need: String,
    pub(super) protocol: u8,
    pub(super) ports: (u16, u16),
    pub(super) peers: Vec<IpNet>,
    pub(super) who: String,
    pub(super) note: Option<String>,
    #[serde(flatten)]
    pub(super) span: Span,
}

impl SavedEdit {
    pub(super) fn of(edit: &Edit, clock: &Clock) -> SavedEdit {
        // No `..`, so that a new field does not compile until it is saved.
        let Edit {
            number,
            server,
            action,
            direction,
            need,
            protocol,
            ports,
            peers,
            since_ns,
            until_ns,
            who,
            note,
        } = edit.clone();
        let span = Span::of(since_ns, until_ns, clock);
        SavedEdit { number, server, action, direction, need, protocol, ports, peers, who, note, span }
    }

    /// The edit with what is left of its time. `None`: it is over. What should be over by the clock, and perhaps
    /// is not, goes on only if it denies.
    pub(super) fn to_edit(&self, clock: &Clock) -> Option<Edit> {
        if self.action == EditAction::Allow && matches!(self.span.find_left(clock.wall), Left::InDoubt(_)) {
            return None;
        }
        let (since_ns, until_ns) = self.span.to_mono_ns(clock)?;
        let SavedEdit { number, server, action, direction, need, protocol, ports, peers, who, note, span: _ } =
            self.clone();
        Some(Edit {
            number,
            server,
            action,
            direction,
            need,
            protocol,
            ports,
            peers,
            since_ns,
            until_ns,
            who,
            note,
        })
    }
}

impl Saved {
    pub(super) fn new(last_number: u32, edits: Vec<SavedEdit>) -> Saved {
        Saved { version: VERSION, last_number, edits }
    }
}

/// Ends an edit that waits for the next attach. Returns whether there was one. The caller holds the lock, and
/// there is no gate.
///
/// # Errors
/// When the file can't be read or written.
pub fn cancel_saved_edit(place: &GatePlace, number: u32) -> Result<bool, GateError> {
    let _lock = place.lock_saving()?;
    let path = path_of(place);
    let mut saved = read_strictly(&path, read_each).map_err(|error| failed(&path, "read", &error))?;
    let now = wall_now();
    let before = saved.edits.len();
    saved.edits.retain(|edit| edit.number != number || edit.span.find_left(now).is_over());
    let was = saved.edits.len() < before;
    if was {
        write(&path, &saved)?;
    }
    Ok(was)
}

/// The file of a gate.
pub(super) fn path_of(place: &GatePlace) -> PathBuf {
    place.history().join(FILE)
}

/// The file as it is read: row by row, so that a bad one costs no other.
#[derive(Deserialize)]
struct Rows {
    version: u32,
    #[serde(default)]
    last_number: u32,
    #[serde(default)]
    edits: Vec<serde_json::Value>,
}

pub(super) fn read_each(path: &Path, bad: &mut Vec<String>) -> io::Result<Saved> {
    let rows = read_version(path, VERSION, |rows: &Rows| rows.version)?;
    let read = |rows: Rows| Saved::new(rows.last_number, read_rows(rows.edits, bad));
    Ok(rows.map_or_else(Saved::default, read))
}

/// Writes the file. Without edits there is none.
pub(super) fn write(path: &Path, saved: &Saved) -> Result<(), GateError> {
    saved_file::write(path, (!saved.edits.is_empty()).then_some(saved))
}

/// Those edits of the file that are not over, with the time that is left.
pub(super) fn list_left(saved: &Saved, clock: &Clock) -> Vec<Edit> {
    saved.edits.iter().filter_map(|edit| edit.to_edit(clock)).collect()
}

/// Edits that should be over by the clock and perhaps are not, for people.
pub(super) fn list_doubted(saved: &Saved, now: Timestamp) -> Option<String> {
    let doubted: Vec<String> = saved
        .edits
        .iter()
        .filter(|edit| matches!(edit.span.find_left(now), Left::InDoubt(_)))
        .map(|edit| format!("{} ({} {})", edit.number, edit.action.name(), edit.server))
        .collect();
    (!doubted.is_empty()).then(|| {
        format!(
            "by the clock ({now}) these edits ended long ago: {}; the clock may be wrong, so those that deny go on \
             for what was left of their time, and those that allow are over",
            doubted.join(", ")
        )
    })
}
