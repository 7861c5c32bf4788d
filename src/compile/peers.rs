//! Sets of peers: which rule holds for which of them.

use std::collections::HashMap;

use ipnet::IpNet;

use super::chains::{Chain, Chains};
use super::name_tables::NamePeerRow;
use super::room::Room;
use super::rows::{PeerRow, RuleRow};
use super::rules::{Rank, Rulebook};

/// The longest list of rules that is remembered. Thousands of needs that overlap have thousands of such
/// lists, each thousands long. It takes less to work those out again.
const REMEMBERED: usize = 64;

/// The rules that a set was built of, and those for every peer that are asked after them.
type Content = (Vec<Chain>, Option<Chain>);

/// Peers of a set, each with the rules that hold for it.
#[derive(Default)]
struct SetContent {
    prefixes: Vec<(IpNet, Chain)>,
    /// Numbers of names.
    names: Vec<(u32, Chain)>,
}

impl SetContent {
    fn chains(&self) -> impl Iterator<Item = Chain> + '_ {
        let of_names = self.names.iter().map(|(_, chain)| *chain);
        self.prefixes.iter().map(|(_, chain)| *chain).chain(of_names)
    }

    fn count(&self) -> usize {
        self.prefixes.len() + self.names.len()
    }
}

/// All sets so far. Two sets of the same content are one.
pub(super) struct PeerSets<'b, 'p> {
    book: &'b Rulebook<'p>,
    chains: Chains<'b, 'p>,
    rows: Vec<PeerRow>,
    name_rows: Vec<NamePeerRow>,
    /// How many sets there are.
    count: u32,
    /// Sets of one rule, by its rank. 0: none. Most sets are of one rule.
    by_rule: Vec<u32>,
    /// Sets by what they were built of.
    by_content: HashMap<Content, u32>,
    /// Peers by rule: a rule is part of many sets.
    peers: HashMap<u32, Vec<IpNet>>,
}

impl<'b, 'p> PeerSets<'b, 'p> {
    pub(super) fn new(book: &'b Rulebook<'p>) -> Self {
        Self {
            book,
            chains: Chains::new(book),
            rows: Vec::new(),
            name_rows: Vec::new(),
            count: 0,
            by_rule: vec![0; book.count()],
            by_content: HashMap::new(),
            peers: HashMap::new(),
        }
    }

    /// The sets, and all rules that they name.
    pub(super) fn into_rows(self) -> (Vec<PeerRow>, Vec<NamePeerRow>, Vec<RuleRow>) {
        let mut rules = self.book.rows();
        rules.extend(self.chains.rows(&rules));
        (self.rows, self.name_rows, rules)
    }

    /// The chain of rules that hold for every peer, the best one first.
    pub(super) fn gather(&mut self, ranks: &[Rank]) -> Option<Chain> {
        self.chains.gather(ranks.iter().copied())
    }

    /// The number of the rule that stands for a chain.
    pub(super) fn number(&self, chain: Chain) -> u32 {
        self.chains.number(chain)
    }

    /// The set for these rules, and those for every peer. The best rule comes first, and every one of `ranks`
    /// names peers. 0: the rules for every peer hold for all.
    pub(super) fn find_or_build(&mut self, ranks: &[Rank], general: Option<Chain>, room: &mut Room) -> u32 {
        // A rule without a limit stands behind better ones, and is never asked after them.
        let general = general.filter(|chain| !self.chains.decides(*chain));
        if let ([rank], None) = (ranks, general) {
            return self.find_or_build_for_one(*rank, room);
        }
        let asked = (ranks.to_vec(), general);
        if let Some(set) = self.by_content.get(&asked) {
            return *set;
        }
        let content = self.build(ranks, general);
        // Rules that hold for none of the peers don't matter. The others name the set.
        let mut used: Vec<Chain> = content.chains().collect();
        used.sort_unstable();
        used.dedup();
        let built = (used, general);
        let set = match (built.0.as_slice(), self.by_content.get(&built)) {
            ([], _) => 0,
            ([chain], _) if self.chains.is_rule(*chain) => return self.find_or_build_for_one(*chain, room),
            (_, Some(set)) => *set,
            (_, None) => self.add(&content, room),
        };
        if built != asked && ranks.len() <= REMEMBERED {
            self.by_content.insert(asked, set);
        }
        self.by_content.insert(built, set);
        set
    }

    fn find_or_build_for_one(&mut self, rank: Rank, room: &mut Room) -> u32 {
        let index = rank as usize;
        if let Some(set) = self.by_rule.get(index).copied().filter(|set| *set != 0) {
            return set;
        }
        let content = self.build(&[rank], None);
        let set = self.add(&content, room);
        if let Some(known) = self.by_rule.get_mut(index) {
            *known = set;
        }
        set
    }

    /// Finds the rules of each prefix that one of these rules names. Two rules may name the same prefix.
    fn build(&mut self, ranks: &[Rank], general: Option<Chain>) -> SetContent {
        let mut prefixes: Vec<(IpNet, Rank)> = Vec::new();
        for rank in ranks {
            let rule = self.book.at_rank(*rank);
            let peers = self.peers.entry(rule).or_insert_with(|| self.book.peers(rule));
            prefixes.extend(peers.iter().map(|prefix| (*prefix, *rank)));
        }
        // A prefix comes before those inside it, and its best rule before its others.
        prefixes.sort_unstable();
        let groups = prefixes.chunk_by(|(a, _), (b, _)| a == b);
        let mut around: Vec<(IpNet, Chain)> = Vec::new();
        let mut content = Vec::with_capacity(prefixes.len());
        for group in groups {
            let Some((prefix, _)) = group.first() else {
                continue;
            };
            while around.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
                around.pop();
            }
            let inherited = around.last().map_or(general, |(_, chain)| Some(*chain));
            let Some(own) = self.chains.gather(group.iter().map(|(_, rank)| *rank)) else {
                continue;
            };
            let chain = inherited.map_or(own, |inherited| self.chains.join(inherited, own));
            // Left out if the prefix around it says the same.
            if inherited != Some(chain) {
                content.push((*prefix, chain));
            }
            around.push((*prefix, chain));
        }
        SetContent { prefixes: content, names: self.build_names(ranks, general) }
    }

    /// Finds the rules of each name that one of these rules has, and of those within it.
    fn build_names(&mut self, ranks: &[Rank], general: Option<Chain>) -> Vec<(u32, Chain)> {
        let mut names: Vec<(u32, Rank)> = Vec::new();
        for rank in ranks {
            names.extend(self.book.names(self.book.at_rank(*rank)).into_iter().map(|name| (name, *rank)));
        }
        names.sort_unstable();
        names.dedup();
        let mut content = Vec::new();
        for group in names.chunk_by(|(a, _), (b, _)| a == b) {
            let own = self.chains.gather(group.iter().map(|(_, rank)| *rank));
            if let (Some((name, _)), Some(own)) = (group.first(), own) {
                let chain = general.map_or(own, |general| self.chains.join(general, own));
                content.push((*name, chain));
            }
        }
        content
    }

    fn add(&mut self, content: &SetContent, room: &mut Room) -> u32 {
        self.count += 1;
        let set = self.count;
        if room.take_peers(content.count()) {
            let row = |(prefix, chain): &(IpNet, Chain)| PeerRow {
                set,
                prefix: *prefix,
                rule: self.chains.number(*chain),
            };
            self.rows.extend(content.prefixes.iter().map(row));
            let row = |(name, chain): &(u32, Chain)| NamePeerRow {
                set,
                name: *name,
                rule: self.chains.number(*chain),
            };
            self.name_rows.extend(content.names.iter().map(row));
        } else if let Some(need) = content
            .chains()
            .next()
            .and_then(|chain| self.book.need(self.book.at_rank(self.chains.head(chain))))
        {
            room.blame_peers(need.place.start..need.place.end);
        }
        set
    }
}
