//! The stories: what each server did, the most severe first. An alarm is a sentence, and its parts are folded.

use maud::{Markup, html};
use serde_json::Value;

use super::text::{ForeignText, group_digits, show_second};
use crate::alarm::Severity;
use crate::history::{AlarmEntry, AlarmState};

/// How many alarms are shown. Beyond that, a note says how many more there are.
const MAX_ALARMS: usize = 500;

/// What one server did.
pub(super) struct Story<'a> {
    pub server: &'a str,
    /// The most severe first, and what is open before what is over.
    pub alarms: Vec<&'a AlarmEntry>,
}

/// The severity of an alarm; `None`: a word that is none of ours.
pub(super) fn severity_of(entry: &AlarmEntry) -> Option<Severity> {
    Severity::from_name(entry.text("severity"))
}

/// Whom an alarm is about.
fn server_of(entry: &AlarmEntry) -> &str {
    match (entry.text("server"), entry.text("kind")) {
        ("", "gate") => "the gate",
        ("", "rebinding" | "forged_answer") => "names and resolvers",
        ("", _) => "unknown hosts",
        (server, _) => server,
    }
}

/// The alarms by server, the most severe server first.
pub(super) fn gather(alarms: &[AlarmEntry]) -> Vec<Story<'_>> {
    let mut stories: Vec<Story<'_>> = Vec::new();
    for entry in alarms {
        let server = server_of(entry);
        match stories.iter_mut().find(|story| story.server == server) {
            Some(story) => story.alarms.push(entry),
            None => stories.push(Story { server, alarms: vec![entry] }),
        }
    }
    let rank = |entry: &AlarmEntry| {
        let is_open = entry.state == AlarmState::Open;
        (severity_of(entry), is_open)
    };
    for story in &mut stories {
        story.alarms.sort_by_key(|entry| (std::cmp::Reverse(rank(entry)), entry.id));
    }
    stories.sort_by_key(|story| {
        let first = story.alarms.first();
        (std::cmp::Reverse(first.map(|entry| rank(entry))), first.map(|entry| entry.id))
    });
    stories
}

/// All stories.
pub(super) fn render(stories: &[Story<'_>]) -> Markup {
    let all: usize = stories.iter().map(|story| story.alarms.len()).sum();
    let mut left = MAX_ALARMS;
    let mut shown: Vec<(&Story<'_>, usize)> = Vec::new();
    for story in stories {
        let count = story.alarms.len().min(left);
        left -= count;
        if count > 0 {
            shown.push((story, count));
        }
    }
    html! {
        h2 { "What each server did" }
        @if stories.is_empty() { p.note { "No alarm in this time." } }
        @for (story, count) in shown {
            section.story {
                h3 { (ForeignText(story.server)) }
                @for entry in story.alarms.iter().take(count) { (render_alarm(entry)) }
            }
        }
        @if all > MAX_ALARMS { p.note { "… and " (all - MAX_ALARMS) " more alarms." } }
    }
}

fn render_alarm(entry: &AlarmEntry) -> Markup {
    // a class can only be one of our own words
    let class = severity_of(entry).map_or("", Severity::name);
    let (state, over) = match entry.state {
        AlarmState::Open => ("open", ""),
        AlarmState::Closed => ("closed", " over"),
        AlarmState::CutOff => ("its daemon ended while it was open", ""),
    };
    let time = |key: &str| entry.time(key).map_or("?".to_owned(), show_second);
    let technique = &entry.alarm["technique"];
    let technique = |key: &str| technique[key].as_str().unwrap_or_default();
    let commands = entry.alarm["next"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        div class={ "alarm " (class) (over) } {
            p {
                span.badge { (ForeignText(entry.text("severity"))) " " (ForeignText(entry.text("kind"))) }
                " #" (entry.id) " "
                span.dim {
                    (time("since")) " to " (time("last")) ", " (state)
                    @if entry.alarm["while_away"] == true { ", in part while no daemon ran" }
                }
            }
            p { (ForeignText(entry.text("seen"))) }
            (render_handling(&entry.alarm))
            details {
                summary { "why, parts and next steps" }
                p.note {
                    (ForeignText(entry.text("why"))) " (" (ForeignText(technique("id"))) " "
                    (ForeignText(technique("name"))) ")"
                }
                (render_parts(entry))
                @for command in commands {
                    p { code { (ForeignText(command.as_str().unwrap_or_default())) } }
                }
            }
        }
    }
}

/// Who is at it, and which silence covers it.
fn render_handling(alarm: &Value) -> Markup {
    let (ack, silenced) = (&alarm["acknowledged"], &alarm["silenced"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let time = |value: &Value| text(value).parse().map_or("?".to_owned(), show_second);
    html! {
        @if ack.is_object() {
            p.handled {
                "Acknowledged by " (ForeignText(&text(&ack["by"]))) " at " (time(&ack["at"]))
                @if ack["note"].is_string() { ": " (ForeignText(&text(&ack["note"]))) }
            }
        }
        @if silenced.is_object() {
            p.handled {
                "Silenced until " (time(&silenced["until"])) " by " (ForeignText(&text(&silenced["by"])))
                ": " (ForeignText(&text(&silenced["note"])))
            }
        }
        @if alarm["rated"].is_string() {
            p.handled { "The policy says " (ForeignText(&text(&alarm["severity"]))) ", the gate itself "
                (ForeignText(&text(&alarm["rated"]))) }
        }
    }
}

/// The parts of an incident. An alarm of an earlier version has none, and the only part says what the alarm
/// says.
fn render_parts(entry: &AlarmEntry) -> Markup {
    let parts = entry.alarm["parts"].as_array().map_or(&[][..], Vec::as_slice);
    let text = |part: &Value, key: &str| part[key].as_str().unwrap_or_default().to_owned();
    let time = |part: &Value, key: &str| text(part, key).parse().map_or("?".to_owned(), show_second);
    html! {
        @if parts.len() > 1 {
            table {
                thead {
                    tr {
                        th { "part" } th { "what" } th { "technique" } th { "first" } th { "last" }
                        th.number { "packets" }
                    }
                }
                tbody {
                    @for part in parts {
                        tr {
                            td data-h="part" { (ForeignText(&text(part, "severity"))) " " (ForeignText(&text(part, "kind"))) }
                            td data-h="what" { (ForeignText(&text(part, "seen"))) }
                            td data-h="technique" { (ForeignText(&text(&part["technique"], "id"))) }
                            td.time data-h="first" { (time(part, "since")) }
                            td.time data-h="last" { (time(part, "last")) }
                            td.number data-h="packets" { (group_digits(part["packets"].as_u64().unwrap_or(0))) }
                        }
                    }
                }
            }
        }
    }
}
