//! Whether a packet was dropped. Samples and ledger rows carry it as a flag.

use serde::{Serialize, Serializer};

use crate::abi::drop_flag;

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
