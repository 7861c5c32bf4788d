//! The file that EVE lines are appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use log::debug;
use nix::fcntl::OFlag;

use super::{render_alarm, render_drop};
use crate::sink::{Event, Sink};

/// Owner and group: a log of attacks names addresses.
const MODE: u32 = 0o640;

/// Appends EVE JSON to a file: a line per drop (not the quiet ones) and per change of an alarm.
#[derive(Debug)]
pub struct EveFile {
    path: PathBuf,
    name: String,
    /// Opened by the first event, so that a missing folder is a failure that is retried.
    file: Option<File>,
    /// To be opened anew before the next line: asked for, or the last write failed.
    stale: bool,
    /// The last line has no end, and could not be taken back.
    torn: bool,
}

impl EveFile {
    /// The file is made when the first event comes.
    pub fn new(path: impl Into<PathBuf>) -> EveFile {
        let path = path.into();
        EveFile { name: format!("eve {}", path.display()), path, file: None, stale: false, torn: false }
    }

    fn open_anew(&mut self) -> anyhow::Result<()> {
        let file = open(&self.path)?;
        // Half a line stays where it is, unless this is another file.
        self.torn &= file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        self.file = Some(file);
        self.stale = false;
        Ok(())
    }

    fn append(&mut self, line: &str) -> anyhow::Result<()> {
        if self.stale
            && let Err(error) = self.open_anew()
        {
            // The old file is better than no file.
            debug!("{error:#}");
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(open(&self.path)?),
        };
        let mut bytes = Vec::with_capacity(line.len() + 2);
        if self.torn {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(line.as_bytes());
        bytes.push(b'\n');

        let before = file.metadata().map_or(0, |metadata| metadata.len());
        let (written, result) = write_until_error(file, &bytes);
        match result {
            Ok(()) => self.torn = false,
            Err(_) if written == 0 => {}
            // Half a line would spoil the next one as well, and comes again as a whole.
            Err(_) => self.torn = take_back(file, before, written as u64).is_err(),
        }
        self.stale |= result.is_err();
        result.with_context(|| format!("cannot write to {}", self.path.display()))
    }
}

impl Sink for EveFile {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let line = match event {
            Event::Drop(drop) if drop.quiet => return Ok(()),
            Event::Drop(drop) => render_drop(drop)?,
            Event::Alarm(change) => render_alarm(change)?,
        };
        self.append(&line)
    }

    /// If that fails, the old file goes on, and each line tries again.
    fn reopen(&mut self) -> anyhow::Result<()> {
        self.stale = true;
        self.open_anew()
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::drops::example::syn;

    /// A folder of one test, removed with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Folder {
            let name = format!("portcullis-eve-{test}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Folder(path)
        }
    }

    impl std::ops::Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn event() -> Event {
        Event::Drop(syn())
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn lines_are_appended_and_what_was_there_stays() {
        let folder = Folder::new("append");
        let path = folder.0.join("eve.json");
        EveFile::new(&path).write(&event()).unwrap();
        EveFile::new(&path).write(&event()).unwrap();
        assert_eq!(lines(&path).len(), 2);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o007, 0);
    }

    #[test]
    fn quiet_drops_are_not_written() {
        let folder = Folder::new("quiet");
        let path = folder.0.join("eve.json");
        let mut quiet = syn();
        quiet.quiet = true;
        EveFile::new(&path).write(&Event::Drop(quiet)).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn after_a_rotation_reopen_goes_on_in_the_new_file() {
        let folder = Folder::new("rotate");
        let path = folder.0.join("eve.json");
        let old = folder.0.join("eve.json.1");
        let mut eve = EveFile::new(&path);
        eve.write(&event()).unwrap();
        fs::rename(&path, &old).unwrap();
        eve.write(&event()).unwrap();
        eve.reopen().unwrap();
        eve.write(&event()).unwrap();
        assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
    }

    #[test]
    fn a_reopen_that_fails_leaves_the_old_file_in_use() {
        let folder = Folder::new("keep");
        let place = folder.0.join("log");
        fs::create_dir(&place).unwrap();
        let mut eve = EveFile::new(place.join("eve.json"));
        eve.write(&event()).unwrap();
        let moved = folder.0.join("moved");
        fs::rename(&place, &moved).unwrap();
        assert!(eve.reopen().is_err());
        eve.write(&event()).unwrap();
        assert_eq!(lines(&moved.join("eve.json")).len(), 2);
        // and as soon as the folder is there, the new file is used
        fs::create_dir(&place).unwrap();
        eve.write(&event()).unwrap();
        assert_eq!(lines(&place.join("eve.json")).len(), 1);
    }

    #[test]
    fn a_missing_folder_is_an_error_that_says_so_and_may_be_mended() {
        let folder = Folder::new("missing");
        let place = folder.0.join("later");
        let mut eve = EveFile::new(place.join("eve.json"));
        let error = format!("{:#}", eve.write(&event()).unwrap_err());
        assert!(error.contains("does its folder exist"), "{error}");
        fs::create_dir(&place).unwrap();
        eve.write(&event()).unwrap();
        assert_eq!(lines(&place.join("eve.json")).len(), 1);
    }

    #[test]
    fn a_full_disk_is_an_error_and_no_panic() {
        let mut eve = EveFile::new("/dev/full");
        let error = format!("{:#}", eve.write(&event()).unwrap_err());
        assert!(error.contains("No space left"), "{error}");
    }

    #[test]
    fn a_fifo_without_a_reader_does_not_hold_up_the_daemon() {
        let folder = Folder::new("fifo");
        let path = folder.0.join("eve.fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut eve = EveFile::new(&path);
        assert!(eve.write(&event()).is_err());
    }

    #[test]
    fn half_a_line_is_taken_back() {
        let folder = Folder::new("half");
        let path = folder.0.join("eve.json");
        fs::write(&path, "{}\n{\"half").unwrap();
        let file = open(&path).unwrap();
        take_back(&file, 3, 6).unwrap();
        assert_eq!(lines(&path).len(), 1);
        assert!(take_back(&file, 3, 6).is_err(), "what is not ours stays");
    }

    #[test]
    fn a_line_after_half_a_line_begins_on_its_own() {
        let folder = Folder::new("torn");
        let path = folder.0.join("eve.json");
        fs::write(&path, "{\"half").unwrap();
        let mut eve = EveFile::new(&path);
        eve.torn = true;
        eve.write(&event()).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let last = text.lines().nth(1).unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(last).is_ok());
        assert!(!eve.torn);
    }
}
