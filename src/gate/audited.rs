//! Records what was done to a gate, on a disk that may be full, read-only or hang.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use super::Gate;
use super::place::GatePlace;
use super::state_file::in_time;
use crate::abi::settings;
use crate::audit::{Entry, Event, Log, PolicyMark, Reading};
use crate::drops::show_hex;

/// A disk that does not answer must not hold up a command for longer.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);
const READ_PATIENCE: Duration = Duration::from_secs(10);
const THREAD: &str = "audit";

/// An audit event that is in no file.
#[derive(Debug, Error)]
#[error("the audit event of this ({}) is not kept in {}: {error}", event.action, path.display())]
pub struct Unkept {
    /// The event.
    pub event: Box<Event>,
    path: PathBuf,
    error: std::io::Error,
}

impl GatePlace {
    /// Records what was done to the gate, or refused. `Some` is a warning: it could not be kept. What was done
    /// holds all the same. A refusal makes no state folder.
    pub fn record(&self, entry: Entry) -> Option<String> {
        self.try_record(entry).err().map(|unkept| unkept.to_string())
    }

    /// As [`GatePlace::record`], for a caller that can tell the event otherwise.
    ///
    /// # Errors
    /// The event, and why it is not kept.
    pub fn try_record(&self, entry: Entry) -> Result<(), Unkept> {
        let is_refusal = entry.is_refusal();
        let event = entry.into_event(&self.attached_as);
        let (log, folder, kept) = (self.audit_log(), self.history(), event.clone());
        let path = log.path();
        let written = in_time(THREAD, WRITE_PATIENCE, move || match is_refusal && !folder.exists() {
            true => Ok(()),
            false => log.append(kept).map(drop),
        });
        match written.and_then(|written| written) {
            Ok(()) => Ok(()),
            // nobody but root may write it, and somebody else was refused just for that
            Err(error) if is_refusal && error.kind() == ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(Unkept { event: Box::new(event), path, error }),
        }
    }

    /// The audit events of the gate.
    pub fn audit_log(&self) -> Log {
        Log::new(&self.history())
    }

    /// Reads all audit events that are kept.
    ///
    /// # Errors
    /// When the file can't be read in time.
    pub fn read_audit(&self) -> std::io::Result<Reading> {
        let log = self.audit_log();
        in_time(THREAD, READ_PATIENCE, move || log.read())?
    }
}

/// The live policy of a gate that may not be there.
pub fn read_mark(place: &GatePlace) -> Option<PolicyMark> {
    Gate::open(place).ok()?.policy_mark()
}

impl Gate {
    /// The generation and the hash of the live policy. `None`: there is none, or it can't be read.
    pub fn policy_mark(&self) -> Option<PolicyMark> {
        self.live_settings().ok().flatten().as_ref().map(to_mark)
    }
}

pub(super) fn to_mark(settings: &settings) -> PolicyMark {
    let hash = show_hex(&settings.hash);
    PolicyMark { generation: settings.generation, hash }
}
