//! Handling: what people have said about alarms. It stamps each change with the policy's severity, with who has
//! acknowledged the alarm, and with the silence that covers it. The engine knows nothing of it, so neither how drops
//! are recognised nor what is counted depends on anybody's word.
//!
//! Rules that keep it honest: a new kind, a higher severity or a first critical service ends an acknowledgement and
//! calls again. A silence covers nothing more severe than what it was given for. When a silence ends over an alarm about
//! which nobody was called, somebody is called then.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::rating::Ratings;
use super::silence::{NewSilence, Silence, SilenceRecord, Silences};
use super::{Alarm, Change, Kind, Severity, Step};
use crate::clock::Clock;

/// How long after the start of a daemon an alarm may be the one that was acknowledged before, nanoseconds.
const INHERIT_NS: u64 = 3_600_000_000_000;
/// Acknowledgements that are kept: more than alarms can be open.
const MAX_ACKS: usize = 4096;

/// Who has acknowledged an alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledgement {
    /// The person, in a few words.
    pub by: String,
    /// When.
    pub at: Timestamp,
    /// What they said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// An acknowledgement, and what the alarm was then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Acked {
    alarm: u64,
    #[serde(flatten)]
    ack: Acknowledgement,
    /// Whom the alarm is about.
    subject: String,
    severity: String,
    kinds: BTreeSet<String>,
    /// Services of its critical parts.
    critical: BTreeSet<String>,
}

impl Acked {
    fn of(alarm: &Alarm, ack: Acknowledgement) -> Acked {
        Acked {
            alarm: alarm.id,
            ack,
            subject: alarm.subject().to_owned(),
            severity: alarm.severity().name().to_owned(),
            kinds: alarm.parts.iter().map(|part| part.kind.name().to_owned()).collect(),
            critical: list_critical(alarm).collect(),
        }
    }

    /// Whether the alarm is still not more severe than it was then.
    fn holds(&self, alarm: &Alarm) -> bool {
        let known = Severity::from_name(&self.severity).unwrap_or(Severity::Low);
        alarm.severity() <= known
            && alarm.parts.iter().all(|part| self.kinds.contains(part.kind.name()))
            && list_critical(alarm).all(|service| self.critical.contains(&service))
    }
}

fn list_critical(alarm: &Alarm) -> impl Iterator<Item = String> {
    let critical = alarm.parts.iter().filter(|part| part.severity == Severity::Critical);
    critical.map(super::Part::service)
}

/// What was said of an open alarm.
#[derive(Clone, Debug)]
struct Reported {
    /// Somebody was called.
    called: bool,
    /// A silence covered it at the last change.
    was_silenced: bool,
    severity: Severity,
    kind: Kind,
}

/// What outlives the daemon.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Saved {
    version: u64,
    silences: Vec<SilenceRecord>,
    acknowledged: Vec<Acked>,
}

/// What people have said about alarms.
#[derive(Debug, Default)]
pub struct Handling {
    ratings: Ratings,
    silences: Silences,
    acked: BTreeMap<u64, Acked>,
    /// Acknowledgements of the daemon before, and until when an alarm may take one over.
    inherited: Vec<Acked>,
    inherit_until_ns: u64,
    reported: BTreeMap<u64, Reported>,
    /// Something changed that outlives the daemon.
    is_changed: bool,
}

impl Handling {
    /// As an earlier daemon has saved it.
    ///
    /// # Errors
    /// Why the text makes no sense.
    pub fn restore(text: &str, now: Clock) -> Result<Handling, String> {
        let saved: Saved = serde_json::from_str(text).map_err(|error| error.to_string())?;
        if saved.version != 1 {
            return Err(format!("it has version {}, and this portcullis reads 1", saved.version));
        }
        let mut handling = Handling {
            inherited: saved.acknowledged.into_iter().take(MAX_ACKS).collect(),
            inherit_until_ns: now.mono_ns.saturating_add(INHERIT_NS),
            ..Handling::default()
        };
        handling.silences.restore(saved.silences, now);
        Ok(handling)
    }

    /// What has to be saved, if that has changed.
    pub fn take_unsaved(&mut self) -> Option<String> {
        std::mem::take(&mut self.is_changed).then(|| self.to_saved())
    }

    /// What has to be saved.
    pub fn to_saved(&self) -> String {
        let acknowledged = self.acked.values().chain(&self.inherited).cloned().collect();
        let silences = self.silences.list().iter().map(Silence::to_record).collect();
        // texts and times can't fail
        serde_json::to_string(&Saved { version: 1, silences, acknowledged }).unwrap_or_default()
    }

    /// Goes by the severities of another policy.
    pub fn set_ratings(&mut self, ratings: Ratings) {
        self.ratings = ratings;
    }

    /// The silences that hold.
    pub fn silences(&self) -> &[Silence] {
        self.silences.list()
    }

    /// How many alarms are open, by the severity that people read.
    pub fn count_open(&self) -> BTreeMap<Severity, u64> {
        let mut open = BTreeMap::new();
        for reported in self.reported.values() {
            *open.entry(reported.severity).or_default() += 1;
        }
        open
    }

    /// Stamps an alarm that is open, without a change.
    pub fn stamp(&self, alarm: &mut Alarm) {
        self.ratings.rate(alarm);
        alarm.acknowledged =
            self.acked.get(&alarm.id).filter(|acked| acked.holds(alarm)).map(|acked| acked.ack.clone());
        alarm.silenced = self.silences.cover(alarm);
    }

    /// Stamps a change, and notes what was said with it.
    pub fn apply(&mut self, mut change: Change, now: Clock) -> Change {
        self.ratings.rate(&mut change.alarm);
        if now.mono_ns >= self.inherit_until_ns && !self.inherited.is_empty() {
            self.inherited.clear();
            self.is_changed = true;
        }
        let (id, severity, kind) = (change.alarm.id, change.alarm.severity(), change.alarm.kind());
        if let Step::Closed { .. } = change.step {
            let reported = self.reported.remove(&id);
            if let Some(acked) = self.acked.remove(&id) {
                change.alarm.acknowledged = Some(acked.ack);
                self.is_changed = true;
            }
            change.alarm.silenced = self.silences.cover(&change.alarm);
            change.is_muted = reported.is_some_and(|reported| !reported.called);
            return change;
        }
        if change.step == Step::Opened {
            self.inherit(&change.alarm);
        }
        let before = self.reported.get(&id).cloned();
        // What the policy has made less severe is no escalation because the gate's own severity rose.
        if let (Step::Escalated { from }, Some(before), Some(_)) = (change.step, &before, change.alarm.rated)
            && severity <= before.severity
            && from == kind
        {
            change.step = Step::Updated;
        }
        match self.acked.get(&id) {
            Some(acked) if acked.holds(&change.alarm) => {
                change.alarm.acknowledged = Some(acked.ack.clone());
                if matches!(change.step, Step::Escalated { .. }) {
                    change.step = Step::Updated;
                }
            }
            Some(_) => {
                self.acked.remove(&id);
                self.is_changed = true;
                add_news(&mut change.news, "it is more than what was acknowledged");
                if change.step == Step::Updated {
                    change.step =
                        Step::Escalated { from: before.as_ref().map_or(kind, |reported| reported.kind) };
                }
            }
            None => {}
        }
        change.alarm.silenced = self.silences.cover(&change.alarm);
        let was_called = before.as_ref().is_some_and(|reported| reported.called);
        let is_known = change.alarm.acknowledged.is_some() && !was_called;
        change.is_muted = change.alarm.silenced.is_some() || is_known;
        let was_silenced = before.is_some_and(|reported| reported.was_silenced);
        if was_silenced && !was_called && !change.is_muted && change.step == Step::Updated {
            add_news(&mut change.news, "it is no longer silenced");
            change.step = Step::Escalated { from: kind };
        }
        let called = was_called || !change.is_muted;
        let was_silenced = change.alarm.silenced.is_some();
        self.reported.insert(id, Reported { called, was_silenced, severity, kind });
        change
    }

    /// An alarm that opens may be the one that was acknowledged before the daemon was started anew.
    fn inherit(&mut self, alarm: &Alarm) {
        let is_same = |acked: &Acked| acked.subject == alarm.subject() && acked.holds(alarm);
        if let Some(place) = self.inherited.iter().position(is_same) {
            let acked = self.inherited.remove(place);
            self.acked.insert(alarm.id, Acked { alarm: alarm.id, ..acked });
            self.is_changed = true;
        }
    }

    /// Acknowledges an open alarm.
    pub fn acknowledge(&mut self, alarm: &Alarm, ack: Acknowledgement) {
        let mut alarm = alarm.clone();
        self.ratings.rate(&mut alarm);
        self.acked.insert(alarm.id, Acked::of(&alarm, ack));
        self.is_changed = true;
    }

    /// Takes an acknowledgement back. `false`: there is none.
    pub fn unacknowledge(&mut self, id: u64) -> bool {
        let was = self.acked.remove(&id).is_some();
        self.is_changed |= was;
        was
    }

    /// Silences alarms for a time.
    ///
    /// # Errors
    /// Why it is refused, with a remedy.
    pub fn silence(&mut self, new: NewSilence, open: &[Alarm], now: Clock) -> Result<Silence, String> {
        let mut open = open.to_vec();
        open.iter_mut().for_each(|alarm| self.ratings.rate(alarm));
        let silence = self.silences.add(new, &open, now)?;
        self.is_changed = true;
        Ok(silence)
    }

    /// Ends a silence; `None` if there is none.
    pub fn unsilence(&mut self, word: &str) -> Option<Silence> {
        let silence = self.silences.remove(word)?;
        self.is_changed = true;
        Some(silence)
    }

    /// Ends the silences whose time is over.
    pub fn end_silences(&mut self, now: Clock) -> bool {
        let ended = self.silences.end_due(now);
        self.is_changed |= ended;
        ended
    }

    /// The alarms of these for which a silence has begun or ended since their last change.
    pub fn find_changed(&self, open: &[Alarm]) -> Vec<u64> {
        let has_changed = |alarm: &Alarm| {
            let mut alarm = alarm.clone();
            self.ratings.rate(&mut alarm);
            let is_silenced = self.silences.cover(&alarm).is_some();
            self.reported.get(&alarm.id).is_some_and(|reported| reported.was_silenced != is_silenced)
        };
        open.iter().filter(|alarm| has_changed(alarm)).map(|alarm| alarm.id).collect()
    }
}

fn add_news(news: &mut String, text: &str) {
    if !news.is_empty() {
        news.push_str(", ");
    }
    news.push_str(text);
}
