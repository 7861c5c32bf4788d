//! From a policy to the rows of the kernel's tables. Nothing here touches the kernel.
//!
//! Servers with the same roles share a *profile*. For each profile and protocol the port space is
//! cut into disjoint ranges, so that one lookup tells what holds for a port in every direction.
//! What depends on the peer is a *set* of prefixes. The longest prefix that contains the peer
//! decides.
//!
//! Data goes one way: `rules` numbers and ranks the needs, `flatten` cuts them into rows of ports, with
//! the sets of `peers`, and `room` says whether the rows fit. `encode` makes keys and values of maps
//! of them.

mod encode;
mod flatten;
mod lookup;
mod peers;
mod ports;
mod quota;
mod room;
mod rules;
mod services;
mod settings;
mod sports;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;

use crate::policy::{Diagnostics, Direction, Limit, Mode, Policy, Source};
pub use encode::{EncodedPolicy, SourceChunk, encode, encode_settings, list_token_buckets};
use flatten::flatten_profiles;
pub use quota::RowQuotas;
use room::Room;
use rules::Rulebook;
pub use services::ServiceIndex;
pub use settings::{CompiledSettings, describe_flags};
use sports::split_sports;

/// A compiled policy. The same policy text always gives the same tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// What holds for all packets.
    pub settings: CompiledSettings,
    /// Names of the servers, in the order of the file. The index is a server's number.
    pub names: Vec<String>,
    /// Addresses of the servers, in the order of the file.
    pub servers: Vec<ServerRow>,
    /// Addresses of routers, each with all its MACs, in the order of the file.
    pub routers: Vec<(IpAddr, Vec<[u8; 6]>)>,
    /// Sorted by profile, protocol and port. The ranges of one profile and protocol don't overlap.
    pub needs: Vec<NeedRow>,
    /// Sorted by profile, protocol and port; the ranges of one profile and protocol don't overlap.
    pub sports: Vec<SportRow>,
    /// Sorted by set, family, address and length.
    pub peers: Vec<PeerRow>,
    /// The index is a rule's number. Rule 0 is a placeholder for no rule.
    pub rules: Vec<RuleRow>,
}

/// An address or prefix of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerRow {
    /// The address (a prefix of full length) or prefix. Each stands once, and the longest one wins.
    pub prefix: IpNet,
    /// Index into [`Tables::names`].
    pub server: usize,
    /// The profile, from 1.
    pub profile: u32,
    /// Whether packets that are not allowed pass, counted and reported.
    pub observe: bool,
    /// The only MACs that may use it; empty: any.
    pub macs: Vec<[u8; 6]>,
    /// The only VLAN (1 to 4094) in which it may be used.
    pub vlan: Option<u16>,
}

/// What holds for a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedRow {
    /// The profile. Profile 0 is for sources of no server, and has only the `quiet` needs of all roles.
    pub profile: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Ports, ICMP types, or `0..=0` for protocols that have neither.
    pub ports: RangeInclusive<u16>,
    /// What peers may open on these ports of the server.
    pub inbound: PeerMatch,
    /// What the server may open to these ports of a peer.
    pub outbound: PeerMatch,
    /// Drops without an alarm.
    pub quiet: PeerMatch,
}

/// A profile for what a server opens from a range of its own ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SportRow {
    /// The server's profile.
    pub profile: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Ports of the server.
    pub ports: RangeInclusive<u16>,
    /// The profile whose needs hold as well. No server has it.
    pub needs: u32,
}

/// The rule for a peer: that of the longest prefix in `set` which contains the peer, otherwise `any`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PeerMatch {
    /// The rule that holds for every peer. 0: none.
    pub any: u32,
    /// The set in which the peer is looked up first. 0: none.
    pub set: u32,
}

/// A prefix of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRow {
    /// The set, from 1.
    pub set: u32,
    /// An address (a prefix of full length) or prefix. No IPv6 prefix contains IPv4-mapped addresses.
    pub prefix: IpNet,
    /// The rule that holds for these peers, never 0.
    pub rule: u32,
}

/// A need of a role, of the management, or towards the link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleRow {
    /// The need in canonical form.
    pub need: String,
    /// Which side may open a flow.
    pub direction: Direction,
    /// The role that it belongs to. `None`: management.
    pub role: Option<Arc<str>>,
    /// Line of the file, from 1. 0: the placeholder.
    pub line: u32,
    /// Column in characters, from 1. 0: the placeholder.
    pub column: u32,
    /// Whether it stays open in quarantine.
    pub management: bool,
    /// How many flows one server may open by it.
    pub limit: Option<Limit>,
    /// Names the token buckets of this rule. It stays the same as long as the need and the name of the
    /// role do, so that buckets outlive a change of policy. Unique within a policy, and 0 only for the
    /// placeholder.
    pub limit_key: u32,
}

/// Compiles a policy.
///
/// # Errors
/// When its rows don't fit into the tables, whose sizes are settings of the policy.
pub fn compile(policy: &Policy) -> Result<Tables, Diagnostics> {
    let book = Rulebook::new(policy);
    let mut room = Room::new(policy);
    let (mut profiles, profile_of) = number_profiles(policy, &book);
    let mut servers = Vec::new();
    for (index, server) in policy.servers.iter().enumerate() {
        for (prefix, place) in &server.addresses {
            room.take_server(place);
            servers.push(ServerRow {
                prefix: *prefix,
                server: index,
                profile: profile_of.get(index).copied().unwrap_or_default(),
                observe: policy.mode_of(server) == Mode::Observe,
                macs: server.macs.iter().map(|(mac, _)| *mac).collect(),
                vlan: server.vlan.map(|(vlan, _)| vlan),
            });
        }
    }
    let sports = split_sports(&mut profiles, &book, &mut room);
    let (needs, peers) = flatten_profiles(&profiles, &book, &mut room);
    let findings = room.finish();
    if !findings.is_empty() {
        return Err(Diagnostics::gather(findings, &Source::new(&policy.file, &policy.text)));
    }
    Ok(Tables {
        settings: CompiledSettings::of(policy),
        names: policy.servers.iter().map(|server| server.name.clone()).collect(),
        servers,
        routers: list_routers(policy),
        needs,
        sports,
        peers,
        rules: book.into_rows(),
    })
}

fn list_routers(policy: &Policy) -> Vec<(IpAddr, Vec<[u8; 6]>)> {
    let rows = policy.routers.iter().flat_map(|router| {
        let macs: Vec<[u8; 6]> = router.macs.iter().map(|(mac, _)| *mac).collect();
        router.addresses.iter().map(move |(address, _)| (*address, macs.clone()))
    });
    rows.collect()
}

/// What the servers of one profile have in common.
struct Profile {
    /// Rules that hold, each once, in the order of their numbers.
    rules: Vec<u32>,
    /// Where the first server with these roles names them.
    place: std::ops::Range<usize>,
}

/// Numbers the distinct sets of roles in the order of the servers, and tells each server's. Profile
/// Numbers the distinct sets of roles in the order of the servers, and returns each server's number.
/// Profile 0 is for sources of no server: drops that are quiet for any role are quiet for them.
fn number_profiles(policy: &Policy, book: &Rulebook<'_>) -> (Vec<Profile>, Vec<u32>) {
    let role_numbers: HashMap<&str, usize> =
        policy.roles.iter().enumerate().map(|(index, role)| (role.name.as_str(), index)).collect();
    let nobodys = book.rules_of_nobody();
    let first = nobodys.first().and_then(|rule| book.need(*rule)).map(|need| need.place).unwrap_or_default();
    let mut profiles = vec![Profile { rules: nobodys, place: first.start..first.end }];
    let mut known: HashMap<Vec<usize>, u32> = HashMap::new();
    let mut profile_of = Vec::with_capacity(policy.servers.len());
    for server in &policy.servers {
        let mut roles: Vec<usize> =
            server.roles.iter().filter_map(|(name, _)| role_numbers.get(name.as_str()).copied()).collect();
        roles.sort_unstable();
        roles.dedup();
        let number = *known.entry(roles).or_insert_with_key(|roles| {
            let place = server.roles_place.start..server.roles_place.end;
            profiles.push(Profile { rules: book.rules_of(roles), place });
            u32::try_from(profiles.len() - 1).unwrap_or(u32::MAX)
        });
        profile_of.push(number);
    }
    (profiles, profile_of)
}
