//! The bounds that the gate is held to. Each is a ratio of two costs of the same run.

use crate::candidates::LRU_INSERT;
use crate::cases::{ADDRESSES, LRU, MAIN, XDP_FILTER_DENY};
use crate::filters::{NFT, STRICT, XDP_FILTER};
use crate::report::{Cell, Report, Section, Target};
use crate::statistics::{Spread, zip};

/// The targets that compare series of two groups or programs.
fn targets() -> Vec<Target> {
    let target = |title: &str, left: String, right: String, limit| Target {
        title: title.to_owned(),
        left,
        right,
        limit,
    };
    let wire = |kind: &str, filter: &str| format!("wire/{kind}/{filter}");
    let cost = |case: &str, program: &str| format!("cost/{case}/{program}");
    vec![
        target(
            "a worm's SYN, dropped: half of what xdp-filter adds",
            wire("drop", STRICT),
            wire("drop", XDP_FILTER),
            0.5,
        ),
        target(
            "a SYN to a random port, dropped: what xdp-filter costs",
            cost("ports", MAIN),
            cost("ports", XDP_FILTER_DENY),
            1.0,
        ),
        target(
            "a segment of a warm flow, passed: a fifth of what nft with conntrack adds",
            wire("pass", STRICT),
            wire("pass", NFT),
            0.2,
        ),
        target(
            "a million flows at random: 1.2 times one LRU lookup",
            cost("reply 1m", MAIN),
            cost("reply 1m", LRU),
            1.2,
        ),
        target(
            "a new inbound connection at egress: 1.5 times one LRU insert",
            cost("opening", MAIN),
            cost("opening", LRU_INSERT),
            1.5,
        ),
        target(
            "4,096 servers for 4, a worm's SYNs from all: 1.3 times",
            cost("worms 4096", "4,096 servers"),
            cost("worms 4", "4 servers"),
            1.3,
        ),
        target(
            "4,096 servers for 4, replies: 1.3 times",
            cost("reply 4096", "4,096 servers"),
            cost("reply 4", "4 servers"),
            1.3,
        ),
        target(
            "4,096 servers for 4, permitted SYNs: 1.3 times",
            cost("outbound 4096", "4,096 servers"),
            cost("outbound 4", "4 servers"),
            1.3,
        ),
        target(
            "4,096 needs for 4, a worm's SYNs: 1.3 times",
            cost("worms 4096 needs", "4,096 needs"),
            cost("worms 4 needs", "4 needs"),
            1.3,
        ),
        target(
            "4,096 needs for 4, replies: 1.3 times",
            cost("reply 4096 needs", "4,096 needs"),
            cost("reply 4 needs", "4 needs"),
            1.3,
        ),
        target(
            "4,096 needs for 4, permitted SYNs: 1.3 times",
            cost("outbound 4096 needs", "4,096 needs"),
            cost("outbound 4 needs", "4 needs"),
            1.3,
        ),
        target(
            "65,536 addresses, permitted SYNs: 1.3 times one hash of 65,536",
            cost("outbound 65536", "65,536 addresses"),
            cost("outbound 65536", ADDRESSES),
            1.3,
        ),
        target(
            "65,536 addresses, a worm's SYNs from all: 1.3 times one hash of 65,536",
            cost("worms 65536", "65,536 addresses"),
            cost("worms 65536", ADDRESSES),
            1.3,
        ),
        target("IPv6 for IPv4, a worm's SYNs: 1.25 times", cost("worm v6", MAIN), cost("worm", MAIN), 1.25),
        target(
            "IPv6 for IPv4, SYNs to random ports: 1.25 times",
            cost("ports v6", MAIN),
            cost("ports", MAIN),
            1.25,
        ),
        target("IPv6 for IPv4, replies: 1.25 times", cost("reply v6", MAIN), cost("reply 1k", MAIN), 1.25),
        target(
            "IPv6 for IPv4, permitted SYNs: 1.25 times",
            cost("outbound v6", MAIN),
            cost("outbound", MAIN),
            1.25,
        ),
    ]
}

/// Adds the table of targets to the report, with a line for each target whose groups have run.
pub fn judge(report: &mut Report) {
    let mut lines = Vec::new();
    for target in targets().iter().chain(&report.targets) {
        let (Some(left), Some(right)) = (report.series(&target.left), report.series(&target.right)) else {
            continue;
        };
        let spread = Spread::of(&zip(left, right, |left, right| left / right));
        let verdict = if spread.median <= target.limit { "held" } else { "not held" };
        lines.push(vec![
            Cell::Ratio(spread),
            Cell::Text(format!("{}", target.limit)),
            Cell::Text(verdict.to_owned()),
            Cell::Text(target.title.clone()),
        ]);
    }
    if lines.is_empty() {
        return;
    }
    let section = Section {
        key: "targets",
        title: "Targets".to_owned(),
        note: "Each target is a ratio of two costs. Both sides were measured in turns, round by round."
            .to_owned(),
        columns: vec!["ratio", "at most", "", "target"],
        lines,
    };
    report.sections.insert(0, section);
}
