//! What becomes of the quarantines under another policy: they follow the addresses that they were given
//! for, and their names. Pure.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use super::holders::Holders;
use super::orders::AddressOrders;
use crate::net::{show_prefix, subtract};

/// An address in quarantine that another server has under another policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct CarriedQuarantine {
    /// The address, or the prefix.
    pub address: String,
    /// The server that had it. `None`: no server did.
    pub from: Option<String>,
    /// The server that has it now. `None`: no server does.
    pub to: Option<String>,
    /// It was free before: it comes to a server that is in quarantine.
    pub gained: bool,
}

impl fmt::Display for CarriedQuarantine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = &self.address;
        match (&self.from, &self.to) {
            (_, Some(to)) if self.gained => {
                write!(out, "{address} comes into quarantine: {to} has it now, and is in quarantine")
            }
            (Some(from), Some(to)) => {
                write!(out, "{address} stays in quarantine: it was {from}'s, and {to} has it now")
            }
            (Some(from), None) => {
                write!(out, "{address} stays in quarantine: it was {from}'s, and no server has it now")
            }
            (None, Some(to)) => write!(out, "{address} stays in quarantine: {to} has it now"),
            (None, None) => write!(out, "{address} stays in quarantine"),
        }
    }
}

/// As the commands print them, a line each. `!` marks what no policy file says.
pub fn list_carried(carried: &[CarriedQuarantine]) -> String {
    carried.iter().map(|one| format!("! {one}\n")).collect()
}

/// What changes for the servers in quarantine (`names`) and the `addresses`, from an old policy to a new one.
pub(super) fn find_carried(
    old: &Holders,
    new: &Holders,
    names: &[String],
    addresses: &AddressOrders,
) -> Vec<CarriedQuarantine> {
    let mut carried = BTreeSet::new();
    let lost = names.iter().flat_map(|name| old.lost_by(name, new));
    for prefix in lost.chain(addresses.0.keys().copied()) {
        for (part, to) in new.divide(prefix) {
            for (part, from) in old.divide(part).into_iter().filter(|(_, from)| *from != to) {
                carried.insert(CarriedQuarantine {
                    address: show_prefix(&part),
                    from: from.map(str::to_owned),
                    to: to.map(str::to_owned),
                    gained: false,
                });
            }
        }
    }
    let cut_off: Vec<_> = names.iter().flat_map(|name| old.addresses_of(name)).collect();
    let cut_off = [cut_off, addresses.0.keys().copied().collect()].concat();
    for name in names {
        for prefix in new.lost_by(name, old).into_iter().flat_map(|prefix| subtract(prefix, &cut_off)) {
            for (part, from) in old.divide(prefix) {
                carried.insert(CarriedQuarantine {
                    address: show_prefix(&part),
                    from: from.map(str::to_owned),
                    to: Some(name.clone()),
                    gained: true,
                });
            }
        }
    }
    carried.into_iter().collect()
}
