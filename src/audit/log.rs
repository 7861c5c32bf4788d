//! The file of audit events: `audit.jsonl` in the gate's state folder, a line an event, with one older file beside
//! it, `audit.jsonl.1`. Nothing but the end of the file is ever written. `audit.reported` has the number of the last
//! event that a daemon has reported.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::Event;
use crate::escape::escape_json;
use crate::fault;
use crate::state_file::{replace, sync_folder};
use crate::state_folder::make_state_folder;

const FILE: &str = "audit.jsonl";
const OLDER: &str = "audit.jsonl.1";
const REPORTED: &str = "audit.reported";
const LOCK: &str = "audit.lock";
/// A file of this size becomes the older one: some 5,000 events.
const MOST_BYTES: u64 = 4 << 20;
/// More than the longest lines take: the number of the last event is searched in so much of the end.
const TAIL: u64 = 64 << 10;

/// The audit events of one gate.
#[derive(Clone, Debug)]
pub struct Log {
    folder: PathBuf,
    most_bytes: u64,
}

/// What was read of the files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// By number.
    pub events: Vec<Event>,
    /// Lines that are no events.
    pub damaged: usize,
    /// Events that are missing between the first and the last.
    pub missing: u64,
}

/// One look at the file. It is another one after each event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Look {
    inode: u64,
    length: u64,
}

impl Log {
    /// In the state folder of a gate.
    pub fn new(folder: &Path) -> Log {
        Log { folder: folder.to_owned(), most_bytes: MOST_BYTES }
    }

    #[cfg(test)]
    pub(super) fn with_limit(folder: &Path, most_bytes: u64) -> Log {
        Log { most_bytes, ..Log::new(folder) }
    }

    /// Where the events are.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// Adds an event, and returns its number. It is on the disk then.
    ///
    /// # Errors
    /// When it could not be written as a whole. Nothing of it is in the file then.
    pub fn append(&self, mut event: Event) -> io::Result<u64> {
        fault::point();
        make_state_folder(&self.folder)?;
        let _lock = self.lock()?;
        let length = fs::metadata(self.path()).map_or(0, |file| file.len());
        event.seq = self.find_last()?.max(self.read_reported()) + 1;
        let mut line = escape_json(serde_json::to_string(&event)?);
        line.push('\n');
        if length > 0 && length + line.len() as u64 > self.most_bytes {
            fault::point();
            fs::rename(self.path(), self.folder.join(OLDER))?;
            sync_folder(&self.path())?;
        }
        self.write(&line)?;
        Ok(event.seq)
    }

    fn write(&self, line: &str) -> io::Result<()> {
        fault::point();
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.path())?;
        let length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.read_exact_at(&mut last, length - 1)?;
        }
        // the line before was cut short, by a power cut or somebody else
        let bytes = if last == [b'\n'] { line.to_owned() } else { format!("\n{line}") };
        fault::point();
        let written = file.write_all(bytes.as_bytes()).and_then(|()| {
            fault::point();
            file.sync_data()
        });
        if let Err(error) = written {
            // half a line would be a damage
            let _ = file.set_len(length);
            return Err(error);
        }
        if length == 0 { sync_folder(&self.path()) } else { Ok(()) }
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        let path = self.folder.join(LOCK);
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// The number of the last event in the files. 0: there is none.
    fn find_last(&self) -> io::Result<u64> {
        for file in [FILE, OLDER] {
            let last = read_tail(&self.folder.join(file))?;
            let (events, _) = parse(&last);
            if let Some(last) = events.iter().map(|event| event.seq).max() {
                return Ok(last);
            }
        }
        Ok(0)
    }

    /// Every event that is kept. A folder that is not there has none.
    ///
    /// # Errors
    /// When a file is there and can't be read.
    pub fn read(&self) -> io::Result<Reading> {
        let mut reading = Reading::default();
        // The older one last: if the file becomes the older one meanwhile, it is read twice, not never.
        for file in [FILE, OLDER] {
            let Some(bytes) = read_whole(&self.folder.join(file))? else { continue };
            let (events, damaged) = parse(&bytes);
            reading.events.extend(events);
            reading.damaged += damaged;
        }
        reading.events.sort_by_key(|event| event.seq);
        reading.events.dedup_by_key(|event| event.seq);
        if let (Some(first), Some(last)) = (reading.events.first(), reading.events.last()) {
            reading.missing = (last.seq - first.seq + 1).saturating_sub(reading.events.len() as u64);
        }
        Ok(reading)
    }

    /// What the file is now.
    pub fn look(&self) -> Look {
        let file = fs::metadata(self.path());
        file.map_or(Look::default(), |file| Look { inode: file.ino(), length: file.len() })
    }

    /// The number of the last event that a daemon has reported. 0: none, or it is not known.
    pub fn read_reported(&self) -> u64 {
        let text = fs::read_to_string(self.folder.join(REPORTED)).unwrap_or_default();
        text.trim().parse().unwrap_or(0)
    }

    /// Notes that every event up to this number was reported.
    ///
    /// # Errors
    /// When it can't be written. The next daemon tells them again then.
    pub fn note_reported(&self, seq: u64) -> io::Result<()> {
        replace(&self.folder.join(REPORTED), &[format!("{seq}\n").as_bytes()])
    }
}

fn read_whole(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(file) if !file.is_file() => return Err(io::Error::other("it is no regular file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    // a file that grew by other hands must not take all memory
    File::open(path)?.take(4 * MOST_BYTES).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

fn read_tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
    let mut bytes = Vec::new();
    file.take(TAIL).read_to_end(&mut bytes)?;
    // Nobody is writing. A last line whose end alone was cut off counts once the next line stands below it.
    bytes.push(b'\n');
    Ok(bytes)
}

/// The events of whole lines, and how many lines are none. The last line may be being written.
fn parse(bytes: &[u8]) -> (Vec<Event>, usize) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let lines =
        bytes.get(..end).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let (mut events, mut damaged) = (Vec::new(), 0);
    for line in lines {
        match serde_json::from_slice::<Event>(line) {
            Ok(event) => events.push(event),
            Err(_) => damaged += 1,
        }
    }
    (events, damaged)
}
