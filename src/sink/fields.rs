//! Texts and fields that several sinks share.

use std::net::IpAddr;

use crate::alarm::{Alarm, Change, Kind, Severity, Step};
use crate::drops::DropEvent;
use crate::escape::escape;
use crate::host::host_name;

/// The text that rules of a SIEM may match.
pub(super) fn signature(kind: Kind) -> String {
    format!("portcullis {kind}: {}", kind.title())
}

/// The line for people: the alarm's number, the step, severity and kind, and the alarm's message. It is
/// escaped.
pub(super) fn describe(change: &Change) -> String {
    let alarm = &change.alarm;
    let kind = match change.step {
        Step::Escalated { from } if from != alarm.kind() => format!("{} (was {from})", alarm.kind()),
        Step::Opened | Step::Updated | Step::Escalated { .. } | Step::Closed { .. } => {
            alarm.kind().to_string()
        }
    };
    let head = format!("alarm #{} {}: {} {kind}:", alarm.id, change.step.name(), alarm.severity());
    format!("{head} {}", escape(&change.message()))
}

/// The level of syslog and the journal, from 0 (the most severe) to 7.
pub(super) fn level(change: &Change) -> u8 {
    match (change.step, change.alarm.severity()) {
        (Step::Closed { .. }, _) | (_, Severity::Low) => 5,
        (_, Severity::Medium) => 4,
        (_, Severity::High) => 2,
        (_, Severity::Critical) => 1,
    }
}

/// The fields of a change, for sinks without nested fields. The values are escaped.
pub(super) fn fields(change: &Change) -> Vec<(&'static str, String)> {
    let alarm: &Alarm = &change.alarm;
    let mut fields = vec![
        ("alarm", alarm.id.to_string()),
        ("step", change.step.name().to_owned()),
        ("kind", alarm.kind().to_string()),
        ("severity", alarm.severity().to_string()),
        ("host", host_name().to_owned()),
        ("interface", alarm.interface.to_string()),
        ("service", alarm.service()),
        ("parts", alarm.parts.len().to_string()),
        ("packets", alarm.packets.to_string()),
        ("since", alarm.first.to_string()),
        ("last", alarm.last.to_string()),
        ("technique", alarm.technique().id.to_owned()),
    ];
    let mut add = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    add("server", alarm.server.as_ref().map(|server| server.name.to_string()));
    add("mode", alarm.mode().map(str::to_owned));
    add("reason", alarm.reason().map(|reason| reason.to_string()));
    add("verdict", alarm.verdict().map(|verdict| verdict.name().to_owned()));
    let address = |of: fn(&DropEvent) -> Option<IpAddr>| alarm.sample().and_then(|sample| of(sample));
    add("source", address(|sample| sample.source).map(|address| address.to_string()));
    add("destination", address(|sample| sample.destination).map(|address| address.to_string()));
    add("looked_up", alarm.sample().and_then(|sample| sample.looked_up.as_ref()).map(ToString::to_string));
    add("follows", alarm.follows.map(|id| id.to_string()));
    add("news", Some(change.news.clone()).filter(|news| !news.is_empty()));
    add("acknowledged", alarm.acknowledged.as_ref().map(|ack| ack.by.clone()));
    add("silenced", alarm.silenced.as_ref().map(|silenced| silenced.until.to_string()));
    add("next", alarm.next_commands().first().cloned());
    for (_, value) in &mut fields {
        *value = escape(value).into_owned();
    }
    fields
}
