//! What may be wrong with the gate itself.

use std::fmt;

use super::{Kind, Severity};

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
    /// A packet that must be dropped passes.
    Canary,
    /// `doctor` has found something.
    Found {
        /// The id of the finding.
        id: &'static str,
        /// How severe it is.
        severity: Severity,
        /// Why it matters, without a full stop.
        why: &'static str,
    },
    /// Somebody tries the sinks, and nothing is wrong.
    Test,
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
            GateTrouble::Canary => "canary",
            GateTrouble::Found { id, .. } => id,
            GateTrouble::Test => "test",
        }
    }

    /// The kind of its alarm.
    pub(super) const fn kind(self) -> Kind {
        match self {
            GateTrouble::Detached
            | GateTrouble::TrackerMissing
            | GateTrouble::ModeChanged
            | GateTrouble::Observing
            | GateTrouble::PolicyRefused
            | GateTrouble::HistoryDamaged => Kind::Gate,
            GateTrouble::Canary => Kind::Canary,
            GateTrouble::Found { .. } | GateTrouble::Test => Kind::Doctor,
        }
    }

    /// How severe its alarm is.
    pub(super) fn severity(self) -> Severity {
        match self {
            GateTrouble::Found { severity, .. } => severity,
            // as what it tests the way of
            GateTrouble::Test => Severity::High,
            other => other.kind().severity().unwrap_or(Severity::Critical),
        }
    }

    /// Whether `doctor` found it. What it finds has an alarm of its own.
    pub(super) const fn is_finding(self) -> bool {
        matches!(self, GateTrouble::Found { .. } | GateTrouble::Test)
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
            GateTrouble::Canary => {
                "The programs in the kernel do not do what the policy says, so what a server sends gets out"
            }
            GateTrouble::Found { why, .. } => why,
            GateTrouble::Test => "Whoever reads this would read of a real alarm too",
        }
    }

    /// Whether it lasts until somebody ends it. The others are over after quiet minutes.
    pub(super) const fn lasts(self) -> bool {
        match self {
            GateTrouble::Detached
            | GateTrouble::TrackerMissing
            | GateTrouble::Observing
            | GateTrouble::Canary
            | GateTrouble::Found { .. }
            | GateTrouble::Test => true,
            GateTrouble::ModeChanged | GateTrouble::PolicyRefused | GateTrouble::HistoryDamaged => false,
        }
    }
}

impl fmt::Display for GateTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}
