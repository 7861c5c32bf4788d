//! How often each need was used, and when last. The programs count by the number of a need. The tool gives the
//! numbers: a need keeps its own across policies, and with it its counts.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use libbpf_rs::{MapCore as _, MapFlags};
use serde::Serialize;

use super::Gate;
use super::error::GateError;
use super::fault;
use crate::abi::{counted_need, layout, need_use};
use crate::clock::{Clock, wall_now};
use crate::compile::{NeedIdentity, RuleRow, compile, identify_needs};
use crate::policy::Direction;

/// A need, and what the programs have counted of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NeedUse {
    /// Line of the file, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// The role that it belongs to. `None`: `management`, or `link_services`.
    pub role: Option<String>,
    /// `in`, `out` or `quiet`.
    pub direction: &'static str,
    /// The need in canonical form.
    pub need: String,
    /// What was counted. `None`: it is not counted.
    #[serde(flatten)]
    pub count: Option<UseCount>,
}

/// What was counted of a need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct UseCount {
    /// Flows that were opened by it.
    pub uses: u64,
    /// When the last packet passed by it, of a flow of a peer at most a second early. `None`: none did.
    pub last_used: Option<Timestamp>,
    /// When counting began.
    pub counted_since: Timestamp,
    /// Since when the live policy has it without a break.
    pub live_since: Timestamp,
}

impl Gate {
    /// The number of each rule's need, in the order of the rules. A new need gets a new number. 0: there is none
    /// left, so the need is not counted.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub(super) fn number_needs(&self, rules: &[RuleRow]) -> Result<Vec<u32>, GateError> {
        let identities = identify_needs(rules);
        let rows = self.maps.counted_needs.entries()?;
        let known: HashMap<NeedIdentity, (u32, counted_need)> =
            rows.iter().map(|(number, row)| (row.identity, (*number, *row))).collect();
        let wanted: HashSet<&NeedIdentity> = identities.iter().flatten().collect();
        let live = match self.live_slot()? {
            Some(slot) => self.numbers_in(slot),
            None => HashSet::new(),
        };
        let in_use: HashSet<u32> = (0..layout::SLOTS.0).flat_map(|slot| self.numbers_in(slot)).collect();
        // Never given out first, and then those of needs that no slot has.
        let given: HashSet<u32> = rows.iter().map(|(number, _)| *number).collect();
        let unused = (1..self.maps.need_uses.capacity()).filter(|number| !given.contains(number));
        let forgotten =
            rows.iter().filter(|(number, row)| !in_use.contains(number) && !wanted.contains(&row.identity));
        let mut free = unused.chain(forgotten.map(|(number, _)| *number));

        let now_s = u64::try_from(wall_now().as_second()).unwrap_or(0);
        let mut numbers: HashMap<NeedIdentity, u32> = HashMap::new();
        let mut changed: Vec<(u32, counted_need)> = Vec::new();
        let mut list = Vec::with_capacity(identities.len());
        for (row, identity) in rules.iter().zip(&identities) {
            let Some(identity) = identity.filter(|_| is_counted(row.direction)) else {
                list.push(0);
                continue;
            };
            let number = match (numbers.get(&identity), known.get(&identity)) {
                (Some(number), _) => *number,
                (None, Some((number, row))) => {
                    if !live.contains(number) {
                        changed.push((*number, counted_need { live_since_s: now_s, ..*row }));
                    }
                    *number
                }
                (None, None) => match free.next() {
                    Some(number) => {
                        self.clear_count(number)?;
                        let row = counted_need { identity, since_s: now_s, live_since_s: now_s };
                        changed.push((number, row));
                        number
                    }
                    None => 0,
                },
            };
            numbers.insert(identity, number);
            list.push(number);
        }
        self.maps.counted_needs.put_all(&changed)?;
        Ok(list)
    }

    /// Makes a number nobody's, and then its count 0: a count must never become another need's.
    fn clear_count(&self, number: u32) -> Result<(), GateError> {
        if self.maps.counted_needs.get(&number)?.is_some() {
            self.maps.counted_needs.remove(&number)?;
        }
        let values = self.maps.need_uses.get_per_cpu(&number)?;
        if values.iter().all(|value| (value.openings, value.last_ns) == (0, 0)) {
            return Ok(());
        }
        let zeros = vec![vec![0; size_of::<need_use>()]; values.len()];
        fault::point();
        self.maps.need_uses.handle().update_percpu(&number.to_ne_bytes(), &zeros, MapFlags::ANY).map_err(
            |error| GateError::from_libbpf("could not write the table `need_uses`".to_owned(), &error),
        )
    }

    /// Numbers of the needs in a slot. None where it is empty.
    fn numbers_in(&self, slot: u32) -> HashSet<u32> {
        let mut numbers = HashSet::new();
        if let Ok(inner) = self.maps.need_numbers.open_inner(slot) {
            let _ = inner.visit(|_, number| _ = numbers.insert(*number));
        }
        numbers.remove(&0);
        numbers
    }

    /// Every need of the live policy, in the order of its text, with what was counted of it. Empty when there is
    /// no policy.
    ///
    /// # Errors
    /// As [`Gate::live_policy`].
    pub fn need_uses(&self) -> Result<Vec<NeedUse>, GateError> {
        let Some(policy) = self.live_policy()? else {
            return Ok(Vec::new());
        };
        let tables = compile(&policy).map_err(|diagnostics| GateError::Other {
            what: "this version does not understand the live policy".to_owned(),
            why: diagnostics.to_string(),
        })?;
        self.need_uses_of(&tables.rules)
    }

    /// Needs of any policy, in the order of its text, with what was counted of each.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn need_uses_of(&self, rules: &[RuleRow]) -> Result<Vec<NeedUse>, GateError> {
        let rows = self.maps.counted_needs.entries()?;
        let known: HashMap<NeedIdentity, (u32, counted_need)> =
            rows.into_iter().map(|(number, row)| (row.identity, (number, row))).collect();
        let clock = Clock::now();
        let mut seen = HashSet::new();
        let mut list = Vec::new();
        for (row, identity) in rules.iter().zip(identify_needs(rules)) {
            let Some(identity) = identity.filter(|_| seen.insert((row.line, row.column))) else {
                continue;
            };
            let count = match known.get(&identity) {
                Some((number, row)) => Some(self.read_use(*number, row, &clock)?),
                None => None,
            };
            list.push(NeedUse {
                line: row.line,
                column: row.column,
                role: row.role.as_deref().map(str::to_owned),
                direction: row.direction.key(),
                need: row.need.clone(),
                count,
            });
        }
        list.sort_by_key(|row| (row.line, row.column));
        Ok(list)
    }

    fn read_use(&self, number: u32, row: &counted_need, clock: &Clock) -> Result<UseCount, GateError> {
        let values = self.maps.need_uses.get_per_cpu(&number)?;
        let last_ns = values.iter().map(|value| value.last_ns).max().unwrap_or(0);
        let to_time = |seconds: u64| {
            Timestamp::from_second(i64::try_from(seconds).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX)
        };
        Ok(UseCount {
            uses: values.iter().map(|value| value.openings).sum(),
            last_used: (last_ns > 0).then(|| clock.to_wall(last_ns)),
            counted_since: to_time(row.since_s),
            live_since: to_time(row.live_since_s),
        })
    }
}

/// Whether packets pass by such a need. What a `quiet` need denies is in the ledger.
fn is_counted(direction: Direction) -> bool {
    match direction {
        Direction::In | Direction::Out => true,
        Direction::Quiet => false,
    }
}
