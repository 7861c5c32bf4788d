//! Why the history could not be used.

use std::io;
use std::path::PathBuf;

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
    /// A record was read, and the receiver failed.
    #[error("could not pass the history on: {0}")]
    Passing(#[from] io::Error),
    /// The database could not be written or read.
    #[error("could not {verb} the history: {source}")]
    Database {
        /// `write` or `read`.
        verb: &'static str,
        /// The error of redb.
        #[source]
        source: Box<redb::Error>,
    },
}

/// Makes the error of a failed `read` or `write`.
pub(super) fn failed<E: Into<redb::Error>>(verb: &'static str) -> impl Fn(E) -> StoreError {
    move |error| StoreError::Database { verb, source: Box::new(error.into()) }
}
