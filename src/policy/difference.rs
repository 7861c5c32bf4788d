//! The changes that a new policy makes, for the administrator to read before and after `apply`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use ipnet::IpNet;
use serde::Serialize;

use super::model::{Direction, Keyword, Location, Need, Policy, Role, Router, Server, Value};
use crate::alarm::{Rated, Severity};
use crate::net::{DomainName, show_mac, show_prefix};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields are named for the JSON, and say it all")]
pub enum PolicyChange {
    /// A key of `[policy]`, `[alarms]` or `[tables]`.
    Setting { name: String, old: String, new: String },
    /// A server that the old policy didn't have.
    ServerAdded { server: String, addresses: Vec<String> },
    /// A server that the new policy doesn't have.
    ServerRemoved { server: String, addresses: Vec<String> },
    /// A server that both have has a new address.
    AddressAdded { server: String, address: String },
    /// A server that both have lost an address.
    AddressRemoved { server: String, address: String },
    /// A server's `mac`, `vlan` or `mode`.
    ServerSetting { server: String, name: &'static str, old: String, new: String },
    /// A server may do this from now on. `server` is `None` for the management, which every server has.
    NeedAdded { server: Option<String>, direction: Direction, need: String },
    /// A server may no longer do this. `server` is `None` for the management, which every server has.
    NeedRemoved { server: Option<String>, direction: Direction, need: String },
    /// A test that the old policy didn't have.
    TestAdded { test: String },
    /// A test that the new policy doesn't have.
    TestRemoved { test: String },
    /// A set has other members, and needs of both policies name it.
    Set { set: String, added: Vec<String>, removed: Vec<String> },
}

impl fmt::Display for PolicyChange {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { name, old, new } => write!(out, "~ {name} {old} -> {new}"),
            Self::ServerAdded { server, addresses } => {
                write!(out, "+ server {server} ({})", addresses.join(", "))
            }
            Self::ServerRemoved { server, addresses } => {
                write!(out, "- server {server} ({})", addresses.join(", "))
            }
            Self::AddressAdded { server, address } => {
                write!(out, "+ {server} has address {address}")
            }
            Self::AddressRemoved { server, address } => {
                write!(out, "- {server} no longer has address {address}")
            }
            Self::ServerSetting { server, name, old, new } => write!(out, "~ {server} {name} {old} -> {new}"),
            Self::NeedAdded { server, direction, need } => {
                write!(out, "+ {} {} {need}", subject(server), permission(*direction, true))
            }
            Self::NeedRemoved { server, direction, need } => {
                write!(out, "- {} {} {need}", subject(server), permission(*direction, false))
            }
            Self::TestAdded { test } => write!(out, "+ test {test}"),
            Self::TestRemoved { test } => write!(out, "- test {test}"),
            Self::Set { set, added, removed } => {
                write!(out, "~ set {set}")?;
                let added = added.iter().map(|member| ('+', member));
                let removed = removed.iter().map(|member| ('-', member));
                for (index, (sign, member)) in added.chain(removed).enumerate() {
                    write!(out, "{} {sign}{member}", if index == 0 { ":" } else { "," })?;
                }
                Ok(())
            }
        }
    }
}

fn subject(server: &Option<String>) -> &str {
    server.as_deref().unwrap_or("every server")
}

fn permission(direction: Direction, granted: bool) -> &'static str {
    match (direction, granted) {
        (Direction::In, true) => "may accept",
        (Direction::In, false) => "may no longer accept",
        (Direction::Out, true) => "may open",
        (Direction::Out, false) => "may no longer open",
        (Direction::Quiet, true) => "raises no alarm for",
        (Direction::Quiet, false) => "raises an alarm again for",
    }
}

/// The changes that `new` makes; empty if both policies mean the same. Comments, order, and the names of
/// roles and sets make no difference. Neither does the way in which needs are split up.
pub fn diff(old: &Policy, new: &Policy) -> Vec<PolicyChange> {
    let mut comparison = Comparison { old, new, changes: Vec::new(), sets: BTreeSet::new() };
    comparison.compare_settings();
    comparison.compare_ratings();
    let [before, after] = [old, new].map(|policy| policy.settings.management.iter().collect::<Vec<&Need>>());
    comparison.compare_needs(None, Direction::In, &before, &after);
    comparison.compare_routers();
    comparison.compare_servers();
    comparison.compare_sets();
    comparison.compare_tests();
    comparison.changes
}

struct Comparison<'p> {
    old: &'p Policy,
    new: &'p Policy,
    changes: Vec<PolicyChange>,
    /// Sets that needs of both policies name. Their members are compared once for all servers.
    sets: BTreeSet<&'p str>,
}

/// First and last port of each range.
type Ranges = Vec<(u16, u16)>;

/// Needs without a limit that agree in these have their ports joined: protocol, peers, ports of the server.
type Unlimited = (u8, Vec<IpNet>, Vec<DomainName>, Option<(u16, u16)>);

/// The meaning of a need. Needs that mean the same have equal meanings, however they are written.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct NeedMeaning {
    protocol: u8,
    peers: Vec<IpNet>,
    names: Vec<DomainName>,
    /// First and last port of the server.
    sport: Option<(u16, u16)>,
    /// Count, and per how many seconds.
    limit: Option<(u32, u32)>,
    ports: Ranges,
}

impl<'p> Comparison<'p> {
    fn compare_settings(&mut self) {
        let (old, new) = (list_keys(self.old), list_keys(self.new));
        for ((name, old), (_, new)) in old.into_iter().zip(new).filter(|(old, new)| old.1 != new.1) {
            self.changes.push(PolicyChange::Setting { name, old, new });
        }
    }

    fn compare_ratings(&mut self) {
        let (old, new) = (&self.old.ratings.0, &self.new.ratings.0);
        let rated: BTreeSet<&Rated> = old.keys().chain(new.keys()).collect();
        for rated in rated.into_iter().filter(|rated| old.get(rated) != new.get(rated)) {
            let show = |ratings: &BTreeMap<Rated, Severity>| {
                ratings
                    .get(rated)
                    .map_or_else(|| "the gate's own".to_owned(), |severity| severity.to_string())
            };
            let (old, new) = (show(old), show(new));
            self.changes.push(PolicyChange::Setting { name: format!("alarms.severity.{rated}"), old, new });
        }
    }

    fn compare_routers(&mut self) {
        let [old, new] = [self.old, self.new].map(|policy| -> BTreeMap<&str, String> {
            policy.routers.iter().map(|router| (router.name.as_str(), show_router(router))).collect()
        });
        let names: BTreeSet<&str> = old.keys().chain(new.keys()).copied().collect();
        for name in names.into_iter().filter(|name| old.get(name) != new.get(name)) {
            let show = |routers: &BTreeMap<&str, String>| {
                routers.get(name).cloned().unwrap_or_else(|| "none".to_owned())
            };
            let (old, new) = (show(&old), show(&new));
            self.changes.push(PolicyChange::Setting { name: format!("routers.{name}"), old, new });
        }
    }

    fn compare_servers(&mut self) {
        let old_servers: HashMap<&str, &'p Server> = by_name(self.old);
        let new_servers: HashMap<&str, &'p Server> = by_name(self.new);
        for server in &self.old.servers {
            if !new_servers.contains_key(server.name.as_str()) {
                let addresses = show_addresses(server).into_iter().collect();
                self.changes.push(PolicyChange::ServerRemoved { server: server.name.clone(), addresses });
            }
        }
        let (old_roles, new_roles) = (roles_by_name(self.old), roles_by_name(self.new));
        for server in &self.new.servers {
            let before = old_servers.get(server.name.as_str());
            match before {
                Some(before) => self.compare_server(before, server),
                None => {
                    let addresses = show_addresses(server).into_iter().collect();
                    self.changes.push(PolicyChange::ServerAdded { server: server.name.clone(), addresses });
                }
            }
            for direction in Direction::ALL {
                let old = before.map(|before| needs_of(before, &old_roles, direction)).unwrap_or_default();
                let new = needs_of(server, &new_roles, direction);
                self.compare_needs(Some(&server.name), direction, &old, &new);
            }
        }
    }

    fn compare_server(&mut self, old: &Server, new: &Server) {
        let server = &new.name;
        let (before, after) = (show_addresses(old), show_addresses(new));
        for address in after.difference(&before) {
            self.changes
                .push(PolicyChange::AddressAdded { server: server.clone(), address: address.clone() });
        }
        for address in before.difference(&after) {
            self.changes
                .push(PolicyChange::AddressRemoved { server: server.clone(), address: address.clone() });
        }
        // If neither policy gives the server a mode of its own, the change of the policy's mode covers it.
        let follows = old.mode.is_none() && new.mode.is_none();
        let (old_keys, new_keys) = (list_server_keys(self.old, old), list_server_keys(self.new, new));
        for ((name, old), (_, new)) in old_keys.into_iter().zip(new_keys) {
            if old != new && !(follows && name == "mode") {
                self.changes.push(PolicyChange::ServerSetting { server: server.clone(), name, old, new });
            }
        }
    }

    fn compare_needs(
        &mut self,
        server: Option<&str>,
        direction: Direction,
        old: &[&'p Need],
        new: &[&'p Need],
    ) {
        let canonical = |needs: &[&'p Need]| -> BTreeMap<String, &'p Need> {
            needs.iter().map(|need| (need.to_string(), *need)).collect()
        };
        let (old_needs, new_needs) = (canonical(old), canonical(new));
        let shared = new_needs.iter().filter(|(text, _)| old_needs.contains_key(*text));
        for name in shared.flat_map(|(_, need)| need.set_names()) {
            self.sets.insert(name);
        }
        let differs = !old_needs.keys().eq(new_needs.keys());
        if !differs || interpret(old, self.old) == interpret(new, self.new) {
            return;
        }
        let server = server.map(str::to_owned);
        for need in new_needs.keys().filter(|need| !old_needs.contains_key(*need)) {
            let (server, need) = (server.clone(), need.clone());
            self.changes.push(PolicyChange::NeedAdded { server, direction, need });
        }
        for need in old_needs.keys().filter(|need| !new_needs.contains_key(*need)) {
            let (server, need) = (server.clone(), need.clone());
            self.changes.push(PolicyChange::NeedRemoved { server, direction, need });
        }
    }

    fn compare_sets(&mut self) {
        for name in std::mem::take(&mut self.sets) {
            let members =
                |policy: &'p Policy| policy.sets.get(name).into_iter().flat_map(|set| set.prefixes());
            let [old, new] = [self.old, self.new].map(|policy| members(policy).collect::<BTreeSet<IpNet>>());
            let join = |members: &BTreeSet<IpNet>| IpNet::aggregate(&members.iter().copied().collect());
            let [old_names, new_names] = [self.old, self.new].map(|policy| list_names(policy, name));
            if join(&old) == join(&new) && old_names == new_names {
                continue;
            }
            let show = |prefixes: Vec<&IpNet>, names: Vec<&String>| {
                prefixes.into_iter().map(show_prefix).chain(names.into_iter().cloned()).collect()
            };
            self.changes.push(PolicyChange::Set {
                set: name.to_owned(),
                added: show(new.difference(&old).collect(), new_names.difference(&old_names).collect()),
                removed: show(old.difference(&new).collect(), old_names.difference(&new_names).collect()),
            });
        }
    }

    fn compare_tests(&mut self) {
        let list =
            |policy: &Policy| policy.tests.iter().map(ToString::to_string).collect::<BTreeSet<String>>();
        let (old, new) = (list(self.old), list(self.new));
        let added = new.difference(&old).map(|test| PolicyChange::TestAdded { test: test.clone() });
        let removed = old.difference(&new).map(|test| PolicyChange::TestRemoved { test: test.clone() });
        self.changes.extend(added.chain(removed));
    }
}

/// The names of a set.
fn list_names(policy: &Policy, set: &str) -> BTreeSet<String> {
    let names = policy.sets.get(set).into_iter().flat_map(|set| &set.names);
    names.map(|(name, _)| name.to_string()).collect()
}

fn by_name(policy: &Policy) -> HashMap<&str, &Server> {
    policy.servers.iter().map(|server| (server.name.as_str(), server)).collect()
}

fn roles_by_name(policy: &Policy) -> HashMap<&str, &Role> {
    policy.roles.iter().map(|role| (role.name.as_str(), role)).collect()
}

fn needs_of<'p>(server: &Server, roles: &HashMap<&str, &'p Role>, direction: Direction) -> Vec<&'p Need> {
    let roles = server.roles.iter().filter_map(|(name, _)| roles.get(name.as_str()));
    roles.flat_map(|role| role.needs_of(direction)).collect()
}

fn show_addresses(server: &Server) -> BTreeSet<String> {
    server.addresses.iter().map(|(prefix, _)| show_prefix(prefix)).collect()
}

/// A router in one line. The order of its addresses and MACs makes no difference.
fn show_router(router: &Router) -> String {
    // No `..`, so that a new key does not compile until it is compared.
    let Router { name: _, place: _, addresses, macs } = router;
    let addresses: BTreeSet<_> = addresses.iter().map(|(address, _)| *address).collect();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    format!("{} mac {}", addresses.join(", "), show_macs(macs))
}

fn show_macs(macs: &[([u8; 6], Location)]) -> String {
    let macs: BTreeSet<String> = macs.iter().map(|(mac, _)| show_mac(mac)).collect();
    macs.into_iter().collect::<Vec<String>>().join(", ")
}

/// The keys of a server with their values in words, in the same order for every server. Addresses and roles
/// are compared elsewhere.
fn list_server_keys(policy: &Policy, server: &Server) -> [(&'static str, String); 5] {
    // No `..`, so that a new key does not compile until it is compared.
    let Server { name: _, place: _, addresses: _, macs, vlan, roles: _, roles_place: _, mode: _, forwards } =
        server;
    let any = |value: Option<String>| value.unwrap_or_else(|| "any".to_owned());
    [
        ("mac", any(Some(show_macs(macs)).filter(|macs| !macs.is_empty()))),
        ("vlan", any(vlan.map(|(vlan, _)| vlan.to_string()))),
        ("mode", policy.mode_of(server).word().to_owned()),
        ("forwards", forwards.to_string()),
        ("dns", policy.questions_of(server).word().to_owned()),
    ]
}

/// All keys with their values in words, in the same order for every policy. Lists of needs are left out: they
/// are compared by their meaning.
fn list_keys(policy: &Policy) -> Vec<(String, String)> {
    // No `..`, so that a new table does not compile until it is compared. Sets, routers, roles,
    // servers, tests and severities are compared by their meaning.
    let Policy {
        file: _,
        text: _,
        settings,
        names,
        sets: _,
        routers: _,
        roles: _,
        servers: _,
        tests: _,
        alarms,
        response,
        ratings: _,
        tables,
    } = policy;
    let tables = [
        ("", settings.entries()),
        ("names.", names.entries()),
        ("alarms.", alarms.entries()),
        ("alarms.", response.entries()),
        ("tables.", tables.entries()),
    ];
    let keys = tables.into_iter().flat_map(|(table, entries)| {
        entries.into_iter().map(move |(key, value)| (format!("{table}{key}"), value))
    });
    let keys = keys.filter(|(_, value)| !matches!(value, Value::Needs(_)));
    keys.map(|(key, value)| (key, value.to_string())).collect()
}

/// The meanings of needs of one direction. Sets are replaced by their members. Port ranges are joined where
/// nothing else differs, but not those of needs with a limit: each such need has its own token bucket.
fn interpret(needs: &[&Need], policy: &Policy) -> BTreeSet<NeedMeaning> {
    let mut meanings = BTreeSet::new();
    let mut unlimited: BTreeMap<Unlimited, Ranges> = BTreeMap::new();
    for need in needs {
        // No `..`, so that a new clause of needs does not compile until it is compared.
        let Need { direction: _, protocol, ports, peers: _, sport, limit, place: _ } = need;
        let peers = IpNet::aggregate(&need.resolve_peers(&policy.sets));
        let names = need.resolve_names(&policy.sets);
        let sport = sport.as_ref().map(|sport| (*sport.start(), *sport.end()));
        let range = (*ports.start(), *ports.end());
        match limit {
            Some(limit) => {
                let limit = Some((limit.count, limit.per_seconds));
                let ports = vec![range];
                meanings.insert(NeedMeaning { protocol: *protocol, peers, names, sport, limit, ports });
            }
            None => unlimited.entry((*protocol, peers, names, sport)).or_default().push(range),
        }
    }
    for ((protocol, peers, names, sport), ports) in unlimited {
        meanings.insert(NeedMeaning {
            protocol,
            peers,
            names,
            sport,
            limit: None,
            ports: join_ranges(ports),
        });
    }
    meanings
}

/// Ranges in order, joined where they overlap or touch.
fn join_ranges(mut ranges: Ranges) -> Ranges {
    ranges.sort_unstable();
    let mut joined: Ranges = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    joined
}

/// Lists changes, one on each line.
pub fn list_changes(changes: &[PolicyChange]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}
