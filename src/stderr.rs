//! Standard error. A daemon must not wait for its reader: after [`spawn_writer`] messages wait in a bounded
//! queue, and a thread writes them. Until then each message is written at once.

use std::collections::VecDeque;
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Bytes of messages that may wait. A message beyond is dropped and counted.
const MOST_WAITING_BYTES: usize = 256 << 10;
/// A pipe that is ready takes this many bytes without blocking (`PIPE_BUF`).
const MOST_AT_ONCE_BYTES: usize = 4096;
/// How long one attempt to write a waiting message lasts.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often an idle writer looks for a message that another thread has written only in part.
const REST_CHECK: Duration = Duration::from_secs(5);

static WRITER: StderrWriter = StderrWriter { queue: Mutex::new(Queue::new()), wake: Condvar::new() };
/// Held while a message is written, so that messages don't mix. It has the rest of one that was written
/// only in part.
static UNWRITTEN: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct StderrWriter {
    queue: Mutex<Queue>,
    wake: Condvar,
}

/// The messages that wait to be written.
struct Queue {
    messages: VecDeque<String>,
    bytes: usize,
    /// Messages for which there was no room.
    dropped: u64,
    /// A thread writes the messages.
    has_thread: bool,
    /// The thread is writing one.
    is_busy: bool,
}

impl Queue {
    const fn new() -> Queue {
        Queue { messages: VecDeque::new(), bytes: 0, dropped: 0, has_thread: false, is_busy: false }
    }

    fn push(&mut self, message: String) {
        if self.bytes + message.len() > MOST_WAITING_BYTES {
            self.dropped += 1;
            return;
        }
        self.bytes += message.len();
        self.messages.push_back(message);
    }

    /// The next message. The last one is followed by how many were dropped.
    fn pop(&mut self) -> Option<String> {
        let message = self.messages.pop_front()?;
        self.bytes -= message.len();
        if self.messages.is_empty() && self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            return Some(format!(
                "{message}portcullis: warning: {dropped} messages were dropped, because nobody read standard error\n"
            ));
        }
        Some(message)
    }
}

fn queue() -> MutexGuard<'static, Queue> {
    WRITER.queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `notice!`: formats a message as `format!` does, and writes it as the function [`notice()`] does.
macro_rules! notice_formatted {
    ($($text:tt)*) => { $crate::stderr::notice(format_args!($($text)*)) };
}
pub(crate) use notice_formatted as notice;

/// Writes a message as a line. It is no failure when nobody reads it.
pub fn notice(message: impl Display) {
    enqueue(format!("{message}\n"));
}

fn enqueue(message: String) {
    let mut queue = queue();
    if queue.has_thread {
        queue.push(message);
        WRITER.wake.notify_all();
        return;
    }
    drop(queue);
    let _ = write_out(message.as_bytes(), None);
}

/// Starts the thread that writes messages from now on. Nobody waits for it.
pub fn spawn_writer() {
    let mut queue = queue();
    if !queue.has_thread {
        let started = std::thread::Builder::new().name("stderr".to_owned()).spawn(write_messages);
        queue.has_thread = started.is_ok();
    }
}

/// The thread.
fn write_messages() {
    let mut queue = queue();
    loop {
        let Some(message) = queue.pop() else {
            drop(queue);
            let _ = write_out(b"", Some(PATIENCE));
            queue = self::queue();
            if queue.messages.is_empty() {
                queue = WRITER.wake.wait_timeout(queue, REST_CHECK).unwrap_or_else(PoisonError::into_inner).0;
            }
            continue;
        };
        queue.is_busy = true;
        drop(queue);
        while write_out(message.as_bytes(), Some(PATIENCE)) == Err(ErrorKind::TimedOut) {}
        queue = self::queue();
        queue.is_busy = false;
        WRITER.wake.notify_all();
    }
}

/// Waits until every message is written, but no longer than `patience`.
pub fn finish(patience: Duration) {
    let deadline = Instant::now() + patience;
    let mut queue = queue();
    while queue.has_thread && (queue.is_busy || !queue.messages.is_empty()) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        queue = WRITER.wake.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// Writes a text to standard error, all of it or nothing, and waits for room no longer than `patience`;
/// `None` is without end. When the time is over in the middle of a text, the rest of it is written before
/// anything else. A closed standard error takes everything.
///
/// # Errors
/// `TimedOut` when nobody reads it, and those of the kernel.
pub fn write_out(text: &[u8], patience: Option<Duration>) -> Result<(), ErrorKind> {
    let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    write_whole(io::stderr().as_fd(), &mut unwritten, text, patience)
}

fn write_whole(
    file: BorrowedFd<'_>,
    unwritten: &mut Vec<u8>,
    text: &[u8],
    patience: Option<Duration>,
) -> Result<(), ErrorKind> {
    let deadline = patience.map(|patience| Instant::now() + patience);
    let (written, outcome) = write_until(file, unwritten, deadline);
    unwritten.drain(..written);
    if outcome == Err(ErrorKind::TimedOut) {
        return outcome;
    }
    // The rest of a line that can't be written must not cost the next line.
    unwritten.clear();
    match write_until(file, text, deadline) {
        (written, Err(ErrorKind::TimedOut)) if written > 0 => {
            unwritten.extend_from_slice(&text[written..]);
            Ok(())
        }
        (_, outcome) => outcome,
    }
}

/// How many bytes were written, and why no more.
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
        let piece = &bytes[written..bytes.len().min(written + MOST_AT_ONCE_BYTES)];
        match nix::unistd::write(file, piece) {
            Ok(count) => written += count,
            // Another writer took the room first.
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(Errno::EBADF) => return (bytes.len(), Ok(())),
            Err(error) => return (written, Err(io::Error::from(error).kind())),
        }
    }
    (written, Ok(()))
}

/// The output of the log. Each record becomes one message.
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
    fn messages_beyond_the_room_are_dropped_and_counted() {
        let mut queue = Queue::new();
        for _ in 0..10 {
            queue.push("x".repeat(MOST_WAITING_BYTES / 4));
        }
        let mut written = Vec::new();
        while let Some(message) = queue.pop() {
            written.push(message);
        }
        assert_eq!(written.len(), 4);
        assert!(written[3].ends_with("6 messages were dropped, because nobody read standard error\n"));
        assert_eq!((queue.bytes, queue.dropped), (0, 0));
        queue.push("again".to_owned());
        assert_eq!(queue.pop().as_deref(), Some("again"));
    }

    #[test]
    fn a_text_that_a_full_pipe_cut_short_is_finished_before_the_next_begins() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut unwritten = Vec::new();
        let soon = Some(Duration::from_millis(20));
        let long = vec![b'a'; 1 << 20];
        write_whole(writer.as_fd(), &mut unwritten, &long, soon).unwrap();
        assert!(!unwritten.is_empty() && unwritten.len() < long.len());
        assert_eq!(write_whole(writer.as_fd(), &mut unwritten, b"b", soon), Err(ErrorKind::TimedOut));
        let thread = std::thread::spawn(move || {
            write_whole(writer.as_fd(), &mut unwritten, b"c", None).unwrap();
            assert!(unwritten.is_empty());
        });
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        thread.join().unwrap();
        assert_eq!((read.len(), read.last()), (long.len() + 1, Some(&b'c')));
    }

    #[test]
    fn a_reader_that_is_gone_differs_from_one_that_is_slow() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let outcome = write_whole(writer.as_fd(), &mut b"rest".to_vec(), b"text", None);
        assert_eq!(outcome, Err(ErrorKind::BrokenPipe));
    }
}
