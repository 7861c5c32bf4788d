//! The permissions of each server, for people and for tools.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{self, Write};

use ipnet::IpNet;
use serde::Serialize;

use super::model::{Direction, Keyword, Location, Need, Policy, Role, Router, Server, Settings, Value};
use crate::net::{show_mac, show_prefix};

/// A policy in the words of its file, with each server's roles resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The file as the user named it.
    pub file: String,
    /// The keys of `[policy]`.
    #[serde(flatten)]
    pub settings: BTreeMap<&'static str, Value>,
    /// Sets by name.
    pub sets: Vec<SetSummary>,
    /// Routers in the order of the file.
    pub routers: Vec<RouterSummary>,
    /// Servers in the order of the file.
    pub servers: Vec<ServerSummary>,
}

/// A set of peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SetSummary {
    /// Its name, without `@`.
    pub name: String,
    /// Addresses and prefixes.
    pub members: Vec<String>,
}

/// A neighbour on the link that routes too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RouterSummary {
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Its MACs.
    pub macs: Vec<String>,
}

/// The permissions of one server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSummary {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// The first MAC that may use them.
    pub mac: Option<String>,
    /// All MACs that may use them.
    pub macs: Vec<String>,
    /// The only VLAN in which they may be used.
    pub vlan: Option<u16>,
    /// `enforce` or `observe`, as it holds for this server.
    pub mode: &'static str,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Services that peers may open, without the management needs.
    pub accepts: Vec<String>,
    /// Connections that it may open.
    pub opens: Vec<String>,
    /// Connections that are dropped without an alarm.
    pub quiet: Vec<String>,
}

/// Sums up a policy.
pub fn summarize(policy: &Policy) -> Summary {
    let roles = policy.roles.iter().map(|role| (role.name.as_str(), role)).collect();
    let sets = policy.sets.values();
    Summary {
        file: policy.file.clone(),
        settings: policy.settings.entries().into_iter().collect(),
        sets: sets
            .map(|set| SetSummary { name: set.name.clone(), members: show_prefixes(set.prefixes()) })
            .collect(),
        routers: policy.routers.iter().map(summarize_router).collect(),
        servers: policy.servers.iter().map(|server| summarize_server(policy, server, &roles)).collect(),
    }
}

fn summarize_router(router: &Router) -> RouterSummary {
    // No `..`, so that a new key does not compile until it is described.
    let Router { name, place: _, addresses, macs } = router;
    let addresses = addresses.iter().map(|(address, _)| address.to_string()).collect();
    RouterSummary { name: name.clone(), addresses, macs: show_macs(macs) }
}

fn show_macs(macs: &[([u8; 6], Location)]) -> Vec<String> {
    macs.iter().map(|(mac, _)| show_mac(mac)).collect()
}

fn summarize_server(policy: &Policy, server: &Server, roles: &HashMap<&str, &Role>) -> ServerSummary {
    // No `..`, so that a new key does not compile until it is described.
    let Server { name, place: _, addresses, macs, vlan, roles: assigned, roles_place: _, mode: _ } = server;
    let needs = |direction| {
        let roles = assigned.iter().filter_map(|(name, _)| roles.get(name.as_str()));
        list_needs(roles.flat_map(|role| role.needs_of(direction)))
    };
    ServerSummary {
        name: name.clone(),
        addresses: show_prefixes(addresses.iter().map(|(prefix, _)| *prefix)),
        mac: macs.first().map(|(mac, _)| show_mac(mac)),
        macs: show_macs(macs),
        vlan: vlan.map(|(vlan, _)| vlan),
        mode: policy.mode_of(server).word(),
        roles: assigned.iter().map(|(name, _)| name.clone()).collect(),
        accepts: needs(Direction::In),
        opens: needs(Direction::Out),
        quiet: needs(Direction::Quiet),
    }
}

fn show_prefixes(prefixes: impl Iterator<Item = IpNet>) -> Vec<String> {
    prefixes.map(|prefix| show_prefix(&prefix)).collect()
}

/// The needs in canonical form, each once.
fn list_needs<'p>(needs: impl Iterator<Item = &'p Need>) -> Vec<String> {
    let mut list: Vec<String> = Vec::new();
    for need in needs.map(Need::to_string) {
        if !list.contains(&need) {
            list.push(need);
        }
    }
    list
}

/// Says in plain lines what each server may do.
pub fn describe(policy: &Policy) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_policy(&mut out, policy);
    out
}

fn write_policy(out: &mut String, policy: &Policy) -> fmt::Result {
    // No `..`, so that a new key does not compile until it is described.
    let Settings {
        mode,
        tracking,
        unknown_sources,
        management,
        link_services,
        quiet_ethertypes,
        pickup_s,
        dhcp,
    } = &policy.settings;
    let (mode, summary) = (mode.value, summarize(policy));
    writeln!(out, "mode {mode}, tracking {}, unknown sources {}", tracking.value, unknown_sources.value)?;
    let dhcp = if dhcp.value { "allowed" } else { "not allowed" };
    writeln!(out, "open flows are taken over for {} s, DHCP is {dhcp}", pickup_s.value)?;
    write_list(out, "every server accepts", &list_needs(management.iter()))?;
    if !link_services.0.is_empty() {
        write_list(out, "every server asks its link", &list_needs(link_services.0.iter()))?;
    }
    if !quiet_ethertypes.0.is_empty() {
        writeln!(out, "no alarm for EtherType {quiet_ethertypes}")?;
    }
    for server in &summary.servers {
        write_server(out, server, mode.word())?;
    }
    if !summary.routers.is_empty() {
        writeln!(out, "\nrouters")?;
        for router in &summary.routers {
            writeln!(
                out,
                "  {}  {}  mac {}",
                router.name,
                router.addresses.join(", "),
                router.macs.join(", ")
            )?;
        }
    }
    if !summary.sets.is_empty() {
        writeln!(out, "\nsets")?;
        for set in &summary.sets {
            writeln!(out, "  @{}  {}", set.name, set.members.join(", "))?;
        }
    }
    Ok(())
}

fn write_server(out: &mut String, server: &ServerSummary, mode: &str) -> fmt::Result {
    write!(out, "\n{}  {}", server.name, server.addresses.join(", "))?;
    if !server.macs.is_empty() {
        write!(out, "  mac {}", server.macs.join(", "))?;
    }
    if let Some(vlan) = server.vlan {
        write!(out, "  vlan {vlan}")?;
    }
    if server.mode != mode {
        write!(out, "  mode {}", server.mode)?;
    }
    let roles = if server.roles.is_empty() { "none".to_owned() } else { server.roles.join(", ") };
    writeln!(out, "\n  roles    {roles}")?;
    write_list(out, "  accepts ", &server.accepts)?;
    write_list(out, "  opens   ", &server.opens)?;
    if !server.quiet.is_empty() {
        write_list(out, "  quiet   ", &server.quiet)?;
    }
    Ok(())
}

/// A label, and beside it the needs, one on each line.
fn write_list(out: &mut String, label: &str, needs: &[String]) -> fmt::Result {
    let Some((first, rest)) = needs.split_first() else {
        return writeln!(out, "{label} nothing");
    };
    writeln!(out, "{label} {first}")?;
    for need in rest {
        writeln!(out, "{:width$} {need}", "", width = label.len())?;
    }
    Ok(())
}
