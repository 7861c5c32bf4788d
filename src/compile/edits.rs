//! Edits to the rows of their table: what `allow` and `deny` have added to servers and taken away.
//!
//! As needs are: the port space of each server, direction and protocol is cut into ranges, and what depends
//! on the peer is a set of prefixes, of which the longest decides. Where edits overlap, a row has the latest
//! end of those that allow and of those that deny. Whatever the time is, these two decide.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::ports::cut_into_blocks;
use super::rules::leave_out_mapped;
use crate::abi::{address, edit_cell, edit_direction, edit_key, edit_scope, prefix_bits, to_address};
use crate::policy::Direction;

/// The most rows of the table: as much memory as the ledger takes.
const MOST_ROWS: usize = 262_144;
/// Bits of a key before the port, and before the peer or behind a number.
const PORT_AT: u32 = 48;
const PEER_AT: u32 = 32;

/// An edit, as the programs have to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditRule<'e> {
    /// Its number.
    pub number: u32,
    /// The id of its server.
    pub server: u32,
    /// Which side opens the flows, in or out.
    pub direction: Direction,
    /// IP protocol number.
    pub protocol: u8,
    /// As those of a need.
    pub ports: RangeInclusive<u16>,
    /// Empty: every peer.
    pub peers: &'e [IpNet],
    /// It allows; else it denies.
    pub allows: bool,
    /// When it ends, by CLOCK_MONOTONIC.
    pub until_ns: u64,
}

/// The edits need more rows than their table may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyEdits {
    /// How many rows it may have.
    pub most: usize,
}

/// When what is allowed and what is denied ends, and by which edits. 0: never began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Ends {
    allow: (u64, u32),
    deny: (u64, u32),
}

impl Ends {
    fn of(rule: &EditRule<'_>) -> Ends {
        let end = (rule.until_ns, rule.number);
        match rule.allows {
            true => Ends { allow: end, ..Ends::default() },
            false => Ends { deny: end, ..Ends::default() },
        }
    }

    fn join(self, other: Ends) -> Ends {
        Ends { allow: self.allow.max(other.allow), deny: self.deny.max(other.deny) }
    }

    fn cell(self, set: u32) -> edit_cell {
        edit_cell {
            allow_until_ns: self.allow.0,
            deny_until_ns: self.deny.0,
            allow: self.allow.1,
            deny: self.deny.1,
            set,
            zero: 0,
        }
    }
}

/// The rows so far.
#[derive(Default)]
struct Rows {
    rows: Vec<(edit_key, edit_cell)>,
    /// Sets by the rules that they are made of, as indexes.
    sets: HashMap<Vec<usize>, (Ends, u32)>,
    last_set: u32,
}

/// The rows of the table. No edits make no rows.
///
/// # Errors
/// When there are too many.
pub fn compile_edits(rules: &[EditRule<'_>]) -> Result<Vec<(edit_key, edit_cell)>, TooManyEdits> {
    let mut groups: BTreeMap<(u32, u32, u8), Vec<usize>> = BTreeMap::new();
    for (index, rule) in rules.iter().enumerate() {
        groups.entry((rule.server, number_of(rule.direction), rule.protocol)).or_default().push(index);
    }
    let mut rows = Rows::default();
    for ((server, direction, protocol), group) in groups {
        let what = direction << 24 | u32::from(protocol) << 16;
        rows.cut_ports(server, what, &group, rules)?;
    }
    for rule in rules {
        rows.add(
            PEER_AT,
            edit_scope::EDIT_SCOPE_NUMBER.0 | rule.number,
            address::default(),
            Ends::of(rule),
            0,
        )?;
    }
    Ok(rows.rows)
}

const fn number_of(direction: Direction) -> u32 {
    match direction {
        Direction::In => edit_direction::EDIT_IN.0,
        // no edit is quiet
        Direction::Out | Direction::Quiet => edit_direction::EDIT_OUT.0,
    }
}

impl Rows {
    fn add(
        &mut self,
        prefix_bits: u32,
        scope: u32,
        place: address,
        ends: Ends,
        set: u32,
    ) -> Result<(), TooManyEdits> {
        if self.rows.len() == MOST_ROWS {
            return Err(TooManyEdits { most: MOST_ROWS });
        }
        self.rows.push((edit_key { prefix_bits, scope, place }, ends.cell(set)));
        Ok(())
    }

    /// Walks over the ports at which an edit of the group begins or ends.
    fn cut_ports(
        &mut self,
        server: u32,
        what: u32,
        group: &[usize],
        rules: &[EditRule<'_>],
    ) -> Result<(), TooManyEdits> {
        let mut edges: BTreeMap<u32, Vec<(usize, bool)>> = BTreeMap::new();
        for index in group {
            let Some(rule) = rules.get(*index) else {
                continue;
            };
            edges.entry(u32::from(*rule.ports.start())).or_default().push((*index, true));
            edges.entry(u32::from(*rule.ports.end()) + 1).or_default().push((*index, false));
        }
        let mut active: BTreeSet<usize> = BTreeSet::new();
        let mut next = edges.keys().copied().skip(1).collect::<Vec<_>>().into_iter();
        for (at, edge) in &edges {
            for (index, begins) in edge {
                match begins {
                    true => active.insert(*index),
                    false => active.remove(index),
                };
            }
            let Some(end) = next.next() else {
                break;
            };
            if active.is_empty() {
                continue;
            }
            let (ends, set) = self.find_or_build(active.iter().copied().collect(), rules)?;
            // both are ports, or one past the last one
            let (first, last) = (*at as u16, (end - 1) as u16);
            for (port, bits) in cut_into_blocks(first, last) {
                let mut place = address::default();
                place.word_be[0] = (what | u32::from(port)).to_be();
                self.add(PORT_AT + bits, server, place, ends, set)?;
            }
        }
        Ok(())
    }

    /// What these edits say about every peer, and the set of the peers of which they say more. 0: none.
    fn find_or_build(
        &mut self,
        active: Vec<usize>,
        rules: &[EditRule<'_>],
    ) -> Result<(Ends, u32), TooManyEdits> {
        if let Some(known) = self.sets.get(&active) {
            return Ok(*known);
        }
        let mut general = Ends::default();
        let mut prefixes: Vec<(IpNet, Ends)> = Vec::new();
        for rule in active.iter().filter_map(|index| rules.get(*index)) {
            match rule.peers {
                [] => general = general.join(Ends::of(rule)),
                peers => {
                    let peers = peers.iter().flat_map(|peer| leave_out_mapped(*peer));
                    prefixes.extend(peers.map(|peer| (peer, Ends::of(rule))));
                }
            }
        }
        // a prefix comes before those inside it
        prefixes.sort_unstable_by_key(|(prefix, _)| *prefix);
        let mut around: Vec<(IpNet, Ends)> = Vec::new();
        let mut content = Vec::new();
        for same in prefixes.chunk_by(|(one, _), (other, _)| one == other) {
            let Some((prefix, _)) = same.first() else {
                continue;
            };
            while around.last().is_some_and(|(outer, _)| !outer.contains(prefix)) {
                around.pop();
            }
            let inherited = around.last().map_or(general, |(_, ends)| *ends);
            let ends = same.iter().fold(inherited, |ends, (_, own)| ends.join(*own));
            if ends != inherited {
                content.push((*prefix, ends));
            }
            around.push((*prefix, ends));
        }
        let mut set = 0;
        if !content.is_empty() {
            self.last_set += 1;
            set = self.last_set;
        }
        for (prefix, ends) in content {
            let scope = edit_scope::EDIT_SCOPE_SET.0 | set;
            self.add(PEER_AT + prefix_bits(&prefix), scope, to_address(prefix.network()), ends, 0)?;
        }
        self.sets.insert(active, (general, set));
        Ok((general, set))
    }
}

#[cfg(test)]
mod tests;
