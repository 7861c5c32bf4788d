//! Why a packet passed or was dropped. The list is written once, as
//! `enum reason` of `bpf/contract.h`; `build.rs` makes this enum of it.

use std::fmt;

use serde::{Serialize, Serializer};

include!(concat!(env!("OUT_DIR"), "/reason.rs"));

impl Reason {
    /// The reason with this number, or `None` for one that this version does not know.
    pub fn from_number(number: u8) -> Option<Reason> {
        REASONS.iter().copied().find(|reason| reason.number() == number)
    }

    /// The reason with this name.
    pub fn from_name(name: &str) -> Option<Reason> {
        REASONS.iter().copied().find(|reason| reason.name() == name)
    }

    /// Its number in counters, ledger and samples.
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Numbers from 32 on are reasons to drop.
    pub const fn drops(self) -> bool {
        self as u8 >= 32
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Reason {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_lead_back_to_the_reason() {
        for &reason in REASONS {
            assert_eq!(Reason::from_number(reason.number()), Some(reason));
            assert_eq!(Reason::from_name(reason.name()), Some(reason));
        }
        assert_eq!(Reason::from_number(0), None);
        assert_eq!(Reason::from_number(255), None);
    }

    #[test]
    fn every_reason_stands_in_the_documentation() {
        let page = include_str!("../../docs/verdicts.md");
        for reason in REASONS {
            assert!(page.contains(&format!("`{reason}`")), "docs/verdicts.md doesn't have `{reason}`");
        }
    }
}
