//! The daemon's socket. Whoever connects sends one line, a [`Request`] as JSON, and gets JSON
//! lines back. Each client has a thread and a bounded queue: one that does not read is left.

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use jiff::Timestamp;
use log::debug;

use super::client::{self, Request};
use crate::alarm::{Alarm, Change, Engine, Step};
use crate::clock::Clock;
use crate::daemon::metrics::snapshot::{Snapshot, count};
use crate::gate::return_memory;
use crate::history::{AlarmEntry, AlarmFilter, AlarmState, Store, StoreError};
use crate::sink::render_line;

/// Clients at a time; a further one waits to be accepted.
const MOST_CLIENTS: usize = 16;
/// A client that does not write or read is left.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// A whole answer must be taken within this, but for those who follow.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// A request is one line of at most this.
const MOST_REQUEST_BYTES: u64 = 64 << 10;
/// Changes that wait for a client that follows; beyond, it does not read, and is left.
const MOST_WAITING: usize = 1024;
/// How often a client that follows is looked at when nothing happens.
const LOOK: Duration = Duration::from_millis(500);

pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    clients: Arc<AtomicUsize>,
    followers: Followers,
    board: Arc<Snapshot>,
}

/// Clients that follow; each has a queue.
type Followers = Arc<Mutex<Vec<SyncSender<Arc<str>>>>>;

impl Socket {
    /// The daemon's lock is held, so what lies at `path` is a dead daemon's.
    pub fn listen(path: &Path, board: Arc<Snapshot>) -> anyhow::Result<Socket> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("could not listen at {}", path.display()))?;
        // alarms tell attackers what is seen: root's business
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("could not protect {}", path.display()))?;
        let followers = Followers::default();
        Ok(Socket { listener, path: path.to_owned(), clients: Arc::default(), followers, board })
    }

    /// Answers whoever is waiting; each in a thread, so that nobody holds up the daemon.
    pub fn answer(&self, engine: &Engine, store: &Arc<Store>) {
        while self.clients.load(Ordering::SeqCst) < MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let client = Client {
                open: engine.open_alarms().into_iter().cloned().collect(),
                store: Arc::clone(store),
                followers: Arc::clone(&self.followers),
            };
            let (clients, board) = (Arc::clone(&self.clients), Arc::clone(&self.board));
            clients.fetch_add(1, Ordering::SeqCst);
            let leaving = Arc::clone(&clients);
            let started = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
                if let Err(error) = client.serve(stream) {
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                        count(&board.clients_left);
                    }
                    debug!("a client left early: {error}");
                }
                return_memory();
                leaving.fetch_sub(1, Ordering::SeqCst);
            });
            if let Err(error) = started {
                debug!("no thread for a client: {error}");
                clients.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }

    /// Tells those who follow of a change.
    pub fn tell(&self, change: &Change) {
        let mut followers = self.followers.lock().unwrap_or_else(PoisonError::into_inner);
        if followers.is_empty() {
            return;
        }
        let state = match change.step {
            Step::Closed { .. } => AlarmState::Closed,
            _ => AlarmState::Open,
        };
        let Some(text) = render(&change.alarm, change.step, state, change.time) else {
            return;
        };
        let text: Arc<str> = text.into();
        followers.retain(|follower| match follower.try_send(Arc::clone(&text)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                count(&self.board.clients_left);
                false
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// What one client may ask for.
struct Client {
    open: Vec<Alarm>,
    store: Arc<Store>,
    followers: Followers,
}

impl Client {
    fn serve(self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
        stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
        let mut line = String::new();
        BufReader::new((&stream).take(MOST_REQUEST_BYTES)).read_line(&mut line)?;
        let request = match serde_json::from_str::<Request>(&line) {
            Ok(request) => request,
            Err(error) => return send_error(&mut stream, &format!("no such request: {error}")),
        };
        let mut writer =
            BufWriter::new(Deadline { stream: &stream, until: Instant::now() + ANSWER_PATIENCE });
        let outcome = match request {
            Request::Open => self.send_open(&mut writer),
            Request::Alarms(filter) => {
                let open = self.open_entries();
                let sent = client::each_alarm(&self.store, open, &filter, |entry| {
                    send_line(&mut writer, &entry.to_value())
                });
                settle(&mut writer, sent)
            }
            Request::Report { from, to } => {
                let open = self.open_entries();
                let sent =
                    client::each_piece(&self.store, open, (from, to), |piece| send_line(&mut writer, &piece));
                settle(&mut writer, sent)
            }
            Request::Follow(filter) => {
                drop(writer);
                return self.follow(&mut stream, &filter);
            }
        };
        match outcome.and_then(|()| writer.flush()) {
            // a reader that went away is no failure
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    fn open_entries(&self) -> Vec<AlarmEntry> {
        let now = Clock::now().wall;
        let entry = |alarm: &Alarm| {
            let record = serde_json::to_value(alarm).ok()?;
            Some(AlarmEntry { id: alarm.id, state: AlarmState::Open, changed: now, alarm: record })
        };
        self.open.iter().filter_map(entry).collect()
    }

    fn send_open(&self, stream: &mut impl Write) -> io::Result<()> {
        let now = Clock::now().wall;
        let lines = self.open.iter().filter_map(|alarm| render(alarm, Step::Updated, AlarmState::Open, now));
        for line in lines {
            stream.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// First what is open, then every change.
    fn follow(&self, stream: &mut UnixStream, filter: &AlarmFilter) -> io::Result<()> {
        let (sender, receiver) = sync_channel(MOST_WAITING);
        self.followers.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        let entries = self.open_entries();
        for entry in entries.iter().filter(|entry| filter.matches(entry)) {
            send_line(stream, &entry.to_value())?;
        }
        pass_on(stream, &receiver, filter)
    }
}

/// Passes changes on until the client goes or the daemon leaves it.
fn pass_on(stream: &mut UnixStream, receiver: &Receiver<Arc<str>>, filter: &AlarmFilter) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        match receiver.recv_timeout(LOOK) {
            Ok(line) if passes(&line, filter) => stream.write_all(line.as_bytes())?,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                // nobody writes after the request: an end of the stream is the client's end
                if matches!((&*stream).read(&mut [0; 64]), Ok(0)) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn passes(line: &str, filter: &AlarmFilter) -> bool {
    // one that is over is told as well: whoever follows has seen it open
    let filter = AlarmFilter { open: false, ..filter.clone() };
    serde_json::from_str::<serde_json::Value>(line)
        .is_ok_and(|alarm| filter.matches(&AlarmEntry::from_value(alarm)))
}

fn send_line(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, value)?;
    writer.write_all(b"\n")
}

fn send_error(writer: &mut impl Write, error: &str) -> io::Result<()> {
    send_line(writer, &serde_json::json!({ "error": error }))
}

/// A history that can't be read is said; a client that can't be written to is left.
fn settle(writer: &mut impl Write, sent: Result<(), StoreError>) -> io::Result<()> {
    match sent {
        Ok(()) => Ok(()),
        Err(StoreError::Passing(error)) => Err(error),
        Err(error) => send_error(writer, &error.to_string()),
    }
}

/// A stream that must have taken everything by then: who reads a byte at a time would keep the
/// database from using its pages again.
struct Deadline<'s> {
    stream: &'s UnixStream,
    until: Instant,
}

impl Write for Deadline<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if Instant::now() >= self.until {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// One line: the alarm's record, what happened, and how it reads.
fn render(alarm: &Alarm, step: Step, state: AlarmState, time: Timestamp) -> Option<String> {
    let record = serde_json::to_value(alarm).ok()?;
    let mut value = AlarmEntry { id: alarm.id, state, changed: time, alarm: record }.to_value();
    value["step"] = step.name().into();
    value["line"] = render_line(&Change { time, step, alarm: alarm.clone() }, false).into();
    Some(format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::example::{after_ms, syn};

    #[test]
    fn a_client_that_never_reads_is_left_and_the_daemon_never_waits_for_it() {
        let folder = std::env::temp_dir().join(format!("portcullis-socket-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let board = Arc::new(Snapshot::default());
        let socket = Socket::listen(&folder.join("test.sock"), Arc::clone(&board)).unwrap();
        let mut client = UnixStream::connect(&socket.path).unwrap();
        client.write_all(b"{\"want\":\"follow\"}\n").unwrap();
        let mut engine = Engine::default();
        let change = engine.observe(&syn(), after_ms(0)).remove(0);
        let store = Arc::new(Store::new(&folder));
        while socket.followers.lock().unwrap().is_empty() {
            socket.answer(&engine, &store);
            std::thread::yield_now();
        }
        // far more than the kernel and the queue hold
        for _ in 0..20 * MOST_WAITING {
            socket.tell(&change);
        }
        assert!(socket.followers.lock().unwrap().is_empty());
        assert!(board.clients_left.load(Ordering::SeqCst) >= 1);
        fs::remove_dir_all(&folder).unwrap();
    }
}
