//! For which name a server was last answered an address, as people read it. Nothing is decided by it.

use std::collections::HashMap;
use std::net::IpAddr;

use super::Gate;
use super::error::GateError;
use crate::abi::{address, layout, lookup, share_key, state, to_address};
use crate::clock::Clock;
use crate::drops::LookedUp;
use crate::net::show_wire_name;

/// All that servers were answered, by the id of the server and the address.
#[derive(Debug, Default)]
pub struct Lookups(HashMap<(u32, IpAddr), LookedUp>);

impl Lookups {
    /// What the address was looked up as by this server.
    pub fn find(&self, server: u32, address: IpAddr) -> Option<&LookedUp> {
        self.0.get(&(server, address))
    }
}

impl Gate {
    /// Reads what all servers were answered. Rows that are being written are left out.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn lookups(&self) -> Result<Lookups, GateError> {
        let clock = Clock::now();
        let rows = self.maps.lookups.entries()?;
        let read = |(key, row): (share_key, lookup)| {
            let address = crate::abi::from_address(&row.address)?;
            Some(((key.server, address), read_row(&row, clock)?))
        };
        Ok(Lookups(rows.into_iter().filter_map(read).collect()))
    }

    /// What one address was looked up as by a server, by its id. `None` as well if that can't be read.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_lookup(&self, server: u32, to: IpAddr) -> Result<Option<LookedUp>, GateError> {
        let room = self.read_state(state::STATE_LOOKUP_ROOM)? as u32;
        if room == 0 {
            return Ok(None);
        }
        let to = to_address(to);
        let first = find_first_place(&to);
        for way in 0..layout::LOOKUP_WAYS.0 {
            let key = share_key { server, place: first.wrapping_add(way) % room };
            match self.maps.lookups.get(&key)? {
                Some(row) if row.address.word_be == to.word_be => return Ok(read_row(&row, Clock::now())),
                Some(_) => {}
                // places are taken in this order
                None => return Ok(None),
            }
        }
        Ok(None)
    }
}

fn read_row(row: &lookup, clock: Clock) -> Option<LookedUp> {
    // of no time while it is written
    let name = show_wire_name(&row.name, row.bytes as usize).filter(|_| row.answered_ns != 0)?;
    Some(LookedUp { name: name.into(), at: clock.to_wall(row.answered_ns) })
}

/// As `remember_lookup()` of `bpf/name_lookup.h` computes it.
fn find_first_place(to: &address) -> u32 {
    let [a, b, c, d] = to.word_be.map(u32::from_be);
    ((a ^ c).wrapping_mul(0x9e37_79b1) ^ (b ^ d).wrapping_mul(0x85eb_ca6b)) >> 7
}
