//! The timeline: a lane for each server and service, time from left to right. The more packets, the stronger
//! a cell. The scale is logarithmic, so one packet is seen beside a million.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maud::{Markup, html};

use super::text::{ForeignText, group_digits, shorten, show_minute, show_second};
use super::totals::{OTHERS, server_of, sum_by};
use crate::audit::Event;
use crate::history::MinuteCount;

/// Lanes that are drawn. One more has the rest.
const MAX_LANES: usize = 24;
/// Lines of events that are drawn.
const MAX_EVENTS: usize = 500;
/// Cells of a lane at most.
const MAX_CELLS: i64 = 120;
/// The left edge of the cells: names stand before it.
const LEFT: i64 = 250;
const WIDTH: i64 = 1100;
/// Room for the sums behind the cells.
const RIGHT: i64 = 90;
const LANE_HEIGHT: i64 = 22;
/// Widths of a cell, seconds.
const CELL_WIDTHS_S: [i64; 14] =
    [60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800, 2_592_000];

/// The axis of time, cut into cells.
struct Axis {
    /// UNIX time of its beginning, seconds.
    begin_s: i64,
    /// Width of a cell, seconds.
    cell_s: i64,
    cells: i64,
    /// Width of a cell in the drawing.
    cell_width: f64,
}

impl Axis {
    fn of(counts: &[MinuteCount], from: Timestamp, to: Timestamp) -> Axis {
        let (begin, end) = find_span(counts, from.as_second(), to.as_second());
        let span = end - begin;
        let cell_s = CELL_WIDTHS_S.into_iter().find(|width| span / width < MAX_CELLS).unwrap_or(span);
        let begin_s = begin.div_euclid(cell_s) * cell_s;
        let cells = ((end - begin_s) / cell_s + 1).max(1);
        Axis { begin_s, cell_s, cells, cell_width: (WIDTH - LEFT - RIGHT) as f64 / cells as f64 }
    }

    fn cell_of(&self, minute: i64) -> i64 {
        (minute - self.begin_s).div_euclid(self.cell_s).clamp(0, self.cells - 1)
    }

    /// The left edge of a cell in the drawing.
    fn x(&self, cell: i64) -> f64 {
        LEFT as f64 + self.cell_width * cell as f64
    }

    fn show_time(&self, cell: i64) -> String {
        show_minute(self.begin_s + cell * self.cell_s)
    }
}

/// One server and service.
struct Lane {
    server: String,
    service: String,
    /// Packets by cell.
    cells: BTreeMap<i64, u64>,
}

/// The drawing; `None` without counts.
pub(super) fn draw(
    counts: &[MinuteCount],
    events: &[Event],
    from: Timestamp,
    to: Timestamp,
) -> Option<Markup> {
    if counts.is_empty() {
        return None;
    }
    let axis = Axis::of(counts, from, to);
    let lanes = collect_lanes(counts, &axis);
    let strongest = lanes.iter().flat_map(|lane| lane.cells.values()).copied().max().unwrap_or(1);
    let height = lanes.len() as i64 * LANE_HEIGHT + 30;
    Some(html! {
        svg.lanes viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
            aria-label="Timeline of drops by server and service" {
            (draw_axis(&axis, height))
            (draw_events(&axis, events, height))
            @for (index, lane) in lanes.iter().enumerate() {
                // a server's name stands at its first lane only
                @let is_first = index == 0 || lanes[index - 1].server != lane.server;
                (draw_lane(lane, is_first, index as i64 * LANE_HEIGHT + 26, &axis, strongest))
            }
        }
        p.note {
            "Each cell is " (name_duration(axis.cell_s)) ". The more packets, the stronger the cell, on a "
            "logarithmic scale. The strongest cell has " (group_digits(strongest)) " packets."
            @if !events.is_empty() { " A dashed line is something that was done to the gate." }
        }
    })
}

/// The lanes with the most packets, sorted by name. The rest is one more lane.
fn collect_lanes(counts: &[MinuteCount], axis: &Axis) -> Vec<Lane> {
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
        *own.unwrap_or(&mut rest).cells.entry(axis.cell_of(count.minute)).or_default() += count.packets;
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
            @let x = format!("{:.1}", LEFT as f64 + axis.cell_width * cells);
            line.done x1=(x) x2=(x) y1="18" y2=(height) {
                title { (show_second(event.time)) " " (ForeignText(&event.describe())) }
            }
        }
    }
}

fn draw_lane(lane: &Lane, is_first: bool, y: i64, axis: &Axis, strongest: u64) -> Markup {
    let end = axis.x(axis.cells);
    html! {
        text.who x="0" y=(y + 13) { @if is_first { (ForeignText(&shorten(&lane.server, 16))) } }
        text.what x=(LEFT - 8) y=(y + 13) { (ForeignText(&shorten(&lane.service, 18))) }
        line.rule x1=(LEFT) x2=(end) y1=(y + LANE_HEIGHT - 3) y2=(y + LANE_HEIGHT - 3) {}
        @for (cell, packets) in &lane.cells {
            @let weight = (*packets as f64 + 1.0).log10() / (strongest as f64 + 1.0).log10();
            rect.cell x=(format!("{:.1}", axis.x(*cell))) y=(y)
                width=(format!("{:.1}", (axis.cell_width - 0.5).max(0.8))) height=(LANE_HEIGHT - 5)
                fill-opacity=(format!("{:.2}", 0.25 + 0.75 * weight)) {
                title {
                    (ForeignText(&lane.server)) " " (ForeignText(&lane.service)) ": " (group_digits(*packets))
                    " from " (axis.show_time(*cell))
                }
            }
        }
        text.sum x=(format!("{:.0}", end + 8.0)) y=(y + 13) { (group_digits(lane.cells.values().sum())) }
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
