//! What the program says on standard error. A daemon must not wait for whoever reads that: once
//! [`spawn_writer`] was called, what is said waits in a bounded line and a thread writes it.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What waits to be said at most, bytes. Beyond, it is left out and counted.
const MOST_WAITING: usize = 256 << 10;
/// A pipe that is ready takes as much without waiting (`PIPE_BUF`).
const PIECE: usize = 4096;
/// How long a text that waits is tried in one go.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two looks at what another writer has left half said.
const LOOK: Duration = Duration::from_secs(5);

static VOICE: StderrWriter = StderrWriter { line: Mutex::new(Line::new()), bell: Condvar::new() };
/// Whoever writes has it, so that texts don't mix: what is left of one that was broken off.
static SPEAKER: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct StderrWriter {
    line: Mutex<Line>,
    bell: Condvar,
}

struct Line {
    texts: VecDeque<String>,
    bytes: usize,
    /// Texts for which there was no room.
    lost: u64,
    /// A thread writes.
    threaded: bool,
    /// It has one in its hands.
    busy: bool,
}

impl Line {
    const fn new() -> Line {
        Line { texts: VecDeque::new(), bytes: 0, lost: 0, threaded: false, busy: false }
    }

    fn push(&mut self, text: String) {
        if self.bytes + text.len() > MOST_WAITING {
            self.lost += 1;
            return;
        }
        self.bytes += text.len();
        self.texts.push_back(text);
    }

    /// The next one, and before it how many are missing.
    fn take(&mut self) -> Option<String> {
        let text = self.texts.pop_front()?;
        self.bytes -= text.len();
        if self.texts.is_empty() && self.lost > 0 {
            let lost = std::mem::take(&mut self.lost);
            return Some(format!(
                "{text}portcullis: warning: {lost} messages were left out, for nobody read standard error\n"
            ));
        }
        Some(text)
    }
}

fn line() -> MutexGuard<'static, Line> {
    VOICE.line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Says a text, which becomes a line. That nobody hears it is no failure.
pub fn notice(text: impl Display) {
    enqueue(format!("{text}\n"));
}

fn enqueue(text: String) {
    let mut line = line();
    if line.threaded {
        line.push(text);
        VOICE.bell.notify_all();
        return;
    }
    drop(line);
    let _ = write_out(text.as_bytes(), None);
}

/// From now on a thread says what is to be said, and nobody waits for it.
pub fn spawn_writer() {
    let mut line = line();
    if !line.threaded {
        let started = std::thread::Builder::new().name("voice".to_owned()).spawn(speak_for_ever);
        line.threaded = started.is_ok();
    }
}

fn speak_for_ever() {
    let mut line = line();
    loop {
        let Some(text) = line.take() else {
            drop(line);
            let _ = write_out(b"", Some(PATIENCE));
            line = self::line();
            if line.texts.is_empty() {
                line = VOICE.bell.wait_timeout(line, LOOK).unwrap_or_else(PoisonError::into_inner).0;
            }
            continue;
        };
        line.busy = true;
        drop(line);
        while write_out(text.as_bytes(), Some(PATIENCE)) == Err(ErrorKind::TimedOut) {}
        line = self::line();
        line.busy = false;
        VOICE.bell.notify_all();
    }
}

/// Waits until all has been said, but no longer than `patience`.
pub fn finish(patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut line = line();
    while line.threaded && (line.busy || !line.texts.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        line = VOICE.bell.wait_timeout(line, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Writes a text to standard error, all of it or nothing, and waits for room no longer than
/// `patience`; `None` is for ever. What it has begun then is ended before anything else is
/// written. A standard error that is closed takes everything.
///
/// # Errors
/// `TimedOut` when nobody reads it, and others.
pub fn write_out(text: &[u8], patience: Option<Duration>) -> Result<(), ErrorKind> {
    let mut left = SPEAKER.lock().unwrap_or_else(PoisonError::into_inner);
    write_whole(io::stderr().as_fd(), &mut left, text, patience)
}

fn write_whole(
    file: BorrowedFd<'_>,
    left: &mut Vec<u8>,
    text: &[u8],
    patience: Option<Duration>,
) -> Result<(), ErrorKind> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let (written, outcome) = write_until(file, left, deadline);
    left.drain(..written);
    if outcome == Err(ErrorKind::TimedOut) {
        return outcome;
    }
    // half a line that nobody can take is not worth the next one
    left.clear();
    match write_until(file, text, deadline) {
        (written, Err(ErrorKind::TimedOut)) if written > 0 => {
            left.extend_from_slice(&text[written..]);
            Ok(())
        }
        (_, outcome) => outcome,
    }
}

/// How much was written, and why no more.
fn write_until(
    file: BorrowedFd<'_>,
    bytes: &[u8],
    deadline: Option<Instant>,
) -> (usize, Result<(), ErrorKind>) {
    let mut written = 0;
    while written < bytes.len() {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut polled = [PollFd::new(file, PollFlags::POLLOUT)];
        match poll(&mut polled, timeout) {
            Ok(0) => return (written, Err(ErrorKind::TimedOut)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return (written, Err(io::Error::from(error).kind())),
        }
        let piece = &bytes[written..bytes.len().min(written + PIECE)];
        match nix::unistd::write(file, piece) {
            Ok(count) => written += count,
            // somebody else was faster
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::EBADF) => return (bytes.len(), Ok(())),
            Err(error) => return (written, Err(io::Error::from(error).kind())),
        }
    }
    (written, Ok(()))
}

/// Where the log goes: each record is said as a whole.
#[derive(Debug, Default)]
pub struct Log {
    record: Vec<u8>,
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.record.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.record.is_empty() {
            enqueue(String::from_utf8_lossy(&std::mem::take(&mut self.record)).into_owned());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_counted() {
        let mut line = Line::new();
        for _ in 0..10 {
            line.push("x".repeat(MOST_WAITING / 4));
        }
        let mut said = Vec::new();
        while let Some(text) = line.take() {
            said.push(text);
        }
        assert_eq!(said.len(), 4);
        assert!(said[3].ends_with("6 messages were left out, for nobody read standard error\n"));
        assert_eq!((line.bytes, line.lost), (0, 0));
        line.push("again".to_owned());
        assert_eq!(line.take().as_deref(), Some("again"));
    }

    #[test]
    fn a_text_that_a_full_pipe_broke_off_is_ended_before_another_begins() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut left = Vec::new();
        let soon = Some(Duration::from_millis(20));
        let long = vec![b'a'; 1 << 20];
        write_whole(writer.as_fd(), &mut left, &long, soon).unwrap();
        assert!(!left.is_empty() && left.len() < long.len());
        assert_eq!(write_whole(writer.as_fd(), &mut left, b"b", soon), Err(ErrorKind::TimedOut));
        let thread = std::thread::spawn(move || {
            write_whole(writer.as_fd(), &mut left, b"c", None).unwrap();
            assert!(left.is_empty());
        });
        let mut heard = Vec::new();
        reader.read_to_end(&mut heard).unwrap();
        thread.join().unwrap();
        assert_eq!((heard.len(), heard.last()), (long.len() + 1, Some(&b'c')));
    }

    #[test]
    fn a_reader_that_is_gone_is_told_from_one_that_is_slow() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outcome = write_whole(writer.as_fd(), &mut b"rest".to_vec(), b"text", None);
        assert_eq!(outcome, Err(ErrorKind::BrokenPipe));
    }
}
