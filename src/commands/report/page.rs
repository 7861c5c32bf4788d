//! The page.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::tally::{destination_of, html, number, server_of, sum_by};
use super::{lanes, map, samples};
use crate::alarm::Severity;
use crate::history::{AlarmEntry, AlarmState, MinuteCount, ReportData};

const STYLE: &str = include_str!("style.css");
/// What is shown; beyond, a note says how many more there are.
const MOST_ALARMS: usize = 500;
const MOST_ROWS: usize = 500;
const MOST_SAMPLES: usize = 200;

/// What the page is about.
pub struct Cover<'c> {
    pub interface: &'c str,
    pub from: Timestamp,
    pub to: Timestamp,
    pub made: Timestamp,
}

/// The whole page.
pub fn render(cover: &Cover<'_>, found: &ReportData) -> String {
    let dropped: Vec<MinuteCount> =
        found.counts.iter().filter(|row| row.verdict == "drop").cloned().collect();
    let mut page = String::new();
    render_head(&mut page, cover, found);
    // quiet ones are the noise that the policy calls so: in the table, not in the pictures
    let loud: Vec<MinuteCount> = found.counts.iter().filter(|row| !row.quiet).cloned().collect();
    page.push_str("<h2>When: drops by server and port</h2>\n");
    card(&mut page, &lanes::draw(&loud, cover.from, cover.to), "Nothing was dropped in this time.");
    page.push_str("<h2>Who tried what where</h2>\n");
    card(&mut page, &map::draw(&loud), "Nobody tried anything in this time.");
    render_alarms(&mut page, &found.alarms);
    render_rows(&mut page, &found.counts);
    render_reasons(&mut page, &dropped);
    render_samples(&mut page, found);
    page.push_str("</main></body></html>\n");
    page
}

fn card(page: &mut String, content: &str, otherwise: &str) {
    match content {
        "" => _ = writeln!(page, "<p class=\"note\">{otherwise}</p>"),
        content => _ = writeln!(page, "<div class=\"card\">\n{content}</div>"),
    }
}

fn show(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

fn render_head(page: &mut String, cover: &Cover<'_>, found: &ReportData) {
    let interface = html(cover.interface);
    let sum = |verdict: &str| {
        found.counts.iter().filter(|row| row.verdict == verdict).map(|row| row.packets).sum::<u64>()
    };
    let servers =
        sum_by(&found.counts, |row| row.server.clone()).into_iter().filter(|(name, _)| name.is_some());
    let destinations =
        sum_by(&found.counts, |row| row.destination).into_iter().filter(|(address, _)| address.is_some());
    let grave = found.alarms.iter().filter(|alarm| alarm.text("severity") == "critical").count();
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>portcullis: {interface}, {from} to {to}</title>\n<style>\n{STYLE}</style></head>\n<body><main>\n\
         <h1>What {interface} kept in</h1>\n\
         <p class=\"note\">{from} to {to}. All times are UTC. Made {made} by portcullis {version}.</p>\n\
         <ul class=\"numbers\"><li><b>{alarms}</b>alarms</li><li><b>{grave}</b>of them critical</li>\
         <li><b>{drops}</b>packets dropped</li><li><b>{would}</b>would be dropped</li>\
         <li><b>{servers}</b>servers</li><li><b>{destinations}</b>destinations kept</li></ul>\n",
        from = show(cover.from),
        to = show(cover.to),
        made = show(cover.made),
        version = env!("CARGO_PKG_VERSION"),
        alarms = found.alarms.len(),
        drops = number(sum("drop")),
        would = number(sum("would_drop")),
        servers = servers.count(),
        destinations = destinations.count(),
    );
}

fn render_alarms(page: &mut String, alarms: &[AlarmEntry]) {
    page.push_str("<h2>Alarms</h2>\n");
    if alarms.is_empty() {
        page.push_str("<p class=\"note\">None.</p>\n");
    }
    let mut alarms: Vec<&AlarmEntry> = alarms.iter().collect();
    alarms.sort_by_key(|alarm| (std::cmp::Reverse(Severity::from_name(alarm.text("severity"))), alarm.id));
    for alarm in alarms.iter().take(MOST_ALARMS) {
        render_alarm(page, alarm);
    }
    note_rest(page, alarms.len(), MOST_ALARMS, "alarms");
}

fn render_alarm(page: &mut String, entry: &AlarmEntry) {
    // a class of our own words only
    let severity = entry.text("severity");
    let class = Severity::from_name(severity).map_or("", |_| severity);
    let state = match entry.state {
        AlarmState::Open => "open",
        AlarmState::Closed => "closed",
        AlarmState::CutOff => "its daemon ended before it did",
    };
    let away = if entry.alarm["while_away"] == true { "; in part while no daemon listened" } else { "" };
    let time = |key: &str| entry.time(key).map_or("?".to_owned(), show);
    let technique = &entry.alarm["technique"];
    let text = |key: &str| html(technique[key].as_str().unwrap_or_default());
    let _ = write!(
        page,
        "<section class=\"alarm {class}\"><p><span class=\"badge\">{} {}</span> #{} \
         <span class=\"dim\">{} to {}, {state}{away}</span></p><p>{}</p><p class=\"note\">{} ({} {})</p>",
        html(severity),
        html(entry.text("kind")),
        entry.id,
        time("since"),
        time("last"),
        html(entry.text("seen")),
        html(entry.text("why")),
        text("id"),
        text("name"),
    );
    for command in entry.alarm["next"].as_array().into_iter().flatten() {
        let _ = write!(page, "<p><code>{}</code></p>", html(command.as_str().unwrap_or_default()));
    }
    page.push_str("</section>\n");
}

fn render_rows(page: &mut String, rows: &[MinuteCount]) {
    page.push_str(
        "<h2>Drops in detail</h2>\n<div class=\"card\"><table><thead><tr><th>server</th><th>what</th>\
         <th>where</th><th>why</th><th>first</th><th>last</th><th class=\"number\">packets</th></tr></thead><tbody>\n",
    );
    let mut kinds: BTreeMap<(&str, &str, String, String), Span> = BTreeMap::new();
    for row in rows {
        let key = (server_of(row), &*row.service, destination_of(row), describe_reason(row));
        let span = kinds.entry(key).or_insert(Span { packets: 0, first: row.minute, last: row.minute });
        span.packets = span.packets.saturating_add(row.packets);
        (span.first, span.last) = (span.first.min(row.minute), span.last.max(row.minute));
    }
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(_, span)| std::cmp::Reverse(span.packets));
    for ((server, service, destination, reason), span) in kinds.iter().take(MOST_ROWS) {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td><code>{}</code></td><td>{}</td><td>{}</td><td class=\"time\">{}</td>\
             <td class=\"time\">{}</td><td class=\"number\">{}</td></tr>",
            html(server),
            html(service),
            html(destination),
            html(reason),
            lanes::moment(span.first),
            lanes::moment(span.last),
            number(span.packets)
        );
    }
    page.push_str("</tbody></table></div>\n");
    note_rest(page, kinds.len(), MOST_ROWS, "kinds of drops");
}

/// How many, from when to when.
struct Span {
    packets: u64,
    first: i64,
    last: i64,
}

fn describe_reason(row: &MinuteCount) -> String {
    let mut reason = row.reason.clone();
    let marks =
        [(row.verdict == "would_drop", "would drop"), (row.quiet, "quiet"), (row.while_away, "while away")];
    for (_, word) in marks.into_iter().filter(|(is, _)| *is) {
        reason = format!("{reason}, {word}");
    }
    reason
}

fn render_reasons(page: &mut String, rows: &[MinuteCount]) {
    page.push_str(
        "<h2>Drops by reason</h2>\n<div class=\"card\"><table><thead><tr><th>server</th><th>why</th>\
         <th class=\"number\">packets</th></tr></thead><tbody>\n",
    );
    let kinds = sum_by(rows, |row| (server_of(row).to_owned(), row.reason.clone()));
    for ((server, reason), packets) in kinds.iter().take(MOST_ROWS) {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td class=\"number\">{}</td></tr>",
            html(server),
            html(reason),
            number(*packets)
        );
    }
    page.push_str("</tbody></table></div>\n");
    note_rest(page, kinds.len(), MOST_ROWS, "rows");
}

fn render_samples(page: &mut String, found: &ReportData) {
    page.push_str("<h2>Raw samples</h2>\n");
    if found.samples.is_empty() {
        page.push_str("<p class=\"note\">None was kept.</p>\n");
        return;
    }
    page.push_str("<div class=\"card\">\n");
    for sample in found.samples.iter().take(MOST_SAMPLES) {
        page.push_str(&samples::render(sample));
    }
    page.push_str("</div>\n");
    note_rest(page, found.samples.len(), MOST_SAMPLES, "samples");
}

fn note_rest(page: &mut String, all: usize, shown: usize, what: &str) {
    if all > shown {
        let _ = writeln!(page, "<p class=\"note\">… and {} more {what}.</p>", all - shown);
    }
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
}
