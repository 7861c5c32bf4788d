//! Sets of peers: for which of them which rule holds.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use ipnet::IpNet;

use super::PeerRow;
use super::room::Room;
use super::rules::{Rank, Rulebook};

/// All sets so far. Sets that say the same are the same.
pub(super) struct PeerSets<'b, 'p> {
    book: &'b Rulebook<'p>,
    rows: Vec<PeerRow>,
    /// Rows of each set; set 1 stands at index 0.
    spans: Vec<Range<usize>>,
    /// Sets by the ranks of the rules they were built of.
    by_rules: HashMap<Vec<Rank>, u32>,
    /// Sets by the hash of their content.
    by_content: HashMap<u64, Vec<u32>>,
    /// Peers by rule: a rule is part of many sets.
    peers: HashMap<u32, Vec<IpNet>>,
}

impl<'b, 'p> PeerSets<'b, 'p> {
    pub fn new(book: &'b Rulebook<'p>) -> Self {
        Self {
            book,
            rows: Vec::new(),
            spans: Vec::new(),
            by_rules: HashMap::new(),
            by_content: HashMap::new(),
            peers: HashMap::new(),
        }
    }

    pub fn into_rows(self) -> Vec<PeerRow> {
        self.rows
    }

    /// The set for these rules; the best rule comes first, and every rule names peers.
    pub fn find_or_build(&mut self, ranks: Vec<Rank>, room: &mut Room) -> u32 {
        if let Some(set) = self.by_rules.get(&ranks) {
            return *set;
        }
        let content = self.build(&ranks);
        let set = self.find_or_add(&content, ranks.first().copied(), room);
        self.by_rules.insert(ranks, set);
        set
    }

    /// Finds the rule of each prefix: the best one that holds for it or for a prefix around it. A prefix for which the
    /// same rule holds as for the one around it is left out.
    fn build(&mut self, ranks: &[Rank]) -> Vec<(IpNet, u32)> {
        let mut prefixes: Vec<(IpNet, Rank)> = Vec::new();
        for rank in ranks {
            let rule = self.book.at_rank(*rank);
            let peers = self.peers.entry(rule).or_insert_with(|| self.book.peers(rule));
            prefixes.extend(peers.iter().map(|prefix| (*prefix, *rank)));
        }
        // A prefix comes before those inside it, and its best rule before its others.
        prefixes.sort_unstable();
        prefixes.dedup_by_key(|(prefix, _)| *prefix);
        let mut around: Vec<(IpNet, Rank)> = Vec::new();
        let mut content = Vec::new();
        for (prefix, own) in prefixes {
            while around.last().is_some_and(|(outer, _)| !outer.contains(&prefix)) {
                around.pop();
            }
            let inherited = around.last().map(|(_, rank)| *rank);
            let best = inherited.map_or(own, |inherited| inherited.min(own));
            if inherited != Some(best) {
                content.push((prefix, self.book.at_rank(best)));
            }
            around.push((prefix, best));
        }
        content
    }

    fn find_or_add(&mut self, content: &[(IpNet, u32)], best: Option<Rank>, room: &mut Room) -> u32 {
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let hash = hasher.finish();
        let candidates = self.by_content.get(&hash).map(Vec::as_slice).unwrap_or_default();
        if let Some(set) = candidates.iter().find(|set| self.holds(**set, content)) {
            return *set;
        }
        let start = self.rows.len();
        let set = u32::try_from(self.spans.len() + 1).unwrap_or(u32::MAX);
        if room.take_peers(content.len()) {
            self.rows.extend(content.iter().map(|(prefix, rule)| PeerRow { set, prefix: *prefix, rule: *rule }));
        } else if let Some(need) = best.and_then(|rank| self.book.need(self.book.at_rank(rank))) {
            room.blame_peers(need.place.start..need.place.end);
        }
        self.spans.push(start..self.rows.len());
        self.by_content.entry(hash).or_default().push(set);
        set
    }

    fn holds(&self, set: u32, content: &[(IpNet, u32)]) -> bool {
        let span = self.spans.get(set as usize - 1).cloned().unwrap_or_default();
        let rows = self.rows.get(span).unwrap_or_default();
        rows.len() == content.len()
            && rows.iter().zip(content).all(|(row, (prefix, rule))| row.prefix == *prefix && row.rule == *rule)
    }
}
