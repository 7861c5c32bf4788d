//! A need: one line of a role, `PROTO[/PORT[-PORT]|/TYPE] [to|from ADDRESS|PREFIX|@SET|SERVER[, ...]]
//! [sport PORT[-PORT]] [limit N/s|N/m]`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::location::Location;
use super::set::Set;
use crate::net::{self, DomainName, Selector, show_prefix};

/// The direction of connection establishment that a need is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Peers may open it on the server.
    In,
    /// The server may open it.
    Out,
    /// The server may not open it, but its attempts raise no alarm.
    Quiet,
}

impl Direction {
    /// Every direction.
    pub const ALL: [Self; 3] = [Self::In, Self::Out, Self::Quiet];

    /// The key of a role that holds needs of this direction.
    pub fn key(self) -> &'static str {
        match self {
            Self::In => "in",
            Self::Out => "out",
            Self::Quiet => "quiet",
        }
    }

    /// The word before the peers: `from` for `in`, `to` for `out` and `quiet`.
    pub fn preposition(self) -> &'static str {
        match self {
            Self::In => "from",
            Self::Out | Self::Quiet => "to",
        }
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.key())
    }
}

/// One entry of a need's list of peers. The order is that of the canonical form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// An address (a prefix of full length) or a prefix without host bits.
    Prefix(IpNet),
    /// All members of the set of this name.
    Set(String),
    /// All addresses and prefixes of the server of this name.
    Server(String, Arc<[IpNet]>),
    /// The addresses that a name is seen to have.
    Name(DomainName),
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => out.write_str(&show_prefix(prefix)),
            Self::Set(name) => write!(out, "@{name}"),
            Self::Server(name, _) => out.write_str(name),
            Self::Name(name) => name.fmt(out),
        }
    }
}

/// A cap on the new flows that one server may open by one `out` need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Limit {
    /// New flows (TCP SYNs, UDP datagrams), at least one.
    pub count: u32,
    /// In this many seconds: 1 or 60.
    pub per_seconds: u32,
}

impl Limit {
    /// A number by which limits are compared: flows per minute.
    pub fn per_minute(self) -> u64 {
        u64::from(self.count) * 60 / u64::from(self.per_seconds.max(1))
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.count, if self.per_seconds == 60 { "m" } else { "s" })
    }
}

/// One need. Its `Display` is the canonical form: equal needs print alike, and the parser takes that form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The list of its role that has it.
    pub direction: Direction,
    /// IP protocol number (of IPv6: the last next header).
    pub protocol: u8,
    /// The server's ports for `in`, the peer's for `out` and `quiet`; types for the ICMPs; `0..=0`
    /// for protocols that have neither.
    pub ports: RangeInclusive<u16>,
    /// Sorted, each once. Empty means every peer.
    pub peers: Vec<Peer>,
    /// The server's own ports. Only for `out`; `None` means every port.
    pub sport: Option<RangeInclusive<u16>>,
    /// Only for `out`.
    pub limit: Option<Limit>,
    /// Where the file says so.
    pub place: Location,
}

impl Need {
    /// The sets that it names.
    pub fn set_names(&self) -> impl Iterator<Item = &str> {
        self.peers.iter().filter_map(|peer| match peer {
            Peer::Set(name) => Some(name.as_str()),
            Peer::Prefix(_) | Peer::Server(..) | Peer::Name(_) => None,
        })
    }

    /// The peers as prefixes, with sets and servers replaced by what they have: sorted, each once. Empty means every peer, unless
    /// [`Need::resolve_names`] has some.
    pub fn resolve_peers(&self, sets: &BTreeMap<String, Set>) -> Vec<IpNet> {
        let mut prefixes = Vec::new();
        for peer in &self.peers {
            match peer {
                Peer::Prefix(prefix) => prefixes.push(*prefix),
                Peer::Server(_, addresses) => prefixes.extend(addresses.iter()),
                Peer::Name(_) => (),
                Peer::Set(name) => prefixes.extend(sets.get(name).into_iter().flat_map(|set| set.prefixes())),
            }
        }
        prefixes.sort_unstable();
        prefixes.dedup();
        prefixes
    }
}

impl Need {
    /// The names among the peers, with sets replaced by what they have: sorted, each once.
    pub fn resolve_names(&self, sets: &BTreeMap<String, Set>) -> Vec<DomainName> {
        let mut names = Vec::new();
        for peer in &self.peers {
            match peer {
                Peer::Name(name) => names.push(name.clone()),
                Peer::Set(name) => {
                    let set = sets.get(name).into_iter().flat_map(|set| &set.names);
                    names.extend(set.map(|(name, _)| name.clone()));
                }
                Peer::Prefix(_) | Peer::Server(..) => (),
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// Needs of every server towards the link itself. They are `out` needs without peers, `sport` and `limit`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkServices(pub Vec<Need>);

impl fmt::Display for Need {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No `..`, so that a new clause does not compile until it is printed.
        let Self { direction, protocol, ports, peers, sport, limit, place: _ } = self;
        out.write_str(&net::name_protocol(*protocol))?;
        let selector = Selector::of(*protocol);
        let (first, last) = (*ports.start(), *ports.end());
        if *ports != selector.whole() {
            match selector {
                Selector::Type => write!(out, "/{}", net::name_icmp_type(*protocol, first))?,
                _ if first == last => write!(out, "/{first}")?,
                _ => write!(out, "/{first}-{last}")?,
            }
        }
        for (index, peer) in peers.iter().enumerate() {
            match index {
                0 => write!(out, " {} {peer}", direction.preposition())?,
                _ => write!(out, ", {peer}")?,
            }
        }
        if let Some(sport) = sport {
            match (*sport.start(), *sport.end()) {
                (first, last) if first == last => write!(out, " sport {first}")?,
                (first, last) => write!(out, " sport {first}-{last}")?,
            }
        }
        match limit {
            Some(limit) => write!(out, " limit {limit}"),
            None => Ok(()),
        }
    }
}
