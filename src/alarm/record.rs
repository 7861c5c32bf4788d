//! An alarm as JSON, for programs. `show alarms -j`, the history and the object `portcullis` of EVE and
//! ECS lines all have it.

use std::hash::Hash;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{Alarm, Change, Distinct, Kind, Severity, Step};
use crate::drops::{DropVerdict, ReasonCode, show_hex};
use crate::net::show_mac;

/// How many of several things are listed.
const LISTED: usize = 16;

#[derive(Serialize)]
struct Record<'a> {
    id: u64,
    kind: Kind,
    opened_as: Kind,
    severity: Severity,
    server: Option<&'a str>,
    reason: ReasonCode,
    verdict: DropVerdict,
    service: String,
    packets: u64,
    events: u64,
    /// RFC 3339, as every time in here.
    since: String,
    last: String,
    sources: Listed<String>,
    destinations: Listed<String>,
    ports: Listed<u16>,
    source_macs: Listed<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contacted: Option<IpAddr>,
    while_away: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    response: &'a str,
    seen: String,
    why: &'static str,
    technique: TechniqueRecord,
    next: Vec<String>,
    /// The frame of the sample, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    frame: String,
}

/// Distinct things: how many, whether that is an estimate, and the first ones themselves.
#[derive(Serialize)]
struct Listed<T> {
    count: usize,
    estimate: bool,
    first: Vec<T>,
}

#[derive(Serialize)]
struct TechniqueRecord {
    id: &'static str,
    name: &'static str,
}

impl<T> Listed<T> {
    fn new<U: PartialEq + Copy + Hash>(distinct: &Distinct<U>, show: impl Fn(&U) -> T) -> Listed<T> {
        Listed {
            count: distinct.len(),
            estimate: distinct.is_estimate(),
            first: distinct.iter().take(LISTED).map(show).collect(),
        }
    }
}

impl Serialize for Alarm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let technique = self.technique();
        let record = Record {
            id: self.id,
            kind: self.kind,
            opened_as: self.opened_as,
            severity: self.severity,
            server: self.server.as_ref().map(|server| &*server.name),
            reason: self.reason,
            verdict: self.verdict,
            service: self.sample.service(),
            packets: self.packets,
            events: self.events,
            since: self.first.to_string(),
            last: self.last.to_string(),
            sources: Listed::new(&self.sources, IpAddr::to_string),
            destinations: Listed::new(&self.destinations, IpAddr::to_string),
            ports: Listed::new(&self.ports, |port| *port),
            source_macs: Listed::new(&self.source_macs, show_mac),
            contacted: self.contacted,
            while_away: self.while_away,
            response: &self.response,
            seen: self.seen(),
            why: self.why(),
            technique: TechniqueRecord { id: technique.id, name: technique.name },
            next: self.next_commands(),
            frame: show_hex(&self.sample.frame),
        };
        record.serialize(serializer)
    }
}

/// A change of an alarm: the alarm's own fields, and what happened to it.
#[derive(Serialize)]
struct ChangeRecord<'a> {
    change: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    was: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    folded_into: Option<u64>,
    #[serde(flatten)]
    alarm: &'a Alarm,
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (was, folded_into) = match self.step {
            Step::Escalated { from } => (Some(from), None),
            Step::Closed { folded_into } => (None, folded_into),
            Step::Opened | Step::Updated => (None, None),
        };
        let record = ChangeRecord { change: self.step.name(), was, folded_into, alarm: &self.alarm };
        record.serialize(serializer)
    }
}
