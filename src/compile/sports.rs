//! Needs with a `sport`: ranges of the server's own ports, each with the profile that holds its needs.

use std::collections::{BTreeSet, HashMap};

use super::room::Room;
use super::rows::{Profile, SportRow};
use super::rules::Rulebook;
use crate::policy::{MAX_ENTRIES, Need};

/// Moves the needs with a `sport` out of their profiles, into profiles of their own behind all others. The
/// other needs with a limit stand there as well: both are asked together, so that their order does not matter.
pub(super) fn split_sports(
    profiles: &mut Vec<Profile>,
    book: &Rulebook<'_>,
    room: &mut Room,
) -> Vec<SportRow> {
    let mut rows = Vec::new();
    let mut added: Vec<Profile> = Vec::new();
    let mut known: HashMap<Vec<u32>, u32> = HashMap::new();
    let mut size = 0;
    let first_added = profiles.len();
    for (number, profile) in (0u32..).zip(profiles.iter_mut()) {
        let has_sport = |rule: &u32| book.need(*rule).is_some_and(|need| need.sport.is_some());
        let (mut moved, kept): (Vec<u32>, Vec<u32>) = profile.rules.iter().partition(|rule| has_sport(rule));
        profile.rules = kept;
        moved.sort_by_key(|rule| book.need(*rule).map(|need| need.protocol));
        for group in moved.chunk_by(|a, b| protocol_of(book, *a) == protocol_of(book, *b)) {
            let Some(proto) = group.first().and_then(|rule| protocol_of(book, *rule)) else {
                continue;
            };
            let is_limited = |need: &Need| need.protocol == proto && need.limit.is_some();
            let limited: Vec<u32> = profile
                .rules
                .iter()
                .copied()
                .filter(|rule| book.need(*rule).is_some_and(is_limited))
                .collect();
            for (ports, mut rules) in cut(group, book, &mut size) {
                size += limited.len();
                rules.extend(&limited);
                rules.sort_unstable();
                let needs = *known.entry(rules).or_insert_with_key(|rules| {
                    let place = profile.place.clone();
                    added.push(Profile { rules: rules.clone(), place });
                    u32::try_from(first_added + added.len() - 1).unwrap_or(u32::MAX)
                });
                if room.take_need() {
                    rows.push(SportRow { profile: number, proto, ports, needs });
                }
            }
            if size > MAX_ENTRIES as usize {
                room.exhaust_needs();
            }
            room.blame_needs(profile.place.clone());
            if room.is_exhausted() {
                return rows;
            }
        }
    }
    profiles.extend(added);
    rows
}

fn protocol_of(book: &Rulebook<'_>, rule: u32) -> Option<u8> {
    book.need(rule).map(|need| need.protocol)
}

type Cut = Vec<(std::ops::RangeInclusive<u16>, Vec<u32>)>;

/// Cuts the ranges of some rules into disjoint ones, each with the rules that hold there. `size` counts the
/// rules of all ranges. It ends early when these are more than any table holds.
fn cut(rules: &[u32], book: &Rulebook<'_>, size: &mut usize) -> Cut {
    // Ends are one past the last port, so they don't fit into a port.
    let mut edges: Vec<(u32, bool, u32)> = Vec::with_capacity(2 * rules.len());
    for rule in rules {
        if let Some(sport) = book.need(*rule).and_then(|need| need.sport.as_ref()) {
            edges.push((u32::from(*sport.start()), true, *rule));
            edges.push((u32::from(*sport.end()) + 1, false, *rule));
        }
    }
    edges.sort_unstable();
    let mut active = BTreeSet::new();
    let mut ranges: Cut = Vec::new();
    let mut groups = edges.chunk_by(|(a, ..), (b, ..)| a == b).peekable();
    while let Some(group) = groups.next() {
        for (_, starts, rule) in group {
            if *starts {
                active.insert(*rule)
            } else {
                active.remove(rule)
            };
        }
        let (Some((at, ..)), Some((next, ..))) =
            (group.first(), groups.peek().and_then(|group| group.first()))
        else {
            break;
        };
        *size += active.len();
        if *size > MAX_ENTRIES as usize {
            break;
        }
        // Both are ports here: after the last edge nothing holds any more.
        if let (false, Ok(first), Ok(last)) = (active.is_empty(), u16::try_from(*at), u16::try_from(next - 1))
        {
            ranges.push((first..=last, active.iter().copied().collect()));
        }
    }
    ranges
}
