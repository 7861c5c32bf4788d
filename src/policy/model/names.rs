//! `[names]`: whose answers count, and what names may point to.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::keys::{ToValue, Value, keys};
use super::location::{Located, Location};
use super::values::Texts;
use crate::net::{DomainName, show_prefix};

/// Prefixes, each with its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes(pub Vec<(IpNet, Location)>);

impl Prefixes {
    /// The prefixes without their places.
    pub fn iter(&self) -> impl Iterator<Item = IpNet> + '_ {
        self.0.iter().map(|(prefix, _)| *prefix)
    }
}

impl ToValue for Prefixes {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(|prefix| show_prefix(&prefix)).collect())
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

impl ToValue for Resolvers {
    fn to_value(&self) -> Value {
        Value::List(self.iter().map(str::to_owned).collect())
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

impl ToValue for TimeToLive {
    fn to_value(&self) -> Value {
        Value::Numbers(vec![self.floor_s, self.cap_s])
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

keys! {
    /// `[names]`: names as destinations.
    NameSettings {
        /// Addresses and sets of the resolvers whose answers count.
        "resolvers" resolvers: Resolvers = Resolvers::default(), resolvers();
        /// Interfaces by which their answers may come. Empty: those that the routing table has.
        "from" from: Texts = Texts::default(), interfaces();
        /// What names may point to although others like it are not to be granted.
        "private" private: Prefixes = Prefixes::default(), prefixes();
        /// Seconds for which an answer opens its addresses, at least and at most.
        "ttl" ttl: TimeToLive = TimeToLive::default(), time_to_live();
        /// Prefixes of NAT64, whose embedded addresses decide.
        "nat64" nat64: Prefixes = Prefixes::default(), nat64_prefixes();
        /// Whether a resolver may be used whose answers can be forged from outside.
        "forgeable" forgeable: Located<bool> = Located::default(), boolean();
        /// Whether this machine asks for the exact names as well.
        "resolve" resolve: bool = false, flag();
    }
}
