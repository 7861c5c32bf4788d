//! Needs that overlap, cut into ranges of ports that don't.

use super::name_tables::NamePeerRow;
use super::peers::PeerSets;
use super::room::Room;
use super::rows::{NeedRow, PeerMatch, PeerRow, Profile, RuleRow};
use super::rules::{Rank, Rulebook};
use crate::policy::Direction;

/// Where a rule starts or stops to hold. An end is one past the last port, so it may not fit into a
/// `u16`.
struct Edge {
    at: u32,
    starts: bool,
    rule: u32,
}

/// The rules of one direction that hold at a port, the best one first.
#[derive(Default)]
struct Active {
    /// For every peer.
    general: Vec<Rank>,
    /// For some peers.
    particular: Vec<Rank>,
}

impl Active {
    /// The rules for some peers that may decide. If the best one for every peer has no limit, those are the
    /// better ones.
    fn deciding(&self, book: &Rulebook<'_>) -> &[Rank] {
        let Some(best) = self.general.first().filter(|best| !book.is_limited(**best)) else {
            return &self.particular;
        };
        let better = self.particular.partition_point(|rank| rank < best);
        self.particular.get(..better).unwrap_or_default()
    }
}

/// Rows of ports and of peers, and the rules that these name.
pub(super) struct Flattened {
    pub(super) needs: Vec<NeedRow>,
    pub(super) peers: Vec<PeerRow>,
    pub(super) name_peers: Vec<NamePeerRow>,
    pub(super) rules: Vec<RuleRow>,
}

/// Cuts the needs of all profiles.
pub(super) fn flatten_profiles(profiles: &[Profile], book: &Rulebook<'_>, room: &mut Room) -> Flattened {
    let mut needs = Vec::new();
    let mut sets = PeerSets::new(book);
    'profiles: for (number, profile) in (0u32..).zip(profiles) {
        let mut rules: Vec<(u8, u32)> =
            profile.rules.iter().filter_map(|rule| Some((book.need(*rule)?.protocol, *rule))).collect();
        rules.sort_unstable();
        for group in rules.chunk_by(|(a, _), (b, _)| a == b) {
            let Some((proto, _)) = group.first() else {
                continue;
            };
            let numbers = group.iter().map(|(_, rule)| *rule);
            cut_ports(number, *proto, numbers, book, &mut sets, room, &mut needs);
            room.blame_needs(profile.place.clone());
            if room.is_exhausted() {
                break 'profiles;
            }
        }
    }
    let (peers, name_peers, rules) = sets.into_rows();
    Flattened { needs, peers, name_peers, rules }
}

/// Cuts the needs of one profile and protocol, walking over the edges in the order of the ports.
fn cut_ports(
    profile: u32,
    proto: u8,
    rules: impl Iterator<Item = u32>,
    book: &Rulebook<'_>,
    sets: &mut PeerSets<'_, '_>,
    room: &mut Room,
    rows: &mut Vec<NeedRow>,
) {
    let mut edges = Vec::new();
    for rule in rules {
        let Some(need) = book.need(rule) else {
            continue;
        };
        edges.push(Edge { at: u32::from(*need.ports.start()), starts: true, rule });
        edges.push(Edge { at: u32::from(*need.ports.end()) + 1, starts: false, rule });
    }
    edges.sort_unstable_by_key(|edge| edge.at);
    let mut active = [Active::default(), Active::default(), Active::default()];
    let mut pending: Option<NeedRow> = None;
    let mut groups = edges.chunk_by(|a, b| a.at == b.at).peekable();
    while let Some(group) = groups.next() {
        for edge in group {
            move_edge(edge, book, &mut active);
        }
        // After the last edge nothing holds any more.
        let (Some(first), Some(next)) = (group.first(), groups.peek().and_then(|group| group.first())) else {
            break;
        };
        let [inbound, outbound, quiet] = active.each_ref().map(|active| find_match(active, book, sets, room));
        let row =
            NeedRow { profile, proto, ports: port(first.at)..=port(next.at - 1), inbound, outbound, quiet };
        match &mut pending {
            Some(last) if continues(last, &row) => last.ports = *last.ports.start()..=*row.ports.end(),
            _ => keep(pending.replace(row), room, rows),
        }
        if room.is_exhausted() {
            return;
        }
    }
    keep(pending, room, rows);
}

/// Whether a row says the same as the one before it, for the ports that follow.
fn continues(last: &NeedRow, row: &NeedRow) -> bool {
    let cells = |row: &NeedRow| [row.inbound, row.outbound, row.quiet];
    u32::from(*last.ports.end()) + 1 == u32::from(*row.ports.start()) && cells(last) == cells(row)
}

fn keep(row: Option<NeedRow>, room: &mut Room, rows: &mut Vec<NeedRow>) {
    let nothing = PeerMatch::default();
    if let Some(row) = row.filter(|row| [row.inbound, row.outbound, row.quiet] != [nothing; 3])
        && room.take_need()
    {
        rows.push(row);
    }
}

fn port(at: u32) -> u16 {
    // An edge is a port, or one past a port, which the caller subtracts again.
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn move_edge(edge: &Edge, book: &Rulebook<'_>, active: &mut [Active; 3]) {
    let Some(need) = book.need(edge.rule) else {
        return;
    };
    let [inbound, outbound, quiet] = active;
    let active = match need.direction {
        Direction::In => inbound,
        Direction::Out => outbound,
        Direction::Quiet => quiet,
    };
    let ranks = if need.peers.is_empty() { &mut active.general } else { &mut active.particular };
    let rank = book.rank_of(edge.rule);
    match (ranks.binary_search(&rank), edge.starts) {
        (Err(index), true) => ranks.insert(index, rank),
        (Ok(index), false) => drop(ranks.remove(index)),
        _ => (),
    }
}

fn find_match(
    active: &Active,
    book: &Rulebook<'_>,
    sets: &mut PeerSets<'_, '_>,
    room: &mut Room,
) -> PeerMatch {
    let general = sets.gather(&active.general);
    let any = general.map_or(0, |chain| sets.number(chain));
    let deciding = active.deciding(book);
    let set = if deciding.is_empty() { 0 } else { sets.find_or_build(deciding, general, room) };
    PeerMatch { any, set }
}
