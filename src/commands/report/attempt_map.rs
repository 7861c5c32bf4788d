//! The map of attempts: servers to the left, services in the middle, destinations to the right. The more
//! packets, the wider a band, on a logarithmic scale.

use maud::{Markup, html};

use super::text::{ForeignText, group_digits, shorten};
use super::totals::{OTHERS, destination_of, server_of, sum_by};
use crate::history::MinuteCount;

/// Nodes of each column. The last one has the rest.
const MAX_NODES: [usize; 3] = [12, 14, 18];
/// Where the columns stand.
const COLUMN_X: [f64; 3] = [190.0, 560.0, 880.0];
const WIDTH: i64 = 1100;
const ROW_HEIGHT: f64 = 30.0;
const TOP: f64 = 34.0;

/// Yields the name of a count's node in one column.
type NodeName = fn(&MinuteCount) -> String;
const NODE_NAMES: [NodeName; 3] =
    [|count| server_of(count).to_owned(), |count| count.service.clone(), destination_of];

/// A column: its nodes with their packets, from the top.
struct Column {
    x: f64,
    nodes: Vec<(String, u64)>,
}

impl Column {
    fn new(counts: &[MinuteCount], name: NodeName, most: usize, x: f64) -> Column {
        let mut nodes = sum_by(counts, name);
        if nodes.len() > most {
            let rest = nodes.split_off(most - 1);
            nodes.push((OTHERS.to_owned(), rest.iter().map(|(_, packets)| packets).sum()));
        }
        Column { x, nodes }
    }

    /// The name of the node that stands for a name.
    fn node_of(&self, name: String) -> String {
        let is_known = self.nodes.iter().any(|(node, _)| *node == name);
        if is_known { name } else { OTHERS.to_owned() }
    }

    /// The height of a node in a drawing with `rows` rows.
    fn y(&self, name: &str, rows: usize) -> f64 {
        let at = self.nodes.iter().position(|(node, _)| node == name).unwrap_or(self.nodes.len() - 1);
        TOP + (rows - self.nodes.len()) as f64 * ROW_HEIGHT / 2.0 + (at as f64 + 0.5) * ROW_HEIGHT
    }
}

/// The drawing; `None` without counts.
pub(super) fn draw(counts: &[MinuteCount]) -> Option<Markup> {
    if counts.is_empty() {
        return None;
    }
    let [servers, services, destinations] =
        [0, 1, 2].map(|index| Column::new(counts, NODE_NAMES[index], MAX_NODES[index], COLUMN_X[index]));
    let rows = [&servers, &services, &destinations].map(|column| column.nodes.len()).into_iter().max();
    let rows = rows.unwrap_or(1);
    let height = format!("{:.0}", TOP + rows as f64 * ROW_HEIGHT);
    Some(html! {
        svg.map viewBox={ "0 0 " (WIDTH) " " (height) } role="img"
            aria-label="Which server tried which service at which destination" {
            text.head.left x=(servers.x - 12.0) y="14" { "server" }
            text.head.middle x=(services.x) y="14" { "service" }
            text.head x=(destinations.x + 12.0) y="14" { "destination" }
            (draw_bands(counts, (&servers, NODE_NAMES[0]), (&services, NODE_NAMES[1]), rows))
            (draw_bands(counts, (&services, NODE_NAMES[1]), (&destinations, NODE_NAMES[2]), rows))
            // texts stand left of the first column, above the second, right of the third
            (draw_nodes(&servers, rows, (-12.0, 4.0), "left", 20))
            (draw_nodes(&services, rows, (0.0, -9.0), "middle", 20))
            (draw_nodes(&destinations, rows, (12.0, 4.0), "right", 24))
        }
    })
}

fn draw_bands(
    counts: &[MinuteCount],
    (left, left_name): (&Column, NodeName),
    (right, right_name): (&Column, NodeName),
    rows: usize,
) -> Markup {
    let key = |count: &MinuteCount| (left.node_of(left_name(count)), right.node_of(right_name(count)));
    let (x1, x2) = (left.x + 6.0, right.x - 6.0);
    let middle = (x1 + x2) / 2.0;
    html! {
        @for ((from, to), packets) in sum_by(counts, key) {
            @let (y1, y2) = (left.y(&from, rows), right.y(&to, rows));
            @let width = 1.5 + 2.2 * (packets as f64 + 1.0).log10();
            path.band
                d=(format!("M{x1:.0},{y1:.0} C{middle:.0},{y1:.0} {middle:.0},{y2:.0} {x2:.0},{y2:.0}"))
                stroke-width=(format!("{width:.1}")) {
                title { (ForeignText(&from)) " → " (ForeignText(&to)) ": " (group_digits(packets)) }
            }
        }
    }
}

/// The dots of a column, each with its text `offset` from it.
fn draw_nodes(column: &Column, rows: usize, offset: (f64, f64), class: &str, most: usize) -> Markup {
    html! {
        @for (name, packets) in &column.nodes {
            @let y = column.y(name, rows);
            circle.node cx=(column.x) cy=(y) r="5" {}
            text class=(class) x=(column.x + offset.0) y=(y + offset.1) {
                (ForeignText(&shorten(name, most))) " " tspan.dim { (group_digits(*packets)) }
            }
        }
    }
}
