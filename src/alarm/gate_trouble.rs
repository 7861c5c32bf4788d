//! What may be wrong with the gate itself.

use std::fmt;

/// What may be wrong with the gate itself. Each is a part of one alarm about the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GateTrouble {
    /// The filter is off its interface: nothing is dropped.
    Detached,
    /// Strict tracking has lost the program that sees new flows.
    TrackerMissing,
    /// The filter runs in another mode than before.
    ModeChanged,
    /// The policy was replaced by one that only observes.
    Observing,
    /// A policy was refused, and an earlier one stays.
    PolicyRefused,
    /// The history was damaged, and a new one begins.
    HistoryDamaged,
}

impl GateTrouble {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            GateTrouble::Detached => "detached",
            GateTrouble::TrackerMissing => "tracker_missing",
            GateTrouble::ModeChanged => "mode_changed",
            GateTrouble::Observing => "observing",
            GateTrouble::PolicyRefused => "policy_refused",
            GateTrouble::HistoryDamaged => "history_damaged",
        }
    }

    /// Why it matters, without a full stop.
    pub(super) const fn why(self) -> &'static str {
        match self {
            GateTrouble::Detached => {
                "Without the gate every server reaches everything, and nobody would hear of it"
            }
            GateTrouble::TrackerMissing => {
                "Strict tracking does not see what peers open, so it drops the servers' answers"
            }
            GateTrouble::ModeChanged => "The gate is slower or faster than it was, and somebody changed that",
            GateTrouble::Observing => {
                "While every server is in observe, each of them reaches everything, and nothing is cut off"
            }
            GateTrouble::PolicyRefused => "The gate goes on with a policy that somebody meant to replace",
            GateTrouble::HistoryDamaged => {
                "A disk fails, or somebody has changed the record of what the servers tried"
            }
        }
    }

    /// Whether it lasts until somebody ends it. The others are over after quiet minutes.
    pub(super) const fn lasts(self) -> bool {
        match self {
            GateTrouble::Detached | GateTrouble::TrackerMissing | GateTrouble::Observing => true,
            GateTrouble::ModeChanged | GateTrouble::PolicyRefused | GateTrouble::HistoryDamaged => false,
        }
    }
}

impl fmt::Display for GateTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
