//! The client: asks the daemon, or reads the history where no daemon runs.

use std::fs::DirBuilder;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;
use nix::unistd::{AccessFlags, access};
use serde_json::Value;
use thiserror::Error;

use super::answers::each_report_part;
use super::protocol::{Failure, GREETING, ReportPart, Request};
use super::server::{ORDER_PATIENCE, RELOAD_PATIENCE};
use crate::gate::GatePlace;
use crate::history::{AlarmEntry, AlarmFilter, ReportData, Store, StoreError};
use crate::stderr::notice;

/// How long the daemon may take to begin its answer, which it does before it looks for one. A longer silence
/// means that it is stopped.
const GREETING_PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take from there on: it answers from memory, or from a database on a busy disk.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// How long a command reads the history of a daemon that does not answer. Both may be on a disk that hangs.
const HISTORY_PATIENCE: Duration = Duration::from_secs(5);
/// How often it copies the history, until the copy is whole.
const COPIES: usize = 3;
const MOST_ANSWER_BYTES: u64 = 256 << 20;

const BROKEN_OFF: &str = "the daemon closed the connection\nhelp: try again";
const NOT_UNDERSTOOD: &str = "the daemon's answer can't be read: it is of another version of portcullis\n\
                              help: restart the daemon";

/// The error for a user who needs a daemon where none runs.
pub fn no_daemon(place: &GatePlace) -> String {
    format!(
        "no daemon answers at {}\nhelp: `portcullis run -i {} -p POLICY` raises alarms; \
         `portcullis show -i {1} drops` shows the drops without it",
        place.socket().display(),
        place.interface
    )
}

/// A daemon that does not answer.
#[derive(Debug, Error)]
#[error(
    "the daemon (process {process}) does not answer: it {why}\n\
     help: {remedy}; the gate goes on without it"
)]
pub(super) struct SilentDaemon {
    process: String,
    why: &'static str,
    remedy: String,
}

impl SilentDaemon {
    fn of(place: &GatePlace) -> SilentDaemon {
        let process = place.daemon_process().unwrap_or_else(|| "?".to_owned());
        let restart = format!("systemctl restart portcullis@{}", place.attached_as);
        let (why, remedy) = match find_process_state(&process) {
            Some('T' | 't') => ("is stopped", format!("let it go on (kill -CONT {process}), or {restart}")),
            Some('D') => ("waits for a disk or another device", format!("see to the disk, or {restart}")),
            _ => {
                ("is busy, or waits for a disk", format!("see what it does (ps -fp {process}), or {restart}"))
            }
        };
        SilentDaemon { process, why, remedy }
    }
}

/// The letter of proc_pid_stat(5).
fn find_process_state(process: &str) -> Option<char> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // the name before it may have spaces and parentheses
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// The daemon's whole answer, one value a line. `None` where no daemon runs.
///
/// # Errors
/// The daemon's own error, or why its answer can't be read.
pub fn ask_daemon(place: &GatePlace, request: &Request) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(stream) = send(place, request)? else {
        return Ok(None);
    };
    let mut values = Vec::new();
    for line in stream.take(MOST_ANSWER_BYTES).lines() {
        values.push(read_answer(&line.map_err(|error| explain_end(place, &error))?)?);
    }
    Ok(Some(values))
}

/// Passes the open alarms to `each` and then every change, until the daemon or `each` ends it.
/// `false` where no daemon runs.
///
/// # Errors
/// As [`ask_daemon`], and those of `each`.
pub fn follow_daemon(
    place: &GatePlace,
    filter: AlarmFilter,
    mut each: impl FnMut(Value) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let Some(stream) = send(place, &Request::Follow(filter))? else {
        return Ok(false);
    };
    stream.get_ref().set_read_timeout(None)?;
    for line in stream.lines() {
        each(read_answer(&line.context(BROKEN_OFF)?)?)?;
    }
    Ok(true)
}

/// Open and past alarms: from the daemon, or from the history where none runs or answers.
///
/// # Errors
/// As [`ask_daemon`], and when there is neither a daemon nor a history.
pub fn find_alarms(place: &GatePlace, filter: &AlarmFilter) -> anyhow::Result<Vec<Value>> {
    let silent = match ask_daemon(place, &Request::Alarms(filter.clone())) {
        Ok(Some(values)) => return Ok(values),
        Ok(None) => false,
        Err(error) => warn_of_silence(error)?,
    };
    let filter = filter.clone();
    let entries = read_history(place, silent, move |store| {
        // No alarm is open without a daemon.
        let entries = store.alarms(&AlarmFilter { open: false, ..filter.clone() })?;
        let entries = entries.into_iter().map(|entry| if silent { entry } else { entry.cut_off() });
        Ok(entries.filter(|entry| filter.matches(entry)).collect::<Vec<_>>())
    })?;
    Ok(entries.iter().map(AlarmEntry::to_value).collect())
}

/// The open alarms: from the daemon, or from the history of one that does not answer.
///
/// # Errors
/// As [`find_alarms`], and when no daemon runs.
pub fn find_open_alarms(place: &GatePlace) -> anyhow::Result<Vec<Value>> {
    match ask_daemon(place, &Request::Open) {
        Ok(alarms) => alarms.with_context(|| no_daemon(place)),
        Err(error) => {
            warn_of_silence(error)?;
            let filter = AlarmFilter { open: true, ..AlarmFilter::default() };
            let entries = read_history(place, true, move |store| store.alarms(&filter))?;
            Ok(entries.iter().map(AlarmEntry::to_value).collect())
        }
    }
}

/// The data of a report: from the daemon, or from the history where none runs or answers.
///
/// # Errors
/// As [`find_alarms`].
pub fn collect_report(place: &GatePlace, from: Timestamp, to: Timestamp) -> anyhow::Result<ReportData> {
    let mut data = ReportData::default();
    let silent = match ask_daemon(place, &Request::Report { from, to }) {
        Ok(Some(values)) => {
            for value in values {
                serde_json::from_value::<ReportPart>(value).context(NOT_UNDERSTOOD)?.add_to(&mut data);
            }
            return Ok(data);
        }
        Ok(None) => false,
        Err(error) => warn_of_silence(error)?,
    };
    let mut data = read_history(place, silent, move |store| {
        let mut data = ReportData::default();
        each_report_part(store, Vec::new(), (from, to), |part| {
            part.add_to(&mut data);
            Ok(())
        })?;
        Ok(data)
    })?;
    if !silent {
        data.alarms = data.alarms.iter().map(AlarmEntry::cut_off).collect();
    }
    Ok(data)
}

/// Says that the daemon does not answer, and goes on. Any other error ends the command.
fn warn_of_silence(error: anyhow::Error) -> anyhow::Result<bool> {
    let silent = error.downcast::<SilentDaemon>()?;
    notice!("portcullis: warning: {silent}\nthis is what its history says:");
    Ok(true)
}

/// Reads the history. The file of a daemon that lives can't be opened, so `silent` reads a copy of it.
fn read_history<T: Send + 'static>(
    place: &GatePlace,
    silent: bool,
    read: impl Fn(&Store) -> Result<T, StoreError> + Send + 'static,
) -> anyhow::Result<T> {
    if !silent {
        let store = find_history(place)?;
        return match is_read_only(&place.history()) {
            false => read(&store),
            true => copy_to_memory(place).and_then(|copy| read(&Store::for_reading(&copy.0))),
        }
        .map_err(|error| explain_history(&error));
    }
    let (folder, (sender, receiver)) = (place.history(), std::sync::mpsc::sync_channel(1));
    std::thread::Builder::new()
        .name("history".to_owned())
        .spawn(move || {
            let read_copy =
                || HistoryCopy::of(&folder, &folder).and_then(|copy| read(&Store::for_reading(&copy.0)));
            // A daemon that is busy may write while its file is copied. The copy is not whole then.
            let mut copied = read_copy();
            for _ in 1..COPIES {
                if matches!(copied, Err(StoreError::Damaged { .. })) {
                    copied = read_copy();
                }
            }
            let _ = sender.send(copied);
        })
        .context("could not start a thread")?;
    match receiver.recv_timeout(HISTORY_PATIENCE) {
        Ok(outcome) => outcome.context("the history can't be read either"),
        Err(_) => bail!("the history in {} does not answer either", place.history().display()),
    }
}

/// Whether the disk takes nothing. SQLite locks and writes beside what it reads.
fn is_read_only(folder: &Path) -> bool {
    access(folder, AccessFlags::W_OK) == Err(Errno::EROFS)
}

/// A copy where the daemon's socket would be, which is in memory.
fn copy_to_memory(place: &GatePlace) -> Result<HistoryCopy, StoreError> {
    let socket = place.socket();
    let folder = socket.parent().unwrap_or(&socket);
    let copied = DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(StoreError::from);
    copied.and_then(|()| HistoryCopy::of(&place.history(), folder)).map_err(|error| StoreError::Open {
        path: place.history(),
        why: format!("its disk is read-only, and it could not be copied into {}: {error}", folder.display()),
        taken: false,
    })
}

/// A copy of a history in a folder of its own, removed with it.
struct HistoryCopy(PathBuf);

impl HistoryCopy {
    /// In a folder that is root's alone.
    fn of(history: &Path, into: &Path) -> Result<HistoryCopy, StoreError> {
        let folder = into.join(format!("copy-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&folder)?;
        let copy = HistoryCopy(folder);
        // The log has what is not in the file yet. Without one, the file has all.
        let log = format!("{}-wal", crate::history::FILE);
        for name in [crate::history::FILE, &log] {
            match std::fs::copy(history.join(name), copy.0.join(name)) {
                Err(error) if error.kind() == ErrorKind::NotFound && name == log => {}
                other => drop(other?),
            }
        }
        Ok(copy)
    }
}

impl Drop for HistoryCopy {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Why an answer ended early.
fn explain_end(place: &GatePlace, error: &io::Error) -> anyhow::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => SilentDaemon::of(place).into(),
        _ => anyhow::anyhow!(BROKEN_OFF),
    }
}

/// Why the socket can't be reached although there may be a daemon.
fn explain_refusal(place: &GatePlace, error: &io::Error) -> anyhow::Error {
    let socket = place.socket();
    let (why, help) = match error.kind() {
        ErrorKind::PermissionDenied => ("you may not ask it", "run it as root"),
        _ => ("it could not be reached", "this says nothing about the daemon; try again"),
    };
    anyhow::anyhow!("the daemon's socket is {}: {why} ({error})\nhelp: {help}", socket.display())
}

/// Connects to a socket whose server may be stopped. Once its queue is full, a connection waits for room.
///
/// # Errors
/// `WouldBlock` if there was no room in time.
fn connect_in_time(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // connect() of a local socket waits by the timeout of what is sent: unix_stream_connect() of net/unix/af_unix.c
    let seconds = i64::try_from(patience.as_secs()).unwrap_or(i64::MAX);
    setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, patience.subsec_micros().into()))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(UnixStream::from(socket))
}

/// Sends a request and waits for the greeting. `None` where no daemon runs.
fn send(place: &GatePlace, request: &Request) -> anyhow::Result<Option<BufReader<UnixStream>>> {
    let mut stream = match connect_in_time(&place.socket(), GREETING_PATIENCE) {
        Ok(stream) => stream,
        // No socket, or that of a dead daemon.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        // its queue of clients is full, and it takes none of them
        Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(explain_end(place, &error)),
        Err(error) => return Err(explain_refusal(place, &error)),
    };
    stream.set_read_timeout(Some(GREETING_PATIENCE))?;
    stream.set_write_timeout(Some(GREETING_PATIENCE))?;
    match stream.write_all(request.to_line()?.as_bytes()) {
        // It has answered already: it has no slot for this client.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        sent => sent.map_err(|error| explain_end(place, &error))?,
    }
    let mut reader = BufReader::new(stream);
    let mut greeting = [0];
    reader.read_exact(&mut greeting).map_err(|error| explain_end(place, &error))?;
    if greeting != GREETING {
        bail!(NOT_UNDERSTOOD);
    }
    let patience = match request {
        Request::Reload { .. } => RELOAD_PATIENCE + ANSWER_PATIENCE,
        Request::Handle { .. } => ORDER_PATIENCE + ANSWER_PATIENCE,
        _ => ANSWER_PATIENCE,
    };
    reader.get_ref().set_read_timeout(Some(patience))?;
    Ok(Some(reader))
}

fn read_answer(line: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(line).context(NOT_UNDERSTOOD)?;
    if value["error"].is_string() {
        bail!(serde_json::from_value::<Failure>(value).context(NOT_UNDERSTOOD)?.error);
    }
    Ok(value)
}

fn find_history(place: &GatePlace) -> anyhow::Result<Store> {
    let folder = place.history();
    let exists = folder.join(crate::history::FILE).try_exists().map_err(|error| {
        anyhow::anyhow!("could not look for a history in {}: {error}\nhelp: run it as root", folder.display())
    })?;
    if !exists {
        bail!(
            "there is no history of {} in {}\nhelp: `portcullis run -i {0} -p POLICY` writes it",
            place.interface,
            folder.display()
        );
    }
    Ok(Store::for_reading(&folder))
}

fn explain_history(error: &StoreError) -> anyhow::Error {
    match error {
        StoreError::Damaged { .. } => anyhow::anyhow!(
            "{error}\nhelp: the daemon puts it aside when it starts, and begins a new one; \
             `sqlite3 FILE .recover` may read what is left"
        ),
        StoreError::Open { .. } | StoreError::Database { .. } | StoreError::Passing(_) => anyhow::anyhow!(
            "{error}\nhelp: run this as root, while no daemon of another network namespace uses the history"
        ),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{Backlog, bind, listen};

    use super::*;

    #[test]
    fn a_stopped_daemon_with_a_full_queue_is_given_up_in_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("full.sock");
        let server = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(server.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        listen(&server, Backlog::new(1).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect_in_time(&path, Duration::from_millis(50)) {
                Ok(client) => waiting.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(!waiting.is_empty());
    }

    #[test]
    fn an_error_of_the_daemon_is_the_commands_error() {
        let line = serde_json::to_string(&Failure { error: "too old\nhelp: restart".to_owned() }).unwrap();
        assert_eq!(read_answer(&line).unwrap_err().to_string(), "too old\nhelp: restart");
    }

    #[test]
    fn a_line_that_is_no_json_is_called_another_version() {
        assert!(read_answer("{\"id\":1").unwrap_err().to_string().contains("another version"));
        assert_eq!(read_answer("{\"id\":1}").unwrap()["id"], 1);
    }
}
