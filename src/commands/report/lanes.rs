//! The timeline: a lane for each server and port, time from left to right. A cell is the stronger
//! the more was dropped, by the logarithm: one packet is seen beside a million.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::tally::{OTHERS, html, number, server_of, sum_by};
use crate::history::MinuteCount;

/// Lanes that are drawn; the rest is one more.
const LANES: usize = 24;
/// Cells of a lane at most.
const CELLS: i64 = 120;
const LEFT: i64 = 250;
const WIDTH: i64 = 1100;
const RIGHT: i64 = 90;
const LANE: i64 = 22;
/// Widths of a cell, seconds.
const STEPS: [i64; 14] =
    [60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 604_800, 2_592_000];

/// The drawing; empty without rows.
pub fn draw(rows: &[MinuteCount], from: Timestamp, to: Timestamp) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let (begin, end) = find_span(rows, from.as_second(), to.as_second());
    let step = STEPS.into_iter().find(|step| (end - begin) / step < CELLS).unwrap_or(end - begin);
    let begin = begin.div_euclid(step) * step;
    let cells = ((end - begin) / step + 1).max(1);
    let cell = (WIDTH - LEFT - RIGHT) as f64 / cells as f64;

    let key = |row: &MinuteCount| (server_of(row).to_owned(), row.service.clone());
    let mut shown: Vec<(String, String)> =
        sum_by(rows, key).into_iter().take(LANES).map(|(key, _)| key).collect();
    shown.sort();
    let rest = (OTHERS.to_owned(), String::new());
    let mut lanes: BTreeMap<usize, BTreeMap<i64, u64>> = BTreeMap::new();
    for row in rows {
        let lane = shown.iter().position(|lane| *lane == key(row)).unwrap_or(shown.len());
        let at = (row.minute - begin).div_euclid(step).clamp(0, cells - 1);
        *lanes.entry(lane).or_default().entry(at).or_default() += row.packets;
    }
    if lanes.contains_key(&shown.len()) {
        shown.push(rest);
    }
    let most = lanes.values().flat_map(BTreeMap::values).copied().max().unwrap_or(1);
    let height = shown.len() as i64 * LANE + 30;
    let mut svg = format!(
        "<svg class=\"lanes\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Timeline of drops by server and port\">\n"
    );
    draw_axis(&mut svg, begin, step, cells, cell, height);
    let mut before = "";
    for (index, (server, service)) in shown.iter().enumerate() {
        let y = index as i64 * LANE + 26;
        let name = if server == before { "" } else { server };
        before = server;
        let _ = writeln!(
            svg,
            "<text x=\"0\" y=\"{}\" class=\"who\">{}</text><text x=\"{}\" y=\"{}\" class=\"what\">{}</text>\
             <line x1=\"{LEFT}\" x2=\"{}\" y1=\"{}\" y2=\"{}\" class=\"rule\"/>",
            y + 13,
            html(&shorten(name, 16)),
            LEFT - 8,
            y + 13,
            html(&shorten(service, 18)),
            LEFT as f64 + cell * cells as f64,
            y + LANE - 3,
            y + LANE - 3,
        );
        let mut sum = 0;
        for (at, packets) in lanes.get(&index).into_iter().flatten() {
            sum += packets;
            let weight = (*packets as f64 + 1.0).log10() / (most as f64 + 1.0).log10();
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" class=\"cell\" fill-opacity=\"{:.2}\"><title>{} {}: {} from {}</title></rect>",
                LEFT as f64 + cell * *at as f64,
                (cell - 0.5).max(0.8),
                LANE - 5,
                0.25 + 0.75 * weight,
                html(server),
                html(service),
                number(*packets),
                moment(begin + at * step),
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{}\" class=\"sum\">{}</text>",
            LEFT as f64 + cell * cells as f64 + 8.0,
            y + 13,
            number(sum)
        );
    }
    svg.push_str("</svg>\n");
    let _ = writeln!(
        svg,
        "<p class=\"note\">One cell is {}; the stronger, the more packets (by the logarithm; the strongest: {}).</p>",
        name_step(step),
        number(most)
    );
    svg
}

/// What was asked for, without the emptiness at both ends.
fn find_span(rows: &[MinuteCount], from: i64, to: i64) -> (i64, i64) {
    let minutes = || rows.iter().map(|row| row.minute);
    let first = minutes().min().unwrap_or(from);
    let last = minutes().max().unwrap_or(to);
    // a little room, so that a lone minute is not the whole width
    ((first - 300).max(from.div_euclid(60) * 60).min(first), (last + 300).min(to).max(last))
}

fn draw_axis(svg: &mut String, begin: i64, step: i64, cells: i64, cell: f64, height: i64) {
    // a label needs some 80 units, one with a date 120
    let days = cells * step > 86_400;
    let every = ((if days { 120.0 } else { 80.0 } / cell).ceil() as i64).max(1);
    for at in (0..=cells).step_by(usize::try_from(every).unwrap_or(1)) {
        let x = LEFT as f64 + cell * at as f64;
        let text = moment(begin + at * step);
        let text = if days { text } else { text.split(' ').nth(1).unwrap_or_default().to_owned() };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"18\" y2=\"{height}\" class=\"rule\"/>\
             <text x=\"{x:.1}\" y=\"12\" class=\"tick\">{text}</text>"
        );
    }
}

/// UTC, to the minute.
pub fn moment(second: i64) -> String {
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

fn name_step(step: i64) -> String {
    match step {
        60 => "a minute".to_owned(),
        step if step < 3600 => format!("{} minutes", step / 60),
        3600 => "an hour".to_owned(),
        step if step < 86_400 => format!("{} hours", step / 3600),
        86_400 => "a day".to_owned(),
        step => format!("{} days", step / 86_400),
    }
}

/// What fits, by characters.
pub fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}
