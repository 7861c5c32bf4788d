//! An alarm as JSON, for programs. `show alarms -j`, the history and the object `portcullis` of EVE and
//! ECS lines all have it.

use std::hash::Hash;
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{Acknowledgement, Alarm, Change, Distinct, Kind, Part, Severity, Silenced, Step, Technique};
use crate::drops::{Contacts, DropVerdict, LookedUp, ReasonCode, show_hex};
use crate::host::host_name;
use crate::net::show_mac;

/// How many of several things are listed of an alarm, and of its most severe parts.
const LISTED: usize = 16;
/// So many parts are listed in full. A record has to stay small, whatever a server does.
const FULL_PARTS: usize = 4;
/// How many of several things are listed of each further part.
const LISTED_OF_PART: usize = 8;

#[derive(Serialize)]
struct Record<'a> {
    id: u64,
    host: &'a str,
    interface: &'a str,
    kind: Kind,
    opened_as: Kind,
    severity: Severity,
    /// `null`: it is about the gate, as for `reason` and `verdict`.
    mode: Option<&'static str>,
    server: Option<&'a str>,
    reason: Option<ReasonCode>,
    verdict: Option<DropVerdict>,
    service: String,
    packets: u64,
    events: u64,
    /// RFC 3339, as every time in here.
    since: String,
    last: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    follows: Option<u64>,
    sources: Listed<String>,
    destinations: Listed<String>,
    ports: Listed<u16>,
    source_macs: Listed<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contacted: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_up: Option<&'a LookedUp>,
    while_away: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    response: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    acknowledged: Option<&'a Acknowledgement>,
    #[serde(skip_serializing_if = "Option::is_none")]
    silenced: Option<&'a Silenced>,
    /// The gate's own severity.
    #[serde(skip_serializing_if = "Option::is_none")]
    rated: Option<Severity>,
    seen: String,
    why: &'static str,
    technique: TechniqueRecord,
    next: Vec<String>,
    parts: Vec<PartRecord>,
    /// The frame of the sample, in hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    frame: String,
}

#[derive(Serialize)]
struct PartRecord {
    kind: Kind,
    severity: Severity,
    reason: Option<ReasonCode>,
    verdict: Option<DropVerdict>,
    service: String,
    packets: u64,
    since: String,
    last: String,
    is_over: bool,
    sources: Listed<String>,
    destinations: Listed<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<Listed<u16>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    contacted: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    question: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    looked_up: Option<LookedUp>,
    technique: TechniqueRecord,
    seen: String,
}

/// Distinct things: how many, whether that is an estimate, the first ones themselves, and the most frequent
/// ones where the ledger has counted them.
#[derive(Serialize)]
struct Listed<T> {
    count: usize,
    estimate: bool,
    first: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    frequent: Vec<Frequent>,
}

#[derive(Serialize)]
struct Frequent {
    address: IpAddr,
    packets: u64,
    estimate: bool,
}

#[derive(Serialize)]
struct TechniqueRecord {
    id: &'static str,
    name: &'static str,
}

impl From<Technique> for TechniqueRecord {
    fn from(technique: Technique) -> TechniqueRecord {
        TechniqueRecord { id: technique.id, name: technique.name }
    }
}

impl<T> Listed<T> {
    fn new<U: PartialEq + Copy + Hash>(
        distinct: &Distinct<U>,
        most: usize,
        show: impl Fn(&U) -> T,
    ) -> Listed<T> {
        Listed {
            count: distinct.len(),
            estimate: distinct.is_estimate(),
            first: distinct.iter().take(most).map(show).collect(),
            frequent: Vec::new(),
        }
    }

    fn with_frequent(mut self, contacts: Option<&Contacts>) -> Listed<T> {
        if let Some(Contacts { frequent, is_estimate, .. }) = contacts {
            let frequent = frequent.iter();
            let show = |(address, packets): &(IpAddr, u64)| Frequent {
                address: *address,
                packets: *packets,
                estimate: *is_estimate,
            };
            self.frequent = frequent.map(show).collect();
        }
        self
    }
}

impl PartRecord {
    fn new(part: &Part, is_full: bool) -> PartRecord {
        let most = if is_full { LISTED } else { LISTED_OF_PART };
        let listed = |addresses| Listed::new(addresses, most, IpAddr::to_string);
        let [sources, destinations] =
            part.frequent.each_ref().map(|known| known.as_deref().filter(|_| is_full));
        PartRecord {
            kind: part.kind,
            severity: part.severity,
            reason: part.reason,
            verdict: part.verdict,
            service: part.service(),
            packets: part.packets,
            since: part.first.to_string(),
            last: part.last.to_string(),
            is_over: part.is_over,
            sources: listed(&part.sources).with_frequent(sources),
            destinations: listed(&part.destinations).with_frequent(destinations),
            ports: (part.ports.len() > 1).then(|| Listed::new(&part.ports, most, |port| *port)),
            contacted: part.contacted,
            question: part
                .sample
                .as_ref()
                .and_then(|sample| sample.question())
                .map(|asked| asked.to_string()),
            looked_up: part.sample.as_ref().and_then(|sample| sample.looked_up.clone()),
            technique: part.technique().into(),
            seen: match &part.trouble {
                Some((_, detail)) => detail.to_string(),
                None => part.describe_action(),
            },
        }
    }
}

/// The word of the policy for a verdict.
pub(super) fn mode_of(verdict: DropVerdict) -> &'static str {
    match verdict {
        DropVerdict::Drop => "enforce",
        DropVerdict::WouldDrop => "observe",
    }
}

impl Serialize for Alarm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = Record {
            id: self.id,
            host: host_name(),
            interface: &self.interface,
            kind: self.kind(),
            opened_as: self.opened_as,
            severity: self.severity(),
            mode: self.mode(),
            server: self.server.as_ref().map(|server| &*server.name),
            reason: self.reason(),
            verdict: self.verdict(),
            service: self.service(),
            packets: self.packets,
            events: self.events,
            since: self.first.to_string(),
            last: self.last.to_string(),
            follows: self.follows,
            sources: Listed::new(&self.sources, LISTED, IpAddr::to_string),
            destinations: Listed::new(&self.destinations, LISTED, IpAddr::to_string),
            ports: Listed::new(&self.ports, LISTED, |port| *port),
            source_macs: Listed::new(&self.source_macs, LISTED, show_mac),
            contacted: self.lead().contacted,
            question: self.sample().and_then(|sample| sample.question()).map(|question| question.to_string()),
            looked_up: self.sample().and_then(|sample| sample.looked_up.as_ref()),
            while_away: self.while_away,
            response: &self.response,
            acknowledged: self.acknowledged.as_ref(),
            silenced: self.silenced.as_ref(),
            rated: self.rated,
            seen: self.seen(),
            why: self.why(),
            technique: self.technique().into(),
            next: self.next_commands(),
            parts: (0..)
                .zip(&self.parts)
                .map(|(number, part)| PartRecord::new(part, number < FULL_PARTS))
                .collect(),
            frame: self.sample().map(|sample| show_hex(&sample.frame)).unwrap_or_default(),
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
    #[serde(skip_serializing_if = "str::is_empty")]
    news: &'a str,
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
        let (change, news) = (self.step.name(), &*self.news);
        let record = ChangeRecord { change, was, folded_into, news, alarm: &self.alarm };
        record.serialize(serializer)
    }
}
