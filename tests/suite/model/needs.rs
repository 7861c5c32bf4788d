//! Questions to a policy, answered by reading it from top to bottom.

use std::net::IpAddr;

use portcullis::policy::{Need, Peer, Policy, Role, Server};

use super::packet::{ICMP, ICMPV6};

/// A need of a server, and the role it has it from; none for `management`.
#[derive(Clone, Copy)]
pub struct Rule<'p> {
    pub role: Option<&'p str>,
    pub need: &'p Need,
}

impl Rule<'_> {
    pub fn line(&self) -> u32 {
        self.need.place.line
    }
}

/// One end of a flow and the other: a need's port and who is there.
#[derive(Clone, Copy)]
pub struct Subject {
    pub protocol: u8,
    pub port: u16,
    pub peer: IpAddr,
    /// The server's own port, where the need is about another one.
    pub own_port: Option<u16>,
}

impl Subject {
    /// A service of the server.
    pub fn service(protocol: u8, port: u16, peer: IpAddr) -> Self {
        Self { protocol, port, peer, own_port: None }
    }
}

/// The server that has this address: the longest prefix wins.
pub fn find_server(policy: &Policy, address: IpAddr) -> Option<&Server> {
    policy
        .servers
        .iter()
        .flat_map(|server| server.addresses.iter().map(move |(prefix, _)| (prefix, server)))
        .filter(|(prefix, _)| prefix.contains(&address))
        .max_by_key(|(prefix, _)| prefix.prefix_len())
        .map(|(_, server)| server)
}

fn roles_of<'p>(policy: &'p Policy, server: &'p Server) -> impl Iterator<Item = &'p Role> {
    server.roles.iter().filter_map(|(name, _)| policy.find_role(name))
}

/// What peers may open on the server.
pub fn inbound<'p>(policy: &'p Policy, server: &'p Server) -> Vec<Rule<'p>> {
    let management = policy.settings.management.iter().map(|need| Rule { role: None, need });
    let of_roles = roles_of(policy, server)
        .flat_map(|role| role.inbound.iter().map(|need| Rule { role: Some(&role.name), need }));
    management.chain(of_roles).collect()
}

/// What the server may open.
pub fn outbound<'p>(policy: &'p Policy, server: &'p Server) -> Vec<Rule<'p>> {
    roles_of(policy, server)
        .flat_map(|role| role.outbound.iter().map(|need| Rule { role: Some(&role.name), need }))
        .collect()
}

/// What is denied the server without an alarm.
pub fn quiet<'p>(policy: &'p Policy, server: &'p Server) -> Vec<Rule<'p>> {
    roles_of(policy, server)
        .flat_map(|role| role.quiet.iter().map(|need| Rule { role: Some(&role.name), need }))
        .collect()
}

/// The rules that have protocol and port, whoever their peers are.
pub fn having_port<'p>(rules: &[Rule<'p>], subject: Subject) -> Vec<Rule<'p>> {
    rules.iter().copied().filter(|rule| has_port(rule.need, subject)).collect()
}

/// The rules that have protocol, port and peer.
pub fn matching<'p>(policy: &Policy, rules: &[Rule<'p>], subject: Subject) -> Vec<Rule<'p>> {
    rules
        .iter()
        .copied()
        .filter(|rule| has_port(rule.need, subject) && has_peer(policy, rule.need, subject.peer))
        .collect()
}

/// What everybody may ask the router from a link-local address.
pub fn link_services(policy: &Policy) -> Vec<Rule<'_>> {
    policy.settings.link_services.0.iter().map(|need| Rule { role: None, need }).collect()
}

/// Whether a server's name in a need stands for the peer.
pub fn is_peer_by_name(rules: &[Rule<'_>], peer: IpAddr) -> bool {
    rules.iter().flat_map(|rule| &rule.need.peers).any(|named| match named {
        Peer::Server(_, addresses) => addresses.iter().any(|prefix| prefix.contains(&peer)),
        Peer::Prefix(_) | Peer::Set(_) | Peer::Name(_) => false,
    })
}

/// Whether any role of the policy is quiet about this, whoever has the role.
pub fn any_role_quiet(policy: &Policy, subject: Subject) -> Vec<u32> {
    policy
        .roles
        .iter()
        .flat_map(|role| &role.quiet)
        .filter(|need| has_port(need, subject) && has_peer(policy, need, subject.peer))
        .map(|need| need.place.line)
        .collect()
}

pub fn has_port(need: &Need, subject: Subject) -> bool {
    // decided: the ICMP of one family in packets of the other is nobody's need.
    let foreign = match subject.protocol {
        ICMP => subject.peer.is_ipv6(),
        ICMPV6 => subject.peer.is_ipv4(),
        _ => false,
    };
    let from_there = match &need.sport {
        None => true,
        Some(sport) => subject.own_port.is_some_and(|port| sport.contains(&port)),
    };
    !foreign && from_there && need.protocol == subject.protocol && need.ports.contains(&subject.port)
}

fn has_peer(policy: &Policy, need: &Need, peer: IpAddr) -> bool {
    need.peers.is_empty() || need.resolve_peers(&policy.sets).iter().any(|prefix| prefix.contains(&peer))
}
