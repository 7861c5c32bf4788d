//! Why a packet was dropped, and whether it was. Samples and ledger rows carry both as numbers.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::abi::{Reason, drop_flag};

/// Why a packet was dropped: a reason, or the number of one that is newer than this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ReasonCode {
    /// A reason of this version.
    Known(Reason),
    /// The number of a reason of a newer version.
    Unknown(u8),
}

impl ReasonCode {
    /// Its number in the ledger and in samples.
    pub fn number(self) -> u8 {
        match self {
            ReasonCode::Known(reason) => reason.number(),
            ReasonCode::Unknown(number) => number,
        }
    }

    /// The reason, if this version knows it.
    pub fn known(self) -> Option<Reason> {
        match self {
            ReasonCode::Known(reason) => Some(reason),
            ReasonCode::Unknown(_) => None,
        }
    }

    /// Whether the packet was an attempt to open a flow: whose destinations tell a worm.
    pub fn is_attempt(self) -> bool {
        matches!(self.known(), Some(Reason::NewFlow | Reason::Destination))
    }
}

impl From<u8> for ReasonCode {
    fn from(number: u8) -> ReasonCode {
        Reason::from_number(number).map_or(ReasonCode::Unknown(number), ReasonCode::Known)
    }
}

impl From<Reason> for ReasonCode {
    fn from(reason: Reason) -> ReasonCode {
        ReasonCode::Known(reason)
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReasonCode::Known(reason) => f.pad(reason.name()),
            ReasonCode::Unknown(number) => f.pad(&format!("unknown_{number}")),
        }
    }
}

impl Serialize for ReasonCode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether a packet was dropped, or would have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DropVerdict {
    /// It was dropped.
    Drop,
    /// It passed, because its server is in mode `observe`. In mode `enforce` it would have been dropped.
    WouldDrop,
}

impl DropVerdict {
    /// From a set of `enum drop_flag`, as ledger keys and samples have it.
    pub fn from_flags(flags: u8) -> DropVerdict {
        if u32::from(flags) & drop_flag::DROP_WOULD.0 != 0 {
            DropVerdict::WouldDrop
        } else {
            DropVerdict::Drop
        }
    }

    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            DropVerdict::Drop => "drop",
            DropVerdict::WouldDrop => "would_drop",
        }
    }
}

impl Serialize for DropVerdict {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_reason_code_and_leads_back() {
        for number in 0..=255 {
            assert_eq!(ReasonCode::from(number).number(), number);
        }
        assert_eq!(ReasonCode::from(47).known(), Some(Reason::NewFlow));
    }
}
