//! What a change of an incident says that was not said before. An update that says nothing new is not sent.

use super::describe::{list, name_part};
use super::part::{OpenPart, ReportedPart};
use crate::drops::DropVerdict;

/// How many things are named. The rest is counted.
const NAMED: usize = 4;

/// The order of magnitude of a count.
pub(super) fn magnitude(packets: u64) -> u32 {
    packets.checked_ilog10().unwrap_or(0)
}

/// Whether there is anything new about a part.
pub(super) fn has_news(open: &OpenPart) -> bool {
    open.reported != Some(ReportedPart::of(&open.part)) || open.came_again
}

/// What is new, in words, the most telling first. Empty: nothing. `reported_magnitude`: of the packets that were
/// reported before.
pub(super) fn describe_news(parts: &[OpenPart], packets: u64, reported_magnitude: u32) -> String {
    let mut news: Vec<String> = Vec::new();
    let mut parts: Vec<&OpenPart> = parts.iter().collect();
    parts.sort_by_key(|open| std::cmp::Reverse(open.part.rank()));
    for open in &parts {
        news.extend(describe_part_news(open));
    }
    let now = magnitude(packets);
    if now > reported_magnitude {
        news.push(format!("more than {} packets", 10_u64.saturating_pow(now) - 1));
    }
    let rest = news.len().saturating_sub(NAMED);
    news.truncate(NAMED);
    if rest > 0 {
        news.push(format!("and {rest} more"));
    }
    news.join(", ")
}

fn describe_part_news(open: &OpenPart) -> Option<String> {
    let part = &open.part;
    let name = name_part(part);
    let Some(reported) = open.reported else {
        return Some(name);
    };
    let now = ReportedPart::of(part);
    if now.kind != reported.kind {
        return Some(format!("{name}, {} until now", reported.kind));
    }
    if now.severity != reported.severity {
        return Some(format!("{name} is {}", now.severity));
    }
    if open.came_again {
        return Some(format!("{name} again"));
    }
    if now.is_past != reported.is_past {
        return Some(format!("{name} goes on"));
    }
    if now.verdict != reported.verdict {
        let verdict = now.verdict.map_or("", |verdict| match verdict {
            DropVerdict::Drop => "dropped",
            DropVerdict::WouldDrop => "NOT dropped any more",
        });
        return Some(format!("{name} is {verdict}"));
    }
    if now.sources != reported.sources {
        return Some(format!("{name} from more machines{}", list(": ", &part.sources, |ip| ip.to_string())));
    }
    (now.destinations != reported.destinations).then(|| format!("{name} to more places"))
}
