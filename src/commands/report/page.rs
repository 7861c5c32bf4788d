//! The page.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::text::{ForeignText, group_digits, show_minute, show_second};
use super::totals::{destination_of, server_of, sum_by};
use super::{attempt_map, samples, timeline};
use crate::alarm::Severity;
use crate::audit::{Event, PolicyMark};
use crate::history::{AlarmEntry, AlarmState, MinuteCount, RemovedCounts, ReportData, SPAN_MINUTE_S};

const STYLE: &str = include_str!("style.css");
/// Lets a browser fetch nothing and run no script.
const CONTENT_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
/// How much is shown. Beyond that, a note says how many more there are.
const MAX_ALARMS: usize = 500;
const MAX_ROWS: usize = 500;
const MAX_SAMPLES: usize = 200;
const MAX_FOLDED_NAMES: usize = 10;
/// Removed counts of no server, or of more servers than the history tells apart.
const OTHER_SERVERS: &str = "other sources";

/// The subject of the page.
pub(super) struct Cover<'c> {
    pub interface: &'c str,
    pub from: Timestamp,
    pub to: Timestamp,
    pub made: Timestamp,
}

/// The whole page. Texts of alarms, counts and samples may be hostile. Maud escapes every value of `html!`,
/// so none of them becomes markup.
pub(super) fn render(cover: &Cover<'_>, data: &ReportData) -> String {
    let (from, to) = (show_second(cover.from), show_second(cover.to));
    // quiet drops are noise by the policy's word: in the table, not in the pictures
    let loud: Vec<MinuteCount> = data.counts.iter().filter(|count| !count.quiet).cloned().collect();
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
                    p.note {
                        (from) " to " (to) ". All times are UTC. Made " (show_second(cover.made))
                        " by portcullis " (env!("CARGO_PKG_VERSION")) "."
                    }
                    (render_numbers(data))
                    (render_folded(&data.counts))
                    (render_removed(&data.removed))
                    h2 { "Timeline of drops by server and service" }
                    (card(timeline::draw(&loud, &data.audit, cover.from, cover.to), "Nothing was dropped in this time."))
                    (render_audit(&data.audit))
                    h2 { "Attempts by server, service and destination" }
                    (card(attempt_map::draw(&loud), "Nothing was tried in this time."))
                    (render_alarms(&data.alarms))
                    (render_kinds(&data.counts))
                    (render_reasons(&data.counts))
                    (render_samples(data))
                }
            }
        }
    };
    page.into_string() + "\n"
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
                            td.time { (show_second(event.time)) }
                            td {
                                (event.action.name()) " "
                                (ForeignText(event.subject.as_deref().or(event.file.as_deref()).unwrap_or_default()))
                            }
                            td { (event.result.name()) }
                            td { (ForeignText(&event.who.describe())) }
                            td.number { (mark(&event.before)) } td.number { (mark(&event.after)) }
                            td {
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

fn render_alarms(alarms: &[AlarmEntry]) -> Markup {
    let severity = |alarm: &AlarmEntry| Severity::from_name(alarm.text("severity"));
    let mut sorted: Vec<&AlarmEntry> = alarms.iter().collect();
    sorted.sort_by_key(|alarm| (std::cmp::Reverse(severity(alarm)), alarm.id));
    html! {
        h2 { "Alarms" }
        @if sorted.is_empty() { p.note { "None." } }
        @for alarm in sorted.iter().take(MAX_ALARMS) { (render_alarm(alarm)) }
        (note_rest(sorted.len(), MAX_ALARMS, "alarms"))
    }
}

fn render_alarm(entry: &AlarmEntry) -> Markup {
    // a class can only be one of our own words
    let class = Severity::from_name(entry.text("severity")).map_or("", Severity::name);
    let state = match entry.state {
        AlarmState::Open => "open",
        AlarmState::Closed => "closed",
        AlarmState::CutOff => "its daemon ended while it was open",
    };
    let time = |key: &str| entry.time(key).map_or("?".to_owned(), show_second);
    let technique = &entry.alarm["technique"];
    let technique = |key: &str| technique[key].as_str().unwrap_or_default();
    let commands = entry.alarm["next"].as_array().map_or(&[][..], Vec::as_slice);
    html! {
        section class={ "alarm " (class) } {
            p {
                span.badge { (ForeignText(entry.text("severity"))) " " (ForeignText(entry.text("kind"))) }
                " #" (entry.id) " "
                span.dim {
                    (time("since")) " to " (time("last")) ", " (state)
                    @if entry.alarm["while_away"] == true { ", in part while no daemon ran" }
                }
            }
            p { (ForeignText(entry.text("seen"))) }
            (render_parts(entry))
            p.note {
                (ForeignText(entry.text("why"))) " (" (ForeignText(technique("id"))) " " (ForeignText(technique("name"))) ")"
            }
            @for command in commands {
                p { code { (ForeignText(command.as_str().unwrap_or_default())) } }
            }
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
                            td { (ForeignText(&text(part, "severity"))) " " (ForeignText(&text(part, "kind"))) }
                            td { (ForeignText(&text(part, "seen"))) }
                            td { (ForeignText(&text(&part["technique"], "id"))) }
                            td.time { (time(part, "since")) } td.time { (time(part, "last")) }
                            td.number { (group_digits(part["packets"].as_u64().unwrap_or(0))) }
                        }
                    }
                }
            }
        }
    }
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
                            td { (ForeignText(server)) } td { code { (ForeignText(service)) } }
                            td { (destination) } td { (ForeignText(reason)) }
                            td.time { (show_minute(span.first)) } td.time { (show_minute(span.last)) }
                            td.number { (group_digits(span.packets)) }
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
                            td { (ForeignText(server)) } td { (ForeignText(reason)) }
                            td.number { (group_digits(*packets)) }
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
        h2 { "Raw samples" }
        @if data.samples.is_empty() {
            p.note { "No sample was recorded." }
        } @else {
            div.card { @for sample in data.samples.iter().take(MAX_SAMPLES) { (samples::render(sample)) } }
            (note_rest(data.samples.len(), MAX_SAMPLES, "samples"))
        }
    }
}

fn note_rest(all: usize, shown: usize, what: &str) -> Markup {
    html! { @if all > shown { p.note { "… and " (all - shown) " more " (what) "." } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::SampleRow;

    fn found(hostile: &str) -> ReportData {
        let time: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        ReportData {
            alarms: vec![AlarmEntry {
                id: 1,
                state: AlarmState::Closed,
                changed: time,
                alarm: serde_json::json!({
                    "severity": hostile, "kind": hostile, "seen": hostile, "why": hostile,
                    "since": "2026-11-22T15:00:00Z", "last": hostile,
                    "technique": {"id": hostile, "name": hostile}, "next": [hostile],
                    "parts": [
                        {"severity": hostile, "kind": hostile, "seen": hostile, "since": hostile,
                            "technique": {"id": hostile}, "packets": 3},
                        {},
                    ],
                }),
            }],
            counts: vec![MinuteCount {
                minute: time.as_second(),
                server: Some(hostile.to_owned()),
                service: hostile.to_owned(),
                reason: hostile.to_owned(),
                verdict: "drop".to_owned(),
                quiet: false,
                while_away: false,
                destination: None,
                packets: 5,
                folded: true,
                span_s: 86_400,
            }],
            removed: vec![RemovedCounts {
                server: Some(hostile.to_owned()),
                from: time.as_second(),
                to: time.as_second() + 86_400,
                packets: 1_234,
            }],
            samples: vec![SampleRow {
                time,
                server: Some(hostile.to_owned()),
                source: None,
                destination: None,
                service: hostile.to_owned(),
                reason: hostile.to_owned(),
                verdict: hostile.to_owned(),
                length: Some(60),
                frame: "3c7363726970743e".to_owned(),
            }],
            audit: vec![crate::audit::example::quarantine_by(hostile)],
        }
    }

    fn cover(interface: &str) -> Cover<'_> {
        let time = |text: &str| text.parse().unwrap();
        Cover {
            interface,
            from: time("2026-11-22T14:00:00Z"),
            to: time("2026-11-22T16:00:00Z"),
            made: time("2026-11-22T16:00:01Z"),
        }
    }

    #[test]
    fn nothing_hostile_becomes_markup_wherever_it_comes_from() {
        let hostile = "\"><script>x()</script><img src=x onerror='y'>\u{1b}[2J";
        let page = render(&cover("dmz0"), &found(hostile));
        for bad in ["<script", "<img", "onerror='", "\u{1b}", "src=\"http", "url(", "@import"] {
            assert!(!page.contains(bad), "{bad}");
        }
        assert!(page.matches("&lt;script&gt;").count() >= 8, "{page}");
    }

    #[test]
    fn a_page_names_the_servers_whose_counts_had_no_room_and_is_silent_if_there_is_none() {
        let page = render(&cover("dmz0"), &found("web1"));
        let words = "web1 1\u{202f}234 packets from 2026-11-22 15:00 to 2026-11-23 15:00";
        assert!(page.contains("no room for their counts: ") && page.contains(words), "{page}");
        let silent = render(&cover("dmz0"), &ReportData { removed: Vec::new(), ..found("web1") });
        assert!(!silent.contains("no room"), "{silent}");
    }

    #[test]
    fn an_empty_time_is_a_page_all_the_same() {
        let page = render(&cover("dmz0"), &ReportData::default());
        assert!(page.contains("Nothing was dropped in this time.") && page.ends_with("</html>\n"));
    }

    #[test]
    fn a_page_has_bounds() {
        let mut found = found("web1");
        let row = found.counts[0].clone();
        for number in 0..20_000_u32 {
            let mut row = row.clone();
            row.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into());
            row.service = format!("tcp/{number}");
            row.minute += i64::from(number) * 60;
            found.counts.push(row);
        }
        let sample = found.samples[0].clone();
        found.samples.resize(5_000, sample);
        let alarm = found.alarms[0].clone();
        found.alarms.resize(5_000, alarm);
        let page = render(&cover("dmz0"), &found);
        assert!(page.len() < 4 << 20, "{}", page.len());
        assert!(page.contains("and 4500 more alarms"));
    }

    #[test]
    fn every_element_of_a_drawing_is_closed() {
        // an SVG element without an end holds all that follow, and a browser draws none of them
        let page = render(&cover("dmz0"), &found("web1"));
        let mut rest = &page[..];
        for _ in 0..2 {
            let begin = rest.find("<svg").expect("a drawing");
            let end = begin + rest[begin..].find("</svg>").expect("its end") + "</svg>".len();
            let mut open = Vec::new();
            for tag in rest[begin..end].split('<').skip(1) {
                let name = tag.split([' ', '>']).next().expect("a name");
                match name.strip_prefix('/') {
                    Some(name) => assert_eq!(open.pop(), Some(name)),
                    None => open.push(name),
                }
            }
            assert!(open.is_empty(), "{open:?}");
            rest = &rest[end..];
        }
    }
}
