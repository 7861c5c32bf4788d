//! Which MACs are servers', and which is the router's: what a capture shows on its own.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use crate::drops::Seeded;

/// MACs and addresses that are remembered at most.
const MAX_MACS: usize = 16_384;
/// Addresses of one MAC that are remembered.
const MAX_ADDRESSES: usize = 4;

/// What one MAC has sent.
#[derive(Clone, Debug, Default)]
struct Sent {
    /// The servers whose first MAC it is.
    servers: Vec<IpAddr>,
    /// There are more.
    has_more: bool,
    /// It has sent packets of others: a router's.
    is_router: bool,
}

/// The MACs of a capture.
#[derive(Default)]
pub(super) struct Macs {
    sent: HashMap<[u8; 6], Sent, Seeded>,
    first: BTreeMap<IpAddr, [u8; 6]>,
}

impl Macs {
    /// Notes the sender of a packet.
    pub(super) fn note(&mut self, mac: [u8; 6], source: IpAddr, is_server: bool) {
        if self.sent.len() >= MAX_MACS && !self.sent.contains_key(&mac) {
            return;
        }
        let sent = self.sent.entry(mac).or_default();
        if !is_server {
            sent.is_router = true;
        } else if !self.first.contains_key(&source) && self.first.len() < MAX_MACS {
            self.first.insert(source, mac);
            if sent.servers.len() < MAX_ADDRESSES {
                sent.servers.push(source);
            } else {
                sent.has_more = true;
            }
        }
    }

    /// The server that owns the MAC from which another server's packet came. `None`: nobody else's.
    pub(super) fn find_forger(&self, mac: [u8; 6], source: IpAddr) -> Option<IpAddr> {
        if self.first.get(&source).is_none_or(|first| *first == mac) {
            return None;
        }
        let sent = self.sent.get(&mac).filter(|sent| !sent.is_router)?;
        sent.servers.first().copied()
    }

    /// The MAC of a server, unless it is a router's.
    pub(super) fn find_own(&self, server: IpAddr) -> Option<[u8; 6]> {
        let mac = self.first.get(&server)?;
        self.sent.get(mac).filter(|sent| !sent.is_router).map(|_| *mac)
    }

    /// Whether a server's packets come from a MAC that also sends those of others, while other servers have MACs of their
    /// own: then it is the router itself.
    pub(super) fn is_router(&self, server: IpAddr) -> bool {
        let sends_for_others =
            self.first.get(&server).and_then(|mac| self.sent.get(mac)).is_some_and(|sent| sent.is_router);
        sends_for_others && self.first.keys().any(|other| *other != server && self.find_own(*other).is_some())
    }

    /// The other address of a server that has one of each family, and both by the same MAC.
    pub(super) fn find_twin(&self, server: IpAddr) -> Option<IpAddr> {
        let mac = self.find_own(server)?;
        let sent = self.sent.get(&mac).filter(|sent| !sent.has_more)?;
        let is_same_family = |other: &&IpAddr| other.is_ipv4() == server.is_ipv4();
        let twins: Vec<&IpAddr> = sent.servers.iter().filter(|other| !is_same_family(other)).collect();
        match (sent.servers.iter().filter(is_same_family).count(), twins.as_slice()) {
            (1, [twin]) => Some(**twin),
            _ => None,
        }
    }
}
