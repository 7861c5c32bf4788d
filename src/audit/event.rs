//! The model of an audit event.

use std::fmt::{self, Display};
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::who::{Who, cut};
use crate::clock::wall_now;
use crate::escape::escape;
use crate::host::host_name;

/// Longer notes and reasons are cut: a line of the file stays below a page.
const MOST_TEXT: usize = 1024;
/// Longer names of files and of what was acted on are cut.
const MOST_NAME: usize = 256;

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The gate was attached, or its programs were replaced.
    Attach,
    /// A policy was refused, and the gate is under the last confirmed one.
    FallBack,
    /// The gate was detached.
    Detach,
    /// A policy became the live one.
    Apply,
    /// A trial was confirmed.
    Confirm,
    /// An earlier policy became the live one.
    Rollback,
    /// The kernel went back to the policy before a trial that nobody confirmed.
    WayBack,
    /// Flows already open are taken over again, for a time.
    Pickup,
    /// Answers that come too early raise no alarm, for a time.
    Takeover,
    /// A server or an address was cut off.
    Quarantine,
    /// That was ended.
    Release,
    /// A server may do more, for a time.
    Allow,
    /// A server may do less, for a time.
    Deny,
    /// An alarm was acknowledged.
    Ack,
    /// That was taken back.
    Unack,
    /// Alarms are silenced, for a time.
    Silence,
    /// That was ended.
    Unsilence,
    /// The daemon read its policy file again.
    Reload,
    /// The filter or the tracker is attached in another way than before.
    ModeChange,
    /// A sink does not take events.
    SinkFailed,
    /// A sink that failed takes events again.
    SinkBack,
    /// A daemon began.
    DaemonStart,
    /// A daemon ended.
    DaemonStop,
    /// Something that a newer version did.
    #[serde(other)]
    Other,
}

/// Whether it was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was asked for, and nothing was changed.
    Refused,
}

/// A policy: its generation, and the hash of its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyMark {
    /// Counts the policies of a gate.
    pub generation: u64,
    /// SHA-256 of the text, hexadecimal.
    pub hash: String,
}

/// What was done to a gate, by whom and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events of a gate. 0: it is in no file.
    pub seq: u64,
    /// When it was done.
    pub time: Timestamp,
    /// The router.
    pub host: String,
    /// Name of the interface when the gate was attached.
    pub interface: String,
    /// What was done.
    pub action: Action,
    /// Whether it was done.
    pub result: Outcome,
    /// The server, address, need, sink or alarm that it was done to. `None`: the gate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// More about it, such as for how long, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The note of whoever did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The policy file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The live policy before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<PolicyMark>,
    /// The live policy after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<PolicyMark>,
    /// Who did it.
    pub who: Who,
}

/// An event before anybody knows when, where and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    action: Action,
    result: Outcome,
    subject: Option<String>,
    detail: Option<String>,
    why: Option<String>,
    note: Option<String>,
    file: Option<String>,
    before: Option<PolicyMark>,
    after: Option<PolicyMark>,
    /// `None`: this process.
    who: Option<Who>,
}

impl Action {
    /// Every action that this version does.
    pub const ALL: [Action; 23] = [
        Action::Attach,
        Action::FallBack,
        Action::Detach,
        Action::Apply,
        Action::Confirm,
        Action::Rollback,
        Action::WayBack,
        Action::Pickup,
        Action::Takeover,
        Action::Quarantine,
        Action::Release,
        Action::Allow,
        Action::Deny,
        Action::Ack,
        Action::Unack,
        Action::Silence,
        Action::Unsilence,
        Action::Reload,
        Action::ModeChange,
        Action::SinkFailed,
        Action::SinkBack,
        Action::DaemonStart,
        Action::DaemonStop,
    ];

    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Attach => "attach",
            Action::FallBack => "fall_back",
            Action::Detach => "detach",
            Action::Apply => "apply",
            Action::Confirm => "confirm",
            Action::Rollback => "rollback",
            Action::WayBack => "way_back",
            Action::Pickup => "pickup",
            Action::Takeover => "takeover",
            Action::Quarantine => "quarantine",
            Action::Release => "release",
            Action::Allow => "allow",
            Action::Deny => "deny",
            Action::Ack => "ack",
            Action::Unack => "unack",
            Action::Silence => "silence",
            Action::Unsilence => "unsilence",
            Action::Reload => "reload",
            Action::ModeChange => "mode_change",
            Action::SinkFailed => "sink_failed",
            Action::SinkBack => "sink_back",
            Action::DaemonStart => "daemon_start",
            Action::DaemonStop => "daemon_stop",
            Action::Other => "other",
        }
    }
}

impl Outcome {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
        }
    }
}

impl Entry {
    /// Of something that was done.
    pub fn done(action: Action) -> Entry {
        let [subject, detail, why, note, file] = [const { None }; 5];
        let (before, after, who) = (None, None, None);
        Entry { action, result: Outcome::Done, subject, detail, why, note, file, before, after, who }
    }

    /// Of something that was refused, with the first line of the reason.
    pub fn refused(action: Action, why: &dyn Display) -> Entry {
        let why = why.to_string();
        let line = why.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("no reason is known");
        Entry { result: Outcome::Refused, why: Some(cut(line, MOST_TEXT)), ..Entry::done(action) }
    }

    /// The server, address, need, sink or alarm that it is about.
    #[must_use]
    pub fn about(self, subject: impl Display) -> Entry {
        Entry { subject: Some(cut(&subject.to_string(), MOST_NAME)), ..self }
    }

    /// More about it, in words.
    #[must_use]
    pub fn detail(self, detail: impl Display) -> Entry {
        Entry { detail: Some(cut(&detail.to_string(), MOST_TEXT)), ..self }
    }

    /// The note of whoever did it.
    #[must_use]
    pub fn note(self, note: Option<&str>) -> Entry {
        Entry { note: note.map(|note| cut(note, MOST_TEXT)), ..self }
    }

    /// The policy file.
    #[must_use]
    pub fn file(self, file: &Path) -> Entry {
        Entry { file: Some(cut(&file.display().to_string(), MOST_NAME)), ..self }
    }

    /// The live policy before and after.
    #[must_use]
    pub fn change(self, before: Option<PolicyMark>, after: Option<PolicyMark>) -> Entry {
        Entry { before, after, ..self }
    }

    /// Who had this process do it.
    #[must_use]
    pub fn by(self, who: Who) -> Entry {
        Entry { who: Some(who), ..self }
    }

    /// Whether it says that nothing was changed.
    pub fn is_refusal(&self) -> bool {
        self.result == Outcome::Refused
    }

    /// The event: now, on this router, by this process unless it says by whom.
    pub fn into_event(self, interface: &str) -> Event {
        let Entry { action, result, subject, detail, why, note, file, before, after, who } = self;
        Event {
            seq: 0,
            time: wall_now(),
            host: host_name().to_owned(),
            interface: interface.to_owned(),
            action,
            result,
            subject,
            detail,
            why,
            note,
            file,
            before,
            after,
            who: who.unwrap_or_else(Who::of_this_process),
        }
    }
}

impl Event {
    /// The event in one line, without time, host and interface. It is escaped.
    pub fn describe(&self) -> String {
        let mut text = format!("audit: {}", self.action);
        let mut add = |before: &str, value: &str, after: &str| {
            text.push_str(&format!("{before}{}{after}", escape(value)));
        };
        if let Some(subject) = &self.subject {
            add(" ", subject, "");
        }
        if let Some(file) = &self.file {
            add(" ", file, "");
        }
        add(" ", self.result.name(), "");
        // the kernel goes back by itself
        let verb = if self.action == Action::WayBack { ", noticed by " } else { " by " };
        add(verb, &self.who.describe(), "");
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if before != after => {
                add(", generation ", &format!("{} to {}", before.generation, after.generation), "");
            }
            (None, Some(mark)) | (Some(_), Some(mark)) => {
                add(", generation ", &mark.generation.to_string(), "");
            }
            (Some(before), None) => add(", was generation ", &before.generation.to_string(), ""),
            (None, None) => {}
        }
        for text in [&self.detail, &self.why].into_iter().flatten() {
            add(": ", text, "");
        }
        if let Some(note) = &self.note {
            add(" (note: ", note, ")");
        }
        text
    }

    /// The line for people: time, host and interface, and the event. It is escaped.
    pub fn render_line(&self) -> String {
        let (host, interface) = (escape(&self.host), escape(&self.interface));
        format!("{:.0} {host} {interface} {}", self.time, self.describe())
    }
}

impl Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
