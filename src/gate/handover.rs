//! Handover: flows that another router has let be opened, or that were open before the gate, are looked up in the
//! kernel's own conntrack.
//!
//! Programs that can ask it are loaded apart, for they need its module. So a policy that turns the key on replaces
//! the programs first, and where the module is missing the gate does without until it comes.

use serde::Serialize;

use super::Gate;
use super::conntrack::{is_conntrack_loaded, read_tcp_loose};
use super::error::GateError;
use super::link::{AttachMode, Hook};
use super::place::GatePlace;
use crate::abi::{settings_flag, state};
use crate::clock::{NS_PER_S, now_ns};
use crate::policy::TableSizes;

/// How flows are handed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HandoverStatus {
    /// The programs can ask conntrack.
    pub active: bool,
    /// net.netfilter.nf_conntrack_tcp_loose of this network namespace. `None`: there is no conntrack.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_loose: Option<u32>,
    /// Flows that conntrack was asked for.
    pub asked: u64,
    /// Packets by which flows of it became flows of the gate.
    pub adopted: u64,
    /// Flows that it was not asked for, because too many were asked in vain.
    pub refused: u64,
    /// Seconds until answers of unknown flows raise alarms again.
    pub takeover_s: u64,
}

impl Gate {
    /// Notes whether the programs on the NIC can ask conntrack. Before they are replaced by some that can't, and after
    /// they were replaced by some that can: whoever dies in between leaves a note that is too modest.
    pub(super) fn note_conntrack(&self, asks: bool) -> Result<(), GateError> {
        self.write_state(state::STATE_CONNTRACK, asks.into())
    }

    /// Whether the kernel has conntrack now.
    pub fn has_conntrack(&self) -> bool {
        is_conntrack_loaded()
    }

    /// The sizes that the live policy asks for, if conntrack is there to be asked. To read a policy is dear.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn live_sizes(&self) -> Result<Option<TableSizes>, GateError> {
        if !is_conntrack_loaded() {
            return Ok(None);
        }
        Ok(self.live_policy()?.map(|policy| policy.tables))
    }

    /// Whether the live policy has `handover`, and the programs can't ask.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn lacks_conntrack(&self) -> Result<bool, GateError> {
        let wanted = settings_flag::SETTINGS_HANDOVER.0 | settings_flag::SETTINGS_STRICT.0;
        let flags = self.live_settings()?.map_or(0, |settings| settings.flags);
        Ok(flags & wanted == wanted && self.read_state(state::STATE_CONNTRACK)? == 0)
    }

    /// What is wrong with the handover, in a sentence.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn find_handover_doubt(&self) -> Result<Option<String>, GateError> {
        if !self.lacks_conntrack()? {
            return Ok(None);
        }
        Ok(Some(match is_conntrack_loaded() {
            false => "the policy has `handover`, and this kernel has no conntrack now: open connections of another router \
                      are not taken over; modprobe nf_conntrack, and the daemon turns it on within a second"
                .to_owned(),
            true => "the policy has `handover`, and the programs on the NIC do not ask conntrack: open connections of another \
                     router are not taken over; the daemon turns it on within a minute if the kernel lets it, and \
                     attach says why not (-v -v -v)"
                .to_owned(),
        }))
    }

    /// Replaces programs that can't ask conntrack by some that can, without a gap. Returns whether they can now.
    /// The caller holds the lock.
    ///
    /// # Errors
    /// When the programs can't be replaced. A kernel without conntrack is no error.
    pub fn turn_on_handover(&self, place: &GatePlace, sizes: &TableSizes) -> Result<bool, GateError> {
        if self.read_state(state::STATE_CONNTRACK)? != 0 {
            return Ok(true);
        }
        if !is_conntrack_loaded() || self.find_mode(place)? == AttachMode::No {
            return Ok(false);
        }
        let (gate, asks) = Gate::make_for(place, sizes, true)?;
        if !asks {
            return Ok(false);
        }
        let programs = place.programs();
        gate.programs.stage_pins(&programs)?;
        gate.programs.activate(&programs)?;
        if gate.find_tracker(place)? != Hook::No {
            gate.attach_tracker(place)?;
        }
        // it is attached, so nothing but its program changes
        gate.attach_filter(place, 0, &mut Vec::new())?;
        self.note_conntrack(true)?;
        Ok(true)
    }

    /// From now on, answers of flows that nobody knows are dropped without an alarm for so long. A takeover that lasts
    /// longer anyway is not cut short. Returns when it ends, by CLOCK_MONOTONIC in nanoseconds.
    ///
    /// # Errors
    /// When the filter is not attached, or the kernel refuses.
    pub fn begin_takeover(&self, place: &GatePlace, seconds: u64) -> Result<u64, GateError> {
        if self.find_mode(place)? == AttachMode::No {
            return Err(GateError::DetachedFilter { interface: place.interface.clone() });
        }
        let now = now_ns();
        let before = self.read_state(state::STATE_TAKEOVER_UNTIL_NS)?;
        let until = before.max(now + seconds * NS_PER_S);
        self.write_state(state::STATE_TAKEOVER_NS, now)?;
        self.write_state(state::STATE_TAKEOVER_UNTIL_NS, until)?;
        Ok(until)
    }

    /// When the last takeover began, by CLOCK_MONOTONIC in nanoseconds; 0: there was none.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn takeover_ns(&self) -> Result<u64, GateError> {
        self.read_state(state::STATE_TAKEOVER_NS)
    }

    /// How flows are handed over, where the policy has `handover`. `counted`: what it was asked and has refused, and what
    /// was taken over by it.
    pub(super) fn handover_status(&self, counted: HandoverCounts) -> Result<HandoverStatus, GateError> {
        let HandoverCounts { asked, refused, adopted } = counted;
        let until = self.read_state(state::STATE_TAKEOVER_UNTIL_NS)?;
        Ok(HandoverStatus {
            active: self.read_state(state::STATE_CONNTRACK)? != 0,
            tcp_loose: read_tcp_loose(),
            asked,
            adopted,
            refused,
            takeover_s: until.saturating_sub(now_ns()).div_ceil(NS_PER_S),
        })
    }
}

/// What the programs have counted of handovers.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandoverCounts {
    pub(super) asked: u64,
    pub(super) refused: u64,
    pub(super) adopted: u64,
}

impl HandoverStatus {
    /// Warnings for the user, a sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.tcp_loose.is_some_and(|loose| loose != 0) {
            warnings.push(
                "net.netfilter.nf_conntrack_tcp_loose is not 0: conntrack takes whoever it hears first for the opener, so \
                 a handover may take over what no peer opened; sysctl -w net.netfilter.nf_conntrack_tcp_loose=0"
                    .to_owned(),
            );
        }
        if self.refused > 0 {
            warnings.push(format!(
                "conntrack was not asked for {} packets, because too many before them were unknown to it",
                self.refused
            ));
        }
        warnings
    }
}
