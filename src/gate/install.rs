//! Makes a compiled policy the live one, for all its entries at once.
//!
//! The maps of the new generation are built and filled where no packet sees them, put into the slot
//! that is longest out of use, and go live by one 64-bit store. A death before that store leaves the old
//! policy live, a death after it the new one. The same store begins a trial.

use std::time::Duration;

use libbpf_rs::MapFlags;

use super::Gate;
use super::error::GateError;
use super::outer_map::FilledSlot;
use super::resolvers::find_ways;
use crate::abi::{address, class_limits, quota_class, resolver, settings_flag, state};
use crate::clock::{now_ns, wall_now};
use crate::compile::{ClassQuota, EncodedPolicy, RowQuotas, Tables, encode, encode_settings};
use crate::policy::Policy;

impl Gate {
    /// Makes `policy` the live one and returns its generation. The caller holds the lock.
    ///
    /// # Errors
    /// The live policy is what it was before. Names and token buckets may have changed: they hold for both
    /// policies.
    pub fn install(&self, policy: &Policy, tables: &Tables) -> Result<u64, GateError> {
        self.install_for(policy, tables, None)
    }

    /// As [`Gate::install`], on trial for so long. Where flows or the tracker have to be looked after,
    /// [`Gate::begin_trial`] does that as well. No trial may be under way.
    ///
    /// # Errors
    /// As [`Gate::install`].
    pub fn install_on_trial(
        &self,
        policy: &Policy,
        tables: &Tables,
        time: Duration,
    ) -> Result<u64, GateError> {
        self.install_for(policy, tables, Some(time))
    }

    /// As [`Gate::install`]. With a time the policy is on trial for so long. No trial may be under way.
    pub(super) fn install_for(
        &self,
        policy: &Policy,
        tables: &Tables,
        trial: Option<Duration>,
    ) -> Result<u64, GateError> {
        let ids = self.assign_ids(&tables.names)?;
        let domains = self.assign_domain_ids(&tables.destinations.names)?;
        let encoded = encode(policy, tables, &ids, &domains);
        self.set_name_rooms(ids.len())?;
        // what a trial does without, the policy before may need again
        if trial.is_none() {
            self.tidy_names(&ids)?;
        }
        self.make_token_buckets(&encoded.token_buckets)?;
        let numbers = self.number_needs(&tables.rules)?;
        self.carry_quarantines(tables, &ids)?;

        // a trial whose time is over, and that nobody has tidied up
        let active = self.read_active()?;
        let active = if active.is_over(now_ns()) { active.back() } else { active };
        let live = self.live_settings()?.unwrap_or_default();
        let generation = self.take_generation(live.generation)?;
        let slot = active.free_slot();
        let resolvers = find_ways(&tables.destinations.sources).rows;
        fill_slot(slot, &self.create_inner_maps(&encoded, &numbers, &resolvers)?)?;
        self.write_unserved_ports(slot, tables)?;
        let applied_s = u64::try_from(wall_now().as_second()).unwrap_or(0);
        let needs_tracker = tables.settings.is_strict()
            || trial.is_some() && live.flags & settings_flag::SETTINGS_STRICT.0 != 0;
        let tracked = if needs_tracker { settings_flag::SETTINGS_TRACKED.0 } else { 0 };
        let mut settings = encode_settings(policy, tables, encoded.flags | tracked, generation, applied_s);
        settings.limits = self.find_limits(&ids)?;
        settings.verdicts_mask =
            self.find_verdicts_mask(encoded.hosts.len(), !encoded.prefixes.is_empty())?;
        self.maps.policies.put(&slot, &settings, MapFlags::ANY)?;
        let names = &tables.destinations.names;
        let by_name = names.iter().cloned().zip(domains.ids.iter().copied()).collect();
        for sentence in
            self.grant_to_all_under(&tables.destinations.seeds, slot, &by_name, policy.names.ttl)?
        {
            log::warn!("{sentence}");
        }
        if live.generation != 0 && live.flags & settings_flag::SETTINGS_NAMES.0 == 0 && !names.is_empty() {
            log::warn!(
                "this is the first policy with names: connections that servers have opened to them before are not \
                 known, so their segments are dropped, unless another need has them, until servers open them again"
            );
        }
        let deadline_ns = trial.map_or(0, find_deadline);
        self.write_active(active.followed_by(slot, deadline_ns))?;
        if trial.is_some() {
            // what the policy revokes lives on if it is not confirmed
            return Ok(generation);
        }
        if let Err(error) = self.end_homeless_edits(tables) {
            log::warn!("edits of servers that the policy no longer has are still listed: {error}");
        }
        if let Err(error) = self.end_revoked_flows(tables) {
            // the filter refuses their replies all the same
            log::warn!("flows of revoked services stay in their tables until they are idle: {error}");
        }
        Ok(generation)
    }

    /// A number that no policy of this gate has had. It is taken before it is used, so it is lost if this
    /// process dies, and never used twice.
    fn take_generation(&self, live: u64) -> Result<u64, GateError> {
        let generation = self.read_state(state::STATE_GENERATION)?.max(live) + 1;
        self.write_state(state::STATE_GENERATION, generation)?;
        Ok(generation)
    }

    /// The limits of the ledger's quotas for a policy of these servers.
    fn find_limits(
        &self,
        server_ids: &[u32],
    ) -> Result<[class_limits; quota_class::CLASSES.0 as usize], GateError> {
        let quotas = RowQuotas::of(self.maps.ledger.capacity(), server_ids.len());
        let quotas = quotas.limit_shared(&self.maps.ledger_quotas.entries()?, server_ids);
        // in the order of enum quota_class
        Ok([
            to_limits(quotas.own),
            to_limits(quotas.outside),
            to_limits(quotas.reserve),
            class_limits::default(),
        ])
    }

    /// The inner maps of a generation, filled.
    fn create_inner_maps(
        &self,
        policy: &EncodedPolicy,
        need_numbers: &[u32],
        resolvers: &[(address, resolver)],
    ) -> Result<Vec<FilledSlot<'_>>, GateError> {
        let need_numbers: Vec<(u32, u32)> = (0..).zip(need_numbers.iter().copied()).collect();
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
            names,
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
            self.maps.need_numbers.create_inner(&need_numbers)?,
            self.maps.name_patterns.create_inner(&names.patterns)?,
            self.maps.name_needs.create_inner(&names.needs)?,
            self.maps.name_peers.create_inner(&names.peers)?,
            self.maps.name_ranges.create_inner(&names.ranges)?,
            self.maps.resolvers.create_inner(resolvers)?,
            self.maps.sources.create_inner(sources)?,
        ])
    }
}

/// When a trial that begins now is over. It begins as late as can be: what came before took a while.
pub(super) fn find_deadline(time: Duration) -> u64 {
    now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

fn to_limits(quota: ClassQuota) -> class_limits {
    // no ledger has more rows
    let rows = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    class_limits {
        guaranteed: rows(quota.guaranteed),
        max: rows(quota.max),
        shared: rows(quota.shared),
        zero: 0,
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
