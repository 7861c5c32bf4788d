//! Holders: which server has which addresses under one policy. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::compile::Tables;
use crate::net::subtract;

/// The addresses and prefixes of a policy with the names of their servers. The longest prefix wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Holders {
    rows: BTreeMap<IpNet, Arc<str>>,
}

impl Holders {
    /// Of rows, each prefix once.
    pub(super) fn new(rows: impl IntoIterator<Item = (IpNet, Arc<str>)>) -> Holders {
        Holders { rows: rows.into_iter().collect() }
    }

    /// Of a compiled policy.
    pub(super) fn of(tables: &Tables) -> Holders {
        let names: Vec<Arc<str>> = tables.names.iter().map(|name| name.as_str().into()).collect();
        let rows = tables.servers.iter();
        Holders::new(rows.filter_map(|row| Some((row.prefix, Arc::clone(names.get(row.server)?)))))
    }

    /// The server that has an address.
    pub(super) fn find(&self, address: IpAddr) -> Option<&Arc<str>> {
        self.rows.get(&IpNet::from(address)).or_else(|| {
            let holding = self.rows.iter().filter(|(prefix, _)| prefix.contains(&address));
            holding.max_by_key(|(prefix, _)| prefix.prefix_len()).map(|(_, name)| name)
        })
    }

    /// The names of all servers.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.rows.values().map(|name| &**name).collect()
    }

    /// Every prefix that a server has.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.rows.keys().copied().collect()
    }

    /// The prefixes of a server, and those in them that other servers have.
    pub(super) fn rows_of(&self, name: &str) -> (Vec<IpNet>, Vec<IpNet>) {
        let own: Vec<IpNet> =
            self.rows.iter().filter(|(_, holder)| &***holder == name).map(|(prefix, _)| *prefix).collect();
        let wide: Vec<IpNet> =
            own.iter().filter(|prefix| prefix.prefix_len() < prefix.max_prefix_len()).copied().collect();
        if wide.is_empty() {
            return (own, Vec::new());
        }
        let others = self
            .rows
            .iter()
            .filter(|(prefix, holder)| &***holder != name && wide.iter().any(|wide| wide.contains(*prefix)));
        let others = others.map(|(prefix, _)| *prefix).collect();
        (own, others)
    }

    /// The addresses of a server, without those in its prefixes that other servers have.
    pub(super) fn addresses_of(&self, name: &str) -> Vec<IpNet> {
        let (own, others) = self.rows_of(name);
        own.iter()
            .flat_map(|prefix| {
                // an address of the server's own may lie in another server's prefix
                let inside: Vec<IpNet> =
                    others.iter().filter(|other| prefix.contains(*other)).copied().collect();
                subtract(*prefix, &inside)
            })
            .collect()
    }

    /// What a server has here and not under another policy.
    pub(super) fn lost_by(&self, name: &str, other: &Holders) -> Vec<IpNet> {
        let kept = other.addresses_of(name);
        self.addresses_of(name).into_iter().flat_map(|prefix| subtract(prefix, &kept)).collect()
    }

    /// The parts of a prefix, by the servers that have them. `None`: no server has that part.
    pub(super) fn divide(&self, prefix: IpNet) -> Vec<(IpNet, Option<Arc<str>>)> {
        if prefix.prefix_len() == prefix.max_prefix_len() {
            return vec![(prefix, self.find(prefix.addr()).cloned())];
        }
        let inside: Vec<(IpNet, &Arc<str>)> = self
            .rows
            .iter()
            .filter(|(other, _)| prefix.contains(*other))
            .map(|(other, name)| (*other, name))
            .collect();
        let around = self.rows.iter().filter(|(other, _)| other.contains(&prefix) && **other != prefix);
        let around = around.max_by_key(|(other, _)| other.prefix_len()).map(|(_, name)| Arc::clone(name));
        let holes: Vec<IpNet> = inside.iter().map(|(other, _)| *other).collect();
        let mut parts: Vec<(IpNet, Option<Arc<str>>)> =
            subtract(prefix, &holes).into_iter().map(|part| (part, around.clone())).collect();
        for (other, name) in &inside {
            let longer: Vec<IpNet> =
                holes.iter().copied().filter(|third| third != other && other.contains(third)).collect();
            parts.extend(subtract(*other, &longer).into_iter().map(|part| (part, Some(Arc::clone(name)))));
        }
        parts.sort();
        parts
    }
}
