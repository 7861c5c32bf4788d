//! Which MACs are ours, and which are other hosts' of the link.

use std::collections::BTreeSet;

use portcullis::policy::Policy;

use super::coverage::Rule;

pub type Mac = [u8; 6];

#[derive(Default)]
pub struct Macs {
    own: BTreeSet<Mac>,
    /// The gate's NIC is one of several ports of a bridge.
    bridged: bool,
    neighbours: BTreeSet<Mac>,
}

impl Macs {
    pub fn set_own(&mut self, macs: impl IntoIterator<Item = Mac>) {
        self.own = macs.into_iter().collect();
    }

    pub fn set_bridged(&mut self, bridged: bool) {
        self.bridged = bridged;
    }

    /// A host of the link has shown its MAC.
    pub fn learn(&mut self, mac: Mac) {
        self.neighbours.insert(mac);
    }

    /// Whose a destination is. decided: where one MAC is ours and a neighbour's, it is ours; and while nothing
    /// is known of our own, any may be.
    pub fn find(&self, policy: Option<&Policy>, mac: Mac) -> Whose {
        let of_a_group = mac[0] & 1 != 0;
        let of_a_virtual_router = matches!(mac, [0, 0, 0x5e, 0, 1 | 2, _]);
        let is_named = policy.is_some_and(|policy| {
            let servers = policy.servers.iter().flat_map(|server| &server.macs);
            let routers = policy.routers.iter().flat_map(|router| &router.macs);
            servers.chain(routers).any(|(known, _)| *known == mac)
        });
        // behind which port of a bridge a host of the policy is, only it itself can show
        let is_named = is_named && !self.bridged;
        let is_known = is_named || self.neighbours.contains(&mac);
        if of_a_group || of_a_virtual_router || !is_known {
            Whose::Ours
        } else if self.own.is_empty() {
            Whose::Unknown
        } else if self.own.contains(&mac) {
            Whose::OursAndAnothers
        } else if is_named {
            Whose::OfPolicy
        } else {
            Whose::Neighbours
        }
    }
}

/// Whose MAC it is to which a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    Ours,
    /// It would be another's, if our own were known.
    Unknown,
    OursAndAnothers,
    OfPolicy,
    Neighbours,
}

impl Whose {
    pub fn is_elsewhere(self) -> bool {
        matches!(self, Whose::OfPolicy | Whose::Neighbours)
    }

    pub fn rule(self) -> Option<Rule> {
        match self {
            Whose::Ours => None,
            Whose::Unknown => Some(Rule::OwnMacsUnknown),
            Whose::OursAndAnothers => Some(Rule::OwnMacOfNeighbour),
            Whose::OfPolicy => Some(Rule::ElsewhereByPolicy),
            Whose::Neighbours => Some(Rule::ElsewhereByNeighbour),
        }
    }
}
