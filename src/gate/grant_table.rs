//! Grants that the tool writes: what the daemon's own questions were answered, and what is put back after a reboot.
//! The tracker writes those of servers while packets pass, and the tool none of them then.

mod common;
mod keep;
mod rules;
mod saved;
#[cfg(test)]
mod tests;
mod tidy;

pub use self::common::{describe_failures, look_up_new_names};
pub use self::tidy::Tidied;

use std::collections::{BTreeMap, HashMap, VecDeque};

use libbpf_rs::MapFlags;

use super::Gate;
use super::error::GateError;
use crate::abi::{address, grant, granted, granted_key, layout, name_share, share_key, state};
use crate::clock::NS_PER_S;

/// What is left after the time that an answer has.
const GRACE_S: u64 = layout::GRANT_GRACE_S.0 as u64;
/// How often a list is written again when a program changes it meanwhile.
const ATTEMPTS: usize = 3;
const NAMES_OF_ADDRESS: usize = layout::GRANTS_OF_ADDRESS_MAX.0 as usize;

/// Whether a moment of CLOCK_MONOTONIC is later than another. Signed, as the programs compare: a grant that was put
/// back may be older than the clock.
const fn is_later(one_ns: u64, other_ns: u64) -> bool {
    one_ns.wrapping_sub(other_ns).cast_signed() > 0
}

const fn find_later(one_ns: u64, other_ns: u64) -> u64 {
    if is_later(one_ns, other_ns) { one_ns } else { other_ns }
}

/// As `is_open` of the programs.
const fn is_open(row: &grant, now_ns: u64, cap_ns: u64) -> bool {
    is_later(find_end_ns(row, cap_ns), now_ns)
}

/// When a grant takes no new connection any more.
const fn find_end_ns(row: &grant, cap_ns: u64) -> u64 {
    let capped_ns = row.answered_ns.wrapping_add(cap_ns);
    if is_later(row.open_until_ns, capped_ns) { capped_ns } else { row.open_until_ns }
}

/// For how long a grant was of no use.
const fn find_age_ns(row: &grant, now_ns: u64) -> u64 {
    let since_answer = now_ns.wrapping_sub(row.answered_ns);
    let since_use = now_ns.wrapping_sub(row.used_ns);
    if row.used_ns != 0 && since_use < since_answer { since_use } else { since_answer }
}

/// The rows of one server.
#[derive(Default)]
struct Share {
    rows: BTreeMap<u32, grant>,
    /// By address and name.
    places: HashMap<([u32; 4], u32), u32>,
    next_free: u32,
    /// Who goes when none is free, in this order.
    victims: Option<VecDeque<u32>>,
}

impl Share {
    fn add(&mut self, place: u32, row: &grant) {
        self.rows.insert(place, *row);
        self.places.insert((row.address.word_be, row.name), place);
    }

    /// A place for a new row, and the row that goes for it. `None`: all others are of more use.
    fn find_place(
        &mut self,
        row: &grant,
        room: u32,
        now_ns: u64,
        cap_ns: u64,
    ) -> Option<(u32, Option<grant>)> {
        while self.next_free < room {
            let place = self.next_free;
            self.next_free += 1;
            if !self.rows.contains_key(&place) {
                return Some((place, None));
            }
        }
        let rank = |row: &grant| (is_open(row, now_ns, cap_ns), u64::MAX - find_age_ns(row, now_ns));
        let rows = &self.rows;
        let victims = self.victims.get_or_insert_with(|| {
            let mut places: Vec<u32> = rows.keys().copied().filter(|place| *place < room).collect();
            places.sort_by_key(|place| rows.get(place).map(rank));
            places.into()
        });
        let place = victims.pop_front()?;
        let gone = self.rows.get(&place).copied()?;
        if is_open(&gone, now_ns, cap_ns) && find_age_ns(&gone, now_ns) <= find_age_ns(row, now_ns) {
            return None;
        }
        self.places.remove(&(gone.address.word_be, gone.name));
        Some((place, Some(gone)))
    }
}

impl Gate {
    /// Writes grants: renews those that are there, and makes the others. Each name and address must be one that may
    /// be granted. Returns how many found no room. The caller holds the lock.
    fn write_grants(&self, rows: &[grant], now_ns: u64, cap_ns: u64) -> Result<usize, GateError> {
        let room = u32::try_from(self.read_state(state::STATE_GRANT_ROOM)?).unwrap_or(0);
        let mut shares: BTreeMap<u32, Share> =
            rows.iter().map(|row| (row.server, Share::default())).collect();
        self.maps.grants.visit(|key, row| {
            if let Some(share) = shares.get_mut(&key.server) {
                share.add(key.place, row);
            }
        })?;
        let mut lost = 0;
        for row in rows {
            let Some(share) = shares.get_mut(&row.server) else { continue };
            if let Some(place) = share.places.get(&(row.address.word_be, row.name)).copied() {
                let known = share.rows.get(&place).copied().unwrap_or_default();
                let renewed = grant {
                    answered_ns: find_later(row.answered_ns, known.answered_ns),
                    open_until_ns: find_later(row.open_until_ns, known.open_until_ns),
                    used_ns: known.used_ns,
                    ..*row
                };
                self.maps.grants.put(&share_key { server: row.server, place }, &renewed, MapFlags::ANY)?;
                self.list_place(&row.address, row.server, place)?;
                share.add(place, &renewed);
                continue;
            }
            let Some((place, gone)) = share.find_place(row, room, now_ns, cap_ns) else {
                lost += 1;
                continue;
            };
            if let Some(gone) = gone {
                self.unlist_place(&gone.address, row.server, place)?;
            }
            self.maps.grants.put(&share_key { server: row.server, place }, row, MapFlags::ANY)?;
            self.list_place(&row.address, row.server, place)?;
            share.add(place, row);
        }
        for (server, share) in &shares {
            self.move_next_place(*server, share.next_free)?;
        }
        Ok(lost)
    }

    /// Has the programs look for places behind those that were given: they look at a few alone, and would take one of
    /// those.
    fn move_next_place(&self, server: u32, next: u32) -> Result<(), GateError> {
        let share = self.maps.name_shares.get(&server)?.unwrap_or_default();
        if share.grants < next {
            self.maps.name_shares.put(&server, &name_share { grants: next, ..share }, MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Adds a place to the list of an address, as `add_place` of the programs.
    fn list_place(&self, to: &address, server: u32, place: u32) -> Result<(), GateError> {
        let key = granted_key { address: *to, server };
        // a program may have changed the list between reading and writing
        for _ in 0..ATTEMPTS {
            let mut list = self.maps.granted.get(&key)?.unwrap_or_default();
            if list.place_plus_one.contains(&(place + 1)) {
                return Ok(());
            }
            let free = list.place_plus_one.iter().position(|listed| *listed == 0);
            // more names than one address can have: one goes
            let index = free.unwrap_or(place as usize % NAMES_OF_ADDRESS);
            if let Some(listed) = list.place_plus_one.get_mut(index) {
                *listed = place + 1;
            }
            self.maps.granted.put(&key, &list, MapFlags::ANY)?;
        }
        Ok(())
    }

    /// Takes a place out of the list of an address, and the list away when nothing is left.
    fn unlist_place(&self, from: &address, server: u32, place: u32) -> Result<(), GateError> {
        let key = granted_key { address: *from, server };
        let Some(granted { mut place_plus_one }) = self.maps.granted.get(&key)? else { return Ok(()) };
        for listed in &mut place_plus_one {
            if *listed == place + 1 {
                *listed = 0;
            }
        }
        match place_plus_one.iter().all(|listed| *listed == 0) {
            true => self.maps.granted.remove(&key).map(drop),
            false => self.maps.granted.put(&key, &granted { place_plus_one }, MapFlags::EXIST),
        }
    }

    /// For how long an answer counts at most, with its grace.
    fn find_cap_ns(&self, slot: u32) -> Result<u64, GateError> {
        let settings = self.maps.policies.get(&slot)?.unwrap_or_default();
        Ok((u64::from(settings.name_cap_s) + GRACE_S) * NS_PER_S)
    }
}
