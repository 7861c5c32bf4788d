//! Makes another policy the live one of an attached gate, and attaches or detaches the tracker as its
//! `tracking` asks.

use std::time::Duration;

use super::Gate;
use super::error::GateError;
use super::link::Hook;
use super::pins::check_writable;
use super::place::GatePlace;
use super::resolvers::refuse_forgeable;
use crate::compile::Tables;
use crate::policy::{Policy, TableSizes};

impl Gate {
    /// Makes `policy` the live one and returns its generation. The caller holds the lock.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub fn apply(&self, place: &GatePlace, policy: &Policy, tables: &Tables) -> Result<u64, GateError> {
        self.settle_trial(place)?;
        self.refuse_during_trial(place)?;
        let generation = self.install_and_track(place, policy, tables, None)?;
        if !tables.settings.is_strict()
            && let Err(error) = self.detach_tracker(place)
        {
            // It records flows that no program asks for. `show status` says that it is there.
            log::warn!("the tracker stays on {}: {error}", place.interface);
        }
        Ok(generation)
    }

    /// Makes `policy` the live one, with a time on trial, and returns its generation. The tracker is attached if
    /// the policy asks for it, and stays otherwise: a trial's policy before may need it.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub(super) fn install_and_track(
        &self,
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
        trial: Option<Duration>,
    ) -> Result<u64, GateError> {
        refuse_forgeable(&tables.destinations.sources)?;
        if tables.settings.has_handover() {
            self.turn_on_handover(place, &policy.tables)?;
        }
        self.reserve_generation(place);
        let had_tracker = self.find_tracker(place)? != Hook::No;
        let ready = match (tables.settings.is_strict(), had_tracker) {
            (true, false) => self.begin_tracking(place, tables.settings.pickup_s),
            (true, true) => self.attach_tracker(place).map(drop),
            (false, true) => check_writable(&place.links()),
            (false, false) => Ok(()),
        };
        let installed = ready.and_then(|()| self.install_for(policy, tables, trial));
        installed.inspect_err(|_| self.rollback_tracker(place, had_tracker))
    }

    /// Attaches or detaches the tracker.
    pub(super) fn set_tracker(&self, place: &GatePlace, wanted: bool) -> Result<Hook, GateError> {
        match wanted {
            true => self.attach_tracker(place),
            false => self.detach_tracker(place).map(|()| Hook::No),
        }
    }

    /// Attaches the tracker of a gate that had none. It knows no flow yet, so open ones are taken over.
    pub(super) fn begin_tracking(&self, place: &GatePlace, pickup_s: u32) -> Result<(), GateError> {
        self.attach_tracker(place)?;
        self.begin_pickup(pickup_s)
    }

    /// Detaches a tracker that was attached for a policy which did not take effect.
    pub(super) fn rollback_tracker(&self, place: &GatePlace, had_tracker: bool) {
        if !had_tracker {
            let _ = self.detach_tracker(place);
        }
    }

    /// Sizes that a policy asks for and the live tables don't have, a sentence each.
    pub fn list_unapplied_sizes(&self, sizes: &TableSizes) -> Vec<String> {
        self.maps.differing_sizes(sizes).into_iter().map(describe_differing_size).collect()
    }
}

/// Of a key of `[tables]`, the size wanted, and the size of the live table.
pub(super) fn describe_differing_size((key, wanted, live): (&str, u32, u32)) -> String {
    format!("[tables] {key} = {wanted} takes effect at the next detach and attach; the live table has {live}")
}
