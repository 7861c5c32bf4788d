//! What each server may do, for people and for tools.

use std::fmt::Write;

use ipnet::IpNet;
use serde::Serialize;

use super::model::{Keyword, Need, Policy, Role, Server};
use crate::net::{show_mac, show_prefix};

/// A policy in the words of its file, with each server's roles resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The file as the user named it.
    pub file: String,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// `strict` or `service`.
    pub tracking: &'static str,
    /// `deny`, `quiet` or `allow`.
    pub unknown_sources: &'static str,
    /// Seconds in which flows already open are taken over.
    pub pickup: u32,
    /// Whether DHCP clients of the DMZ may talk to the link.
    pub dhcp: bool,
    /// `in` needs of every server.
    pub management: Vec<String>,
    /// Sets by name.
    pub sets: Vec<SetSummary>,
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

/// What one server may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerSummary {
    /// Its name.
    pub name: String,
    /// Addresses and prefixes.
    pub addresses: Vec<String>,
    /// The only MAC that may use them.
    pub mac: Option<String>,
    /// The only VLAN in which they may be used.
    pub vlan: Option<u16>,
    /// `enforce` or `observe`, as it holds for this server.
    pub mode: &'static str,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// What peers may open, without the management.
    pub accepts: Vec<String>,
    /// What it may open.
    pub opens: Vec<String>,
    /// What is denied without an alarm.
    pub quiet: Vec<String>,
}

/// Sums up a policy.
pub fn summarize(policy: &Policy) -> Summary {
    let settings = &policy.settings;
    Summary {
        file: policy.file.clone(),
        mode: settings.mode.value.word(),
        tracking: settings.tracking.value.word(),
        unknown_sources: settings.unknown_sources.value.word(),
        pickup: settings.pickup_s.value,
        dhcp: settings.dhcp.value,
        management: settings.management.iter().map(Need::to_string).collect(),
        sets: policy
            .sets
            .values()
            .map(|set| SetSummary { name: set.name.clone(), members: show_prefixes(set.prefixes()) })
            .collect(),
        servers: summarize_servers(policy),
    }
}

fn summarize_servers(policy: &Policy) -> Vec<ServerSummary> {
    let roles: std::collections::HashMap<&str, &Role> =
        policy.roles.iter().map(|role| (role.name.as_str(), role)).collect();
    let summarize = |server: &Server| {
        let roles: Vec<&Role> =
            server.roles.iter().filter_map(|(name, _)| roles.get(name.as_str()).copied()).collect();
        ServerSummary {
            name: server.name.clone(),
            addresses: show_prefixes(server.addresses.iter().map(|(prefix, _)| *prefix)),
            mac: server.mac.map(|(mac, _)| show_mac(&mac)),
            vlan: server.vlan.map(|(vlan, _)| vlan),
            mode: policy.mode_of(server).word(),
            roles: server.roles.iter().map(|(name, _)| name.clone()).collect(),
            accepts: list_needs(roles.iter().flat_map(|role| &role.inbound)),
            opens: list_needs(roles.iter().flat_map(|role| &role.outbound)),
            quiet: list_needs(roles.iter().flat_map(|role| &role.quiet)),
        }
    };
    policy.servers.iter().map(summarize).collect()
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

/// Tells in plain lines what each server may do.
pub fn describe(policy: &Policy) -> String {
    let mut out = String::new();
    // Writing to a string can't fail.
    let _ = write_summary(&mut out, &summarize(policy));
    out
}

fn write_summary(out: &mut String, summary: &Summary) -> std::fmt::Result {
    let dhcp = if summary.dhcp { "allowed" } else { "not allowed" };
    writeln!(
        out,
        "mode {}, tracking {}, unknown sources {}",
        summary.mode, summary.tracking, summary.unknown_sources
    )?;
    writeln!(out, "open flows are taken over for {} s, DHCP is {dhcp}", summary.pickup)?;
    write_list(out, "every server accepts", &summary.management)?;
    for server in &summary.servers {
        write_server(out, server, summary.mode)?;
    }
    if !summary.sets.is_empty() {
        writeln!(out, "\nsets")?;
        for set in &summary.sets {
            writeln!(out, "  @{}  {}", set.name, set.members.join(", "))?;
        }
    }
    Ok(())
}

fn write_server(out: &mut String, server: &ServerSummary, mode: &str) -> std::fmt::Result {
    write!(out, "\n{}  {}", server.name, server.addresses.join(", "))?;
    if let Some(mac) = &server.mac {
        write!(out, "  mac {mac}")?;
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

/// A label, and beside it one need a line.
fn write_list(out: &mut String, label: &str, needs: &[String]) -> std::fmt::Result {
    let Some((first, rest)) = needs.split_first() else {
        return writeln!(out, "{label} nothing");
    };
    writeln!(out, "{label} {first}")?;
    for need in rest {
        writeln!(out, "{:width$} {need}", "", width = label.len())?;
    }
    Ok(())
}
