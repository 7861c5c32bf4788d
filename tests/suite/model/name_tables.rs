//! What is remembered of names: questions, streams, grants, and the connections that these have let pass.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portcullis::net::DomainName;

use super::dns::Question;
use super::flows::FlowKey;

/// One end of what is asked: server, resolver, and the server's port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Asker {
    pub server: String,
    pub resolver: IpAddr,
    pub port: u16,
}

#[derive(Clone, Debug)]
pub struct Query {
    pub(super) question: Question,
    pub asked_ns: u64,
}

/// A TCP connection to a resolver: where its next message begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    pub(super) first: u32,
    pub next: u32,
    pub lost: bool,
}

/// Server (none: all), address and name.
pub type GrantKey = (Option<String>, IpAddr, DomainName);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub answered_ns: u64,
    pub open_until_ns: u64,
    pub used_ns: u64,
    /// Grants of one address count in the order in which they were made.
    pub(super) number: u64,
}

/// A connection whose SYN a grant has let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    pub server: String,
    pub name: DomainName,
    pub last_ns: u64,
}

#[derive(Default)]
pub struct Names {
    /// By the id.
    pub queries: BTreeMap<(Asker, u16), Query>,
    pub streams: BTreeMap<Asker, Stream>,
    pub grants: BTreeMap<GrantKey, Grant>,
    pub connections: BTreeMap<FlowKey, Connection>,
    pub(super) made: u64,
    /// The index of an interface, by its name.
    pub index_of: Option<fn(&str) -> u32>,
    /// The resolvers that run on the router.
    pub local: Vec<IpAddr>,
}
