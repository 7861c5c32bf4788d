//! Files of rows that a gate keeps over a reboot, as JSON: quarantines, edits and grants. A bad row costs no other.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::GateError;
use crate::state_file::{MOST_BYTES, PATIENCE, in_time, remove, replace};

/// What a reader of a whole file returns. It puts a sentence for each row that can't be read into the list.
pub(super) type ReadEach<T> = fn(&Path, &mut Vec<String>) -> io::Result<T>;

/// The file's content. `None`: there is no file.
///
/// # Errors
/// `InvalidData` for one that is damaged or of another version, and whatever keeps it from being read.
pub(super) fn read_version<T: DeserializeOwned>(
    path: &Path,
    known: u32,
    version_of: impl Fn(&T) -> u32,
) -> io::Result<Option<T>> {
    let damaged = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut text)?;
    let content: T = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    match version_of(&content) {
        version if version == known => Ok(Some(content)),
        version => Err(damaged(format!("its version is {version}, and this portcullis knows {known}"))),
    }
}

/// The rows that can be read. `bad` gets a sentence for each other one.
pub(super) fn read_rows<T: DeserializeOwned>(rows: Vec<serde_json::Value>, bad: &mut Vec<String>) -> Vec<T> {
    let read = |row: serde_json::Value| {
        let text = row.to_string();
        serde_json::from_value(row).map_err(|error| format!("{text}: {error}"))
    };
    rows.into_iter().filter_map(|row| read(row).map_err(|why| bad.push(why)).ok()).collect()
}

/// Reads a file of a disk that may not answer, and the sentences about bad rows. `thread` is the name of the thread
/// that waits for it.
pub(super) fn read_in_time<T: Send + 'static>(
    thread: &str,
    path: &Path,
    read_each: ReadEach<T>,
) -> (io::Result<T>, Vec<String>) {
    let file = path.to_owned();
    let read = in_time(thread, PATIENCE, move || {
        let mut bad = Vec::new();
        let content = read_each(&file, &mut bad);
        (content, bad)
    });
    read.unwrap_or_else(|error| (Err(error), Vec::new()))
}

/// Reads a file of rows that are over if they can't be read. No file is no row. What is damaged is put aside, and
/// `warnings` say so. False: the file can't be read now and may be later, or could not be put aside. It has rows
/// that would be lost if it were written over. `what`: the rows, in a word.
pub(super) fn take<T: Default + Send + 'static>(
    what: &str,
    path: &Path,
    read_each: ReadEach<T>,
    warnings: &mut Vec<String>,
) -> (T, bool) {
    let (saved, bad) = read_in_time(what, path, read_each);
    let aside = path.with_added_extension("damaged");
    let mut is_kept = true;
    let mut keep_aside = |what: String| {
        let moved = fs::rename(path, &aside);
        let outcome = match &moved {
            Ok(()) => format!("it is {} now", aside.display()),
            Err(error) => format!("it stays as it is, for it could not be put aside: {error}"),
        };
        warnings.push(format!("{what}; {outcome}"));
        is_kept = moved.is_ok();
    };
    match saved {
        Ok(saved) => {
            if let Some(first) = bad.first() {
                let count = bad.len();
                keep_aside(format!(
                    "{count} of the {what} in {} can't be read and are over now ({first})",
                    path.display()
                ));
            }
            (saved, is_kept)
        }
        Err(error) => {
            let text = format!(
                "the {what} of before are over now, because {} can't be read ({error})",
                path.display()
            );
            // a disk that does not answer would not answer this either, and the file may be whole
            match error.kind() {
                io::ErrorKind::InvalidData => keep_aside(text),
                _ => {
                    warnings.push(format!("{text}; it stays as it is; attach again when it can be read"));
                    is_kept = false;
                }
            }
            (T::default(), is_kept)
        }
    }
}

/// Reads a file in which a bad row is an error.
pub(super) fn read_strictly<T>(path: &Path, read_each: ReadEach<T>) -> io::Result<T> {
    let mut bad = Vec::new();
    let content = read_each(path, &mut bad)?;
    match bad.into_iter().next() {
        None => Ok(content),
        Some(why) => Err(io::Error::new(io::ErrorKind::InvalidData, why)),
    }
}

/// Writes the file: the old one or the new one is there, whatever happens. Without content there is none.
pub(super) fn write(path: &Path, content: Option<&impl Serialize>) -> Result<(), GateError> {
    let failed = |error: io::Error| failed(path, "write", &error);
    let Some(content) = content else {
        return remove(path).map_err(failed);
    };
    let mut text = serde_json::to_vec_pretty(content).unwrap_or_default();
    text.push(b'\n');
    if fs::read(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    replace(path, &[&text]).map_err(failed)
}

/// The error for a file that could not be read or written.
pub(super) fn failed(path: &Path, verb: &str, error: &io::Error) -> GateError {
    GateError::Other { what: format!("could not {verb} {}", path.display()), why: error.to_string() }
}
