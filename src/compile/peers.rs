//! Sets of peers: which rule holds for which of them.

use std::collections::HashMap;

use ipnet::IpNet;

use super::PeerRow;
use super::room::Room;
use super::rules::{Rank, Rulebook};

/// The longest list of rules that is remembered. Thousands of needs that overlap have thousands of such
/// lists, each thousands long. It takes less to work those out again.
const REMEMBERED: usize = 64;

/// All sets so far. Two sets of the same content are one.
pub(super) struct PeerSets<'b, 'p> {
    book: &'b Rulebook<'p>,
    rows: Vec<PeerRow>,
    /// How many sets there are.
    count: u32,
    /// Sets of one rule, by its rank. 0: none. Most sets are of one rule.
    by_rule: Vec<u32>,
    /// Sets by the ranks of the rules they were built of.
    by_rules: HashMap<Vec<Rank>, u32>,
    /// Peers by rule: a rule is part of many sets.
    peers: HashMap<u32, Vec<IpNet>>,
}

impl<'b, 'p> PeerSets<'b, 'p> {
    pub(super) fn new(book: &'b Rulebook<'p>) -> Self {
        let by_rule = vec![0; book.count()];
        Self { book, rows: Vec::new(), count: 0, by_rule, by_rules: HashMap::new(), peers: HashMap::new() }
    }

    pub(super) fn into_rows(self) -> Vec<PeerRow> {
        self.rows
    }

    /// The set for these rules. The best rule comes first, and every rule names peers.
    pub(super) fn find_or_build(&mut self, ranks: &[Rank], room: &mut Room) -> u32 {
        if let [rank] = ranks {
            return self.find_or_build_for_one(*rank, room);
        }
        if let Some(set) = self.by_rules.get(ranks) {
            return *set;
        }
        let content = self.build(ranks);
        // Rules that hold for none of the peers don't matter. The others name the set.
        let mut used: Vec<Rank> = content.iter().map(|(_, rank)| *rank).collect();
        used.sort_unstable();
        used.dedup();
        let set = match (used.as_slice(), self.by_rules.get(&used)) {
            ([rank], _) => return self.find_or_build_for_one(*rank, room),
            (_, Some(set)) => *set,
            (_, None) => self.add(&content, room),
        };
        if used != ranks && ranks.len() <= REMEMBERED {
            self.by_rules.insert(ranks.to_vec(), set);
        }
        self.by_rules.insert(used, set);
        set
    }

    fn find_or_build_for_one(&mut self, rank: Rank, room: &mut Room) -> u32 {
        let index = rank as usize;
        if let Some(set) = self.by_rule.get(index).copied().filter(|set| *set != 0) {
            return set;
        }
        let content =
            drop_inner(self.book.peers(self.book.at_rank(rank)).into_iter().map(|prefix| (prefix, rank)));
        let set = self.add(&content, room);
        if let Some(known) = self.by_rule.get_mut(index) {
            *known = set;
        }
        set
    }

    /// Finds the rule of each prefix that one of these rules names.
    fn build(&mut self, ranks: &[Rank]) -> Vec<(IpNet, Rank)> {
        let mut prefixes: Vec<(IpNet, Rank)> = Vec::new();
        for rank in ranks {
            let rule = self.book.at_rank(*rank);
            let peers = self.peers.entry(rule).or_insert_with(|| self.book.peers(rule));
            prefixes.extend(peers.iter().map(|prefix| (*prefix, *rank)));
        }
        // A prefix comes before those inside it, and its best rule before its others.
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|(prefix, _)| *prefix);
        drop_inner(prefixes.into_iter())
    }

    fn add(&mut self, content: &[(IpNet, Rank)], room: &mut Room) -> u32 {
        self.count += 1;
        let set = self.count;
        if room.take_peers(content.len()) {
            let row = |(prefix, rank): &(IpNet, Rank)| PeerRow {
                set,
                prefix: *prefix,
                rule: self.book.at_rank(*rank),
            };
            self.rows.extend(content.iter().map(row));
        } else if let Some(need) =
            content.first().and_then(|(_, rank)| self.book.need(self.book.at_rank(*rank)))
        {
            room.blame_peers(need.place.start..need.place.end);
        }
        set
    }
}

/// Gives each prefix the best of its own rule and the rules of prefixes around it, and leaves out a prefix
/// that has the same rule as the one around it. The prefixes are sorted.
fn drop_inner(prefixes: impl Iterator<Item = (IpNet, Rank)>) -> Vec<(IpNet, Rank)> {
    let mut around: Vec<(IpNet, Rank)> = Vec::new();
    let mut content = Vec::with_capacity(prefixes.size_hint().0);
    for (prefix, own) in prefixes {
        while around.last().is_some_and(|(outer, _)| !outer.contains(&prefix)) {
            around.pop();
        }
        let inherited = around.last().map(|(_, rank)| *rank);
        let best = inherited.map_or(own, |inherited| inherited.min(own));
        if inherited != Some(best) {
            content.push((prefix, best));
        }
        around.push((prefix, best));
    }
    content
}
