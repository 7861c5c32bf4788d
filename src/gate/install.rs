//! Makes a compiled policy the live one, for all its entries at once.
//!
//! The maps of the new generation are built and filled where no packet sees them, put into the slot
//! that is longest out of use, and go live by one 64-bit store. A death before that store leaves the old
//! policy live, a death after it the new one.

use libbpf_rs::MapFlags;

use super::Gate;
use super::error::GateError;
use super::outer_map::FilledSlot;
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
        self.carry_quarantines(tables, &ids)?;
        // a server that had used up its quota may have rows left now
        self.outdate_verdict_cache()?;

        let active = self.read_state(state::STATE_ACTIVE)?;
        let generation = self.live_settings()?.map_or(0, |live| live.generation) + 1;
        // The slot after the live one is the longest out of use: the maps of two swaps ago, which no
        // packet can be reading any more.
        let slot = u32::try_from(active % u64::from(layout::SLOTS.0)).unwrap_or(0);

        fill_slot(slot, &self.create_inner_maps(&encoded)?)?;
        let applied_s = u64::try_from(wall_now().as_second()).unwrap_or(0);
        let settings = encode_settings(policy, tables, encoded.flags, generation, applied_s);
        self.maps.policies.put(&slot, &settings, MapFlags::ANY)?;
        self.write_state(state::STATE_ACTIVE, u64::from(slot) + 1)?;
        if let Err(error) = self.end_revoked_flows(tables) {
            // the filter refuses their replies all the same
            log::warn!("flows of revoked services stay in their tables until they are idle: {error}");
        }
        Ok(generation)
    }

    fn set_row_quotas(&self, server_ids: &[u32]) -> Result<(), GateError> {
        let quotas = RowQuotas::of(self.maps.ledger.capacity(), server_ids.len());
        let quotas = quotas.limit_shared(&self.maps.ledger_quotas.entries()?, server_ids);
        for (index, rows) in [
            (state::STATE_QUOTA_GUARANTEED, quotas.own.guaranteed),
            (state::STATE_QUOTA_SHARED, quotas.own.shared),
            (state::STATE_QUOTA_MAX, quotas.own.max),
            (state::STATE_OUTSIDE_GUARANTEED, quotas.outside.guaranteed),
            (state::STATE_OUTSIDE_SHARED, quotas.outside.shared),
            (state::STATE_OUTSIDE_MAX, quotas.outside.max),
            (state::STATE_RESERVE_SHARED, quotas.reserve.shared),
            (state::STATE_RESERVE_MAX, quotas.reserve.max),
        ] {
            self.write_state(index, rows)?;
        }
        Ok(())
    }

    /// The inner maps of a generation, filled.
    fn create_inner_maps(&self, policy: &EncodedPolicy) -> Result<Vec<FilledSlot<'_>>, GateError> {
        // Without `..`, so that a new field has to be put somewhere.
        let EncodedPolicy {
            hosts,
            prefixes,
            needs,
            ranges,
            sports,
            peers,
            rules,
            macs,
            routers,
            sources,
            // these two are no maps of a generation
            token_buckets: _,
            flags: _,
        } = policy;
        Ok(vec![
            self.maps.hosts.create_inner(hosts)?,
            self.maps.prefixes.create_inner(prefixes)?,
            self.maps.needs.create_inner(needs)?,
            self.maps.ranges.create_inner(ranges)?,
            self.maps.peers.create_inner(peers)?,
            self.maps.rules.create_inner(rules)?,
            self.maps.macs.create_inner(macs)?,
            self.maps.routers.create_inner(routers)?,
            self.maps.sports.create_inner(sports)?,
            self.maps.sources.create_inner(sources)?,
        ])
    }
}

/// Puts inner maps into their slot. Each waits for the kernel, and in threads they all wait for the same
/// moment.
fn fill_slot(slot: u32, inner_maps: &[FilledSlot<'_>]) -> Result<(), GateError> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = inner_maps.iter().map(|inner| scope.spawn(move || inner.put(slot))).collect();
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
