//! The page.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::text::{ForeignText, group_digits, show_minute, show_second};
use super::totals::{destination_of, server_of, sum_by};
use super::{attempt_map, samples, story, summary, timeline};
use crate::alarm::Severity;
use crate::audit::{Event, PolicyMark};
use crate::escape::escape_json;
use crate::history::{AlarmEntry, MinuteCount, RemovedCounts, ReportData, SPAN_MINUTE_S};
use crate::host::host_name;

const STYLE: &str = include_str!("style.css");
/// Lets a browser fetch nothing and run no script. The page's data is no script, whatever its element is called.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// How much is shown. Beyond that, a note says how many more there are.
const MAX_ROWS: usize = 500;
const MAX_SAMPLES: usize = 200;
/// How much the data in the page has.
const MAX_DATA_ALARMS: usize = 500;
const MAX_DATA_COUNTS: usize = 5_000;
const MAX_FOLDED_NAMES: usize = 10;
/// Removed counts of no server, or of more servers than the history tells apart.
const OTHER_SERVERS: &str = "other sources";

/// The subject of the page.
pub(super) struct Cover<'c> {
    pub interface: &'c str,
    pub from: Timestamp,
    pub to: Timestamp,
    pub made: Timestamp,
    /// The live policy, as far as known.
    pub policy: Option<PolicyMark>,
    /// The file that it came from.
    pub file: Option<String>,
}

/// The whole page. Texts of alarms, counts and samples may be hostile. Maud escapes every value of `html!`,
/// so none of them becomes markup.
pub(super) fn render(cover: &Cover<'_>, data: &ReportData) -> String {
    let (from, to) = (show_second(cover.from), show_second(cover.to));
    // quiet drops are noise by the policy's word: in the table, not in the pictures
    let loud: Vec<MinuteCount> = data.counts.iter().filter(|count| !count.quiet).cloned().collect();
    let stories = story::gather(&data.alarms);
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(CONTENT_POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "portcullis: " (ForeignText(cover.interface)) ", " (from) " to " (to) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main {
                    h1 { "Drops and alarms of " (ForeignText(cover.interface)) }
                    (render_cover(cover, &from, &to))
                    (summary::render(data, &stories))
                    (render_numbers(data))
                    (render_folded(&data.counts))
                    (render_removed(&data.removed))
                    (story::render(&stories))
                    h2 { "Timeline of drops by server and service" }
                    (card(timeline::draw(&loud, data, cover.from, cover.to), "Nothing was dropped in this time."))
                    (render_audit(&data.audit))
                    h2 { "Attempts by server, service and destination" }
                    div.wide { (card(attempt_map::draw(&loud), "Nothing was tried in this time.")) }
                    p.note.narrow { "The table below has the same, line by line." }
                    (render_kinds(&data.counts))
                    (render_reasons(&data.counts))
                    (render_samples(data))
                    (render_data(cover, data))
                }
            }
        }
    };
    page.into_string() + "\n"
}

/// What the page is about: times, host, interface, policy.
fn render_cover(cover: &Cover<'_>, from: &str, to: &str) -> Markup {
    html! {
        p.note {
            (from) " to " (to) ". All times are UTC. Made " (show_second(cover.made))
            " by portcullis " (env!("CARGO_PKG_VERSION")) " on host " b { (ForeignText(host_name())) } ", interface "
            b { (ForeignText(cover.interface)) } "."
        }
        p.note {
            @if let Some(policy) = &cover.policy {
                "Policy: " @if let Some(file) = &cover.file { code { (ForeignText(file)) } ", " }
                "generation " b { (policy.generation) } ", SHA-256 " code.hash { (ForeignText(&policy.hash)) }
            } @else { "The policy is not known: the gate is detached, and no event of this time names it." }
        }
    }
}

/// The data of the page as JSON, for tools. What it leaves out is said in it.
fn render_data(cover: &Cover<'_>, data: &ReportData) -> Markup {
    let alarms: Vec<serde_json::Value> = data
        .alarms
        .iter()
        .take(MAX_DATA_ALARMS)
        .map(|entry| {
            let mut value = entry.to_value();
            // the samples are in the page
            if let Some(fields) = value.as_object_mut() {
                fields.remove("frame");
            }
            value
        })
        .collect();
    let counts = data.counts.get(..data.counts.len().min(MAX_DATA_COUNTS)).unwrap_or_default();
    let audit = data.audit.get(data.audit.len().saturating_sub(MAX_ROWS)..).unwrap_or_default();
    let value = serde_json::json!({
        "host": host_name(),
        "interface": cover.interface,
        "from": cover.from.to_string(),
        "to": cover.to.to_string(),
        "made": cover.made.to_string(),
        "policy": cover.policy,
        "alarms": alarms,
        "counts": counts,
        "removed": data.removed,
        "audit": audit,
        "left_out": {
            "alarms": data.alarms.len() - alarms.len(),
            "counts": data.counts.len() - counts.len(),
            "audit": data.audit.len() - audit.len(),
        },
    });
    // nothing in it can end the element, begin a comment or act on a terminal
    let text = escape_json(value.to_string());
    let text =
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026").replace('\'', "\\u0027");
    html! { script #data type="application/json" { (PreEscaped(text)) } }
}

fn card(content: Option<Markup>, otherwise: &str) -> Markup {
    html! {
        @if let Some(content) = content { div.card { (content) } } @else { p.note { (otherwise) } }
    }
}

fn render_numbers(data: &ReportData) -> Markup {
    let counts = &data.counts;
    let sum = |verdict: &str| {
        let packets = counts.iter().filter(|count| count.verdict == verdict).map(|count| count.packets);
        group_digits(packets.sum::<u64>())
    };
    let servers = sum_by(counts, |count| count.server.clone());
    let servers = servers.iter().filter(|(name, _)| name.is_some()).count();
    let destinations = sum_by(counts, |count| count.destination);
    let destinations = destinations.iter().filter(|(address, _)| address.is_some()).count();
    let is_critical = |alarm: &&AlarmEntry| alarm.text("severity") == Severity::Critical.name();
    html! {
        ul.numbers {
            li { b { (data.alarms.len()) } "alarms" }
            li { b { (data.alarms.iter().filter(is_critical).count()) } "of them critical" }
            li { b { (sum("drop")) } "packets dropped" }
            li { b { (sum("would_drop")) } "would have been dropped" }
            li { b { (servers) } "servers" }
            li { b { (destinations) } "destinations recorded" }
        }
    }
}

/// Says how much is known by server and reason alone.
fn render_folded(counts: &[MinuteCount]) -> Markup {
    let folded: Vec<MinuteCount> = counts.iter().filter(|count| count.folded).cloned().collect();
    let longest = folded.iter().map(|count| count.span_s).max().unwrap_or(0);
    let servers = sum_by(&folded, |count| server_of(count).to_owned());
    html! {
        @if !servers.is_empty() {
            p.note {
                "Folded, because a server had more kinds of drops than its share: "
                @for (index, (server, packets)) in servers.iter().take(MAX_FOLDED_NAMES).enumerate() {
                    @if index > 0 { ", " }
                    (ForeignText(server)) " " (group_digits(*packets))
                }
                @if servers.len() > MAX_FOLDED_NAMES { " and others" }
                ". The numbers of these packets are exact, by server and reason. Their services and "
                "destinations were not kept."
                @if longest > SPAN_MINUTE_S {
                    " Some stand for up to " (timeline::name_duration(longest))
                    ", and are drawn at its beginning."
                }
            }
        }
    }
}

/// Says what is in no number of the page.
fn render_removed(removed: &[RemovedCounts]) -> Markup {
    let mut removed: Vec<&RemovedCounts> = removed.iter().collect();
    removed.sort_by_key(|row| std::cmp::Reverse(row.packets));
    html! {
        @if !removed.is_empty() {
            p.note {
                "Removed, because the history had no room for their counts: "
                @for (index, row) in removed.iter().take(MAX_FOLDED_NAMES).enumerate() {
                    @if index > 0 { ", " }
                    (ForeignText(row.server.as_deref().unwrap_or(OTHER_SERVERS))) " " (group_digits(row.packets))
                    " packets from " (show_minute(row.from)) " to " (show_minute(row.to))
                }
                @if removed.len() > MAX_FOLDED_NAMES { " and others" }
                ". These packets were dropped, and are in no number of this page."
            }
        }
    }
}

/// What was done to the gate, in the order of time.
fn render_audit(events: &[Event]) -> Markup {
    let mark =
        |mark: &Option<PolicyMark>| mark.as_ref().map_or("-".to_owned(), |mark| mark.generation.to_string());
    let latest = events.len().saturating_sub(MAX_ROWS);
    html! {
        h2 { "Done to the gate" }
        @if events.is_empty() { p.note { "Nothing in this time." } } @else {
            table {
                thead {
                    tr {
                        th { "time" } th { "what" } th { "result" } th { "who" }
                        th.number { "generation before" } th.number { "after" } th { "more" }
                    }
                }
                tbody {
                    @for event in events.iter().skip(latest) {
                        tr {
                            td.time data-h="time" { (show_second(event.time)) }
                            td data-h="what" {
                                (event.action.name()) " "
                                (ForeignText(event.subject.as_deref().or(event.file.as_deref()).unwrap_or_default()))
                            }
                            td data-h="result" { (event.result.name()) }
                            td data-h="who" { (ForeignText(&event.who.describe())) }
                            td.number data-h="before" { (mark(&event.before)) }
                            td.number data-h="after" { (mark(&event.after)) }
                            td data-h="more" {
                                (ForeignText(&describe_more(event)))
                            }
                        }
                    }
                }
            }
        }
        (note_rest(events.len(), MAX_ROWS, "events"))
    }
}

fn describe_more(event: &Event) -> String {
    let note = event.note.as_ref().map(|note| format!("note: {note}"));
    [event.detail.clone(), event.why.clone(), note].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// The packets of one kind of drop, from when to when.
struct Span {
    packets: u64,
    first: i64,
    last: i64,
}

fn render_kinds(counts: &[MinuteCount]) -> Markup {
    let mut kinds: BTreeMap<(&str, &str, String, String), Span> = BTreeMap::new();
    for count in counts {
        let key = (server_of(count), &*count.service, destination_of(count), describe_reason(count));
        let minute = count.minute;
        let span = kinds.entry(key).or_insert(Span { packets: 0, first: minute, last: minute });
        span.packets = span.packets.saturating_add(count.packets);
        (span.first, span.last) = (span.first.min(minute), span.last.max(minute));
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, span)| std::cmp::Reverse(span.packets));
    html! {
        h2 { "Drops in detail" }
        div.card {
            table {
                thead {
                    tr {
                        th { "server" } th { "service" } th { "destination" } th { "reason" }
                        th { "first" } th { "last" } th.number { "packets" }
                    }
                }
                tbody {
                    @for ((server, service, destination, reason), span) in kinds.iter().take(MAX_ROWS) {
                        tr {
                            td data-h="server" { (ForeignText(server)) }
                            td data-h="service" { code { (ForeignText(service)) } }
                            td data-h="destination" { (destination) } td data-h="reason" { (ForeignText(reason)) }
                            td.time data-h="first" { (show_minute(span.first)) }
                            td.time data-h="last" { (show_minute(span.last)) }
                            td.number data-h="packets" { (group_digits(span.packets)) }
                        }
                    }
                }
            }
        }
        (note_rest(kinds.len(), MAX_ROWS, "kinds of drops"))
    }
}

fn describe_reason(count: &MinuteCount) -> String {
    let mut reason = count.reason.clone();
    let marks = [
        (count.verdict == "would_drop", "would drop"),
        (count.quiet, "quiet"),
        (count.while_away, "while no daemon ran"),
    ];
    for (_, mark) in marks.into_iter().filter(|(is_set, _)| *is_set) {
        reason = format!("{reason}, {mark}");
    }
    reason
}

fn render_reasons(counts: &[MinuteCount]) -> Markup {
    let dropped: Vec<MinuteCount> = counts.iter().filter(|count| count.verdict == "drop").cloned().collect();
    let sums = sum_by(&dropped, |count| (server_of(count).to_owned(), count.reason.clone()));
    html! {
        h2 { "Drops by reason" }
        div.card {
            table {
                thead { tr { th { "server" } th { "reason" } th.number { "packets" } } }
                tbody {
                    @for ((server, reason), packets) in sums.iter().take(MAX_ROWS) {
                        tr {
                            td data-h="server" { (ForeignText(server)) } td data-h="reason" { (ForeignText(reason)) }
                            td.number data-h="packets" { (group_digits(*packets)) }
                        }
                    }
                }
            }
        }
        (note_rest(sums.len(), MAX_ROWS, "rows"))
    }
}

fn render_samples(data: &ReportData) -> Markup {
    html! {
        h2.samples { "Raw samples" }
        @if data.samples.is_empty() {
            p.note { "No sample was recorded." }
        } @else {
            div.card.samples { @for sample in data.samples.iter().take(MAX_SAMPLES) { (samples::render(sample)) } }
            (note_rest(data.samples.len(), MAX_SAMPLES, "samples"))
        }
    }
}

fn note_rest(all: usize, shown: usize, what: &str) -> Markup {
    html! { @if all > shown { p.note { "… and " (all - shown) " more " (what) "." } } }
}

#[cfg(test)]
mod tests;
