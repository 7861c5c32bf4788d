//! Why the history could not be used.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;
use rusqlite::ffi::{SQLITE_IOERR_CORRUPTFS, SQLITE_IOERR_SHORT_READ};
use thiserror::Error;

/// Why the history could not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The database could not be opened.
    #[error("could not open the history {path}: {why}")]
    Open {
        /// Its file.
        path: PathBuf,
        /// In words.
        why: String,
        /// Another process has it open.
        taken: bool,
    },
    /// Its file is not as it was written.
    #[error("the history {path} is damaged: {why}")]
    Damaged {
        /// Its file.
        path: PathBuf,
        /// In words.
        why: String,
    },
    /// A record was read, and the receiver failed.
    #[error("could not pass the history on: {0}")]
    Passing(#[from] io::Error),
    /// The database could not be written or read.
    #[error("could not {verb} the history: {why}")]
    Database {
        /// `write` or `read`.
        verb: &'static str,
        /// In words.
        why: String,
    },
}

/// What went wrong with a connection, before the store knows what to do about it.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The file is not as it was written. In words.
    Damage(String),
    /// Another process has it open.
    Taken,
    /// The disk or the database refuses, and may not later. In words.
    Refusal(String),
    /// The receiver of a record failed.
    Passing(io::Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(error: rusqlite::Error) -> Trouble {
        let code = error.sqlite_error().map(|error| (error.code, error.extended_code));
        match code {
            Some((ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TooBig, _))
            | Some((_, SQLITE_IOERR_SHORT_READ | SQLITE_IOERR_CORRUPTFS)) => {
                Trouble::Damage(error.to_string())
            }
            Some((ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked, _)) => Trouble::Taken,
            Some((ErrorCode::DiskFull, _)) => {
                Trouble::Refusal("No space left on device, or no memory for it".to_owned())
            }
            Some((_, extended)) => Trouble::Refusal(format!("{error} (code {extended})")),
            // a column that is missing, or has another type than it was written with
            None => Trouble::Damage(error.to_string()),
        }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        Trouble::Refusal(error.to_string())
    }
}
