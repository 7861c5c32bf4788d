//! Several captures in the order of their times: files that were rotated, and files of several interfaces.

use std::path::PathBuf;

use super::link::Frame;
use super::reader::{CaptureReader, Damage};
use super::record::Timestamp;

/// Captures that are read together. Within a file the order is the file's own.
pub struct Merge {
    files: Vec<OpenFile>,
    damages: Vec<Damage>,
    /// The file whose frame was given out last.
    current: Option<usize>,
    is_started: bool,
}

struct OpenFile {
    reader: CaptureReader,
    frame: Frame,
    /// The latest time of the file. An earlier one waits for nothing.
    latest_ns: Timestamp,
    is_over: bool,
}

impl Merge {
    /// Opens all files.
    ///
    /// # Errors
    /// When one can't be opened.
    pub fn open(paths: &[PathBuf]) -> anyhow::Result<Merge> {
        let readers = paths.iter().map(|path| CaptureReader::open(path));
        Ok(Merge::new(readers.collect::<anyhow::Result<_>>()?))
    }

    /// Of captures that are open.
    pub fn new(readers: Vec<CaptureReader>) -> Merge {
        let open = |reader| OpenFile { reader, frame: Frame::default(), latest_ns: 0, is_over: false };
        Merge {
            files: readers.into_iter().map(open).collect(),
            damages: Vec::new(),
            current: None,
            is_started: false,
        }
    }

    /// The next frame. `None`: all captures are over. The frame may be changed.
    pub fn read(&mut self) -> Option<&mut Frame> {
        if !self.is_started {
            self.is_started = true;
            (0..self.files.len()).for_each(|number| self.advance(number));
        } else if let Some(number) = self.current {
            self.advance(number);
        }
        let open = self.files.iter().enumerate().filter(|(_, file)| !file.is_over);
        self.current = open.min_by_key(|(_, file)| file.latest_ns).map(|(number, _)| number);
        self.files.get_mut(self.current?).map(|file| &mut file.frame)
    }

    fn advance(&mut self, number: usize) {
        let has_others = self.files.len() > 1;
        let Some(file) = self.files.get_mut(number) else { return };
        match file.reader.read() {
            Ok(Some(packet)) => {
                let name = u32::try_from(number).unwrap_or(u32::MAX);
                file.frame.take(&packet, name, file.latest_ns);
                file.frame.has_siblings |= has_others;
                file.latest_ns = file.latest_ns.max(file.frame.time_ns);
            }
            Ok(None) => file.is_over = true,
            Err(damage) => {
                file.is_over = true;
                self.damages.push(damage);
            }
        }
    }

    /// Where captures were found damaged so far. What comes before was read.
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// How many captures there are.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }
}
