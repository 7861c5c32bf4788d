//! The server: answers the clients of the daemon's socket. Each client has a thread, and a bounded
//! queue if it follows. A client that does not read is dropped.

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::debug;

use super::answers::{each_alarm, each_report_part, render_change};
use super::followers::Followers;
use super::protocol::{Failure, GREETING, Request};
use crate::alarm::{Alarm, Change, Engine, Step};
use crate::clock::Clock;
use crate::daemon::metrics::snapshot::{Snapshot, increment};
use crate::history::{AlarmEntry, AlarmFilter, AlarmState, Store, StoreError};
use crate::memory::return_memory;

/// Clients at a time. A further one waits to be accepted.
const MOST_CLIENTS: usize = 16;
/// How long one read or write may take. A client that needs longer is dropped.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take to read a whole answer, unless it follows.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// The length of a request, which is one line.
const MOST_REQUEST_BYTES: u64 = 64 << 10;
/// How often the server looks whether a client that follows is still there.
const CLIENT_CHECK: Duration = Duration::from_millis(500);

/// The daemon's socket.
pub(in crate::daemon) struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    clients: Arc<AtomicUsize>,
    followers: Followers,
    snapshot: Arc<Snapshot>,
}

impl ControlServer {
    /// Listens at `path`. The caller holds the daemon's lock, so a socket at `path` is that of a dead
    /// daemon.
    ///
    /// # Errors
    /// When there can be no socket, or its mode can't be set.
    pub(in crate::daemon) fn listen(path: &Path, snapshot: Arc<Snapshot>) -> anyhow::Result<ControlServer> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("could not listen at {}", path.display()))?;
        // Alarms tell an attacker what is seen, so only root may read them.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("could not protect {}", path.display()))?;
        let followers = Followers::new(Arc::clone(&snapshot));
        Ok(ControlServer { listener, path: path.to_owned(), clients: Arc::default(), followers, snapshot })
    }

    /// The clients that follow the alarms.
    pub(in crate::daemon) fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// Answers the clients that wait, each in a thread, so that none holds up the daemon.
    pub(in crate::daemon) fn answer_clients(&self, engine: &Engine, store: &Arc<Store>) {
        while self.clients.load(Ordering::SeqCst) < MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let client = Client {
                open: engine.open_alarms(),
                // At the same time, so that no alarm opens between the two.
                changes: self.followers.add(),
                store: Arc::clone(store),
            };
            let (clients, snapshot) = (Arc::clone(&self.clients), Arc::clone(&self.snapshot));
            clients.fetch_add(1, Ordering::SeqCst);
            let slot = Slot(Arc::clone(&clients));
            let started = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
                let _slot = slot;
                if let Err(error) = client.serve(stream) {
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) {
                        increment(&snapshot.clients_disconnected);
                    }
                    debug!("a client left early: {error}");
                }
                return_memory();
            });
            if let Err(error) = started {
                debug!("no thread for a client: {error}");
            }
        }
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The place of a client among those that are answered. It is given back however its thread ends.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One client, and what it may ask for.
struct Client {
    open: Vec<Alarm>,
    changes: Receiver<Arc<str>>,
    store: Arc<Store>,
}

impl Client {
    fn serve(self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(CLIENT_PATIENCE))?;
        stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
        stream.write_all(&GREETING)?;
        let mut line = String::new();
        BufReader::new((&stream).take(MOST_REQUEST_BYTES)).read_line(&mut line)?;
        let request = match Request::from_line(&line) {
            Ok(request) => request,
            Err(error) => return send_failure(&mut stream, error.to_string()),
        };
        let mut writer =
            BufWriter::new(Deadline { stream: &stream, until: Instant::now() + ANSWER_PATIENCE });
        let outcome = match request {
            Request::Open => self.send_open(&mut writer),
            Request::Alarms(filter) => {
                let sent = each_alarm(&self.store, self.open_entries(), &filter, |entry| {
                    send_line(&mut writer, &entry.to_value())
                });
                finish_answer(&mut writer, sent)
            }
            Request::Report { from, to } => {
                let sent = each_report_part(&self.store, self.open_entries(), (from, to), |part| {
                    send_line(&mut writer, &part)
                });
                finish_answer(&mut writer, sent)
            }
            Request::Follow(filter) => {
                drop(writer);
                return self.follow(&mut stream, &filter);
            }
        };
        match outcome.and_then(|()| writer.flush()) {
            // A reader that went away is no failure.
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
        let render = |alarm: &Alarm| {
            let (alarm, news) = (alarm.clone(), String::new());
            render_change(&Change { time: now, step: Step::Updated, news, alarm }, AlarmState::Open)
        };
        for line in self.open.iter().filter_map(render) {
            stream.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// Sends the open alarms, then every change.
    fn follow(&self, stream: &mut UnixStream, filter: &AlarmFilter) -> io::Result<()> {
        let entries = self.open_entries();
        for entry in entries.iter().filter(|entry| filter.matches(entry)) {
            send_line(stream, &entry.to_value())?;
        }
        forward_changes(stream, &self.changes, filter)
    }
}

/// Forwards changes until the client goes away or the daemon drops it.
fn forward_changes(
    stream: &mut UnixStream,
    changes: &Receiver<Arc<str>>,
    filter: &AlarmFilter,
) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_millis(1)))?;
    loop {
        match changes.recv_timeout(CLIENT_CHECK) {
            Ok(line) if matches_filter(&line, filter) => stream.write_all(line.as_bytes())?,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => {
                // A client sends nothing after its request, so the end of the stream is its end.
                if matches!((&*stream).read(&mut [0; 64]), Ok(0)) {
                    return Ok(());
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

fn matches_filter(line: &str, filter: &AlarmFilter) -> bool {
    // A closed alarm is sent even if only open ones are asked for: the client has seen it open.
    let filter = AlarmFilter { open: false, ..filter.clone() };
    serde_json::from_str::<serde_json::Value>(line)
        .is_ok_and(|alarm| filter.matches(&AlarmEntry::from_value(alarm)))
}

fn send_line(writer: &mut impl Write, value: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *writer, value)?;
    writer.write_all(b"\n")
}

fn send_failure(writer: &mut impl Write, error: String) -> io::Result<()> {
    send_line(writer, &Failure { error })
}

/// Tells the client when the history can't be read. A client that can't be written to is dropped.
fn finish_answer(writer: &mut impl Write, sent: Result<(), StoreError>) -> io::Result<()> {
    match sent {
        Ok(()) => Ok(()),
        Err(StoreError::Passing(error)) => Err(error),
        Err(error) => send_failure(writer, error.to_string()),
    }
}

/// A stream that fails once its time is over. A client that reads one byte at a time would otherwise
/// keep the database from using its pages again.
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::super::followers::MOST_WAITING;
    use super::*;
    use crate::drops::example::{after_ms, syn};

    /// A server at a path of its own, and its folder.
    fn server() -> (ControlServer, Arc<Snapshot>, Arc<Store>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let snapshot = Arc::new(Snapshot::default());
        let server = ControlServer::listen(&folder.path().join("test.sock"), Arc::clone(&snapshot)).unwrap();
        let store = Arc::new(Store::new(folder.path()));
        (server, snapshot, store, folder)
    }

    fn connect(server: &ControlServer, line: &str) -> UnixStream {
        let mut client = UnixStream::connect(&server.path).unwrap();
        client.write_all(line.as_bytes()).unwrap();
        client
    }

    #[test]
    fn a_client_that_never_reads_is_dropped_and_the_daemon_never_waits_for_it() {
        let (server, snapshot, store, _folder) = server();
        let _client = connect(&server, &Request::Follow(AlarmFilter::default()).to_line().unwrap());
        let mut engine = Engine::default();
        let change = engine.observe(&syn(), after_ms(0)).remove(0);
        while server.followers.is_empty() {
            server.answer_clients(&engine, &store);
            std::thread::yield_now();
        }
        // far more than the kernel and the queue hold
        for _ in 0..20 * MOST_WAITING {
            server.followers.send(&change);
        }
        assert!(server.followers.is_empty());
        assert!(snapshot.clients_disconnected.load(Ordering::SeqCst) >= 1);
    }

    #[test]
    fn a_client_whose_thread_panics_gives_its_slot_back() {
        let clients = Arc::new(AtomicUsize::new(1));
        let slot = Slot(Arc::clone(&clients));
        let thread = std::thread::Builder::new().spawn(move || {
            let _slot = slot;
            panic!("on purpose");
        });
        assert!(thread.unwrap().join().is_err());
        assert_eq!(clients.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_client_of_another_version_reads_which_one_the_daemon_speaks() {
        let (server, _, store, _folder) = server();
        let mut client = connect(&server, "{\"version\":99,\"want\":\"open\"}\n");
        client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        server.answer_clients(&Engine::default(), &store);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        let failure: Failure = serde_json::from_str(&answer).unwrap();
        assert!(failure.error.starts_with("this daemon speaks version 2 of"), "{answer}");
        assert!(failure.error.contains("the request has version 99"), "{answer}");
    }
}
