//! Named sets and maps: addresses of servers, peers of needs, limits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use ipnet::IpNet;

use super::names::{cite, quote};
use crate::net::{range_of, show_mac, show_prefix, subtract};
use crate::policy::{Need, Peer, Policy, Server};

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Family; 2] = [Family::V4, Family::V6];

    pub(super) fn of(prefix: &IpNet) -> Family {
        if prefix.addr().is_ipv6() { Family::V6 } else { Family::V4 }
    }

    /// As in `ip saddr`.
    pub(super) fn header(self) -> &'static str {
        match self {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        }
    }

    /// As in `meta nfproto`.
    pub(super) fn protocol(self) -> &'static str {
        match self {
            Family::V4 => "ipv4",
            Family::V6 => "ipv6",
        }
    }

    fn address_type(self) -> &'static str {
        match self {
            Family::V4 => "ipv4_addr",
            Family::V6 => "ipv6_addr",
        }
    }

    /// The end of a set's name.
    pub(super) fn suffix(self) -> char {
        match self {
            Family::V4 => '4',
            Family::V6 => '6',
        }
    }
}

/// All named sets so far.
pub(super) struct Sets<'p> {
    policy: &'p Policy,
    /// Prefixes that don't overlap, with the server that has each: the longest prefix wins.
    pieces: Vec<(IpNet, usize)>,
    /// Sets of peers by their members.
    known: HashMap<Vec<IpNet>, String>,
    text: String,
}

impl<'p> Sets<'p> {
    pub(super) fn new(policy: &'p Policy) -> Self {
        Self { policy, pieces: cut_servers(policy), known: HashMap::new(), text: String::new() }
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    /// The addresses of some servers, without those that other servers have.
    fn pieces_of<'s>(
        &'s self,
        family: Family,
        has: impl Fn(&Server) -> bool + 's,
    ) -> impl Iterator<Item = (&'s IpNet, &'p Server)> + 's {
        let policy = self.policy;
        self.pieces.iter().filter_map(move |(piece, server)| {
            let server = policy.servers.get(*server)?;
            (Family::of(piece) == family && has(server)).then_some((piece, server))
        })
    }

    fn define(&mut self, kind: &str, name: &str, of: &str, flags: &str, elements: &[String]) {
        let _ = write!(self.text, "    {kind} {name} {{\n        type {of}\n{flags}        elements = {{ ");
        let _ = write!(self.text, "{} }}\n    }}\n", elements.join(",\n                     "));
    }

    /// Defines the set of the addresses of some servers, and returns its name. `None`: there are none of this family.
    pub(super) fn define_servers(
        &mut self,
        stem: &str,
        family: Family,
        has: impl Fn(&Server) -> bool,
    ) -> Option<String> {
        let elements: Vec<String> =
            self.pieces_of(family, has).map(|(piece, _)| show_prefix(piece)).collect();
        self.define_addresses(&format!("{stem}_{}", family.suffix()), family, &elements)
    }

    /// As [`Sets::define_servers`], of addresses.
    pub(super) fn define_addresses(
        &mut self,
        name: &str,
        family: Family,
        elements: &[String],
    ) -> Option<String> {
        if elements.is_empty() {
            return None;
        }
        self.define("set", name, family.address_type(), "        flags interval\n", elements);
        Some(format!("@{name}"))
    }

    /// Defines the set of the addresses of some servers, each together with what frames from there have.
    pub(super) fn define_bindings(
        &mut self,
        stem: &str,
        family: Family,
        of: &str,
        bind: impl Fn(&Server) -> Vec<String>,
    ) -> Option<String> {
        let elements: Vec<String> = self
            .pieces_of(family, |_| true)
            .flat_map(|(piece, server)| {
                let piece = show_prefix(piece);
                bind(server).into_iter().map(move |bound| format!("{piece} . {bound}"))
            })
            .collect();
        if elements.is_empty() {
            return None;
        }
        let name = format!("{stem}_{}", family.suffix());
        let of = format!("{} . {of}", family.address_type());
        self.define("set", &name, &of, "        flags interval\n", &elements);
        Some(format!("@{name}"))
    }

    /// Defines a set of anything else, and returns its name. `None`: it would be empty.
    pub(super) fn define_plain(
        &mut self,
        name: &str,
        of: &str,
        elements: BTreeSet<String>,
    ) -> Option<String> {
        if elements.is_empty() {
            return None;
        }
        self.define("set", name, of, "", &elements.into_iter().collect::<Vec<_>>());
        Some(format!("@{name}"))
    }

    /// Defines the map from each address to the chain of its server's needs.
    pub(super) fn define_dispatch(
        &mut self,
        family: Family,
        chain_of: impl Fn(&Server) -> String,
    ) -> Option<String> {
        let policy = self.policy;
        let elements: Vec<String> = self
            .pieces_of(family, |_| true)
            .map(|(piece, server)| {
                let comment = cite(policy, &server.place, &server.name);
                format!("{}{comment} : goto {}", show_prefix(piece), chain_of(server))
            })
            .collect();
        if elements.is_empty() {
            return None;
        }
        let name = format!("servers_{}", family.suffix());
        let of = format!("{} : verdict", family.address_type());
        self.define("map", &name, &of, "        flags interval\n", &elements);
        Some(format!("@{name}"))
    }

    /// Defines one limit a server that has the need, and the maps to find them. Returns what asks them.
    pub(super) fn define_limits(
        &mut self,
        number: usize,
        need: &Need,
        servers: &BTreeSet<String>,
    ) -> Vec<(Family, String)> {
        let Some(limit) = need.limit else {
            return Vec::new();
        };
        let unit = if limit.per_seconds == 60 { "minute" } else { "second" };
        for server in servers {
            let _ = writeln!(
                self.text,
                "    limit limit_{number}_{server} {{\n        \
                 rate {count}/{unit} burst {count} packets\n    }}",
                count = limit.count
            );
        }
        let mut asks = Vec::new();
        for family in Family::ALL {
            let elements: Vec<String> = self
                .pieces_of(family, |server| servers.contains(&server.name))
                .map(|(piece, server)| format!("{} : \"limit_{number}_{}\"", show_prefix(piece), server.name))
                .collect();
            if elements.is_empty() {
                continue;
            }
            let name = format!("limits_{number}_{}", family.suffix());
            let of = format!("{} : limit", family.address_type());
            self.define("map", &name, &of, "        flags interval\n", &elements);
            asks.push((family, format!("limit name {} saddr map @{name}", family.header())));
        }
        asks
    }

    /// What names the peers of a need in one family: an address or a set. `None`: it has none of that family.
    pub(super) fn name_peers(&mut self, need: &Need, family: Family) -> Option<String> {
        let all = IpNet::aggregate(&need.resolve_peers(&self.policy.sets));
        let members: Vec<IpNet> = all.into_iter().filter(|peer| Family::of(peer) == family).collect();
        if let [only] = members.as_slice() {
            return Some(show_prefix(only));
        }
        if members.is_empty() {
            return None;
        }
        if let Some(name) = self.known.get(&members) {
            return Some(name.clone());
        }
        let (name, note) = match need.peers.as_slice() {
            [Peer::Set(name)] => {
                let place = self.policy.sets.get(name).map(|set| self.policy.locate(&set.place));
                (format!("set_{name}"), place.unwrap_or_default())
            }
            [Peer::Server(name, _)] => (format!("server_{name}"), name.clone()),
            _ => (format!("peers_{}", self.known.len() + 1), self.policy.locate(&need.place)),
        };
        let name = format!("{name}_{}", family.suffix());
        let elements: Vec<String> = members.iter().map(show_prefix).collect();
        let _ = writeln!(self.text, "    # {}", super::names::comment_out(&note));
        self.define("set", &name, family.address_type(), "        flags interval\n", &elements);
        self.known.insert(members, format!("@{name}"));
        Some(format!("@{name}"))
    }

    /// Defines the addresses of the policy's routers, each with its MACs.
    pub(super) fn define_routers(&mut self, family: Family) -> Option<String> {
        let of = |address: &std::net::IpAddr| Family::of(&IpNet::from(*address)) == family;
        let routers = &self.policy.routers;
        let elements: BTreeSet<String> = routers
            .iter()
            .flat_map(|router| {
                let own = router.addresses.iter().filter(|(address, _)| of(address));
                own.flat_map(|(address, _)| {
                    router.macs.iter().map(move |(mac, _)| format!("{address} . {}", show_mac(mac)))
                })
            })
            .collect();
        let of = format!("{} . ether_addr", family.address_type());
        self.define_plain(&format!("routers_{}", family.suffix()), &of, elements)
    }

    /// A chain's own comment.
    pub(super) fn describe_chain(text: &str) -> String {
        format!("       {}\n", quote(text))
    }
}

/// The prefixes of all servers, cut so that none overlaps another.
fn cut_servers(policy: &Policy) -> Vec<(IpNet, usize)> {
    let mut all: BTreeMap<IpNet, usize> = BTreeMap::new();
    for (index, server) in policy.servers.iter().enumerate() {
        all.extend(server.addresses.iter().map(|(prefix, _)| (*prefix, index)));
    }
    let mut pieces = Vec::with_capacity(all.len());
    for (prefix, server) in &all {
        if prefix.prefix_len() == prefix.max_prefix_len() {
            pieces.push((*prefix, *server));
            continue;
        }
        let inside: Vec<IpNet> =
            all.range(range_of(*prefix)).map(|(other, _)| *other).filter(|other| other != prefix).collect();
        pieces.extend(subtract(*prefix, &inside).into_iter().map(|piece| (piece, *server)));
    }
    pieces
}
