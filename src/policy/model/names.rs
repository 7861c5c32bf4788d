//! `[names]`: whose answers count, and what names may point to.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::location::Location;
use crate::net::DomainName;

/// Prefixes, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(pub Vec<(IpNet, Location)>);

impl Prefixes {
    /// The prefixes without their places.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().map(|(prefix, _)| *prefix)
    }
}

/// Addresses and sets of resolvers, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolvers(pub Vec<(String, Location)>);

impl Resolvers {
    /// The texts without their places.
    pub fn iter(&self) -> impl Iterator<Item = &str> + '_ {
        self.0.iter().map(|(text, _)| text.as_str())
    }
}

/// For how many seconds an answer opens its addresses: at least and at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// At least.
    pub floor_s: u32,
    /// At most.
    pub cap_s: u32,
}

impl Default for TimeToLive {
    fn default() -> Self {
        Self { floor_s: 300, cap_s: 86_400 }
    }
}

impl fmt::Display for TimeToLive {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}, {}", self.floor_s, self.cap_s)
    }
}

/// What of a policy says where the addresses of its names come from. Empty if no need has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameSources {
    /// The names that needs have, each once, sorted.
    pub names: Vec<DomainName>,
    /// The resolvers whose answers count.
    pub resolvers: Vec<IpAddr>,
    /// The interfaces by which their answers may come. Empty: those that the routing table has.
    pub interfaces: Vec<String>,
    /// Whether a resolver may be used whose answers can be forged from outside.
    pub forgeable: bool,
    /// Whether this machine asks for the exact names as well.
    pub resolve: bool,
}

impl NameSources {
    /// The names that this machine asks for: exact ones, if the policy wants that.
    pub fn list_asked(&self) -> Vec<DomainName> {
        let exact = self.names.iter().filter(|name| self.resolve && !name.is_wildcard());
        exact.cloned().collect()
    }
}
