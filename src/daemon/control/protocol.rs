//! The messages. A client sends one line: a [`Request`] as JSON, with the version of the protocol.
//! The daemon answers with [`GREETING`], and then with lines of JSON, each a value of its own, or with one
//! [`Failure`].
//!
//! A request of another version is refused. After an upgrade the daemon in memory and the command
//! on disk differ, and a request that is half understood could do something else than was asked for.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::audit::Who;
use crate::history::{AlarmEntry, AlarmFilter, MinuteCount, RemovedCounts, ReportData, SampleRow};

/// The version of the protocol. It changes whenever a request or an answer changes its meaning.
pub const VERSION: u64 = 2;

/// What the daemon sends before it looks for an answer, so that a client can tell one that is stopped from one
/// whose history is slow.
pub(super) const GREETING: [u8; 1] = *b"\n";

/// The requests of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "want")]
pub enum Request {
    /// The open alarms, each with its line for people.
    Open,
    /// Open and past alarms.
    Alarms(AlarmFilter),
    /// The open alarms, then every change as it happens.
    Follow(AlarmFilter),
    /// That the daemon reads its policy file again. The answer is a line of text.
    Reload {
        /// Whatever the guards say.
        force: bool,
        /// Who asks, as their own process says. The daemon believes the kernel first.
        #[serde(default)]
        who: Box<Who>,
    },
    /// Something is to be done with alarms. The answer is one object.
    Handle {
        /// What.
        order: AlarmOrder,
        /// Who asks, as their own process says. The daemon believes the kernel first.
        #[serde(default)]
        who: Box<Who>,
    },
    /// The data of a report: lines of [`ReportPart`].
    Report {
        /// Where the report begins.
        from: Timestamp,
        /// Where it ends.
        to: Timestamp,
    },
}

/// What is to be done with alarms. Only root may change anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum AlarmOrder {
    /// Somebody is at it.
    Ack {
        /// The alarm.
        id: u64,
        /// What they say.
        note: Option<String>,
    },
    /// Nobody is at it any more.
    Unack {
        /// The alarm.
        id: u64,
    },
    /// Nobody is to be called, for a time.
    Silence {
        /// A server, a kind or a service.
        target: String,
        /// For how long, seconds.
        for_s: u64,
        /// Why.
        note: String,
        /// What is critical as well.
        force: bool,
    },
    /// Ends a silence.
    Unsilence {
        /// As it was given.
        target: String,
    },
    /// Changes nothing: the silences that hold.
    ListSilences,
}

#[derive(Serialize)]
struct Envelope<'request> {
    version: u64,
    #[serde(flatten)]
    request: &'request Request,
}

/// Why a request can't be answered.
#[derive(Debug, Error)]
pub(super) enum RequestError {
    #[error(
        "this daemon speaks version {VERSION} of the control protocol, the request has {0}\n\
         help: use the portcullis that the daemon is, or restart the daemon"
    )]
    OtherVersion(String),
    #[error("the daemon does not know this request: {0}")]
    Unknown(#[from] serde_json::Error),
}

impl Request {
    /// The request as the line to send.
    pub(super) fn to_line(&self) -> serde_json::Result<String> {
        let mut line = serde_json::to_string(&Envelope { version: VERSION, request: self })?;
        line.push('\n');
        Ok(line)
    }

    /// Reads a line that a client sent.
    pub(super) fn from_line(line: &str) -> Result<Request, RequestError> {
        let value: Value = serde_json::from_str(line)?;
        match &value["version"] {
            version if version.as_u64() == Some(VERSION) => Ok(serde_json::from_value(value)?),
            Value::Null => Err(RequestError::OtherVersion("none".to_owned())),
            version => Err(RequestError::OtherVersion(format!("version {version}"))),
        }
    }
}

/// The answer to a request that can't be answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Failure {
    /// A sentence for the user.
    pub error: String,
}

/// One line of the answer to [`Request::Report`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ReportPart {
    Alarm(AlarmEntry),
    Count(MinuteCount),
    Removed(RemovedCounts),
    Sample(SampleRow),
}

impl ReportPart {
    /// Adds this part to the data that has come so far.
    pub(super) fn add_to(self, data: &mut ReportData) {
        match self {
            ReportPart::Alarm(entry) => data.alarms.push(entry),
            ReportPart::Count(row) => data.counts.push(row),
            ReportPart::Removed(row) => data.removed.push(row),
            ReportPart::Sample(row) => data.samples.push(row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_comes_out_as_it_went_in() {
        let filter = AlarmFilter { open: true, servers: vec!["web1".to_owned()], ..AlarmFilter::default() };
        let (from, to) = (Timestamp::UNIX_EPOCH, Timestamp::MAX);
        let requests = [
            Request::Open,
            Request::Alarms(filter.clone()),
            Request::Follow(filter),
            Request::Reload { force: true, who: Box::new(Who::of_this_process()) },
            Request::Report { from, to },
            Request::Handle {
                order: AlarmOrder::Ack { id: 7, note: Some("on it".to_owned()) },
                who: Box::new(Who::of_this_process()),
            },
        ];
        for request in requests {
            let line = request.to_line().unwrap();
            assert!(line.starts_with("{\"version\":2,\"want\":\"") && line.ends_with("}\n"), "{line}");
            assert_eq!(Request::from_line(&line).unwrap(), request);
        }
    }

    #[test]
    fn a_request_of_another_version_is_answered_with_the_one_the_daemon_speaks() {
        for (line, theirs) in [
            (r#"{"version":3,"want":"open"}"#, "the request has version 3"),
            (r#"{"version":"1","want":"open"}"#, "the request has version \"1\""),
            (r#"{"version":3,"want":"what only version 3 knows"}"#, "the request has version 3"),
            (r#"{"want":"open"}"#, "the request has none"),
            (r#"[]"#, "the request has none"),
        ] {
            let error = Request::from_line(line).unwrap_err().to_string();
            assert!(error.starts_with("this daemon speaks version 2 of the control protocol"), "{error}");
            assert!(error.contains(theirs), "{error}");
            assert!(error.contains("\nhelp: "), "{error}");
        }
    }

    #[test]
    fn a_line_that_is_no_request_is_an_error_that_says_why() {
        for line in ["", "GET / HTTP/1.1", r#"{"version":2}"#, r#"{"version":2,"want":"everything"}"#] {
            let error = Request::from_line(line).unwrap_err().to_string();
            assert!(error.starts_with("the daemon does not know this request: "), "{error}");
        }
    }
}
