//! Holders: which server has which addresses under one policy. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::compile::Tables;
use crate::net::{list_around, range_of};

/// The addresses and prefixes of a policy with the names of their servers. The longest prefix wins.
#[derive(Clone, Debug, Default)]
pub(in crate::gate) struct Holders {
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
    pub(super) fn find(&self, address: IpAddr) -> Option<&str> {
        let single = IpNet::from(address);
        self.rows.get(&single).map(|name| &**name).or_else(|| self.find_around(single))
    }

    /// The server of the longest prefix that holds this one and is longer than it.
    fn find_around(&self, prefix: IpNet) -> Option<&str> {
        list_around(prefix).find_map(|around| self.rows.get(&around)).map(|name| &**name)
    }

    /// The names of all servers.
    pub(in crate::gate) fn names(&self) -> BTreeSet<&str> {
        self.rows.values().map(|name| &**name).collect()
    }

    /// Every prefix that a server has.
    pub(super) fn prefixes(&self) -> Vec<IpNet> {
        self.rows.keys().copied().collect()
    }

    /// The prefixes of a server, and those in them that other servers have.
    pub(super) fn rows_of(&self, name: &str) -> (Vec<IpNet>, Vec<IpNet>) {
        let own = self.own_prefixes(name);
        let inside = own.iter().flat_map(|prefix| self.rows.range(range_of(*prefix)));
        let others: BTreeSet<IpNet> =
            inside.map(|(prefix, _)| *prefix).filter(|prefix| !own.contains(prefix)).collect();
        (own.into_iter().collect(), others.into_iter().collect())
    }

    fn own_prefixes(&self, name: &str) -> BTreeSet<IpNet> {
        self.rows.iter().filter(|(_, holder)| ***holder == *name).map(|(prefix, _)| *prefix).collect()
    }

    /// The addresses of a server, without those in its prefixes that other servers have.
    pub(super) fn addresses_of(&self, name: &str) -> Vec<IpNet> {
        self.lost_by(name, &Holders::default())
    }

    /// What a server has here and not under another policy, in as few prefixes as there can be.
    pub(super) fn lost_by(&self, name: &str, other: &Holders) -> Vec<IpNet> {
        let own = self.own_prefixes(name);
        // a prefix in another one of the server's is found on the way
        let outer = own.iter().filter(|prefix| !list_around(**prefix).any(|around| own.contains(&around)));
        let lost = outer.flat_map(|prefix| {
            let (old_rows, new_rows) = (self.slice(*prefix), other.slice(*prefix));
            let old = Side { rows: &old_rows, around: None };
            let new = Side { rows: &new_rows, around: other.find_around(*prefix) };
            find_lost(name, *prefix, old, new)
        });
        lost.collect()
    }

    /// The parts of a prefix, by the servers that have them. `None`: no server has that part.
    pub(super) fn divide(&self, prefix: IpNet) -> Vec<(IpNet, Option<&str>)> {
        let rows = self.slice(prefix);
        let mut parts = Vec::new();
        list_parts(prefix, Side { rows: &rows, around: self.find_around(prefix) }, &mut parts);
        parts
    }

    fn slice(&self, prefix: IpNet) -> Vec<(IpNet, &str)> {
        self.rows.range(range_of(prefix)).map(|(prefix, name)| (*prefix, &**name)).collect()
    }
}

/// One policy within a prefix: its rows in their order, and who has the prefix by a row around it.
#[derive(Clone, Copy)]
struct Side<'r, 'h> {
    rows: &'r [(IpNet, &'h str)],
    around: Option<&'h str>,
}

impl<'r, 'h> Side<'r, 'h> {
    /// The same, with the row for just this prefix among those around it. Such a row is the first one.
    fn enter(self, prefix: IpNet) -> Side<'r, 'h> {
        match self.rows.split_first() {
            Some(((row, name), rest)) if *row == prefix => Side { rows: rest, around: Some(name) },
            _ => self,
        }
    }

    /// The two halves of the prefix, the upper one of which this is.
    fn split(self, upper: IpNet) -> (Side<'r, 'h>, Side<'r, 'h>) {
        let (low, high) = self.rows.split_at(self.rows.partition_point(|(row, _)| *row < upper));
        (Side { rows: low, ..self }, Side { rows: high, ..self })
    }
}

/// `None` for a single address.
fn halve(prefix: IpNet) -> Option<(IpNet, IpNet)> {
    let mut halves = prefix.subnets(prefix.prefix_len() + 1).ok()?;
    Some((halves.next()?, halves.next()?))
}

fn find_lost(name: &str, prefix: IpNet, old: Side<'_, '_>, new: Side<'_, '_>) -> Vec<IpNet> {
    let (old, new) = (old.enter(prefix), new.enter(prefix));
    let has_more = !old.rows.is_empty() || !new.rows.is_empty();
    let Some((lower, upper)) = halve(prefix).filter(|_| has_more) else {
        let is_lost = old.around == Some(name) && new.around != Some(name);
        return if is_lost { vec![prefix] } else { Vec::new() };
    };
    let ((old_low, old_high), (new_low, new_high)) = (old.split(upper), new.split(upper));
    let mut lost = find_lost(name, lower, old_low, new_low);
    lost.extend(find_lost(name, upper, old_high, new_high));
    if lost == [lower, upper] { vec![prefix] } else { lost }
}

fn list_parts<'h>(prefix: IpNet, side: Side<'_, 'h>, parts: &mut Vec<(IpNet, Option<&'h str>)>) {
    let side = side.enter(prefix);
    match halve(prefix).filter(|_| !side.rows.is_empty()) {
        Some((lower, upper)) => {
            let (low, high) = side.split(upper);
            list_parts(lower, low, parts);
            list_parts(upper, high, parts);
        }
        None => parts.push((prefix, side.around)),
    }
}
