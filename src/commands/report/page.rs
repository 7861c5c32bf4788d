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
mod tests {
    use super::*;
    use crate::history::SampleRow;

    fn found(hostile: &str) -> ReportData {
        let time: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
        ReportData {
            alarms: vec![AlarmEntry {
                id: 1,
                state: crate::history::AlarmState::Closed,
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

    fn find_data(page: &str) -> String {
        let (_, data) = page.split_once("<script id=\"data\" type=\"application/json\">").expect("the data");
        data.split_once("</script>").expect("its end").0.to_owned()
    }

    #[test]
    fn a_page_begins_with_three_sentences_and_says_of_which_policy_it_is() {
        let mut found = found("web1");
        found.alarms[0].alarm = serde_json::json!({
            "severity": "critical", "kind": "spread", "server": "web1", "seen": "web1 tried", "verdict": "drop",
            "why": "That is a worm", "next": ["portcullis quarantine -i dmz0 web1"],
        });
        let page = render(&cover("dmz0"), &found);
        for words in [
            "web1 (critical spread) raised 1 alarm, and 5 packets were dropped.",
            "Alarm #1 is the gravest. That is a worm. Its packets did not leave.",
            "Nothing: every alarm is closed.",
            "generation <b>7</b>",
            &"ab".repeat(32),
            "class=\"alarm critical over\"",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        found.alarms[0].state = crate::history::AlarmState::Open;
        let page = render(&cover("dmz0"), &found);
        assert!(page.contains("1 alarm, 1 of them acknowledged by nobody."), "{page}");
        assert!(page.contains("Next: <code>portcullis quarantine -i dmz0 web1</code>"), "{page}");
    }

    fn cover(interface: &str) -> Cover<'_> {
        let time = |text: &str| text.parse().unwrap();
        Cover {
            interface,
            from: time("2026-11-22T14:00:00Z"),
            to: time("2026-11-22T16:00:00Z"),
            made: time("2026-11-22T16:00:01Z"),
            policy: Some(PolicyMark { generation: 7, hash: "ab".repeat(32) }),
            file: Some("dmz.toml".to_owned()),
        }
    }

    #[test]
    fn nothing_hostile_becomes_markup_wherever_it_comes_from() {
        let hostile = "\"><script>x()</script><img src=x onerror='y'>\u{1b}[2J";
        let page = render(&cover("dmz0"), &found(hostile));
        for bad in ["<script>", "<img", "onerror='", "\u{1b}", "src=\"http", "url(", "@import"] {
            assert!(!page.contains(bad), "{bad}");
        }
        // the only one is the data of the page, which no browser runs and which nothing in it can end
        assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1));
        let data: serde_json::Value = serde_json::from_str(&find_data(&page)).unwrap();
        assert_eq!(data["counts"][0]["server"], hostile);
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
        for _ in 0..3 {
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
