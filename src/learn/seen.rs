//! What captures or a gate have shown, and what they can't tell.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::dns::{NameId, Names};
use super::everyday;
use super::evidence::{Evidence, PeerEvidence, Service};
use super::flows::Ends;
use super::macs::Macs;
use super::scope::{Scope, ServerId, Servers};
use super::suspicion::Troubles;
use super::wording::show_moment;
use crate::capture::Timestamp;
use crate::policy::Direction;

/// Everything that captures show.
pub(super) struct Seen<'a> {
    pub(super) scope: Scope<'a>,
    pub(super) evidence: Evidence,
    pub(super) troubles: BTreeMap<ServerId, Troubles>,
    pub(super) names: Names,
    pub(super) macs: Macs,
    /// When each rule of the policy was last used, and how often.
    pub(super) uses: BTreeMap<u32, (Timestamp, u64)>,
    /// Packets that came from another server's MAC: forger, address, number.
    pub(super) forged: BTreeMap<(IpAddr, IpAddr), u64>,
    /// Connections that began before: server, its port, peer, the peer's port, protocol.
    pub(super) before: BTreeMap<(IpAddr, u16, IpAddr, u16, u8), u64>,
    pub(super) more_before: u64,
    pub(super) packets: u64,
    pub(super) first_ns: Option<Timestamp>,
    pub(super) last_ns: Timestamp,
    pub(super) from_servers: u64,
    pub(super) to_servers: u64,
    pub(super) unread: u64,
    pub(super) forgotten: u64,
    pub(super) has_macs: bool,
    /// DHCP requests without an address.
    pub(super) has_dhcp: bool,
    /// It is what a gate has kept, and no capture.
    pub(super) is_from_gate: bool,
}

impl<'a> Seen<'a> {
    /// Nothing yet.
    pub(super) fn new(servers: &'a Servers<'a>) -> Seen<'a> {
        Seen {
            scope: Scope::new(servers),
            evidence: Evidence::default(),
            troubles: BTreeMap::new(),
            names: Names::default(),
            macs: Macs::default(),
            uses: BTreeMap::new(),
            forged: BTreeMap::new(),
            before: BTreeMap::new(),
            more_before: 0,
            packets: 0,
            first_ns: None,
            last_ns: 0,
            from_servers: 0,
            to_servers: 0,
            unread: 0,
            forgotten: 0,
            has_macs: false,
            has_dhcp: false,
            is_from_gate: false,
        }
    }
}

impl Seen<'_> {
    pub(super) fn find_rule(&self, server: IpAddr, direction: Direction, ends: &Ends) -> Option<u32> {
        let (own_port, peer) = match direction {
            Direction::In => (ends.port, ends.opener.0),
            Direction::Out | Direction::Quiet => (ends.opener.1, ends.answerer.0),
        };
        self.scope.find_rule(server, direction, (ends.protocol, ends.port, own_port), peer)
    }

    /// Notes that a rule of the policy was used. `false`: no rule permits it.
    pub(super) fn note_use(
        &mut self,
        server: IpAddr,
        direction: Direction,
        ends: &Ends,
        time_ns: Timestamp,
    ) -> bool {
        let Some(rule) = self.find_rule(server, direction, ends) else {
            // what is quiet stays quiet
            return direction == Direction::Out && self.find_rule(server, Direction::Quiet, ends).is_some();
        };
        let used = self.uses.entry(rule).or_insert((time_ns, 0));
        used.0 = used.0.max(time_ns);
        used.1 += 1;
        true
    }

    /// The name by which a gate would let an opening pass. Servers and the link are never granted.
    pub(super) fn find_name(&mut self, server: ServerId, peer: IpAddr, time_ns: Timestamp) -> Option<NameId> {
        let is_granted = !self.scope.holds(peer) && !self.scope.is_for_all(peer);
        self.names.use_grant(server, peer, time_ns).filter(|_| is_granted)
    }

    /// As [`Seen::note_use`], of openings that a gate has counted.
    pub(super) fn note_kept_use(
        &mut self,
        server: IpAddr,
        direction: Direction,
        (protocol, port): (u8, u16),
        peer: IpAddr,
        counts: &PeerEvidence,
    ) -> bool {
        let service = (protocol, port, 0);
        let Some(rule) = self.scope.find_rule(server, direction, service, peer) else {
            return direction == Direction::Out
                && self.scope.find_rule(server, Direction::Quiet, service, peer).is_some();
        };
        let used = self.uses.entry(rule).or_insert((counts.last_ns, 0));
        used.0 = used.0.max(counts.last_ns);
        used.1 = used.1.saturating_add(counts.answered.max(counts.asked));
        true
    }

    /// As in "from 2026-11-22 15:00:00 to 2026-11-22 16:00:00".
    pub(super) fn show_span(&self) -> String {
        let first_ns = self.first_ns.unwrap_or(0);
        format!("from {} to {}", show_moment(first_ns), show_moment(self.last_ns))
    }

    /// What the captures can't tell.
    pub(super) fn list_notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        match (self.from_servers, self.to_servers) {
            _ if self.is_from_gate => {}
            (0, 0) => notes.push("no packet comes from a server or goes to one".to_owned()),
            (0, _) => notes.push(
                "no packet comes from a server: one direction was captured. Of TCP the other one is known by what \
                 follows. Whether datagrams were answered is unknown"
                    .to_owned(),
            ),
            (_, 0) => notes.push(
                "no packet goes to a server: one direction was captured. Of TCP the other one is known by what \
                 follows. Whether datagrams were answered is unknown"
                    .to_owned(),
            ),
            _ => {}
        }
        if !self.has_macs && self.packets > 0 {
            notes.push(
                "the captures have no MACs of the link, so a forged address would not be noticed, and the two \
                 addresses of one machine are two servers"
                    .to_owned(),
            );
        }
        let before = self.before.len() as u64 + self.more_before;
        if before > 0 {
            let first: Vec<String> = self.before.keys().take(3).map(show_before).collect();
            notes.push(format!(
                "{before} connections began before the capture, so nobody knows who opened them: {}{}",
                first.join(", "),
                if before > 3 { ", ..." } else { "" }
            ));
        }
        for (count, what) in [
            (
                self.unread,
                "packets could not be read: too little of them was captured, or their link type is unknown",
            ),
            (
                self.forgotten,
                "connections were forgotten for want of room. What went on of them counts as begun before",
            ),
            (self.scope.crowded, "openings were of servers that found no room"),
            (
                self.evidence.servers.values().map(|server| server.folded).sum(),
                "answered openings were of services that found no room",
            ),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        if self.has_dhcp {
            notes.push("somebody asks for an address by DHCP: if servers do, set `dhcp = true`".to_owned());
        }
        notes
    }

    /// Whether one direction is missing, so that nobody knows which datagrams were answered.
    pub(super) fn is_one_way(&self) -> bool {
        (self.from_servers == 0) != (self.to_servers == 0)
    }

    /// Whether an unanswered opening is all that can be expected.
    pub(super) fn needs_no_answer(service: &Service) -> bool {
        service.direction == Direction::Out && everyday::is_one_way(service.protocol, service.port)
    }
}

fn show_before((server, port, peer, peer_port, protocol): &(IpAddr, u16, IpAddr, u16, u8)) -> String {
    let protocol = crate::net::name_protocol(*protocol);
    format!("{server} port {port} with {peer} port {peer_port} ({protocol})")
}
