//! What commands ask of the daemon, or of the history where no daemon runs.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::gate::GatePlace;
use crate::history::{AlarmEntry, AlarmFilter, MinuteCount, ReportData, SampleRow, Store, StoreError};

/// The daemon answers from memory, or from a database on a disk that is busy.
const DAEMON_PATIENCE: Duration = Duration::from_secs(15);
const MOST_ANSWER_BYTES: u64 = 256 << 20;
/// Samples in a report.
const MOST_SAMPLES: usize = 2_000;

/// One line to the daemon's socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "want")]
pub enum Request {
    /// The alarms that are open, each with its line for people.
    Open,
    /// Open and past alarms.
    Alarms(AlarmFilter),
    /// The open alarms, then every change.
    Follow(AlarmFilter),
    /// What a report is made of.
    Report {
        /// From when on.
        from: Timestamp,
        /// Until when.
        to: Timestamp,
    },
}

/// A line of the answer to [`Request::Report`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    /// An alarm.
    Alarm(AlarmEntry),
    /// A count.
    ProgramStatistics(MinuteCount),
    /// A sample.
    Sample(SampleRow),
}

impl Piece {
    /// Puts it where it belongs.
    pub fn add_to(self, found: &mut ReportData) {
        match self {
            Piece::Alarm(entry) => found.alarms.push(entry),
            Piece::ProgramStatistics(row) => found.counts.push(row),
            Piece::Sample(row) => found.samples.push(row),
        }
    }
}

/// Sends a request; `None` when no daemon runs.
fn ask(place: &GatePlace, request: &Request) -> anyhow::Result<Option<UnixStream>> {
    let Ok(mut stream) = UnixStream::connect(place.socket()) else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(DAEMON_PATIENCE))?;
    stream.set_write_timeout(Some(DAEMON_PATIENCE))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).context("the daemon broke off\nhelp: try again")?;
    Ok(Some(stream))
}

/// What to say when no daemon runs and one is needed.
pub fn no_daemon(place: &GatePlace) -> String {
    format!(
        "no daemon answers at {}\nhelp: alarms are raised by `portcullis run -i {} -p POLICY`; \
         what was dropped meanwhile is in `portcullis show -i {1} drops`",
        place.socket().display(),
        place.interface
    )
}

/// The daemon's whole answer, a value a line; `None` when no daemon runs.
pub fn ask_daemon(place: &GatePlace, request: &Request) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(stream) = ask(place, request)? else {
        return Ok(None);
    };
    let mut values = Vec::new();
    for line in BufReader::new(stream.take(MOST_ANSWER_BYTES)).lines() {
        values.push(read_line(&line.context("the daemon broke off\nhelp: try again")?)?);
    }
    Ok(Some(values))
}

/// Passes every value that the daemon sends to `each`, until one of the two ends it; `false` when
/// no daemon runs.
pub fn follow_daemon(
    place: &GatePlace,
    filter: AlarmFilter,
    mut each: impl FnMut(Value) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let Some(stream) = ask(place, &Request::Follow(filter))? else {
        return Ok(false);
    };
    stream.set_read_timeout(None)?;
    for line in BufReader::new(stream).lines() {
        each(read_line(&line.context("the daemon broke off\nhelp: try again")?)?)?;
    }
    Ok(true)
}

fn read_line(line: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(line).context("the daemon speaks another version")?;
    if let Some(error) = value["error"].as_str() {
        bail!("{error}");
    }
    Ok(value)
}

/// Alarms of the history, and those that are open as they stand now, by id, one at a time.
pub fn each_alarm(
    store: &Store,
    open: Vec<AlarmEntry>,
    filter: &AlarmFilter,
    mut each: impl FnMut(&AlarmEntry) -> io::Result<()>,
) -> Result<(), StoreError> {
    let mut open: BTreeMap<u64, AlarmEntry> = open.into_iter().map(|entry| (entry.id, entry)).collect();
    let mut pass = |entry: &AlarmEntry| if filter.matches(entry) { each(entry) } else { Ok(()) };
    store.each_alarm(|known| {
        while let Some(first) = open.first_entry().filter(|first| *first.key() < known.id) {
            pass(&first.remove())?;
        }
        pass(open.remove(&known.id).as_ref().unwrap_or(&known))
    })?;
    for entry in open.values() {
        pass(entry)?;
    }
    Ok(())
}

/// What a report is made of, one piece at a time.
pub fn each_piece(
    store: &Store,
    open: Vec<AlarmEntry>,
    (from, to): (Timestamp, Timestamp),
    mut each: impl FnMut(Piece) -> io::Result<()>,
) -> Result<(), StoreError> {
    let filter = AlarmFilter { from: Some(from), to: Some(to), ..AlarmFilter::default() };
    each_alarm(store, open, &filter, |entry| each(Piece::Alarm(entry.clone())))?;
    store.each_count(from, to, |row| each(Piece::ProgramStatistics(row)))?;
    for sample in store.samples(from, to, MOST_SAMPLES)? {
        each(Piece::Sample(sample))?;
    }
    Ok(())
}

/// The history of an interface whose daemon does not run.
pub fn open_history(place: &GatePlace) -> anyhow::Result<Store> {
    let folder = place.history();
    if !folder.join(crate::history::FILE).exists() {
        bail!(
            "there is no history of {} in {}\nhelp: it is written by `portcullis run -i {0} -p POLICY`",
            place.interface,
            folder.display()
        );
    }
    Store::open(&folder).context("help: as root, and with no daemon of another network namespace at it")
}
