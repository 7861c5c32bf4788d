//! Silences: alarms about which nobody is called, for a time. A silence never covers what is more severe than what it was
//! given for.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Alarm, KINDS, Kind, Part, Severity};
use crate::clock::Clock;

/// The longest silence: a week.
pub const MAX_SILENCE_S: u64 = 7 * 86_400;
/// Silences at a time.
const MAX_SILENCES: usize = 256;

/// What is silenced.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// Every alarm of a server.
    Server(String),
    /// Alarms of this kind, of every server.
    Kind(Kind),
    /// Alarms about this service, in the words of a need.
    Service(String),
}

impl Target {
    /// What a word of the command line means. A server may have any name but that of a kind.
    ///
    /// # Errors
    /// When it is neither.
    pub fn parse(word: &str, is_server: impl Fn(&str) -> bool) -> Result<Target, String> {
        if let Some(kind) = KINDS.iter().find(|kind| kind.name() == word) {
            return Ok(Target::Kind(*kind));
        }
        if is_server(word) {
            return Ok(Target::Server(word.to_owned()));
        }
        match word.split_once('/') {
            Some((protocol, port)) if !protocol.is_empty() && !port.is_empty() => {
                Ok(Target::Service(word.to_owned()))
            }
            _ => Err(format!(
                "`{word}` is no server of the live policy, no kind of alarm and no service\n\
                 help: name a server, a kind such as scan, or a service such as udp/123"
            )),
        }
    }

    fn covers(&self, alarm: &Alarm, part: &Part) -> bool {
        match self {
            Target::Server(name) => alarm.server.as_ref().is_some_and(|server| *server.name == **name),
            Target::Kind(kind) => part.kind == *kind,
            Target::Service(service) => part.service() == *service,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Target::Server(name) | Target::Service(name) => name,
            Target::Kind(kind) => kind.name(),
        })
    }
}

/// A silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// What is silenced.
    pub target: Target,
    /// The highest severity that it covers.
    pub severity: Severity,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub note: String,
    /// When it was given.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
    /// When it ends by CLOCK_MONOTONIC, nanoseconds: the wall clock may be stepped.
    ends_ns: u64,
}

/// What an order says of a silence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSilence {
    /// What is to be silenced.
    pub target: Target,
    /// For how long, seconds.
    pub for_s: u64,
    /// Why.
    pub note: String,
    /// Who says so.
    pub by: String,
    /// What is critical as well.
    pub force: bool,
}

/// That an alarm is silenced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Silenced {
    /// By which silences.
    pub targets: Vec<String>,
    /// When the first of them ends.
    pub until: Timestamp,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub note: String,
}

/// A silence as programs read it, and as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SilenceRecord {
    /// A server, a kind or a service.
    pub target: String,
    /// `server`, `kind` or `service`.
    pub of: String,
    /// The highest severity that it covers.
    pub severity: String,
    /// Who gave it.
    pub by: String,
    /// Why.
    pub note: String,
    /// When it was given.
    pub since: Timestamp,
    /// When it ends.
    pub until: Timestamp,
}

impl Silence {
    /// As programs read it.
    pub fn to_record(&self) -> SilenceRecord {
        let of = match self.target {
            Target::Server(_) => "server",
            Target::Kind(_) => "kind",
            Target::Service(_) => "service",
        };
        SilenceRecord {
            target: self.target.to_string(),
            of: of.to_owned(),
            severity: self.severity.name().to_owned(),
            by: self.by.clone(),
            note: self.note.clone(),
            since: self.since,
            until: self.until,
        }
    }

    /// A record that was kept; `None` if it is over or makes no sense. It never lasts longer than it was given for.
    fn from_record(record: SilenceRecord, now: Clock) -> Option<Silence> {
        let target = match &*record.of {
            "server" => Target::Server(record.target),
            "kind" => Target::Kind(*KINDS.iter().find(|kind| kind.name() == record.target)?),
            "service" => Target::Service(record.target),
            _ => return None,
        };
        let given = record.until.duration_since(record.since).min(SignedDuration::from_secs(604_800));
        let left = record.until.duration_since(now.wall).min(given);
        let left_ns = u64::try_from(left.as_nanos()).ok().filter(|left| *left > 0)?;
        Some(Silence {
            target,
            severity: Severity::from_name(&record.severity)?,
            by: record.by,
            note: record.note,
            since: record.since,
            until: now.wall.saturating_add(left).unwrap_or(record.until),
            ends_ns: now.mono_ns.saturating_add(left_ns),
        })
    }
}

/// The silences that hold.
#[derive(Clone, Debug, Default)]
pub(super) struct Silences(Vec<Silence>);

impl Silences {
    pub(super) fn list(&self) -> &[Silence] {
        &self.0
    }

    pub(super) fn restore(&mut self, records: Vec<SilenceRecord>, now: Clock) {
        let records = records.into_iter().take(MAX_SILENCES);
        self.0 = records.filter_map(|record| Silence::from_record(record, now)).collect();
    }

    /// Adds a silence, in place of an earlier one of the same. It covers what is open now, and where nothing is open
    /// all but what is critical.
    pub(super) fn add(&mut self, new: NewSilence, open: &[Alarm], now: Clock) -> Result<Silence, String> {
        let NewSilence { target, for_s, note, by, force } = new;
        if note.trim().is_empty() {
            return Err("a silence needs a note: who finds it must know why\nhelp: --note TEXT".to_owned());
        }
        if for_s == 0 || for_s > MAX_SILENCE_S {
            return Err("a silence lasts for 7 days at most\n\
                 help: --for 7d; what is never to be an alarm belongs into `quiet` of the policy"
                .to_owned());
        }
        let matching = |alarm: &Alarm| {
            alarm
                .parts
                .iter()
                .filter(|part| target.covers(alarm, part))
                .map(|part| part.severity)
                .max()
                .map(|severity| (severity, alarm.id))
        };
        let worst = open.iter().filter_map(matching).max();
        if let (Some((Severity::Critical, id)), false) = (worst, force) {
            return Err(format!(
                "alarm #{id} about {target} is critical, and what is critical is never silenced\n\
                 help: `portcullis alarms -i IF ack {id}` says that you are at it; --force silences it all the same"
            ));
        }
        let severity = match (force, worst) {
            (true, _) => Severity::Critical,
            (false, Some((severity, _))) => severity,
            (false, None) => Severity::High,
        };
        let time = i64::try_from(for_s).map_or(SignedDuration::MAX, SignedDuration::from_secs);
        let silence = Silence {
            severity,
            by,
            note,
            since: now.wall,
            until: now.wall.saturating_add(time).unwrap_or(Timestamp::MAX),
            ends_ns: now.mono_ns.saturating_add(for_s.saturating_mul(1_000_000_000)),
            target,
        };
        self.0.retain(|known| known.target != silence.target);
        if self.0.len() >= MAX_SILENCES {
            return Err(format!(
                "there are {MAX_SILENCES} silences already\n\
                 help: end some with `portcullis alarms -i IF unsilence`"
            ));
        }
        self.0.push(silence.clone());
        Ok(silence)
    }

    /// Ends a silence; `None` if there is none.
    pub(super) fn remove(&mut self, word: &str) -> Option<Silence> {
        let place = self.0.iter().position(|silence| silence.target.to_string() == word)?;
        Some(self.0.remove(place))
    }

    /// Ends those whose time is over, and says whether there were any.
    pub(super) fn end_due(&mut self, now: Clock) -> bool {
        let before = self.0.len();
        self.0.retain(|silence| now.mono_ns < silence.ends_ns);
        self.0.len() < before
    }

    /// Whether each part of an alarm that goes on is covered, and by what.
    pub(super) fn cover(&self, alarm: &Alarm) -> Option<Silenced> {
        if self.0.is_empty() {
            return None;
        }
        let mut found: Vec<&Silence> = Vec::new();
        let all_over = alarm.parts.iter().all(|part| part.is_over);
        for part in alarm.parts.iter().filter(|part| all_over || !part.is_over) {
            let silence = self
                .0
                .iter()
                .find(|silence| part.severity <= silence.severity && silence.target.covers(alarm, part))?;
            if !found.iter().any(|known| known.target == silence.target) {
                found.push(silence);
            }
        }
        let first = found.iter().min_by_key(|silence| silence.until)?;
        Some(Silenced {
            targets: found.iter().map(|silence| silence.target.to_string()).collect(),
            until: first.until,
            by: first.by.clone(),
            note: first.note.clone(),
        })
    }
}
