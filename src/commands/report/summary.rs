//! The three sentences at the top of the page: what happened, what was at stake, what is still open.

use maud::{Markup, html};

use super::story::{Story, severity_of};
use super::text::{ForeignText, group_digits};
use crate::alarm::Severity;
use crate::history::{AlarmEntry, AlarmState, ReportData};

/// Servers that are named.
const NAMED: usize = 3;

/// The three sentences.
pub(super) fn render(data: &ReportData, stories: &[Story<'_>]) -> Markup {
    let open: Vec<&AlarmEntry> =
        data.alarms.iter().filter(|entry| entry.state != AlarmState::Closed).collect();
    html! {
        ol.sentences {
            li { b { "What happened. " } (render_happened(data, stories)) }
            li { b { "What was at stake. " } (render_stake(stories)) }
            li { b { "What is still open. " } (render_open(&open)) }
        }
    }
}

fn render_happened(data: &ReportData, stories: &[Story<'_>]) -> Markup {
    let sum = |verdict: &str| {
        data.counts.iter().filter(|count| count.verdict == verdict).map(|count| count.packets).sum::<u64>()
    };
    let (dropped, passed) = (sum("drop"), sum("would_drop"));
    let alarms = data.alarms.len();
    html! {
        @if stories.is_empty() { "No alarm went off" } @else {
            @for (index, story) in stories.iter().take(NAMED).enumerate() {
                @if index > 0 { ", " }
                (ForeignText(story.server)) " (" (describe_first(story)) ")"
            }
            @if stories.len() > NAMED { " and " (stories.len() - NAMED) " more" }
            " raised " (alarms) @if alarms == 1 { " alarm" } @else { " alarms" }
        }
        ", and " (group_digits(dropped)) @if dropped == 1 { " packet was" } @else { " packets were" } " dropped"
        @if passed > 0 { "; " (group_digits(passed)) " passed, because their servers are in observe" }
        "."
    }
}

fn describe_first(story: &Story<'_>) -> Markup {
    html! {
        @if let Some(entry) = story.alarms.first() {
            (ForeignText(entry.text("severity"))) " " (ForeignText(entry.text("kind")))
        }
    }
}

fn render_stake(stories: &[Story<'_>]) -> Markup {
    let Some(entry) = stories.first().and_then(|story| story.alarms.first()) else {
        return html! { "Nothing that is known." };
    };
    let passed = entry.text("verdict") == "would_drop";
    html! {
        "Alarm #" (entry.id) " is the most severe. " (ForeignText(entry.text("why"))) "."
        @if passed { " Its packets were NOT dropped." }
        @else if severity_of(entry) >= Some(Severity::High) { " Its packets did not leave." }
    }
}

fn render_open(open: &[&AlarmEntry]) -> Markup {
    let unseen = open.iter().filter(|entry| !entry.alarm["acknowledged"].is_object()).count();
    let worst = open.iter().max_by_key(|entry| severity_of(entry));
    let next = worst.and_then(|entry| entry.alarm["next"][0].as_str());
    html! {
        @if open.is_empty() { "Nothing: every alarm is closed." } @else {
            (open.len()) @if open.len() == 1 { " alarm" } @else { " alarms" }
            @if unseen == 0 { ", all acknowledged." } @else { ", " (unseen) " of them acknowledged by nobody." }
            @if let Some(next) = next { " Next: " code { (ForeignText(next)) } }
        }
    }
}
