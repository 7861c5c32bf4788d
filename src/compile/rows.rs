//! The rows of a compiled policy, before `encode` makes keys and values of maps of them. Pure data.

use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use ipnet::IpNet;

use super::name_tables::NameTables;
use super::settings::CompiledSettings;
use crate::policy::{Direction, Limit};

/// A compiled policy. The same policy text always gives the same tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Settings that hold for all packets.
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
    /// The index is a rule's number. Rule 0 is a placeholder for no rule. Behind the rules of the file stand
    /// those with a `next` one: copies of them.
    pub rules: Vec<RuleRow>,
    /// Names as destinations.
    pub destinations: NameTables,
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
    /// Whether what it is answered is for all servers.
    pub forwards: bool,
    /// Whether it may ask resolvers for names of the policy alone.
    pub named: bool,
}

/// The needs on a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeedRow {
    /// The profile. Profile 0 is for sources of no server, and has only the `quiet` needs of all roles.
    pub profile: u32,
    /// IP protocol number.
    pub proto: u8,
    /// Ports, ICMP types, or `0..=0` for protocols that have neither.
    pub ports: RangeInclusive<u16>,
    /// The rule by which peers may open these ports of the server.
    pub inbound: PeerMatch,
    /// The rule by which the server may open these ports of a peer.
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
    /// role do, so that buckets outlive a change of policy. No two rules of a file share one, and it is 0 only
    /// for the placeholder.
    pub limit_key: u32,
    /// The rule that is asked when this one's limit is used up. 0: none.
    pub next: u32,
}

/// The common part of all servers with one profile.
pub(super) struct Profile {
    /// Rules that hold, each once, in the order of their numbers.
    pub rules: Vec<u32>,
    /// Where the first server with these roles names them.
    pub place: Range<usize>,
}
