//! Files that sinks append to. They rotate by size, and are opened anew when log rotation asks.

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use log::{debug, warn};
use nix::fcntl::OFlag;

/// Owner and group: a log of attacks names addresses.
const MODE: u32 = 0o640;

/// When a file is put aside, and how many of those stay: `FILE.1` is the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// Beyond this many bytes; 0: never, that is somebody else's task.
    pub size: u64,
    /// So many old files.
    pub keep: u32,
}

/// A file that whole records are appended to.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// What has to stand before the records, each time the file was opened.
    preamble: Vec<u8>,
    /// Opened by the first record, so that a missing folder is a failure that is retried.
    file: Option<File>,
    /// To be opened anew before the next record: asked for, or the last write failed.
    stale: bool,
    /// The preamble is not there yet.
    bare: bool,
    /// Half a record that could not be taken back: what the length was before, and its own.
    torn: Option<(u64, u64)>,
    rotation_fails: bool,
    /// Its folder is made with it.
    makes_folder: bool,
}

impl LogFile {
    /// The file is made when the first record comes.
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> LogFile {
        LogFile {
            path: path.into(),
            rotation,
            preamble: Vec::new(),
            file: None,
            stale: false,
            bare: false,
            torn: None,
            rotation_fails: false,
            makes_folder: false,
        }
    }

    /// A file whose records can't be read without what stands before them.
    pub fn with_preamble(self, preamble: Vec<u8>) -> LogFile {
        LogFile { preamble, ..self }
    }

    /// The file of a first run lies in a folder that nobody has made yet.
    pub fn with_folder(self) -> LogFile {
        LogFile { makes_folder: true, ..self }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens it anew. If that fails, the old file goes on, and each record tries again.
    pub fn reopen(&mut self) -> anyhow::Result<()> {
        self.stale = true;
        self.open_anew()
    }

    /// Appends a line.
    pub fn append_line(&mut self, line: &str) -> anyhow::Result<()> {
        let mut bytes = Vec::with_capacity(line.len() + 1);
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');
        self.append(&bytes)
    }

    /// Appends a record: all of it or, as far as that can be had, nothing.
    pub fn append(&mut self, record: &[u8]) -> anyhow::Result<()> {
        if self.file.is_none() {
            self.open_anew()?;
        } else if self.stale
            && let Err(error) = self.open_anew()
        {
            // The old file is better than no file.
            debug!("{error:#}");
        }
        let mut bytes = self.mend()?;
        let length = self.make_room(record.len() as u64);
        if self.bare {
            bytes.extend_from_slice(&self.preamble);
        }
        bytes.extend_from_slice(record);
        let Some(file) = &mut self.file else {
            anyhow::bail!("{} is not open", self.path.display());
        };
        let (written, result) = write_until_error(file, &bytes);
        match result {
            Ok(()) => self.bare = false,
            Err(_) if written == 0 => {}
            // Half a record would spoil the next one as well, and comes again as a whole.
            Err(_) => {
                let written = written as u64;
                self.torn = take_back(file, length, written).err().map(|_| (length, written));
            }
        }
        self.stale |= result.is_err();
        result.with_context(|| format!("cannot write to {}", self.path.display()))
    }

    fn open_anew(&mut self) -> anyhow::Result<()> {
        if self.makes_folder
            && let Some(folder) = self.path.parent()
        {
            // what is wrong with it, opening the file tells
            let _ = fs::create_dir_all(folder);
        }
        let file = open(&self.path)?;
        // Half a record stays where it is, unless this is another file.
        if file.metadata().is_ok_and(|metadata| metadata.len() == 0) {
            self.torn = None;
        }
        self.file = Some(file);
        self.stale = false;
        self.bare = !self.preamble.is_empty();
        Ok(())
    }

    /// What has to be written first because the last record is torn: lines can be ended, other
    /// records must be taken back.
    fn mend(&mut self) -> anyhow::Result<Vec<u8>> {
        let (Some((before, written)), Some(file)) = (self.torn, &self.file) else {
            return Ok(Vec::new());
        };
        let is_back = take_back(file, before, written).is_ok();
        anyhow::ensure!(
            is_back || self.preamble.is_empty(),
            "{} ends in half a record that can not be taken back: move the file away",
            self.path.display()
        );
        self.torn = None;
        Ok(if is_back { Vec::new() } else { b"\n".to_vec() })
    }

    /// Rotates if the record would make the file too long. Returns how long it is.
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
        // Somebody else may have moved it away already.
        let is_ours = fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino()));
        let rotated = if is_ours { self.put_aside() } else { Ok(()) };
        let rotated = rotated.map_err(anyhow::Error::from).and_then(|()| self.open_anew());
        if let Err(error) = &rotated
            && !self.rotation_fails
        {
            // A log that grows is better than none.
            warn!("cannot rotate {}: {error:#}; it grows on", self.path.display());
        }
        self.rotation_fails = rotated.is_err();
        let metadata = self.file.as_ref().and_then(|file| file.metadata().ok());
        metadata.map_or(0, |metadata| metadata.len())
    }

    fn put_aside(&self) -> io::Result<()> {
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

fn open(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(MODE)
        // A FIFO whose reader is away must not hold up the daemon; files don't care.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)
        .with_context(|| {
            format!(
                "cannot open {} for writing: does its folder exist, and may this user write there?",
                path.display()
            )
        })
}

/// Writes all of it, or as much as goes, and says how much that was.
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
fn take_back(file: &File, before: u64, written: u64) -> io::Result<()> {
    if file.metadata()?.len() != before + written {
        return Err(ErrorKind::Other.into());
    }
    file.set_len(before)
}
