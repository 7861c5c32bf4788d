//! Opens the database's file, checks all of it, and makes it where it is missing.
//!
//! SQLite has the file for this process alone: its VFS `unix-excl` keeps the index of the log in memory. So
//! no file is mapped, and a file that is cut short can't end the daemon by a signal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use log::warn;
use nix::unistd::{AccessFlags, access, geteuid};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::aside::{COMPANIONS, companion, remove_any};
use super::error::Trouble;
use super::rows::verify_rows;
use crate::state_folder::make_state_folder;

/// Holds the file against other processes, and maps nothing.
const VFS: &std::ffi::CStr = c"unix-excl";
/// `port`, in the header of the file.
const APPLICATION_ID: i64 = 0x706f_7274;
/// The layout of the tables.
const LAYOUT: i64 = 1;
/// How long one connection waits for another one of this process.
const BUSY_PATIENCE: Duration = Duration::from_secs(5);
/// The history of versions that had another database.
const EARLIER_FILE: &str = "history.redb";

/// The tables, as SQLite keeps their text. `sum` is a checksum of its row, because SQLite has none for what is
/// inside a page.
const TABLES: [(&str, &str); 5] = [
    ("alarms", "CREATE TABLE alarms (id INTEGER PRIMARY KEY, text TEXT NOT NULL, sum INTEGER NOT NULL)"),
    (
        "counts",
        "CREATE TABLE counts (minute INTEGER NOT NULL, server TEXT NOT NULL, span INTEGER NOT NULL, \
         kind TEXT NOT NULL, packets INTEGER NOT NULL, sum INTEGER NOT NULL, \
         PRIMARY KEY (minute, server, span, kind)) WITHOUT ROWID",
    ),
    ("counts_by_server", "CREATE INDEX counts_by_server ON counts (server, minute)"),
    (
        "reported",
        "CREATE TABLE reported (name TEXT PRIMARY KEY, text TEXT NOT NULL, sum INTEGER NOT NULL) \
         WITHOUT ROWID",
    ),
    (
        "samples",
        "CREATE TABLE samples (time INTEGER NOT NULL, number INTEGER NOT NULL, server TEXT NOT NULL, \
         text TEXT NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (time, number)) WITHOUT ROWID",
    ),
];

/// What identifies a file while it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    length: u64,
}

impl Identity {
    /// Of a file that is there.
    pub(super) fn of(path: &Path) -> io::Result<Identity> {
        let file = fs::symlink_metadata(path)?;
        Ok(Identity { device: file.dev(), inode: file.ino(), length: file.len() })
    }

    /// What has happened to the file since; `None` if it has only grown.
    pub(super) fn find_change(&self, path: &Path) -> Option<String> {
        match Identity::of(path) {
            Ok(now) if (now.device, now.inode) != (self.device, self.inode) => {
                Some("its file was replaced".to_owned())
            }
            Ok(now) if now.length < self.length => {
                Some(format!("its file was cut from {} to {} bytes", self.length, now.length))
            }
            Ok(_) => None,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some("its file was removed".to_owned()),
            // the next write says what the disk has
            Err(_) => None,
        }
    }
}

/// Opens the file for writing, and makes it and its folder if they are missing. With `checked`, the file was
/// found whole in this run of the daemon.
pub(super) fn open_or_make(path: &Path, checked: bool) -> Result<Connection, Trouble> {
    if let Some(folder) = path.parent() {
        make_state_folder(folder)?;
    }
    match check_file(path) {
        Err(LookError::Missing) => make(path)?,
        Err(LookError::Trouble(trouble)) => return Err(trouble),
        Ok(()) => {}
    }
    let connection = connect(path)?;
    let check = if checked { Check::Layout } else { Check::Whole };
    check_content(&connection, check)?;
    connection.busy_timeout(BUSY_PATIENCE)?;
    connection.execute_batch("PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 8388608;")?;
    Ok(connection)
}

/// Opens the file of this process for another reader.
pub(super) fn open_reader(path: &Path, check: Check) -> Result<Connection, Trouble> {
    match check_file(path) {
        Err(LookError::Missing) => return Err(Trouble::Refusal("there is no such file".to_owned())),
        Err(LookError::Trouble(trouble)) => return Err(trouble),
        Ok(()) => {}
    }
    let connection = connect(path)?;
    leave_log(&connection);
    connection.busy_timeout(BUSY_PATIENCE)?;
    connection.execute_batch("PRAGMA query_only = ON")?;
    check_content(&connection, check)?;
    Ok(connection)
}

/// Has a connection leave the log beside the file as it is when it ends. A log by that name may belong to
/// another file then.
pub(super) fn leave_log(connection: &Connection) {
    let _ = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true);
}

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Whether it is a history.
    Layout,
    /// Every page and every row as well.
    Whole,
}

enum LookError {
    Missing,
    Trouble(Trouble),
}

/// Looks at what has the file's name, and the names of the files beside it, before anything opens them.
fn check_file(path: &Path) -> Result<(), LookError> {
    let damage = |why: String| Err(LookError::Trouble(Trouble::Damage(why)));
    let log = companion(path, "-wal");
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            // SQLite would take the log for that of the new file
            return match fs::symlink_metadata(&log) {
                Ok(_) => damage("its file is gone, and only its log is left".to_owned()),
                Err(_) => Err(LookError::Missing),
            };
        }
        Err(error) => return Err(LookError::Trouble(error.into())),
    };
    if let Some(why) = find_strangeness(&file, "its file") {
        return damage(why);
    }
    if file.len() == 0 {
        return damage("its file is empty".to_owned());
    }
    if let Ok(log) = fs::symlink_metadata(&log)
        && let Some(why) = find_strangeness(&log, "its log")
    {
        return damage(why);
    }
    // Our files never need these two. A journal would be played back into the file.
    for suffix in ["-shm", "-journal"] {
        let stray = companion(path, suffix);
        if fs::symlink_metadata(&stray).is_ok() && fs::remove_file(&stray).is_err() {
            return damage(format!("something lies beside it: {}", stray.display()));
        }
    }
    match access(path, AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(errno) => Err(LookError::Trouble(Trouble::Refusal(errno.desc().to_owned()))),
    }
}

fn find_strangeness(file: &fs::Metadata, what: &str) -> Option<String> {
    let kind = file.file_type();
    let strange = match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("a folder"),
        () if kind.is_symlink() => Some("a link"),
        () if kind.is_fifo() => Some("a FIFO"),
        () => Some("a device or a socket"),
    };
    if let Some(strange) = strange {
        return Some(format!("{what} is {strange}"));
    }
    if file.uid() != geteuid().as_raw() {
        return Some(format!("{what} belongs to user {}", file.uid()));
    }
    let mode = file.permissions().mode();
    (mode & 0o022 != 0).then(|| format!("{what} could be written by others (mode {:o})", mode & 0o7777))
}

fn connect(path: &Path) -> Result<Connection, Trouble> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    // so that a process that has it open is found out at once
    connection.busy_timeout(Duration::ZERO)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.execute_batch(
        "PRAGMA cell_size_check = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048; \
         PRAGMA mmap_size = 0; PRAGMA hard_heap_limit = 33554432;",
    )?;
    Ok(connection)
}

fn check_content(connection: &Connection, check: Check) -> Result<(), Trouble> {
    let number = |pragma: &str| -> Result<i64, Trouble> {
        Ok(connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0))?)
    };
    if number("application_id")? != APPLICATION_ID {
        return Err(Trouble::Damage("its file is no history of portcullis".to_owned()));
    }
    let layout = number("user_version")?;
    if layout != LAYOUT {
        return Err(Trouble::Damage(format!(
            "its layout has the number {layout}, and this program knows {LAYOUT}"
        )));
    }
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" || connection.is_readonly("main")? {
        return Err(Trouble::Damage(format!("the header of its file says how to write it: {mode}")));
    }
    let mut statement =
        connection.prepare("SELECT name, sql FROM sqlite_schema WHERE sql NOT NULL ORDER BY name")?;
    let mut tables = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        tables.push((row.get::<_, String>(0)?, row.get::<_, String>(1)?));
    }
    if !tables.iter().map(|(name, sql)| (&**name, &**sql)).eq(TABLES) {
        return Err(Trouble::Damage("it has other tables than were made".to_owned()));
    }
    if check == Check::Whole {
        let found: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if found != "ok" {
            return Err(Trouble::Damage(found.replace('\n', ": ")));
        }
        verify_rows(connection)?;
    }
    Ok(())
}

/// Makes the file under another name, and gives it its own when it is whole. A full disk or a kill may leave
/// half of it, which would be taken for a damaged one.
fn make(path: &Path) -> Result<(), Trouble> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let earlier = folder.join(EARLIER_FILE);
    if fs::symlink_metadata(&earlier).is_ok_and(|file| file.is_file()) {
        let kept = earlier.with_added_extension("old");
        fs::rename(&earlier, &kept)?;
        warn!(
            "a new history begins: {} is of an earlier version, which this one can't read. It is kept as {}",
            earlier.display(),
            kept.display()
        );
    }
    for suffix in COMPANIONS {
        remove_any(&companion(path, suffix));
    }
    let fresh = path.with_added_extension("new");
    let clear = || {
        remove_any(&fresh);
        COMPANIONS.iter().for_each(|suffix| remove_any(&companion(&fresh, suffix)));
    };
    clear();
    // Only root may read who tried what. The files beside it get its mode.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let made = fill(&fresh).and_then(|()| match fs::hard_link(&fresh, path) {
        // another process was first
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other?),
    });
    clear();
    made?;
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    Ok(())
}

fn fill(fresh: &Path) -> Result<(), Trouble> {
    let connection = connect(fresh)?;
    // To its end: an error of the disk comes after the row that names the mode.
    connection.execute_batch("PRAGMA journal_mode = WAL")?;
    let mode: String = connection.query_row("PRAGMA journal_mode", [], |row| row.get(0))?;
    if mode != "wal" {
        return Err(Trouble::Refusal("its disk does not take a new file".to_owned()));
    }
    let tables = TABLES.map(|(_, sql)| sql).join(";\n");
    connection.execute_batch(&format!(
        "BEGIN; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; {tables}; COMMIT;"
    ))?;
    connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    connection.close().map_err(|(_, error)| error)?;
    // What a failed write has left in the log is lost under the other name.
    let rest = fs::symlink_metadata(companion(fresh, "-wal")).map_or(0, |log| log.len());
    if rest > 0 || !says_wal(fresh)? {
        return Err(Trouble::Refusal("its disk does not take a new file".to_owned()));
    }
    Ok(())
}

/// Whether the header of the file says that there is a log beside it (SQLite's file format, 1.3.3). Nobody may have
/// the file open: to close it here would give up the locks of this process.
fn says_wal(path: &Path) -> io::Result<bool> {
    let mut header = [0; 20];
    File::open(path)?.read_exact(&mut header)?;
    Ok(header[18..] == [2, 2])
}
