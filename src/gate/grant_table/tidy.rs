//! Tidies what is long over: grants, connections, and names that nothing has any more.
//!
//! Programs take the place of what is over by themselves, so this gives back memory and nothing else. Questions and
//! TCP streams of resolvers stay: the programs look for one from its first place on to the first empty one, so an
//! empty place in between would hide those behind it. Each server's share bounds them.

use std::collections::HashSet;

use libbpf_rs::MapFlags;

use super::{find_end_ns, is_later};
use crate::abi::{flow_key, grant, layout, name_connection, share_key};
use crate::clock::{NS_PER_S, now_ns};
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::management::TIMEOUT_ESTABLISHED_S;

/// So long after its end nobody needs a row. An answer renews one in place: whoever removes it at this very moment
/// makes the server ask again, and after an hour this is as good as never.
const LONG_NS: u64 = 3_600 * NS_PER_S;

/// How much was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Grants that were over.
    pub grants: usize,
    /// Connections that had ended.
    pub connections: usize,
    /// Names that nothing has any more.
    pub names: usize,
}

fn is_same_flow(one: &flow_key, other: &flow_key) -> bool {
    let ends = |key: &flow_key| (key.server.word_be, key.peer.word_be, key.server_port_be, key.peer_port_be);
    ends(one) == ends(other) && one.protocol == other.protocol
}

impl Gate {
    /// Removes what is long over. The caller holds the lock.
    ///
    /// # Errors
    /// When the kernel refuses to read or write. The rest comes the next time.
    pub fn tidy_grants(&self) -> Result<Tidied, GateError> {
        let Some(slot) = self.live_slot()? else { return Ok(Tidied::default()) };
        let (now_ns, cap_ns) = (now_ns(), self.find_cap_ns(slot)?);
        let mut tidied = Tidied::default();
        let mut used = HashSet::new();
        let is_over = |row: &grant| is_later(now_ns, find_end_ns(row, cap_ns).wrapping_add(LONG_NS));
        let mut over = Vec::new();
        self.maps.grants.visit(|key, row| match is_over(row) {
            true => over.push(*key),
            false => used.extend([row.name]),
        })?;
        for key in over {
            // an answer may have renewed it since, or have given its place to another address
            if self.maps.grants.get(&key)?.filter(&is_over).is_none() {
                continue;
            }
            let Some(row) = self.maps.grants.take(&key)? else { continue };
            if !is_over(&row) {
                // just now; it was missing for a moment, and its list has its place still
                self.maps.grants.put(&key, &row, MapFlags::NO_EXIST)?;
                continue;
            }
            self.unlist_place(&row.address, key.server, key.place)?;
            if let Some(fresh) = self.maps.grants.get(&key)? {
                // a program has taken the free place meanwhile, perhaps for the same address
                self.list_place(&fresh.address, key.server, key.place)?;
            }
            tidied.grants += 1;
        }
        tidied.connections = self.tidy_connections(now_ns, &mut used)?;
        tidied.names = self.tidy_domains(&used)?;
        Ok(tidied)
    }

    fn tidy_connections(&self, now_ns: u64, used: &mut HashSet<u32>) -> Result<usize, GateError> {
        let is_over = |row: &name_connection| {
            let idle_ns = now_ns.wrapping_sub(row.last_ns);
            // of one that has begun just now the clock may be ahead
            idle_ns.cast_signed() > 0
                && (idle_ns > TIMEOUT_ESTABLISHED_S * NS_PER_S || row.ended != 0 && idle_ns > LONG_NS)
        };
        let mut over = Vec::new();
        self.maps.name_connections.visit(|key, row| match is_over(row) {
            true => over.push(*key),
            false => used.extend([row.name]),
        })?;
        let mut removed = 0;
        for key in over {
            let Some(row) = self.maps.name_connections.get(&key)?.filter(&is_over) else { continue };
            self.maps.name_connections.remove(&key)?;
            let place = share_key { server: row.server, place: row.place };
            if self.maps.connection_places.get(&place)?.is_some_and(|at| is_same_flow(&at, &key)) {
                self.maps.connection_places.remove(&place)?;
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// Frees the ids of names that no policy of a slot has, and nothing that was granted.
    fn tidy_domains(&self, used: &HashSet<u32>) -> Result<usize, GateError> {
        let mut kept = used.clone();
        for slot in 0..layout::SLOTS.0 {
            // an empty slot has none
            if let Ok(patterns) = self.maps.name_patterns.open_inner(slot) {
                patterns.visit(|_, pattern| kept.extend([pattern.exact, pattern.below]))?;
            }
            if let Ok(peers) = self.maps.name_peers.open_inner(slot) {
                peers.visit(|key, _| kept.extend([key.name]))?;
            }
        }
        let mut removed = 0;
        for (id, _) in self.maps.domains.entries()? {
            if !kept.contains(&id) {
                self.maps.domains.remove(&id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}
