//! The pickup: for a while, flows that were open before the gate are taken over.

use super::Gate;
use super::error::GateError;
use crate::abi::state;
use crate::clock::now_ns;

impl Gate {
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
