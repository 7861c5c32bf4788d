//! The line of a policy that decides about a packet which no rule permits.

use crate::abi::Reason;
use crate::policy::{Direction, Need, Policy, Questions, Server};

/// A packet that no rule permits.
#[derive(Clone, Copy, Debug)]
pub struct Unpermitted<'p> {
    /// The server that sends it. `None`: no server has its source address.
    pub server: Option<&'p Server>,
    /// The program's reason.
    pub reason: Option<Reason>,
    /// IP protocol number.
    pub protocol: u8,
    /// The port or ICMP type of the service.
    pub port: u16,
    /// MAC of the sender.
    pub source_mac: [u8; 6],
}

/// For a packet that no rule permits: the need that nearly does, and the line to change.
pub fn find_nearest(packet: &Unpermitted<'_>, policy: &Policy) -> (Option<String>, Option<u32>) {
    let reason = packet.reason;
    let Some(server) = packet.server else {
        let setting = policy.settings.unknown_sources.place;
        let line = setting.map(|place| place.line);
        return (None, line.filter(|_| reason == Some(Reason::UnknownSource)));
    };
    let find = |direction: Direction| {
        let roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
        let management = policy.settings.management.iter();
        roles
            .flat_map(|role| role.needs())
            .chain(management)
            .find(|need| covers(need, direction, packet))
            .map(|need| (Some(need.to_string()), Some(need.place.line)))
    };
    let of_server = (None, Some(server.roles_place.line));
    match reason {
        Some(Reason::Destination) => find(Direction::Out).unwrap_or(of_server),
        Some(Reason::Question) => find_strict_role(server, policy).unwrap_or(of_server),
        Some(Reason::Stranger) => find(Direction::In).unwrap_or(of_server),
        Some(Reason::Spoofed) => {
            let is_own = server.macs.iter().any(|(mac, _)| *mac == packet.source_mac);
            let place = server
                .macs
                .first()
                .filter(|_| !is_own)
                .map(|(_, place)| *place)
                .or(server.vlan.map(|(_, place)| place));
            (None, place.map(|place| place.line))
        }
        Some(
            Reason::NewFlow
            | Reason::Protocol
            | Reason::NoFlow
            | Reason::UnlistedService
            | Reason::Backscatter
            | Reason::Rate,
        ) => find(Direction::Quiet).unwrap_or(of_server),
        // No single line decides: they are about the frame, a flow or a quarantine, or the program names the rule.
        Some(
            Reason::LinkLayer
            | Reason::Neighbour
            | Reason::Dhcp
            | Reason::UnknownAllowed
            | Reason::LaterFragment
            | Reason::Reply
            | Reason::Pickup
            | Reason::Need
            | Reason::OwnConnection
            | Reason::FlowError
            | Reason::Router
            | Reason::Handover
            | Reason::Ethertype
            | Reason::Malformed
            | Reason::SourceRoute
            | Reason::RogueRouter
            | Reason::UnknownSource
            | Reason::Quarantined
            | Reason::Fragment
            | Reason::Elsewhere
            | Reason::Denied,
        )
        | None => (None, None),
    }
}

/// Where the first role is that lets the server ask for names of the policy alone.
fn find_strict_role(server: &Server, policy: &Policy) -> Option<(Option<String>, Option<u32>)> {
    let mut roles = server.roles.iter().filter_map(|(name, _)| policy.find_role(name));
    let place = roles.find_map(|role| role.dns.filter(|(questions, _)| *questions == Questions::Named))?.1;
    Some((None, Some(place.line)))
}

fn covers(need: &Need, direction: Direction, packet: &Unpermitted<'_>) -> bool {
    need.direction == direction && need.protocol == packet.protocol && need.ports.contains(&packet.port)
}
