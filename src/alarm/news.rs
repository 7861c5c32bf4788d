//! What a change of an incident says that was not said before. An update that says nothing new is not sent.

use std::hash::Hash;

use super::describe::{list, name_part};
use super::incident::Incident;
use super::part::{OpenPart, Part};
use super::{Distinct, Kind, Severity};
use crate::drops::DropVerdict;

/// How many things are named. The rest is counted.
const NAMED: usize = 4;

/// What was said of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ReportedPart {
    kind: Kind,
    severity: Severity,
    sources: Size,
    destinations: Size,
    verdict: Option<DropVerdict>,
    /// All that is known of it came while no daemon ran.
    is_past: bool,
}

/// A number of things. An estimate has news when it doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Size {
    Exact(usize),
    Doublings(u32),
}

impl Size {
    fn of<T: PartialEq + Copy + Hash>(things: &Distinct<T>) -> Size {
        match things.is_estimate() {
            true => Size::Doublings(things.len().max(1).ilog2()),
            false => Size::Exact(things.len()),
        }
    }
}

impl ReportedPart {
    pub(super) fn of(part: &Part) -> ReportedPart {
        ReportedPart {
            kind: part.kind,
            severity: part.severity,
            sources: Size::of(&part.sources),
            destinations: Size::of(&part.destinations),
            verdict: part.verdict,
            is_past: part.sample.as_ref().is_some_and(|sample| sample.while_away),
        }
    }
}

/// The order of magnitude of a count.
pub(super) fn magnitude(packets: u64) -> u32 {
    packets.checked_ilog10().unwrap_or(0)
}

/// Whether there is anything new.
pub(super) fn has_news(incident: &Incident) -> bool {
    let is_reported =
        |open: &OpenPart| open.reported == Some(ReportedPart::of(&open.part)) && !open.came_again;
    incident.reported_magnitude != magnitude(incident.packets())
        || incident.has_response_news
        || !incident.parts().iter().all(is_reported)
}

/// What is new, in words, the most telling first. Empty: nothing.
pub(super) fn describe_news(incident: &Incident) -> String {
    let mut news: Vec<String> = Vec::new();
    let mut parts: Vec<&OpenPart> = incident.parts().iter().collect();
    parts.sort_by_key(|open| std::cmp::Reverse(open.part.rank()));
    for open in &parts {
        news.extend(describe_part_news(open));
    }
    let packets = incident.packets();
    let now = magnitude(packets);
    if now > incident.reported_magnitude {
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
