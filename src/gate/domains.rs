//! The ids of names as destinations, and the room that each server has for what belongs to them. A name keeps
//! its id across policies, because grants outlive them.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;

use super::Gate;
use super::error::GateError;
use crate::abi::{domain, grant, granted_key, read_text, share_key, state, write_text};
use crate::clock::now_ns;
use crate::compile::DomainIds;
use crate::net::DomainName;

/// The least room of a server.
const LEAST_ROOM: u64 = 16;

impl Gate {
    /// The ids of these names, in their order. A new name gets a new id.
    pub(super) fn assign_domain_ids(&self, names: &[DomainName]) -> Result<DomainIds, GateError> {
        let read = |(id, text): &(u32, domain)| (*id, DomainName::from_printed(&read_text(&text.text)));
        let earlier: Vec<(u32, DomainName)> = self.maps.domains.entries()?.iter().map(read).collect();
        if names.is_empty() {
            return Ok(DomainIds { ids: Vec::new(), earlier });
        }
        let mut known: HashMap<&DomainName, u32> = earlier.iter().map(|(id, name)| (name, *id)).collect();
        let mut last = self.read_state(state::STATE_NAME_ID)?;
        let mut fresh = Vec::new();
        let mut ids = Vec::with_capacity(names.len());
        for name in names {
            let id = *known.entry(name).or_insert_with(|| {
                last += 1;
                let id = last as u32;
                fresh.push((id, domain { text: write_text(&name.to_string()) }));
                id
            });
            ids.push(id);
        }
        let wanted = earlier.len() + fresh.len();
        if wanted > self.maps.domains.capacity() as usize {
            return Err(GateError::TableFull {
                table: "domains",
                size: self.maps.domains.capacity(),
                wanted,
            });
        }
        if !fresh.is_empty() {
            // The number first: an id that is given twice would open the addresses of another name.
            self.write_state(state::STATE_NAME_ID, last)?;
            self.maps.domains.put_all(&fresh)?;
        }
        Ok(DomainIds { ids, earlier })
    }

    /// Shares the tables of names out to this many servers. Half of each table is left, because rows stay where
    /// they are when shares become smaller.
    pub(super) fn set_name_rooms(&self, servers: usize) -> Result<(), GateError> {
        if self.read_state(state::STATE_NAME_SECRET)? == 0 {
            self.write_state(state::STATE_NAME_SECRET, draw_secret()?)?;
        }
        let owners = u64::try_from(servers).unwrap_or(u64::MAX).saturating_add(1);
        for (index, capacity) in [
            (state::STATE_GRANT_ROOM, self.maps.grants.capacity()),
            (state::STATE_CONNECTION_ROOM, self.maps.name_connections.capacity()),
            (state::STATE_QUERY_ROOM, self.maps.queries.capacity()),
            (state::STATE_STREAM_ROOM, self.maps.streams.capacity()),
            (state::STATE_LOOKUP_ROOM, self.maps.lookups.capacity()),
        ] {
            let room = (u64::from(capacity) / 2 / owners).max(LEAST_ROOM);
            self.write_state(index, 1 << room.ilog2())?;
        }
        Ok(())
    }

    /// Gives back what servers that have gone hold in the tables of names. Their open grants and their connections
    /// stay: a later policy may have them again.
    pub(super) fn tidy_names(&self, ids: &[u32]) -> Result<(), GateError> {
        let known: HashSet<u32> = ids.iter().copied().chain([0]).collect();
        let is_gone = |server: u32| !known.contains(&server);
        for (server, _) in self.maps.name_shares.entries()? {
            if is_gone(server) {
                self.maps.name_shares.remove(&server)?;
            }
        }
        for (key, _) in self.maps.queries.entries()? {
            if is_gone(key.server) {
                self.maps.queries.remove(&key)?;
            }
        }
        for (key, _) in self.maps.lookups.entries()? {
            if is_gone(key.server) {
                self.maps.lookups.remove(&key)?;
            }
        }
        for (key, _) in self.maps.streams.entries()? {
            if is_gone(key.server) {
                self.maps.streams.remove(&key)?;
            }
        }
        let now_ns = now_ns();
        let grants = self.maps.grants.entries()?;
        // signed, as the filter compares: a saved grant may be older than the clock
        let has_ended = |grant: &grant| grant.open_until_ns.wrapping_sub(now_ns).cast_signed() <= 0;
        let is_over = |key: &share_key, grant: &grant| is_gone(key.server) && has_ended(grant);
        let (over, kept): (Vec<_>, Vec<_>) = grants.into_iter().partition(|(key, grant)| is_over(key, grant));
        let kept: HashSet<(u32, [u32; 4])> =
            kept.iter().map(|(key, grant)| (key.server, grant.address.word_be)).collect();
        for (key, grant) in over {
            if !kept.contains(&(key.server, grant.address.word_be)) {
                self.maps.granted.remove(&granted_key { address: grant.address, server: key.server })?;
            }
            self.maps.grants.remove(&key)?;
        }
        Ok(())
    }

    /// Adds up what went wrong with answers, and what did not: `enum name_count`.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn name_counts(&self) -> Result<Vec<u64>, GateError> {
        (0..self.maps.name_counts.capacity())
            .map(|index| Ok(self.maps.name_counts.get_per_cpu(&index)?.iter().sum()))
            .collect()
    }
}

/// A random number, but not 0.
fn draw_secret() -> Result<u64, GateError> {
    let mut bytes = [0; 8];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).map_err(|error| {
        GateError::Other { what: "could not draw a random number".to_owned(), why: error.to_string() }
    })?;
    Ok(u64::from_ne_bytes(bytes) | 1)
}
