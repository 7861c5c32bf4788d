//! The server: answers the clients of the daemon's socket. Each client has a thread, and a bounded
//! queue if it follows. A client that does not read is dropped, and so is one that has gone. Those who
//! follow have slots of their own, so that they keep nobody from asking.

#[cfg(test)]
mod tests;

use std::fs;
use std::io::{self, BufRead as _, BufReader, BufWriter, Read, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use log::debug;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};

use super::answers::{each_alarm, each_report_part, render_change};
use super::followers::Followers;
use super::order_desk::{Handled, OrderDesk};
use super::protocol::{AlarmOrder, Failure, GREETING, Request};
use super::reload_desk::ReloadDesk;
use crate::alarm::{Alarm, Change};
use crate::audit::Who;
use crate::clock::Clock;
use crate::daemon::metrics::snapshot::{Snapshot, increment};
use crate::gate::count_unread;
use crate::history::{AlarmEntry, AlarmFilter, AlarmState, Store, StoreError};
use crate::memory::return_memory;

/// Clients that ask, at a time. A further one has to come again.
const MOST_CLIENTS: usize = 16;
/// Clients that follow, at a time.
const MOST_FOLLOWERS: usize = 16;
/// Clients that are accepted in one turn of the daemon. The others wait for the next turn.
const MOST_ACCEPTED: usize = 64;
/// How long a client may take to ask, and to read one change. A client that needs longer is dropped.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take to read a whole answer, unless it follows.
const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// How long a client waits for its reload: for the file, its tests and the lock.
pub(super) const RELOAD_PATIENCE: Duration = Duration::from_secs(50);
/// How long a client waits until its word about an alarm is saved.
pub(super) const ORDER_PATIENCE: Duration = Duration::from_secs(10);
/// The length of a request, which is one line.
const MOST_REQUEST_BYTES: u64 = 64 << 10;
/// How long a client that follows may leave unread what it was sent. One that reads nothing would keep its slot for
/// ever where alarms are rare.
const FOLLOWER_PATIENCE: Duration = Duration::from_secs(60);
/// How often the server looks whether a client that follows is still there, if there is no news for it.
const CLIENT_CHECK: Duration = Duration::from_millis(500);

const NOT_RELOADED: &str = "the daemon has not read its policy file yet\n\
                            help: its log says what it waits for";
const NOT_ROOT: &str = "only root may make the daemon read its policy file\n\
                        help: run it as root (sudo portcullis reload …)";
const NOT_KNOWN: &str = "the kernel does not say who asks, so nothing was done";
const NOT_ROOT_FOR_ALARMS: &str = "only root may acknowledge or silence alarms\n\
                                   help: run it as root (sudo portcullis alarms …)";
const NOT_SAVED: &str = "the daemon has not answered in time: it is busy, or the disk of its state folder hangs\n\
                         help: `portcullis alarms` shows whether it holds";

/// The daemon's socket.
pub(in crate::daemon) struct ControlServer {
    listener: UnixListener,
    path: PathBuf,
    clients: Slots,
    following: Slots,
    followers: Followers,
    reloads: ReloadDesk,
    orders: OrderDesk,
    follower_patience: Duration,
    snapshot: Arc<Snapshot>,
}

/// Places for clients. A clone is another handle to the same places.
#[derive(Clone)]
struct Slots {
    taken: Arc<AtomicUsize>,
    most: usize,
}

impl Slots {
    fn new(most: usize) -> Slots {
        Slots { taken: Arc::default(), most }
    }

    /// `None` when all are taken.
    fn take(&self) -> Option<Slot> {
        let more = |taken: usize| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Slot(Arc::clone(&self.taken)))
    }
}

/// A place that is free again when this is dropped, also by a panic.
struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
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
        Ok(ControlServer {
            listener,
            path: path.to_owned(),
            clients: Slots::new(MOST_CLIENTS),
            following: Slots::new(MOST_FOLLOWERS),
            followers,
            reloads: ReloadDesk::default(),
            orders: OrderDesk::default(),
            follower_patience: FOLLOWER_PATIENCE,
            snapshot,
        })
    }

    /// The clients that follow the alarms.
    pub(in crate::daemon) fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// Where clients ask for a reload.
    pub(in crate::daemon) fn reloads(&self) -> &ReloadDesk {
        &self.reloads
    }

    /// Where clients say what is to be done with alarms.
    pub(in crate::daemon) fn orders(&self) -> &OrderDesk {
        &self.orders
    }

    /// Answers the clients that wait, each in a thread, so that none holds up the daemon. `open`: the alarms that are
    /// open.
    pub(in crate::daemon) fn answer_clients(&self, open: impl Fn() -> Vec<Alarm>, store: &Arc<Store>) {
        for _ in 0..MOST_ACCEPTED {
            // Nobody waits, or descriptors have run out: the next turn tries again.
            let Ok((mut stream, _)) = self.listener.accept() else {
                return;
            };
            let Some(slot) = self.clients.take() else {
                refuse(&mut stream);
                continue;
            };
            let client = Client {
                open: open(),
                // At the same time, so that no alarm opens between the two.
                changes: self.followers.add(),
                store: Arc::clone(store),
                following: self.following.clone(),
                reloads: self.reloads.clone(),
                orders: self.orders.clone(),
                follower_patience: self.follower_patience,
            };
            let snapshot = Arc::clone(&self.snapshot);
            let started = std::thread::Builder::new().name("client".to_owned()).spawn(move || {
                if let Err(error) = client.serve(stream, slot) {
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

/// Tells a client that there is no slot for it. The daemon itself does so, and never waits for it.
fn refuse(stream: &mut UnixStream) {
    let sent = stream
        .set_nonblocking(true)
        .and_then(|()| stream.write_all(&GREETING))
        .and_then(|()| send_failure(stream, too_many("ask", MOST_CLIENTS)));
    if let Err(error) = sent {
        debug!("a client beyond the slots left early: {error}");
    }
}

fn too_many(what: &str, most: usize) -> String {
    format!("too many clients: {most} {what} already\nhelp: end some of them, or try again in a moment")
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// One client, and what it may ask for.
struct Client {
    open: Vec<Alarm>,
    changes: Receiver<Arc<str>>,
    store: Arc<Store>,
    following: Slots,
    reloads: ReloadDesk,
    orders: OrderDesk,
    follower_patience: Duration,
}

impl Client {
    fn serve(self, mut stream: UnixStream, slot: Slot) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        let mut asking = Deadline::new(&stream, CLIENT_PATIENCE);
        asking.write_all(&GREETING)?;
        let mut line = String::new();
        BufReader::new(asking.take(MOST_REQUEST_BYTES)).read_line(&mut line)?;
        let request = match Request::from_line(&line) {
            Ok(request) => request,
            Err(error) => return send_failure(&mut stream, error.to_string()),
        };
        let mut writer = BufWriter::new(Deadline::new(&stream, ANSWER_PATIENCE));
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
            Request::Reload { force, who } => match self.reload(&stream, force, *who) {
                Ok(text) => send_line(&mut writer, &text),
                Err(text) => send_failure(&mut writer, text),
            },
            Request::Handle { order, who } => match self.handle(&stream, order, *who) {
                Ok(value) => send_line(&mut writer, &value),
                Err(text) => send_failure(&mut writer, text),
            },
            Request::Follow(filter) => {
                drop(writer);
                drop(slot);
                let Some(_slot) = self.following.take() else {
                    return send_failure(&mut stream, too_many("follow the alarms", MOST_FOLLOWERS));
                };
                return self.follow(&stream, &filter);
            }
        };
        match outcome.and_then(|()| writer.flush()) {
            // A reader that went away is no failure.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            outcome => outcome,
        }
    }

    /// Has the policy file read again, for root alone: whoever may read the socket may not change the gate.
    fn reload(&self, stream: &UnixStream, force: bool, claim: Who) -> Result<String, String> {
        let who = find_peer(stream, claim).map_err(|error| format!("{NOT_KNOWN}: {error}"))?;
        if !who.is_root() {
            return Err(NOT_ROOT.to_owned());
        }
        self.reloads.ask(force, who, RELOAD_PATIENCE).unwrap_or_else(|| Err(NOT_RELOADED.to_owned()))
    }

    /// Has something done with alarms, for root alone. Whoever may ask may see the silences.
    fn handle(&self, stream: &UnixStream, order: AlarmOrder, claim: Who) -> Handled {
        let who = find_peer(stream, claim).map_err(|error| format!("{NOT_KNOWN}: {error}"))?;
        if !who.is_root() && order != AlarmOrder::ListSilences {
            return Err(NOT_ROOT_FOR_ALARMS.to_owned());
        }
        self.orders.ask(order, who, ORDER_PATIENCE).unwrap_or_else(|| Err(NOT_SAVED.to_owned()))
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
        let render = |alarm: &Alarm| render_change(&Change::unnoted(now, alarm.clone()), AlarmState::Open);
        for line in self.open.iter().filter_map(render) {
            stream.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// Sends the open alarms, then every change.
    fn follow(&self, stream: &UnixStream, filter: &AlarmFilter) -> io::Result<()> {
        let entries = self.open_entries();
        let mut writer = BufWriter::new(Deadline::new(stream, CLIENT_PATIENCE));
        for entry in entries.iter().filter(|entry| filter.matches(entry)) {
            send_line(&mut writer, &entry.to_value())?;
        }
        writer.flush()?;
        forward_changes(stream, &self.changes, filter, self.follower_patience)
    }
}

/// Forwards changes until the client goes away, reads nothing for too long, or the daemon drops it.
fn forward_changes(
    stream: &UnixStream,
    changes: &Receiver<Arc<str>>,
    filter: &AlarmFilter,
    patience: Duration,
) -> io::Result<()> {
    let mut attention = Attention::new(count_unread(stream.as_fd())?, Instant::now());
    // On every turn: changes that the filter leaves out may come all the time.
    while !has_gone(stream)? {
        if !attention.lasts(count_unread(stream.as_fd())?, Instant::now(), patience) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match changes.recv_timeout(CLIENT_CHECK) {
            Ok(line) if matches_filter(&line, filter) => {
                Deadline::new(stream, CLIENT_PATIENCE).write_all(line.as_bytes())?;
                attention.unread = count_unread(stream.as_fd())?;
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

/// Whether a client reads. The greeting alone tells one that never does.
struct Attention {
    /// What it had not read at the last look. The kernel's number is larger than the bytes, and falls by what is read.
    unread: usize,
    /// When it had read something or everything.
    last: Instant,
}

impl Attention {
    fn new(unread: usize, now: Instant) -> Attention {
        Attention { unread, last: now }
    }

    /// Takes a look. False: it has read nothing for so long although there was something.
    fn lasts(&mut self, unread: usize, now: Instant, patience: Duration) -> bool {
        if unread == 0 || unread < self.unread {
            self.last = now;
        }
        self.unread = unread;
        now.duration_since(self.last) < patience
    }
}

/// Whether the client has closed its end. It sends nothing after its request, so anything to read is the end.
fn has_gone(stream: &UnixStream) -> io::Result<bool> {
    let mut ends = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
    Ok(poll(&mut ends, PollTimeout::ZERO)? > 0)
}

/// Who is at the other end, as the kernel noted it when they connected.
fn find_peer(stream: &UnixStream, claim: Who) -> io::Result<Who> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    // 0: a process that can't be seen from here
    Ok(Who::of_peer(peer.uid(), u32::try_from(peer.pid()).unwrap_or_default(), claim))
}

fn matches_filter(line: &str, filter: &AlarmFilter) -> bool {
    // A closed alarm is sent even if only open ones are asked for: the client has seen it open.
    let filter = AlarmFilter { open: false, ..filter.clone() };
    serde_json::from_str::<serde_json::Value>(line).is_ok_and(|value| match value.get("audit") {
        Some(_) => filter.wants_audit(),
        None => filter.matches(&AlarmEntry::from_value(value)),
    })
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

/// A stream that fails once its time is over. The timeouts of a socket start anew with every byte, and a client
/// that takes one byte at a time would keep its slot, and the database from using its pages again.
struct Deadline<'s> {
    stream: &'s UnixStream,
    until: Instant,
}

impl<'s> Deadline<'s> {
    fn new(stream: &'s UnixStream, patience: Duration) -> Deadline<'s> {
        Deadline { stream, until: Instant::now() + patience }
    }

    fn left(&self) -> io::Result<Duration> {
        match self.until.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(left),
        }
    }
}

impl Read for Deadline<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(Some(self.left()?))?;
        self.stream.read(bytes)
    }
}

impl Write for Deadline<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(Some(self.left()?.min(CLIENT_PATIENCE)))?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
