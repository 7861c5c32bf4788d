//! Puts a damaged history aside, and keeps the last few of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

/// How many damaged histories are kept. Each may have 128 MiB.
const MOST_KEPT: usize = 3;
const DAMAGED: &str = "history.damaged-";
/// What SQLite has beside a database.
pub(super) const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// The name of a file that belongs to a database.
pub(super) fn companion(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Moves the database with all that is beside it, whatever is there: files, folders, links. Nothing of it is
/// opened. Returns the new name of the database.
///
/// # Errors
/// When something can't be moved.
pub(super) fn put_aside(path: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let time = now.strftime("%Y%m%dT%H%M%SZ");
    let is_free = |name: &PathBuf| {
        fs::symlink_metadata(name).is_err()
            && COMPANIONS.iter().all(|suffix| fs::symlink_metadata(companion(name, suffix)).is_err())
    };
    let last = list_damaged(folder).pop();
    let names = || {
        (0..1_000).map(|number| match number {
            0 => folder.join(format!("{DAMAGED}{time}")),
            number => folder.join(format!("{DAMAGED}{time}.{number:03}")),
        })
    };
    // The newest has the last name, unless the clock has gone back.
    let aside = names()
        .find(|name| is_free(name) && last.as_ref().is_none_or(|last| name > last))
        .or_else(|| names().find(is_free))
        .unwrap_or_else(|| folder.join(DAMAGED));
    // The database is the last one. After a kill in between, it is damaged still.
    for suffix in COMPANIONS {
        move_if_there(&companion(path, suffix), &companion(&aside, suffix))?;
    }
    move_if_there(path, &aside)?;
    remove_oldest(folder);
    Ok(aside)
}

fn move_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes one file, folder or link. What can't be removed stays.
pub(super) fn remove_any(path: &Path) {
    let is_folder = fs::symlink_metadata(path).is_ok_and(|file| file.is_dir());
    let _ = if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) };
}

fn remove_oldest(folder: &Path) {
    let kept = list_damaged(folder);
    for old in kept.iter().rev().skip(MOST_KEPT) {
        remove_any(old);
        for suffix in COMPANIONS {
            remove_any(&companion(old, suffix));
        }
    }
}

/// The damaged histories that were put aside in a folder, the oldest first.
pub fn list_damaged(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.starts_with(DAMAGED))
        .map(|name| {
            let stem = COMPANIONS.iter().find_map(|suffix| name.strip_suffix(suffix));
            stem.unwrap_or(&name).to_owned()
        })
        .collect();
    names.sort();
    names.dedup();
    names.into_iter().map(|name| folder.join(name)).collect()
}
