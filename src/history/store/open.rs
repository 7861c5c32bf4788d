//! Opens the database's file, and makes it where it is missing.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use log::warn;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, StorageError};

use super::error::StoreError;
use crate::state_folder::make_state_folder;

/// redb takes 1 GiB by default, and the daemon has to stay small.
const CACHE_BYTES: usize = 4 << 20;

/// Opens the file, and its folder with it. A damaged file is moved aside.
pub(super) fn open_database(path: &Path) -> Result<Database, StoreError> {
    let refused = |why: String, taken: bool| StoreError::Open { path: path.to_owned(), why, taken };
    if let Some(folder) = path.parent() {
        make_state_folder(folder).map_err(|error| refused(error.to_string(), false))?;
    }
    match try_open(path) {
        Ok(database) => Ok(database),
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            Err(refused("another process has it open".to_owned(), true))
        }
        Err(error) if is_damage(&error) => {
            let aside = path.with_added_extension("damaged");
            warn!(
                "the history {} is damaged ({error}). A new one begins, and the old one is {}",
                path.display(),
                aside.display()
            );
            fs::rename(path, &aside).map_err(|error| refused(error.to_string(), false))?;
            try_open(path).map_err(|error| refused(error.to_string(), false))
        }
        Err(error) => Err(refused(error.to_string(), false)),
    }
}

fn try_open(path: &Path) -> Result<Database, DatabaseError> {
    let failed = |error| DatabaseError::Storage(StorageError::Io(error));
    let fresh = path.with_added_extension("new");
    match fs::metadata(path) {
        Ok(file) if file.len() > 0 => {
            let database = create_or_open(path)?;
            // another name of the same file, if the process that made it was killed just then
            let _ = fs::remove_file(&fresh);
            return Ok(database);
        }
        Ok(_) => fs::remove_file(path).map_err(failed)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // A full disk or a kill may leave half of a new database, which would be taken for a damaged one. So it
    // gets its name when it is whole.
    let database = match create_or_open(&fresh) {
        // no other process has it open: redb asks for the lock first
        Err(error) if is_damage(&error) => {
            fs::remove_file(&fresh).map_err(failed)?;
            create_or_open(&fresh)
        }
        other => other,
    };
    let named = database.and_then(|database| match fs::hard_link(&fresh, path) {
        Ok(()) => Ok(database),
        // another process was first, or the path is a dangling link
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            drop(database);
            create_or_open(path)
        }
        Err(error) => Err(failed(error)),
    });
    if !matches!(named, Err(DatabaseError::DatabaseAlreadyOpen)) {
        let _ = fs::remove_file(&fresh);
    }
    named
}

fn create_or_open(path: &Path) -> Result<Database, DatabaseError> {
    // Only root may read who tried what.
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| DatabaseError::Storage(StorageError::Io(error)))?;
    Database::builder().set_cache_size(CACHE_BYTES).create_with_backend(FileBackend::new(file)?)
}

fn is_damage(error: &DatabaseError) -> bool {
    match error {
        DatabaseError::Storage(StorageError::Corrupted(_)) | DatabaseError::UpgradeRequired(_) => true,
        // redb's errors for a file of another format, or one that was cut short
        DatabaseError::Storage(StorageError::Io(error)) => {
            let error = io::Error::from(error.kind());
            matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
        }
        _ => false,
    }
}
