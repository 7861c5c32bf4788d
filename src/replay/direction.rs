//! Whether a frame came from a server, and is for the filter, or went to one, and is for the tracker.
//!
//! Addresses decide. Where both ends are servers, or none is, it is the MAC: that of the policy, the one of `--mac`, or
//! what the capture has shown. A MAC that sends the packets of others to servers is a router's. A MAC that sends only
//! those of servers is a server's.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::copies::Copies;
use super::servers::Servers;
use crate::capture::{Frame, Travel};
use crate::compile::{ServerRow, Tables};
use crate::drops::Seeded;

/// MACs that are remembered at most.
const MAX_MACS: usize = 65_536;

/// It has sent a packet of a server.
const SENT_SERVERS: u8 = 1;
/// It has sent a packet of somebody else to a server.
const SENT_OTHERS: u8 = 2;

/// Where a frame belongs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Direction<'a> {
    /// It came from the DMZ: for the filter. With the server that has its source address.
    FromServer(Option<&'a ServerRow>),
    /// It went to a server: for the tracker.
    ToServer,
    /// A packet that was judged when it was seen first.
    Copy,
    /// It came in on another side, on its way to a server. It counts when it goes out to the server.
    Arriving,
    /// No server has to do with it.
    Neither,
}

/// Finds directions.
pub(super) struct Directions<'a> {
    servers: Servers<'a>,
    policy_macs: HashSet<[u8; 6], Seeded>,
    own_mac: Option<[u8; 6]>,
    macs: HashMap<[u8; 6], u8, Seeded>,
}

impl<'a> Directions<'a> {
    pub(super) fn new(tables: &'a Tables, own_mac: Option<[u8; 6]>) -> Directions<'a> {
        let of_servers = tables.servers.iter().flat_map(|row| &row.macs);
        let of_routers = tables.routers.iter().flat_map(|(_, macs)| macs);
        Directions {
            servers: Servers::of(tables),
            policy_macs: of_servers.chain(of_routers).copied().collect(),
            own_mac,
            macs: HashMap::default(),
        }
    }

    pub(super) fn find(&mut self, frame: &Frame, copies: &Copies) -> Direction<'a> {
        let facts = frame.facts.as_ref();
        let source = facts.and_then(|facts| self.servers.find(facts.source));
        let destination = facts.and_then(|facts| self.servers.find(facts.destination));
        let mac = frame.source_mac.unwrap_or_default();
        let travel = match (frame.travel, self.own_mac, frame.source_mac) {
            (Travel::Unknown, Some(own), Some(mac)) if own == mac => Travel::Out,
            (travel, ..) => travel,
        };
        let copy = facts.filter(|_| frame.has_siblings || (source.is_some() && destination.is_some()));
        let copy = copy.and_then(|facts| copies.find(frame, facts));
        let sent_on = |is_dropped: bool| if is_dropped { Direction::Copy } else { Direction::ToServer };
        match (travel, source, destination) {
            // the same packet, on its way from one server to another
            (Travel::Out | Travel::Unknown, Some(_), Some(_)) if copy.is_some() => {
                sent_on(copy.is_some_and(|seen| seen.is_dropped))
            }
            (Travel::Unknown, ..) if copy.is_some_and(|seen| seen.source != frame.source) => Direction::Copy,
            (Travel::Out, _, Some(_)) => Direction::ToServer,
            (Travel::Out, Some(_), None) => Direction::Copy,
            (Travel::Out, None, None) => Direction::Neither,
            (Travel::Unknown, Some(_), Some(_)) if self.is_router(mac) => Direction::ToServer,
            (Travel::In | Travel::Unknown, Some(row), _) => {
                self.note(mac, SENT_SERVERS);
                Direction::FromServer(Some(row))
            }
            (Travel::In | Travel::Unknown, None, _) if self.is_policys(mac) => Direction::FromServer(None),
            // the NIC's MAC is known, and this one is another
            (Travel::Unknown, None, _) if self.own_mac.is_some() && frame.source_mac.is_some() => {
                Direction::FromServer(None)
            }
            (Travel::In, None, Some(_)) => {
                self.note(mac, SENT_OTHERS);
                Direction::Arriving
            }
            (Travel::Unknown, None, Some(_)) => {
                self.note(mac, SENT_OTHERS);
                Direction::ToServer
            }
            (Travel::In | Travel::Unknown, None, None) if self.is_servers(mac) => Direction::FromServer(None),
            (Travel::In | Travel::Unknown, None, None) => Direction::Neither,
        }
    }

    /// The row of the server that has an address.
    pub(super) fn find_server(&self, address: IpAddr) -> Option<&'a ServerRow> {
        self.servers.find(address)
    }

    pub(super) fn is_server(&self, address: IpAddr) -> bool {
        self.servers.find(address).is_some()
    }

    fn note(&mut self, mac: [u8; 6], what: u8) {
        if mac == [0; 6] || (self.macs.len() >= MAX_MACS && !self.macs.contains_key(&mac)) {
            return;
        }
        *self.macs.entry(mac).or_default() |= what;
    }

    fn is_policys(&self, mac: [u8; 6]) -> bool {
        self.policy_macs.contains(&mac)
    }

    fn is_router(&self, mac: [u8; 6]) -> bool {
        !self.is_policys(mac) && self.macs.get(&mac).is_some_and(|seen| seen & SENT_OTHERS != 0)
    }

    fn is_servers(&self, mac: [u8; 6]) -> bool {
        self.macs.get(&mac) == Some(&SENT_SERVERS)
    }
}
