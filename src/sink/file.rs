//! Files that sinks append to. They rotate by size, and are opened anew when log rotation asks. Daemons of
//! several interfaces may share one: each record is written under a lock of the file.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::{debug, warn};
use nix::fcntl::OFlag;

use crate::policy::Alarms;

/// For owner and group only: a log of attacks names addresses.
const MODE: u32 = 0o640;

/// How long a record waits for one of another process to be written.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);

/// When a file is rotated, and how many rotated files stay. `FILE.1` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A longer file is rotated, bytes. 0: never, because another program does it.
    pub size: u64,
    /// Rotated files that stay.
    pub keep: u32,
}

impl Rotation {
    pub(super) fn from_policy(alarms: &Alarms) -> Rotation {
        Rotation { size: u64::from(alarms.rotate_mib) << 20, keep: alarms.rotate_keep }
    }
}

/// A file that whole records are appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// Bytes that stand before the records each time the file was opened.
    preamble: Vec<u8>,
    /// Opened for the first record, so that a missing folder is a failure that is retried.
    file: Option<File>,
    /// It has to be opened anew before the next record: log rotation asked for it, or the last write failed.
    stale: bool,
    /// The preamble has not been written yet.
    needs_preamble: bool,
    /// The file's length after the last record of ours. If it is another now, somebody else has written, and
    /// records need the preamble again.
    end: Option<u64>,
    /// Half a record that could not be cut off: the file's length before it, and its own.
    torn: Option<(u64, u64)>,
    rotation_fails: bool,
    /// Keeps other sinks of a policy off the file while it is open.
    claim: Option<Claim>,
    /// Whether it must not be the file of another sink.
    is_claimed: bool,
    /// Its folder is made with it.
    makes_folder: bool,
}

impl LogFile {
    /// The file is made when the first record comes.
    pub(super) fn new(path: impl Into<PathBuf>, rotation: Rotation) -> LogFile {
        LogFile {
            path: path.into(),
            rotation,
            preamble: Vec::new(),
            file: None,
            stale: false,
            needs_preamble: false,
            end: None,
            torn: None,
            rotation_fails: false,
            claim: None,
            is_claimed: false,
            makes_folder: false,
        }
    }

    /// A file that a policy names.
    pub(super) fn from_policy(path: &str, alarms: &Alarms) -> LogFile {
        // No reader could parse two formats in one file.
        LogFile { is_claimed: true, ..LogFile::new(path, Rotation::from_policy(alarms)) }
    }

    /// A file whose records can't be read without these bytes before them.
    pub(super) fn with_preamble(self, preamble: Vec<u8>) -> LogFile {
        LogFile { preamble, ..self }
    }

    /// A file whose folder is made with it, as at the first run.
    pub(super) fn with_folder(self) -> LogFile {
        LogFile { makes_folder: true, ..self }
    }

    /// Opens it anew.
    ///
    /// # Errors
    /// If the file can't be opened. The old file stays in use then, and each record tries again.
    pub(super) fn reopen(&mut self) -> anyhow::Result<()> {
        self.stale = true;
        self.open_anew()
    }

    /// Appends a line.
    ///
    /// # Errors
    /// As [`LogFile::append`].
    pub(super) fn append_line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.append(&bytes)
    }

    /// Appends a record: all of it or, as far as possible, nothing.
    ///
    /// # Errors
    /// If it can't be written, on a full disk for example.
    pub(super) fn append(&mut self, record: &[u8]) -> anyhow::Result<()> {
        if self.file.is_none() {
            self.open_anew()?;
        } else if self.stale
            && let Err(error) = self.open_anew()
        {
            // The old file is better than no file.
            debug!("{error:#}");
        }
        let _lock = self.file.as_ref().map(WriteLock::take).transpose()?;
        let mut bytes = self.repair()?;
        let length = self.make_room(record.len() as u64);
        let is_continued = self.end == Some(length);
        if self.needs_preamble || !self.preamble.is_empty() && !is_continued {
            bytes.extend_from_slice(&self.preamble);
        }
        bytes.extend_from_slice(record);
        let Some(file) = &mut self.file else {
            anyhow::bail!("{} is not open", self.path.display());
        };
        let (written, result) = write_until_error(file, &bytes);
        match result {
            Ok(()) => {
                self.needs_preamble = false;
                self.end = Some(length + written as u64);
            }
            Err(_) if written == 0 => {}
            // Half a record would spoil the next one as well. The whole record comes again.
            Err(_) => {
                let written = written as u64;
                self.torn = cut_off(file, length, written).err().map(|_| (length, written));
            }
        }
        self.stale |= result.is_err();
        result.with_context(|| format!("cannot write to {}", self.path.display()))
    }

    fn open_anew(&mut self) -> anyhow::Result<()> {
        if self.makes_folder
            && let Some(folder) = self.path.parent()
        {
            // opening the file says what is wrong
            let _ = fs::create_dir_all(folder);
        }
        let file = open(&self.path)?;
        let metadata = file.metadata()?;
        let claim = (self.is_claimed && metadata.is_file()).then(|| Claim::make(&self.path, &metadata));
        let claim = claim.transpose()?;
        // Half a record stays where it is, unless this is another file.
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            self.torn = None;
        }
        self.file = Some(file);
        self.claim = claim;
        self.stale = false;
        self.needs_preamble = !self.preamble.is_empty();
        self.end = None;
        Ok(())
    }

    /// Cuts off a torn record, or yields the bytes that have to be written before the next one. A torn line
    /// can be ended. Any other torn record must be cut off.
    fn repair(&mut self) -> anyhow::Result<Vec<u8>> {
        let (Some((before, written)), Some(file)) = (self.torn, &self.file) else {
            return Ok(Vec::new());
        };
        let is_cut = cut_off(file, before, written).is_ok();
        anyhow::ensure!(
            is_cut || self.preamble.is_empty(),
            "{} ends in half a record that can't be cut off: move the file away",
            self.path.display()
        );
        self.torn = None;
        Ok(if is_cut { Vec::new() } else { b"\n".to_vec() })
    }

    /// Rotates if the record would make the file too long. Returns the file's length, bytes.
    fn make_room(&mut self, record: u64) -> u64 {
        let Some(file) = &self.file else { return 0 };
        let Ok(metadata) = file.metadata() else { return 0 };
        let length = metadata.len();
        if self.rotation.size == 0
            || length == 0
            || length.saturating_add(record) <= self.rotation.size
            || !metadata.is_file()
        {
            return length;
        }
        // Another program may have moved it away already.
        let is_ours = fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino()));
        let rotated = if is_ours { self.move_aside() } else { Ok(()) };
        let rotated = rotated.map_err(anyhow::Error::from).and_then(|()| self.open_anew());
        if let Err(error) = &rotated
            && !self.rotation_fails
        {
            // A log that grows is better than none.
            warn!("cannot rotate {}, so it keeps growing: {error:#}", self.path.display());
        }
        self.rotation_fails = rotated.is_err();
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.len())
    }

    fn move_aside(&self) -> io::Result<()> {
        let aside = |number: u32| {
            let mut name = OsString::from(&self.path);
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.rotation.keep).rev() {
            match fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, aside(1))
    }
}

/// The lock of a file, for one record. A duplicate of the descriptor, because the file may be exchanged for
/// another while it is held.
struct WriteLock(File);

impl WriteLock {
    /// # Errors
    /// When another process keeps it.
    fn take(file: &File) -> anyhow::Result<WriteLock> {
        let lock = WriteLock(file.try_clone()?);
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match lock.0.try_lock() {
                Ok(()) => return Ok(lock),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "no lock of another process can wake a thread"
                    )]
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(TryLockError::WouldBlock) => {
                    anyhow::bail!("another process keeps the file locked")
                }
                // a FIFO, or a file system without locks
                Err(TryLockError::Error(_)) => return Ok(lock),
            }
        }
    }
}

/// A file that a sink has open, by its inode. The other's path is not looked at, for its disk may hang.
#[derive(Debug)]
struct Claim {
    inode: (u64, u64),
    path: PathBuf,
}

/// Of all sinks of this process.
static CLAIMS: Mutex<Vec<(u64, u64, PathBuf)>> = Mutex::new(Vec::new());

impl Claim {
    /// The same path again is no other sink, but the one that takes its place.
    fn make(path: &Path, metadata: &fs::Metadata) -> anyhow::Result<Claim> {
        let inode = (metadata.dev(), metadata.ino());
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((.., other)) =
            claims.iter().find(|(device, number, other)| (*device, *number) == inode && other != path)
        {
            let (path, other) = (path.display(), other.display());
            anyhow::bail!("{path} is {other} by another name: give each sink its own file");
        }
        claims.push((inode.0, inode.1, path.to_owned()));
        Ok(Claim { inode, path: path.to_owned() })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claims = CLAIMS.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |(device, number, path): &(u64, u64, PathBuf)| {
            (*device, *number) == self.inode && *path == self.path
        };
        if let Some(at) = claims.iter().position(own) {
            claims.swap_remove(at);
        }
    }
}

impl Drop for WriteLock {
    fn drop(&mut self) {
        // closing it would do so too, unless the file shares the description
        let _ = self.0.unlock();
    }
}

fn open(path: &Path) -> anyhow::Result<File> {
    check_folder(path)?;
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        // A FIFO without a reader must not hold up the daemon. Regular files ignore the flag. A link may lead to
        // the file of somebody else.
        .custom_flags((OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW).bits())
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ELOOP) => io::Error::other("it is a symbolic link: write where it leads to"),
            _ => error,
        })
        .with_context(|| {
            format!(
                "cannot open {} for writing: does its folder exist, and may this user write there?",
                path.display()
            )
        })?;
    check_file(path, &file.metadata()?)?;
    Ok(file)
}

/// Says why a file can't be a sink's, as far as it shows without opening it.
///
/// # Errors
/// If it is a link, belongs to somebody else, or others may exchange it.
pub(crate) fn check_log_file(path: &Path) -> anyhow::Result<()> {
    check_folder(path)?;
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() => {
            anyhow::bail!("{} is a symbolic link: write where it leads to", path.display())
        }
        Ok(metadata) => check_file(path, &metadata),
        Err(_) => Ok(()), // it will be made
    }
}

/// Nobody else may be able to exchange the file. A folder that is missing is left to the one who opens the file.
fn check_folder(path: &Path) -> anyhow::Result<()> {
    let Some(folder) = path.parent().and_then(|folder| folder.canonicalize().ok()) else { return Ok(()) };
    for folder in folder.ancestors() {
        let Ok(metadata) = folder.metadata() else { continue };
        let shown = folder.display();
        anyhow::ensure!(
            is_trusted(metadata.uid()),
            "{shown} belongs to another user, who could exchange the file: type chown root {shown}"
        );
        anyhow::ensure!(
            metadata.mode() & 0o1002 != 0o002,
            "everybody may write to {shown}, and could exchange the file: type chmod o-w {shown}"
        );
    }
    Ok(())
}

fn check_file(path: &Path, metadata: &fs::Metadata) -> anyhow::Result<()> {
    let (kind, shown) = (metadata.file_type(), path.display());
    anyhow::ensure!(
        kind.is_file() || kind.is_char_device() || kind.is_fifo(),
        "{shown} is no file that lines can be appended to"
    );
    anyhow::ensure!(
        is_trusted(metadata.uid()),
        "{shown} belongs to another user: move it away, or type chown root {shown}"
    );
    anyhow::ensure!(
        !kind.is_file() || metadata.nlink() <= 1,
        "{shown} has another name as well (a hard link): move it away"
    );
    Ok(())
}

/// The owner may write to it whatever the mode says.
fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == nix::unistd::geteuid().as_raw()
}

/// Writes all of it, or as much as possible, and says how much that was.
fn write_until_error(file: &mut File, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return (written, Err(error)),
        }
    }
    (written, Ok(()))
}

/// Cuts off the last `written` bytes, if they still are the last.
fn cut_off(file: &File, before: u64, written: u64) -> io::Result<()> {
    if file.metadata()?.len() != before + written {
        return Err(ErrorKind::Other.into());
    }
    file.set_len(before)
}
