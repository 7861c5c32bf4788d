//! Lookups as the kernel does them, for tests and for commands that explain without a kernel.

use std::net::IpAddr;

use super::{NeedRow, PeerMatch, ServerRow, Tables};
use crate::policy::Direction;

impl Tables {
    /// The row of the server that has an address: that of the longest prefix.
    pub fn find_server(&self, address: IpAddr) -> Option<&ServerRow> {
        let holding = self.servers.iter().filter(|row| row.prefix.contains(&address));
        holding.max_by_key(|row| row.prefix.prefix_len())
    }

    /// The row for a port (or ICMP type, or 0) of a profile.
    pub fn find_need(&self, profile: u32, proto: u8, port: u16) -> Option<&NeedRow> {
        let after = self
            .needs
            .partition_point(|row| (row.profile, row.proto, *row.ports.start()) <= (profile, proto, port));
        let row = self.needs.get(after.checked_sub(1)?)?;
        (row.profile == profile && row.proto == proto && row.ports.contains(&port)).then_some(row)
    }

    /// The profile whose needs hold as well for what a server opens from one of its ports.
    pub fn find_sport(&self, profile: u32, proto: u8, sport: u16) -> Option<u32> {
        let holds = |row: &&super::SportRow| {
            row.profile == profile && row.proto == proto && row.ports.contains(&sport)
        };
        self.sports.iter().find(holds).map(|row| row.needs)
    }

    /// The rule that a match has for a peer. 0: none.
    pub fn find_rule(&self, peer_match: PeerMatch, peer: IpAddr) -> u32 {
        let start = self.peers.partition_point(|row| row.set < peer_match.set);
        let of_set = self.peers.iter().skip(start).take_while(|row| row.set == peer_match.set);
        let longest =
            of_set.filter(|row| row.prefix.contains(&peer)).max_by_key(|row| row.prefix.prefix_len());
        longest.map_or(peer_match.any, |row| row.rule)
    }

    /// The rule by which a profile allows this, or drops it quietly. 0: none.
    pub fn decide(&self, profile: u32, direction: Direction, proto: u8, port: u16, peer: IpAddr) -> u32 {
        let Some(row) = self.find_need(profile, proto, port) else {
            return 0;
        };
        let peer_match = match direction {
            Direction::In => row.inbound,
            Direction::Out => row.outbound,
            Direction::Quiet => row.quiet,
        };
        self.find_rule(peer_match, peer)
    }
}
