//! The client: asks the daemon, or reads the history where no daemon runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde_json::Value;

use super::answers::each_report_part;
use super::protocol::{Failure, ReportPart, Request};
use crate::gate::GatePlace;
use crate::history::{AlarmEntry, AlarmFilter, ReportData, Store};

/// How long the daemon may take. It answers from memory, or from a database on a busy disk.
const DAEMON_PATIENCE: Duration = Duration::from_secs(15);
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

/// The daemon's whole answer, one value a line. `None` where no daemon runs.
///
/// # Errors
/// The daemon's own error, or why its answer can't be read.
pub fn ask_daemon(place: &GatePlace, request: &Request) -> anyhow::Result<Option<Vec<Value>>> {
    let Some(stream) = send(place, request)? else {
        return Ok(None);
    };
    let mut values = Vec::new();
    for line in BufReader::new(stream.take(MOST_ANSWER_BYTES)).lines() {
        values.push(read_answer(&line.context(BROKEN_OFF)?)?);
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
    stream.set_read_timeout(None)?;
    for line in BufReader::new(stream).lines() {
        each(read_answer(&line.context(BROKEN_OFF)?)?)?;
    }
    Ok(true)
}

/// Open and past alarms: from the daemon, or from the history where none runs.
///
/// # Errors
/// As [`ask_daemon`], and when there is neither a daemon nor a history.
pub fn find_alarms(place: &GatePlace, filter: &AlarmFilter) -> anyhow::Result<Vec<Value>> {
    if let Some(values) = ask_daemon(place, &Request::Alarms(filter.clone()))? {
        return Ok(values);
    }
    let entries = open_history(place)?.alarms(filter)?;
    // No alarm is open without a daemon.
    let past = entries.iter().map(AlarmEntry::cut_off).filter(|entry| filter.matches(entry));
    Ok(past.map(|entry| entry.to_value()).collect())
}

/// The data of a report: from the daemon, or from the history where none runs.
///
/// # Errors
/// As [`find_alarms`].
pub fn collect_report(place: &GatePlace, from: Timestamp, to: Timestamp) -> anyhow::Result<ReportData> {
    let mut data = ReportData::default();
    if let Some(values) = ask_daemon(place, &Request::Report { from, to })? {
        for value in values {
            serde_json::from_value::<ReportPart>(value).context(NOT_UNDERSTOOD)?.add_to(&mut data);
        }
        return Ok(data);
    }
    each_report_part(&open_history(place)?, Vec::new(), (from, to), |part| {
        part.add_to(&mut data);
        Ok(())
    })?;
    data.alarms = data.alarms.iter().map(AlarmEntry::cut_off).collect();
    Ok(data)
}

/// Sends a request. `None` where no daemon runs.
fn send(place: &GatePlace, request: &Request) -> anyhow::Result<Option<UnixStream>> {
    let Ok(mut stream) = UnixStream::connect(place.socket()) else {
        return Ok(None);
    };
    stream.set_read_timeout(Some(DAEMON_PATIENCE))?;
    stream.set_write_timeout(Some(DAEMON_PATIENCE))?;
    stream.write_all(request.to_line()?.as_bytes()).context(BROKEN_OFF)?;
    Ok(Some(stream))
}

fn read_answer(line: &str) -> anyhow::Result<Value> {
    let value: Value = serde_json::from_str(line).context(NOT_UNDERSTOOD)?;
    if value["error"].is_string() {
        bail!(serde_json::from_value::<Failure>(value).context(NOT_UNDERSTOOD)?.error);
    }
    Ok(value)
}

fn open_history(place: &GatePlace) -> anyhow::Result<Store> {
    let folder = place.history();
    if !folder.join(crate::history::FILE).exists() {
        bail!(
            "there is no history of {} in {}\nhelp: `portcullis run -i {0} -p POLICY` writes it",
            place.interface,
            folder.display()
        );
    }
    Store::open(&folder).map_err(|error| {
        anyhow::anyhow!(
            "{error}\nhelp: run this as root, while no daemon of another network namespace uses the history"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
