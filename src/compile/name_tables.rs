//! Names as destinations, as tables.

use ipnet::IpNet;

use crate::net::DomainName;
use crate::policy::NameSources;
use crate::resolve::Lookup;

/// Names as destinations, and whose answers say their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameTables {
    /// The names that needs have, sorted. The index is a name's number.
    pub names: Vec<DomainName>,
    /// Which profiles have a need with a name: profile and number, sorted. Profile 0: any.
    pub needs: Vec<(u32, u32)>,
    /// The names of sets of peers, sorted by set and number.
    pub peers: Vec<NamePeerRow>,
    /// Where their addresses come from.
    pub sources: NameSources,
    /// What names may not point to, and what they may all the same: `enum name_range`.
    pub ranges: Vec<(IpNet, u32)>,
    /// Whether a server forwards, so that its answers are everybody's.
    pub has_forwarder: bool,
    /// Whether a server may ask the resolvers for these names alone.
    pub is_asked_by_name: bool,
    /// What this machine was answered before the policy is the live one: grants for all servers from then on. The
    /// compiler leaves it empty.
    pub seeds: Vec<Lookup>,
}

/// A name of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamePeerRow {
    /// The set, from 1.
    pub set: u32,
    /// The name's number.
    pub name: u32,
    /// The rule that holds for it, never 0.
    pub rule: u32,
}
