//! The needs of a policy as numbered rules, and which of two is the better one.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::Ipv6Addr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv6Net};

use super::name_index::NameIndex;
use super::rows::RuleRow;
use crate::net::DomainName;
use crate::policy::{Direction, Need, Policy};

/// A rule's place among all rules, from the best to the worst.
pub(super) type Rank = u32;

/// All rules of a policy.
pub(super) struct Rulebook<'p> {
    policy: &'p Policy,
    rules: Vec<Rule<'p>>,
    /// Rules by rank.
    ranking: Vec<u32>,
    /// Rules of each role, by the index of the role.
    by_role: Vec<Vec<u32>>,
    management: Vec<u32>,
    /// The names of all needs.
    names: NameIndex,
}

/// Whose a need is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Every server's, in quarantine too.
    Management,
    /// Everybody's, towards the link.
    Link,
    /// A role's, by its index.
    Role(usize),
}

/// A need, whose it is, and how good.
struct Rule<'p> {
    need: &'p Need,
    owner: Owner,
    role: Option<Arc<str>>,
    rank: Rank,
}

impl<'p> Rulebook<'p> {
    /// Numbers the needs in the order of the file, from 1.
    pub(super) fn new(policy: &'p Policy) -> Self {
        let settings = &policy.settings;
        let management = settings.management.iter().map(|need| (need, Owner::Management));
        let link = settings.link_services.0.iter().map(|need| (need, Owner::Link));
        let of_roles = policy
            .roles
            .iter()
            .enumerate()
            .flat_map(|(index, role)| role.needs().map(move |need| (need, Owner::Role(index))));
        let mut needs: Vec<(&Need, Owner)> = management.chain(link).chain(of_roles).collect();
        needs.sort_by_key(|(need, _)| need.place.start);

        let mut book = Self {
            policy,
            rules: Vec::with_capacity(needs.len()),
            ranking: Vec::new(),
            by_role: vec![Vec::new(); policy.roles.len()],
            management: Vec::new(),
            names: NameIndex::new(policy.needed_names()),
        };
        let names: Vec<Arc<str>> = policy.roles.iter().map(|role| role.name.as_str().into()).collect();
        for (number, (need, owner)) in (1u32..).zip(needs) {
            let mut role = None;
            match owner {
                Owner::Management => book.management.push(number),
                Owner::Link => (),
                Owner::Role(index) => {
                    role = names.get(index).cloned();
                    if let Some(rules) = book.by_role.get_mut(index) {
                        rules.push(number);
                    }
                }
            }
            book.rules.push(Rule { need, owner, role, rank: 0 });
        }
        book.rank();
        book
    }

    /// Sorts the rules from the best to the worst: management first, because it stays open in quarantine,
    /// then rules without a limit, then those of the highest rate, and of the largest burst. The order in the
    /// file decides only between rules that say the same.
    fn rank(&mut self) {
        let mut ranking: Vec<u32> = (1..).take(self.rules.len()).collect();
        ranking.sort_by_cached_key(|number| {
            let rule = self.rule(*number);
            let limit = rule.and_then(|rule| rule.need.limit);
            let rate = limit.map_or(u64::MAX, |limit| limit.per_minute());
            let burst = limit.map_or(u32::MAX, |limit| limit.count);
            let is_management = rule.is_some_and(|rule| rule.owner == Owner::Management);
            (!is_management, Reverse((rate, burst)), *number)
        });
        for (rank, number) in (0..).zip(&ranking) {
            if let Some(rule) = self.rules.get_mut(*number as usize - 1) {
                rule.rank = rank;
            }
        }
        self.ranking = ranking;
    }

    /// How many rules there are.
    pub(super) fn count(&self) -> usize {
        self.rules.len()
    }

    fn rule(&self, number: u32) -> Option<&Rule<'p>> {
        self.rules.get((number as usize).checked_sub(1)?)
    }

    /// The need of a rule.
    pub(super) fn need(&self, number: u32) -> Option<&'p Need> {
        self.rule(number).map(|rule| rule.need)
    }

    /// The rank of a rule.
    pub(super) fn rank_of(&self, number: u32) -> Rank {
        self.rule(number).map_or(Rank::MAX, |rule| rule.rank)
    }

    /// The rule of a rank. 0: none.
    pub(super) fn at_rank(&self, rank: Rank) -> u32 {
        self.ranking.get(rank as usize).copied().unwrap_or(0)
    }

    /// Whether the rule of a rank has a limit.
    pub(super) fn is_limited(&self, rank: Rank) -> bool {
        self.need(self.at_rank(rank)).is_some_and(|need| need.limit.is_some())
    }

    /// Whether the rules of two ranks have the same need, at whatever places of the file.
    pub(super) fn say_the_same(&self, one: Rank, other: Rank) -> bool {
        let [one, other] = [one, other].map(|rank| self.need(self.at_rank(rank)));
        one.zip(other).is_some_and(|(one, other)| {
            // No `..`, so that a new clause does not compile until it is compared.
            let Need { direction, protocol, ports, peers, sport, limit, place: _ } = one;
            (direction, protocol, ports, peers, sport, limit)
                == (&other.direction, &other.protocol, &other.ports, &other.peers, &other.sport, &other.limit)
        })
    }

    /// The peers of a rule as the kernel can look them up, sorted. Empty: every peer, or names alone.
    pub(super) fn peers(&self, number: u32) -> Vec<IpNet> {
        let Some(need) = self.need(number) else {
            return Vec::new();
        };
        let mut peers = need.resolve_peers(&self.policy.sets);
        if peers.iter().any(holds_mapped) {
            peers = peers.into_iter().flat_map(leave_out_mapped).collect();
            peers.sort_unstable();
            peers.dedup();
        }
        peers
    }

    /// The names of all needs, sorted.
    pub(super) fn domains(&self) -> &[DomainName] {
        self.names.names()
    }

    /// The numbers of the names of a rule, and of those within them, sorted.
    pub(super) fn names(&self, number: u32) -> Vec<u32> {
        let Some(need) = self.need(number) else {
            return Vec::new();
        };
        let names = need.resolve_names(&self.policy.sets);
        let mut numbers: Vec<u32> = names.iter().flat_map(|name| self.names.find_within(name)).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// The rules of a server with these roles.
    pub(super) fn rules_of(&self, roles: &[usize]) -> Vec<u32> {
        let of_roles = roles.iter().filter_map(|role| self.by_role.get(*role)).flatten();
        let mut rules: Vec<u32> = self.management.iter().chain(of_roles).copied().collect();
        rules.sort_unstable();
        rules
    }

    /// The rules of nobody's profile: the quiet ones of all roles, and the services of the link.
    pub(super) fn rules_of_nobody(&self) -> Vec<u32> {
        let quiet = |number: &u32| self.need(*number).is_some_and(|need| need.direction == Direction::Quiet);
        let is_nobodys =
            |number: &u32| quiet(number) || self.rule(*number).is_some_and(|rule| rule.owner == Owner::Link);
        (1..).take(self.rules.len()).filter(is_nobodys).collect()
    }

    /// The rules as rows, behind the placeholder.
    pub(super) fn rows(&self) -> Vec<RuleRow> {
        let mut rows = Vec::with_capacity(self.rules.len() + 1);
        rows.push(RuleRow {
            need: String::new(),
            direction: Direction::In,
            role: None,
            line: 0,
            column: 0,
            management: false,
            limit: None,
            limit_key: 0,
            next: 0,
        });
        rows.extend(self.rules.iter().map(|rule| RuleRow {
            need: rule.need.to_string(),
            direction: rule.need.direction,
            role: rule.role.clone(),
            line: rule.need.place.line,
            column: rule.need.place.column,
            management: rule.owner == Owner::Management,
            limit: rule.need.limit,
            limit_key: 0,
            next: 0,
        }));
        assign_limit_keys(&mut rows);
        rows
    }
}

/// Where the kernel keeps IPv4 addresses: ::ffff:0:0/96.
const MAPPED: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96);

fn holds_mapped(prefix: &IpNet) -> bool {
    matches!(prefix, IpNet::V6(prefix) if prefix.contains(&MAPPED))
}

/// Cuts a prefix into those that cover the same addresses without [`MAPPED`]. The kernel keeps both
/// families in one table, so a prefix of all IPv6 would cover IPv4 as well.
pub(super) fn leave_out_mapped(prefix: IpNet) -> Vec<IpNet> {
    if !holds_mapped(&prefix) {
        return vec![prefix];
    }
    let beside = |length: u8| {
        let shift = 128 - u32::from(length);
        let bits = (u128::from(MAPPED.network()) >> shift ^ 1) << shift;
        IpNet::new(Ipv6Addr::from(bits).into(), length).ok()
    };
    (prefix.prefix_len() + 1..=MAPPED.prefix_len()).filter_map(beside).collect()
}

/// Gives every rule its key: a hash, or the next free number if another rule has it. Rules with a limit
/// choose first, so that their keys don't depend on rules that have no buckets.
fn assign_limit_keys(rows: &mut [RuleRow]) {
    let mut taken: HashSet<u32> = HashSet::with_capacity(rows.len());
    taken.insert(0);
    for limited in [true, false] {
        for row in rows.iter_mut().skip(1).filter(|row| row.limit.is_some() == limited) {
            let mut key = hash_rule(row);
            while !taken.insert(key) {
                key = key.wrapping_add(1);
            }
            row.limit_key = key;
        }
    }
}

/// FNV-1a, folded. It is the same on every machine and in every version, unlike the standard library's
/// hash.
fn hash_rule(row: &RuleRow) -> u32 {
    let role = row.role.as_deref().unwrap_or_default();
    let parts = [role, "\0", row.direction.key(), "\0", &row.need];
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    for byte in parts.iter().flat_map(|part| part.bytes()) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (hash ^ hash >> 32) as u32
}
