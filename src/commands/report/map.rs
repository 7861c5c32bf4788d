//! The map: who tried what where. Servers to the left, services in the middle, destinations to
//! the right; a band is the wider the more packets, by the logarithm.

use std::fmt::Write as _;

use super::lanes::shorten;
use super::tally::{OTHERS, destination_of, html, number, server_of, sum_by};
use crate::history::MinuteCount;

/// Nodes of a column; the rest is one more.
const NODES: [usize; 3] = [12, 14, 18];
const COLUMNS: [f64; 3] = [190.0, 560.0, 880.0];
const WIDTH: i64 = 1100;
const ROW: f64 = 30.0;
const TOP: f64 = 34.0;

/// The drawing; empty without rows.
pub fn draw(rows: &[MinuteCount]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    type Name = fn(&MinuteCount) -> String;
    let names: [Name; 3] = [|row| server_of(row).to_owned(), |row| row.service.clone(), destination_of];
    let columns: Vec<Vec<(String, u64)>> =
        names.iter().zip(NODES).map(|(name, most)| list_nodes(rows, *name, most)).collect();
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(1);
    let height = TOP + tallest as f64 * ROW;
    let place = |column: usize, name: &str| {
        let nodes = &columns[column];
        let at = nodes.iter().position(|(node, _)| node == name).unwrap_or(nodes.len() - 1);
        TOP + (tallest - nodes.len()) as f64 * ROW / 2.0 + at as f64 * ROW + ROW / 2.0
    };
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"Who tried what where\">\n\
         <text x=\"{:.0}\" y=\"14\" class=\"head left\">who</text><text x=\"{:.0}\" y=\"14\" class=\"head middle\">what</text>\
         <text x=\"{:.0}\" y=\"14\" class=\"head\">where</text>\n",
        COLUMNS[0] - 12.0,
        COLUMNS[1],
        COLUMNS[2] + 12.0
    );
    for (left, right) in [(0, 1), (1, 2)] {
        let known = |column: usize, name: String| {
            let is_known = columns[column].iter().any(|(node, _)| *node == name);
            if is_known { name } else { OTHERS.to_owned() }
        };
        let bands = sum_by(rows, |row| (known(left, names[left](row)), known(right, names[right](row))));
        for ((from, to), packets) in &bands {
            draw_band(&mut svg, (left, place(left, from)), (right, place(right, to)), *packets, from, to);
        }
    }
    for (column, nodes) in columns.iter().enumerate() {
        for (name, packets) in nodes {
            let y = place(column, name);
            draw_node(&mut svg, column, y, name, *packets);
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn list_nodes(
    rows: &[MinuteCount],
    name: impl Fn(&MinuteCount) -> String,
    most: usize,
) -> Vec<(String, u64)> {
    let mut nodes = sum_by(rows, name);
    if nodes.len() > most {
        let rest = nodes.split_off(most - 1);
        nodes.push((OTHERS.to_owned(), rest.iter().map(|(_, packets)| packets).sum()));
    }
    nodes
}

fn draw_band(svg: &mut String, left: (usize, f64), right: (usize, f64), packets: u64, from: &str, to: &str) {
    // texts stand beside their dots: left of the first column, over the second, right of the third
    let (x1, x2) = (COLUMNS[left.0] + 6.0, COLUMNS[right.0] - 6.0);
    let middle = (x1 + x2) / 2.0;
    let width = 1.5 + 2.2 * (packets as f64 + 1.0).log10();
    let _ = writeln!(
        svg,
        "<path d=\"M{x1:.0},{:.0} C{middle:.0},{:.0} {middle:.0},{:.0} {x2:.0},{:.0}\" class=\"band\" \
         stroke-width=\"{width:.1}\"><title>{} → {}: {}</title></path>",
        left.1,
        left.1,
        right.1,
        right.1,
        html(from),
        html(to),
        number(packets)
    );
}

fn draw_node(svg: &mut String, column: usize, y: f64, name: &str, packets: u64) {
    let x = COLUMNS[column];
    let text = html(&shorten(name, if column == 2 { 24 } else { 20 }));
    let sum = number(packets);
    let _ = match column {
        0 => writeln!(
            svg,
            "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"5\" class=\"node\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" class=\"left\">{text} <tspan class=\"dim\">{sum}</tspan></text>",
            x - 12.0,
            y + 4.0
        ),
        1 => writeln!(
            svg,
            "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"5\" class=\"node\"/>\
             <text x=\"{x:.0}\" y=\"{:.0}\" class=\"middle\">{text} <tspan class=\"dim\">{sum}</tspan></text>",
            y - 9.0
        ),
        _ => writeln!(
            svg,
            "<circle cx=\"{x:.0}\" cy=\"{y:.0}\" r=\"5\" class=\"node\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{text} <tspan class=\"dim\">{sum}</tspan></text>",
            x + 12.0,
            y + 4.0
        ),
    };
}
