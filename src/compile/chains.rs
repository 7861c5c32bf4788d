//! Rules that hold together for one flow. The best one decides, unless it has a limit: then the next one is
//! asked when the limit is used up, and so on.

use std::collections::HashMap;

use super::rows::RuleRow;
use super::rules::{Rank, Rulebook};
use crate::abi::layout;

/// The longest chain. Beyond it the least generous limits are left out.
const LONGEST: usize = layout::LIMITS_OF_FLOW_MAX.0 as usize;

/// Below the number of rules it is the rank of one rule, otherwise a link.
pub(super) type Chain = u32;

/// All chains so far. Two chains of the same rules are one.
pub(super) struct Chains<'b, 'p> {
    book: &'b Rulebook<'p>,
    /// The best rule, and those that are asked after it.
    links: Vec<(Rank, Chain)>,
    known: HashMap<(Rank, Chain), Chain>,
}

impl<'b, 'p> Chains<'b, 'p> {
    pub(super) fn new(book: &'b Rulebook<'p>) -> Self {
        Self { book, links: Vec::new(), known: HashMap::new() }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.book.count()).unwrap_or(u32::MAX)
    }

    fn find_link(&self, chain: Chain) -> Option<(Rank, Chain)> {
        self.links.get(chain.checked_sub(self.count())? as usize).copied()
    }

    /// Whether it is one rule alone.
    pub(super) fn is_rule(&self, chain: Chain) -> bool {
        self.find_link(chain).is_none()
    }

    /// The best rule.
    pub(super) fn head(&self, chain: Chain) -> Rank {
        self.find_link(chain).map_or(chain, |(head, _)| head)
    }

    fn list(&self, mut chain: Chain) -> Vec<Rank> {
        let mut ranks = Vec::new();
        while let Some((head, rest)) = self.find_link(chain) {
            ranks.push(head);
            chain = rest;
        }
        ranks.push(chain);
        ranks
    }

    /// Whether a rule that is asked first decides alone.
    pub(super) fn decides(&self, chain: Chain) -> bool {
        !self.book.is_limited(self.head(chain))
    }

    /// The chain of rules that hold for the same flow, the best one first. `None`: there are none.
    pub(super) fn gather(&mut self, ranks: impl IntoIterator<Item = Rank>) -> Option<Chain> {
        let mut ranks = ranks.into_iter();
        let first = ranks.next()?;
        if self.decides(first) {
            return Some(first);
        }
        let mut distinct: Vec<Rank> = Vec::with_capacity(LONGEST);
        for rank in std::iter::once(first).chain(ranks) {
            // A need that two roles have counts once, or both together would permit more than it says.
            if !distinct.iter().any(|known| *known == rank || self.book.say_the_same(*known, rank)) {
                distinct.push(rank);
            }
            if distinct.len() == LONGEST {
                break;
            }
        }
        Some(self.link(&distinct))
    }

    /// The chain of the rules of two.
    pub(super) fn join(&mut self, one: Chain, other: Chain) -> Chain {
        let best = self.head(one).min(self.head(other));
        if one == other || self.decides(best) {
            return if one == other { one } else { best };
        }
        let mut ranks = [self.list(one), self.list(other)].concat();
        ranks.sort_unstable();
        self.gather(ranks).unwrap_or(best)
    }

    fn link(&mut self, ranks: &[Rank]) -> Chain {
        let mut ranks = ranks.iter().rev();
        let mut chain = ranks.next().copied().unwrap_or_default();
        for head in ranks {
            let fresh = self.count().saturating_add(u32::try_from(self.links.len()).unwrap_or(u32::MAX));
            let link = (*head, chain);
            chain = *self.known.entry(link).or_insert_with(|| {
                self.links.push(link);
                fresh
            });
        }
        chain
    }

    /// The number of the row that stands for a chain: links follow behind all rules.
    pub(super) fn number(&self, chain: Chain) -> u32 {
        if self.find_link(chain).is_some() { chain.saturating_add(1) } else { self.book.at_rank(chain) }
    }

    /// The rows of the links. Each is its best rule once more, with the row that is asked after it.
    pub(super) fn rows(&self, rules: &[RuleRow]) -> Vec<RuleRow> {
        let row = |(head, rest): &(Rank, Chain)| {
            let rule = rules.get(self.book.at_rank(*head) as usize)?;
            Some(RuleRow { next: self.number(*rest), ..rule.clone() })
        };
        self.links.iter().filter_map(row).collect()
    }
}
