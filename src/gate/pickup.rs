//! The pickup: for a while, flows that were open before the gate are taken over.

use super::Gate;
use super::error::GateError;
use super::fault;
use super::link::{AttachMode, Hook};
use super::place::GatePlace;
use crate::abi::{settings_flag, state};
use crate::clock::now_ns;

impl Gate {
    /// Takes over flows already open once more, for this long from now on. A pickup that lasts longer anyway is
    /// not cut short. Returns when it ends, by CLOCK_MONOTONIC in nanoseconds.
    ///
    /// # Errors
    /// When the filter or the tracker is not attached, and when the live policy has no strict tracking.
    pub fn extend_pickup(&self, place: &GatePlace, seconds: u64) -> Result<u64, GateError> {
        let interface = place.interface.clone();
        if self.find_mode(place)? == AttachMode::No {
            return Err(GateError::DetachedFilter { interface });
        }
        let flags = self.live_settings()?.map_or(0, |settings| settings.flags);
        if flags & settings_flag::SETTINGS_STRICT.0 == 0 {
            return Err(GateError::NoPickup { interface });
        }
        if self.find_tracker(place)? == Hook::No {
            return Err(GateError::NoTracker { interface });
        }
        let before = self.read_state(state::STATE_PICKUP_UNTIL_NS)?;
        let until = before.max(now_ns() + seconds * 1_000_000_000);
        fault::point();
        self.write_state(state::STATE_PICKUP_UNTIL_NS, until)?;
        Ok(until)
    }

    /// From now on, flows already open are taken over for this long.
    pub(super) fn begin_pickup(&self, pickup_s: u32) -> Result<(), GateError> {
        // 0 and not now: the programs' coarse clock lags behind this one
        let until = if pickup_s == 0 { 0 } else { now_ns() + u64::from(pickup_s) * 1_000_000_000 };
        self.write_state(state::STATE_PICKUP_UNTIL_NS, until)
    }

    pub(super) fn set_pickup_until(&self, until_ns: u64) -> Result<(), GateError> {
        self.write_state(state::STATE_PICKUP_UNTIL_NS, until_ns)
    }

    /// Seconds until the pickup ends, rounded up. 0: it is over.
    pub(super) fn pickup_left_s(&self) -> Result<u64, GateError> {
        let until = self.read_state(state::STATE_PICKUP_UNTIL_NS)?;
        Ok(until.saturating_sub(now_ns()).div_ceil(1_000_000_000))
    }
}
