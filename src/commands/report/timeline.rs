//! The timeline: a lane for each server and service, time from left to right. The more packets, the stronger
//! a cell. The scale is logarithmic, so one packet is seen beside a million. The severity of the alarm stands in the
//! colour and in the height of a cell, so that nobody depends on the colour.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::text::{ForeignText, group_digits, shorten, show_minute, show_second};
use super::totals::{OTHERS, server_of, sum_by};
use crate::alarm::{SEVERITIES, Severity};
use crate::audit::Event;
use crate::history::{AlarmEntry, MinuteCount, ReportData};

/// Lanes that are drawn. One more has the rest.
const MAX_LANES: usize = 24;
/// Lines of events that are drawn.
const MAX_EVENTS: usize = 500;
/// Cells of a lane at most.
const MAX_CELLS: i64 = 120;
/// A lane's share that its cells fill, by severity: without an alarm, then low to critical.
const FILLED: [f64; 5] = [0.25, 0.4, 0.6, 0.8, 1.0];
/// Widths of a cell, seconds.
const CELL_WIDTHS_S: [i64; 14] =
    [60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800, 2_592_000];

/// Where the lanes stand.
struct Frame {
    class: &'static str,
    width: i64,
    /// The left edge of the cells.
    left: i64,
    /// Room for the sums behind the cells.
    right: i64,
    lane: i64,
    /// Names stand above their lane, not before it.
    is_stacked: bool,
}

/// For screens and paper.
const WIDE: Frame =
    Frame { class: "lanes wide", width: 1100, left: 250, right: 90, lane: 22, is_stacked: false };
/// For telephones.
const NARROW: Frame =
    Frame { class: "lanes narrow", width: 380, left: 18, right: 20, lane: 40, is_stacked: true };
/// The height of the cells of a lane.
const CELL: i64 = 17;

/// The axis of time, cut into cells.
struct Axis {
    /// UNIX time of its beginning, seconds.
    begin_s: i64,
    /// Width of a cell, seconds.
    cell_s: i64,
    cells: i64,
    /// Width of a cell in the drawing.
    cell_width: f64,
    left: i64,
}

impl Axis {
    fn of(counts: &[MinuteCount], from: Timestamp, to: Timestamp, frame: &Frame) -> Axis {
        let (begin, end) = find_span(counts, from.as_second(), to.as_second());
        let span = end - begin;
        let cell_s = CELL_WIDTHS_S.into_iter().find(|width| span / width < MAX_CELLS).unwrap_or(span);
        let begin_s = begin.div_euclid(cell_s) * cell_s;
        let cells = ((end - begin_s) / cell_s + 1).max(1);
        let cell_width = (frame.width - frame.left - frame.right) as f64 / cells as f64;
        Axis { begin_s, cell_s, cells, cell_width, left: frame.left }
    }

    fn cell_of(&self, minute: i64) -> i64 {
        (minute - self.begin_s).div_euclid(self.cell_s).clamp(0, self.cells - 1)
    }

    /// The left edge of a cell in the drawing.
    fn x(&self, cell: i64) -> f64 {
        self.left as f64 + self.cell_width * cell as f64
    }

    fn show_time(&self, cell: i64) -> String {
        show_minute(self.begin_s + cell * self.cell_s)
    }
}

/// One server and service.
struct Lane {
    server: String,
    service: String,
    /// Packets by cell, and the most severe alarm about them.
    cells: BTreeMap<i64, (u64, Option<Severity>)>,
}

/// The drawing, wide and narrow; `None` without counts.
pub(super) fn draw(
    counts: &[MinuteCount],
    data: &ReportData,
    from: Timestamp,
    to: Timestamp,
) -> Option<Markup> {
    if counts.is_empty() {
        return None;
    }
    let events = &data.audit[..];
    let spans = list_spans(&data.alarms);
    let wide = Axis::of(counts, from, to, &WIDE);
    let lanes = collect_lanes(counts, &wide, &spans);
    let strongest = lanes.iter().flat_map(|lane| lane.cells.values()).map(|(packets, _)| *packets).max();
    let strongest = strongest.unwrap_or(1);
    let draw_frame = |frame: &Frame| {
        let axis = Axis::of(counts, from, to, frame);
        let height = lanes.len() as i64 * frame.lane + 30;
        html! {
            svg class=(frame.class) viewBox={ "0 0 " (frame.width) " " (height) } role="img"
                aria-label="Timeline of drops by server and service" {
                (draw_axis(&axis, height))
                (draw_events(&axis, events, height))
                @for (index, lane) in lanes.iter().enumerate() {
                    // a server's name stands at its first lane only
                    @let is_first = index == 0 || lanes[index - 1].server != lane.server;
                    (draw_lane(lane, is_first, index as i64 * frame.lane + 26, &axis, strongest, frame))
                }
            }
        }
    };
    Some(html! {
        (draw_frame(&WIDE))
        (draw_frame(&NARROW))
        ul.legend {
            @for severity in SEVERITIES.iter().rev() {
                li class=(severity.name()) { i {} (severity.name()) }
            }
            li.none { i {} "no alarm" }
            li.policy { i {} "the policy changed" }
            li.event { i {} "something else was done to the gate" }
        }
        p.note {
            "Each cell is " (name_duration(wide.cell_s)) ". The more severe the alarm, the higher the cell. The more "
            "packets, the stronger it is, on a logarithmic scale. The strongest cell has " (group_digits(strongest))
            @if strongest == 1 { " packet." } @else { " packets." }
        }
    })
}

/// The time of one alarm of one server.
struct AlarmSpan {
    server: String,
    services: Vec<(String, Severity)>,
    severity: Severity,
    first_s: i64,
    last_s: i64,
}

fn list_spans(alarms: &[AlarmEntry]) -> Vec<AlarmSpan> {
    let span = |entry: &AlarmEntry| {
        let severity = Severity::from_name(entry.text("severity"))?;
        let parts = entry.alarm["parts"].as_array().map_or(&[][..], Vec::as_slice);
        let service = |part: &serde_json::Value| {
            let severity = Severity::from_name(part["severity"].as_str()?)?;
            Some((part["service"].as_str()?.to_owned(), severity))
        };
        Some(AlarmSpan {
            server: entry.text("server").to_owned(),
            services: parts.iter().filter_map(service).collect(),
            severity,
            first_s: entry.time("since")?.as_second(),
            last_s: entry.time("last")?.as_second(),
        })
    };
    alarms.iter().filter_map(span).collect()
}

/// The most severe alarm that a count is part of: by its service, or as one of many.
fn find_severity(count: &MinuteCount, spans: &[AlarmSpan]) -> Option<Severity> {
    let server = count.server.as_deref().unwrap_or_default();
    let has_time = |span: &&AlarmSpan| {
        count.minute <= span.last_s && span.first_s < count.minute.saturating_add(count.span_s)
    };
    let severity = |span: &AlarmSpan| {
        let own = span.services.iter().find(|(service, _)| *service == count.service);
        own.map_or(span.severity, |(_, severity)| *severity)
    };
    spans.iter().filter(|span| span.server == server).filter(has_time).map(severity).max()
}

/// The lanes with the most packets, sorted by name. The rest is one more lane.
fn collect_lanes(counts: &[MinuteCount], axis: &Axis, spans: &[AlarmSpan]) -> Vec<Lane> {
    let key = |count: &MinuteCount| (server_of(count).to_owned(), count.service.clone());
    let mut names: Vec<(String, String)> =
        sum_by(counts, key).into_iter().take(MAX_LANES).map(|(key, _)| key).collect();
    names.sort();
    let mut lanes: Vec<Lane> =
        names.into_iter().map(|(server, service)| Lane { server, service, cells: BTreeMap::new() }).collect();
    let mut rest = Lane { server: OTHERS.to_owned(), service: String::new(), cells: BTreeMap::new() };
    for count in counts {
        let (server, service) = key(count);
        let own = lanes.iter_mut().find(|lane| lane.server == server && lane.service == service);
        let cell = own.unwrap_or(&mut rest).cells.entry(axis.cell_of(count.minute)).or_default();
        *cell = (cell.0.saturating_add(count.packets), cell.1.max(find_severity(count, spans)));
    }
    if !rest.cells.is_empty() {
        lanes.push(rest);
    }
    lanes
}

/// The time of the report, without its empty beginning and end.
fn find_span(counts: &[MinuteCount], from: i64, to: i64) -> (i64, i64) {
    let minutes = || counts.iter().map(|count| count.minute);
    let first = minutes().min().unwrap_or(from);
    let last = minutes().max().unwrap_or(to);
    // a little room, so that a single minute does not fill the width
    ((first - 300).max(from.div_euclid(60) * 60).min(first), (last + 300).min(to).max(last))
}

fn draw_axis(axis: &Axis, height: i64) -> Markup {
    // a label needs some 80 units, one with a date 120
    let has_dates = axis.cells * axis.cell_s > 86_400;
    let every = ((if has_dates { 120.0 } else { 80.0 } / axis.cell_width).ceil() as i64).max(1);
    html! {
        @for cell in (0..=axis.cells).step_by(usize::try_from(every).unwrap_or(1)) {
            @let x = format!("{:.1}", axis.x(cell));
            @let time = axis.show_time(cell);
            line.rule x1=(x) x2=(x) y1="18" y2=(height) {}
            text.tick x=(x) y="12" {
                @if has_dates { (time) } @else { (time.split(' ').nth(1).unwrap_or_default()) }
            }
        }
    }
}

/// A line for each event within the drawing. The table below it has all of them.
fn draw_events(axis: &Axis, events: &[Event], height: i64) -> Markup {
    let end_s = axis.begin_s + axis.cells * axis.cell_s;
    let shown = events.iter().filter(|event| (axis.begin_s..end_s).contains(&event.time.as_second()));
    html! {
        @for event in shown.take(MAX_EVENTS) {
            @let cells = (event.time.as_second() - axis.begin_s) as f64 / axis.cell_s as f64;
            @let x = format!("{:.1}", axis.left as f64 + axis.cell_width * cells);
            @let changed = event.before != event.after && event.after.is_some();
            line class=(if changed { "done policy" } else { "done" }) x1=(x) x2=(x) y1="18" y2=(height) {
                title { (show_second(event.time)) " " (ForeignText(&event.describe())) }
            }
        }
    }
}

fn draw_lane(lane: &Lane, is_first: bool, y: i64, axis: &Axis, strongest: u64, frame: &Frame) -> Markup {
    let end = axis.x(axis.cells);
    let sum = lane.cells.values().fold(0_u64, |sum, (packets, _)| sum.saturating_add(*packets));
    let top = if frame.is_stacked { y + 17 } else { y };
    html! {
        @if frame.is_stacked {
            text.who x=(frame.left) y=(y + 13) {
                (ForeignText(&shorten(&lane.server, 16))) " " (ForeignText(&shorten(&lane.service, 18)))
                ": " (group_digits(sum))
            }
        } @else {
            text.who x="0" y=(y + 13) { @if is_first { (ForeignText(&shorten(&lane.server, 16))) } }
            text.what x=(frame.left - 8) y=(y + 13) { (ForeignText(&shorten(&lane.service, 18))) }
            text.sum x=(format!("{:.0}", end + 8.0)) y=(y + 13) { (group_digits(sum)) }
        }
        line.rule x1=(frame.left) x2=(end) y1=(top + CELL + 2) y2=(top + CELL + 2) {}
        @for (cell, (packets, severity)) in &lane.cells {
            @let weight = (*packets as f64 + 1.0).log10() / (strongest as f64 + 1.0).log10();
            @let filled = FILLED[severity.map_or(0, |severity| severity as usize + 1)] * CELL as f64;
            rect class={ "cell " (severity.map_or("none", Severity::name)) } x=(format!("{:.1}", axis.x(*cell)))
                y=(format!("{:.1}", (top + CELL) as f64 - filled))
                width=(format!("{:.1}", (axis.cell_width - 0.5).max(1.2))) height=(format!("{filled:.1}"))
                fill-opacity=(format!("{:.2}", 0.55 + 0.45 * weight)) {
                title {
                    (ForeignText(&lane.server)) " " (ForeignText(&lane.service)) ": " (group_digits(*packets))
                    " from " (axis.show_time(*cell))
                    @if let Some(severity) = severity { ", " (severity.name()) }
                }
            }
        }
    }
}

/// A time in words.
pub(super) fn name_duration(seconds: i64) -> String {
    match seconds {
        60 => "a minute".to_owned(),
        seconds if seconds < 3600 => format!("{} minutes", seconds / 60),
        3600 => "an hour".to_owned(),
        seconds if seconds < 86_400 => format!("{} hours", seconds / 3600),
        86_400 => "a day".to_owned(),
        seconds => format!("{} days", seconds / 86_400),
    }
}
