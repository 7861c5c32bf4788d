//! Makes a compiled policy the live one, for all its entries at once.
//!
//! The maps of the new generation are built and filled where no packet sees them, put into the slot
//! that is longest out of use, and go live by one 64-bit store. A death before that store leaves the old
//! policy in force, a death after it the new one.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};
use plain::Plain;

use super::error::GateError;
use super::fault;
use super::map::Table;
use super::{Gate, OUTER_MAPS};
use crate::abi::{layout, state};
use crate::clock::wall_now;
use crate::compile::{EncodedPolicy, RowQuotas, Tables, encode, encode_settings};
use crate::policy::Policy;

impl Gate {
    /// Makes `policy` the live one and returns its generation. The caller holds the lock.
    ///
    /// # Errors
    /// The live policy is what it was before. Names, token buckets and quotas of the ledger may have
    /// changed: they hold for both policies.
    pub fn install(&self, policy: &Policy, tables: &Tables) -> Result<u64, GateError> {
        let ids = self.assign_ids(&tables.names)?;
        let encoded = encode(policy, tables, &ids);
        self.make_token_buckets(&encoded.token_buckets)?;
        self.set_row_quotas(&ids)?;
        self.use_verdict_cache(encoded.hosts.len(), !encoded.prefixes.is_empty())?;
        // a server that had used up its quota may have rows left now
        self.outdate_verdict_cache()?;

        let active = self.read_state(state::STATE_ACTIVE)?;
        let generation = self.live_settings()?.map_or(0, |live| live.generation) + 1;
        // The slot after the live one is the longest out of use: the maps of two swaps ago, which no
        // packet can be reading any more.
        let slot = u32::try_from(active % u64::from(layout::SLOTS.0)).unwrap_or(0);

        let inner = create_maps(&encoded)?;
        self.fill_slot(slot, &inner)?;
        let applied_s = u64::try_from(wall_now().as_second()).unwrap_or(0);
        let settings = encode_settings(policy, tables, encoded.flags, generation, applied_s);
        self.policies.put(&slot, &settings, MapFlags::ANY)?;
        self.write_state(state::STATE_ACTIVE, u64::from(slot) + 1)?;
        if let Err(error) = self.end_revoked_flows(tables) {
            // the filter refuses their replies all the same
            log::warn!("flows of revoked services stay in their tables until they are idle: {error}");
        }
        Ok(generation)
    }

    fn set_row_quotas(&self, server_ids: &[u32]) -> Result<(), GateError> {
        let quotas = RowQuotas::of(self.ledger.capacity(), server_ids.len());
        let shared = quotas.limit_shared(&self.ledger_quotas.entries()?, server_ids);
        self.write_state(state::STATE_QUOTA_GUARANTEED, quotas.guaranteed)?;
        self.write_state(state::STATE_QUOTA_SHARED, shared)?;
        self.write_state(state::STATE_QUOTA_MAX, quotas.max)
    }

    /// Puts the inner maps into their slot of the outer ones. The kernel makes each of these wait until
    /// no program runs that might have seen the old content. In threads, they wait for the same moment.
    fn fill_slot(&self, slot: u32, inner: &[MapHandle]) -> Result<(), GateError> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = OUTER_MAPS
                .iter()
                .zip(&self.outer)
                .zip(inner)
                .map(|((name, outer), inner)| {
                    scope.spawn(move || {
                        let fd = inner.as_fd().as_raw_fd();
                        fault::point();
                        outer.update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY).map_err(|error| {
                            GateError::from_libbpf(format!("could not put a new table into `{name}`"), &error)
                        })
                    })
                })
                .collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| {
                    Err(GateError::Other {
                        what: "could not fill the new policy's slot".to_owned(),
                        why: "a thread died".to_owned(),
                    })
                })
            })
        })
    }
}

/// The inner maps, filled, in the order of [`OUTER_MAPS`].
fn create_maps(policy: &EncodedPolicy) -> Result<Vec<MapHandle>, GateError> {
    let trie = libbpf_sys::BPF_F_NO_PREALLOC;
    Ok(vec![
        fill("hosts", MapType::Hash, 0, &policy.hosts)?,
        fill("prefixes", MapType::LpmTrie, trie, &policy.prefixes)?,
        fill("needs", MapType::Hash, 0, &policy.needs)?,
        fill("ranges", MapType::LpmTrie, trie, &policy.ranges)?,
        fill("peers", MapType::LpmTrie, trie, &policy.peers)?,
        fill("rules", MapType::Hash, 0, &policy.rules)?,
        fill("sources", MapType::Array, libbpf_sys::BPF_F_INNER_MAP, &policy.sources)?,
    ])
}

fn fill<K: Plain + Copy + Default, V: Plain + Copy + Default>(
    name: &'static str,
    map_type: MapType,
    flags: u32,
    entries: &[(K, V)],
) -> Result<MapHandle, GateError> {
    let table = Table::<K, V>::create(name, map_type, flags, entries.len())?;
    table.put_all(entries)?;
    Ok(table.into_handle())
}
