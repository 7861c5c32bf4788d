//! Which MACs are ours, and which are other hosts' of the link.

use std::collections::BTreeSet;

use portcullis::policy::Policy;

pub type Mac = [u8; 6];

#[derive(Default)]
pub struct Macs {
    own: BTreeSet<Mac>,
    neighbours: BTreeSet<Mac>,
}

impl Macs {
    pub fn set_own(&mut self, macs: impl IntoIterator<Item = Mac>) {
        self.own = macs.into_iter().collect();
    }

    /// A host of the link has shown its MAC.
    pub fn learn(&mut self, mac: Mac) {
        self.neighbours.insert(mac);
    }

    /// Whether a frame to this MAC is for another host. decided: where one MAC is ours and a neighbour's,
    /// it is ours.
    pub fn is_elsewhere(&self, policy: Option<&Policy>, mac: Mac) -> bool {
        let of_a_group = mac[0] & 1 != 0;
        let of_a_virtual_router = matches!(mac, [0, 0, 0x5e, 0, 1 | 2, _]);
        if of_a_group || of_a_virtual_router || self.own.contains(&mac) {
            return false;
        }
        let is_named = policy.is_some_and(|policy| {
            let servers = policy.servers.iter().flat_map(|server| &server.macs);
            let routers = policy.routers.iter().flat_map(|router| &router.macs);
            servers.chain(routers).any(|(known, _)| *known == mac)
        });
        is_named || self.neighbours.contains(&mac)
    }
}
