//! The edits as they are kept over a reboot: `edits.json` in the gate's state folder, with times of the wall
//! clock. As the file of quarantines, to which `gate/quarantine/saved.rs` has the reasons.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Edit, EditAction};
use crate::clock::{Clock, wall_now};
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::quarantine::{Left, Span, read_rows};
use crate::policy::Direction;
use crate::state_file::{MOST_BYTES, PATIENCE, in_time, remove, replace};

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
    let mut bad = Vec::new();
    let mut saved = read_each(&path, &mut bad).map_err(|error| failed(&path, "read", &error))?;
    if let Some(why) = bad.into_iter().next() {
        return Err(GateError::Other { what: format!("could not read {}", path.display()), why });
    }
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

/// Reads the file. No file is no edit. What can't be read is put aside, and `warnings` say so.
pub(super) fn take(path: &Path, warnings: &mut Vec<String>) -> Saved {
    let file = path.to_owned();
    let read = in_time("edits", PATIENCE, move || {
        let mut bad = Vec::new();
        let saved = read_each(&file, &mut bad);
        (saved, bad)
    });
    let (saved, bad) = read.unwrap_or_else(|error| (Err(error), Vec::new()));
    let aside = path.with_added_extension("damaged");
    let mut keep_aside = |what: String| {
        let outcome = match fs::rename(path, &aside) {
            Ok(()) => format!("it is {} now", aside.display()),
            Err(error) => format!("it could not be put aside: {error}"),
        };
        warnings.push(format!("{what}; {outcome}"));
    };
    match saved {
        Ok(saved) => {
            if let Some(first) = bad.first() {
                let count = bad.len();
                keep_aside(format!(
                    "{count} of the edits in {} can't be read and are over now ({first})",
                    path.display()
                ));
            }
            saved
        }
        Err(error) => {
            let what = format!(
                "the edits of before are over now, because {} can't be read ({error})",
                path.display()
            );
            // a disk that does not answer would not answer this either, and the file may be whole
            match error.kind() {
                io::ErrorKind::InvalidData => keep_aside(what),
                _ => warnings.push(format!("{what}; it stays as it is")),
            }
            Saved::default()
        }
    }
}

fn read_each(path: &Path, bad: &mut Vec<String>) -> io::Result<Saved> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Saved::default()),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    let rows: Rows = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    match rows.version {
        VERSION => Ok(Saved::new(rows.last_number, read_rows(rows.edits, bad))),
        version => Err(damaged(format!("its version is {version}, and this portcullis knows {VERSION}"))),
    }
}

/// Writes the file: the old one or the new one is there, whatever happens. Without edits there is none.
pub(super) fn write(path: &Path, saved: &Saved) -> Result<(), GateError> {
    let failed = |error: io::Error| failed(path, "write", &error);
    if saved.edits.is_empty() {
        return remove(path).map_err(failed);
    }
    let mut text = serde_json::to_vec_pretty(saved).unwrap_or_default();
    text.push(b'\n');
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    replace(path, &[&text]).map_err(failed)
}

fn failed(path: &Path, verb: &str, error: &io::Error) -> GateError {
    GateError::Other { what: format!("could not {verb} {}", path.display()), why: error.to_string() }
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
