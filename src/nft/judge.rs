//! What holds for all servers: rows 1 to 6 of docs/verdicts.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::ends::{REFUSE, REFUSE_QUIETLY, REFUSE_UNKNOWN, REFUSE_UNKNOWN_QUIETLY, write_chain};
use super::names::{cite, quote};
use super::needs::{name_opening, name_peers};
use super::profiles::group_servers;
use super::sets::{Family, Sets};
use crate::net::show_mac;
use crate::policy::{Need, Policy, Server, UnknownSources};

/// Of no server, and known to the link: link-local and unspecified sources.
const LINK_LOCAL: [(Family, &str); 2] =
    [(Family::V4, "{ 0.0.0.0, 169.254.0.0/16 }"), (Family::V6, "{ ::, fe80::/10 }")];

/// Before the addresses are translated, and after the fragments are put together and conntrack has looked.
pub(super) fn write_entry(interface: &str, out: &mut String) {
    let _ = write!(
        out,
        "    chain prerouting {{\n        \
         type filter hook prerouting priority mangle; policy accept;\n        \
         iifname \"{interface}\" goto judge\n        \
         iifname \"{interface}.*\" goto judge\n    }}\n"
    );
}

/// The rows in their order, up to the needs of each server.
pub(super) fn write_judge(policy: &Policy, interface: &str, sets: &mut Sets<'_>, out: &mut String) {
    let mut rules: Vec<String> = Vec::new();
    rules.push("meta l4proto tcp jump segments".to_owned());
    write_chain("segments", "2: a segment has the whole header that it says", &list_header_rules(), out);
    let mut refuse = |what: &str, why: &str| {
        rules.push(format!("{what} counter goto {REFUSE}{}", quote(why)));
    };
    refuse("ip6 saddr ::ffff:0.0.0.0/96", "2: malformed");
    refuse("ip6 daddr ::ffff:0.0.0.0/96", "2: malformed");
    refuse("tcp flags & (fin | syn | rst | ack) == 0x0", "2: malformed");
    refuse("tcp flags & (syn | fin) == syn | fin", "2: malformed");
    refuse("tcp flags & (syn | rst) == syn | rst", "2: malformed");
    refuse("tcp flags & (fin | ack) == fin", "2: malformed");
    refuse("udp length < 8", "2: malformed");
    // conntrack's only objections to a datagram are its length and its checksum
    refuse("meta l4proto udp ct state invalid", "2: malformed");
    refuse("ip option lsrr exists", "3: source_route");
    refuse("ip option ssrr exists", "3: source_route");
    refuse("rt type 0", "3: source_route");
    refuse("rt seg-left > 0", "3: source_route");
    let routers: Vec<(Family, String)> =
        Family::ALL.iter().filter_map(|family| Some((*family, sets.define_routers(*family)?))).collect();
    for (family, routers) in &routers {
        let (header, types) = match family {
            Family::V4 => ("ip", "icmp type { 5, 9 }"),
            Family::V6 => ("ip6", "icmpv6 type { 134, 137 }"),
        };
        rules.push(format!(
            "{types} {header} saddr . ether saddr {routers} counter goto {REFUSE_QUIETLY}{}",
            quote("4: rogue_router, of a router")
        ));
        let group = match family {
            Family::V4 => "meta nfproto ipv4 meta l4proto 112 ip ttl 255 ip daddr 224.0.0.18",
            Family::V6 => "meta nfproto ipv6 meta l4proto 112 ip6 hoplimit 255 ip6 daddr ff02::12",
        };
        rules.push(format!("{group} {header} saddr . ether saddr {routers} accept{}", quote("4: router")));
    }
    let mut refuse = |what: &str, why: &str| {
        rules.push(format!("{what} counter goto {REFUSE}{}", quote(why)));
    };
    refuse("icmp type { 5, 9 }", "4: rogue_router");
    refuse("icmpv6 type { 134, 137 }", "4: rogue_router");

    sets.define_addresses("link_scope_6", Family::V6, &list_link_scope());
    let mut neighbours = vec![format!("ip6 saddr {}", LINK_LOCAL[1].1)];
    neighbours
        .extend(sets.define_servers("addresses", Family::V6, |_| true).map(|own| format!("ip6 saddr {own}")));
    let of_router = routers.iter().find(|(family, _)| *family == Family::V6);
    neighbours.extend(of_router.map(|(_, routers)| format!("ip6 saddr . ether saddr {routers}")));
    for source in &neighbours {
        rules.push(format!("icmpv6 type {{ 133, 135, 136, 131, 132, 143 }} {source} jump neighbours"));
    }
    write_chain("neighbours", "4: neighbour", &list_neighbour_rules(interface), out);
    if policy.settings.dhcp.value {
        let own = sets.define_servers("addresses", Family::V4, |_| true);
        let from_servers = [own, sets_name_of_servers(policy, Family::V6)];
        for ((family, link_local), own) in LINK_LOCAL.iter().zip(from_servers) {
            let what = match family {
                Family::V4 => "udp sport 68 udp dport 67 ip daddr 255.255.255.255",
                Family::V6 => "udp sport 546 udp dport 547 ip6 daddr @link_scope_6",
            };
            for source in [Some((*link_local).to_owned()), own].into_iter().flatten() {
                let source = format!("{} saddr {source}", family.header());
                rules.push(format!("{what} {source} accept{}", quote("4: dhcp")));
            }
        }
    }
    rules.extend(list_bindings(interface, sets));
    let groups = group_servers(policy);
    for family in Family::ALL {
        if let Some(map) = sets.define_dispatch(family, |server| groups.chain_of(server)) {
            rules.push(format!("{} saddr vmap {map}", family.header()));
        }
    }
    rules.push("goto unknown".to_owned());
    write_chain("judge", "rows 2 to 6 of docs/verdicts.md", &rules, out);
    write_unknown(policy, interface, &routers, sets, out);
}

/// The set of all servers' addresses, which an earlier rule has defined.
fn sets_name_of_servers(policy: &Policy, family: Family) -> Option<String> {
    let has =
        policy.servers.iter().flat_map(|server| &server.addresses).any(|(net, _)| Family::of(net) == family);
    has.then(|| format!("@addresses_{}", family.suffix()))
}

/// Destinations of IPv6 that no router forwards to: link-local ones, and groups up to the scope of a link, whatever
/// their flags.
fn list_link_scope() -> Vec<String> {
    let groups = (0..16).flat_map(|flags| [format!("ff{flags:x}0::/15"), format!("ff{flags:x}2::/16")]);
    std::iter::once("fe80::/10".to_owned()).chain(groups).collect()
}

/// A byte beyond the packet can't be compared with anything, so its rule does not hold. Lengths that are usual first.
fn list_header_rules() -> Vec<String> {
    let mut rules = Vec::new();
    for words in [5, 8, 10, 11, 6, 7, 9, 12, 13, 14, 15] {
        rules.push(format!("tcp doff {words} @th,{},8 >= 0x0 return", words * 32 - 8));
    }
    rules.push(format!("counter goto {REFUSE}{}", quote("2: malformed")));
    rules
}

fn list_neighbour_rules(interface: &str) -> Vec<String> {
    vec![
        "icmpv6 type { 131, 132, 143 } ip6 hoplimit 1 accept".to_owned(),
        "icmpv6 type { 131, 132, 143 } return".to_owned(),
        "ip6 hoplimit != 255 return".to_owned(),
        format!("ip6 saddr {} accept", LINK_LOCAL[1].1),
        "ip6 daddr @link_scope_6 accept".to_owned(),
        "icmpv6 type { 135, 136 } fib daddr type local accept".to_owned(),
        format!("icmpv6 type {{ 135, 136 }} fib daddr oifname \"{interface}\" accept"),
    ]
}

/// Row 6: the MACs and the VLAN of each server.
fn list_bindings(interface: &str, sets: &mut Sets<'_>) -> Vec<String> {
    let mut rules = Vec::new();
    let has_mac = |server: &Server| !server.macs.is_empty();
    let has_vlan = |server: &Server| server.vlan.is_some();
    for family in Family::ALL {
        let header = family.header();
        let macs = |server: &Server| server.macs.iter().map(|(mac, _)| show_mac(mac)).collect();
        if let (Some(bound), Some(pairs)) = (
            sets.define_servers("with_mac", family, has_mac),
            sets.define_bindings("macs", family, "ether_addr", macs),
        ) {
            rules.push(format!(
                "{header} saddr {bound} {header} saddr . ether saddr != {pairs} counter goto {REFUSE_UNKNOWN}{}",
                quote("6: spoofed, by its MAC")
            ));
        }
        let vlans =
            |server: &Server| server.vlan.iter().map(|(vlan, _)| format!("\"{interface}.{vlan}\"")).collect();
        if let (Some(bound), Some(pairs)) = (
            sets.define_servers("with_vlan", family, has_vlan),
            sets.define_bindings("vlans", family, "ifname", vlans),
        ) {
            rules.push(format!(
                "{header} saddr {bound} {header} saddr . iifname != {pairs} counter goto {REFUSE_UNKNOWN}{}",
                quote("6: spoofed, by its VLAN")
            ));
        }
    }
    rules
}

/// Rows 5 and 5a: source addresses that no server has.
fn write_unknown(
    policy: &Policy,
    interface: &str,
    routers: &[(Family, String)],
    sets: &mut Sets<'_>,
    out: &mut String,
) {
    let mut rules = Vec::new();
    let services = &policy.settings.link_services.0;
    if !services.is_empty() {
        // a MAC that several servers have counts as the first one's
        let mut owners: BTreeMap<String, &Server> = BTreeMap::new();
        for server in &policy.servers {
            for (mac, _) in &server.macs {
                owners.entry(show_mac(mac)).or_insert(server);
            }
        }
        let (mut free, mut in_vlans) = (BTreeSet::new(), BTreeSet::new());
        for (mac, server) in owners {
            match &server.vlan {
                Some((vlan, _)) => in_vlans.insert(format!("{mac} . \"{interface}.{vlan}\"")),
                None => free.insert(mac),
            };
        }
        let asks = "ip6 saddr fe80::/10 ip6 daddr @link_scope_6";
        if let Some(set) = sets.define_plain("machines", "ether_addr", free) {
            rules.push(format!("{asks} ether saddr {set} jump link_services"));
        }
        if let Some(set) = sets.define_plain("machines_in_vlans", "ether_addr . ifname", in_vlans) {
            rules.push(format!("{asks} ether saddr . iifname {set} jump link_services"));
        }
        let accept = |need: &Need| {
            format!("{} accept{}", name_opening(need), cite(policy, &need.place, &need.to_string()))
        };
        let list: Vec<String> = services.iter().map(accept).collect();
        write_chain("link_services", "5: link_services", &list, out);
    }
    match policy.settings.unknown_sources.value {
        UnknownSources::Allow => rules.push(format!("counter accept{}", quote("5a: unknown_allowed"))),
        UnknownSources::Quiet => {
            rules.push(format!("counter goto {REFUSE_UNKNOWN_QUIETLY}{}", quote("5a: unknown_source")));
        }
        UnknownSources::Deny => {
            for (family, routers) in routers {
                rules.push(format!(
                    "{} saddr . ether saddr {routers} counter goto {REFUSE_UNKNOWN_QUIETLY}{}",
                    family.header(),
                    quote("5a: unknown_source, of a router")
                ));
            }
            let quiet: Vec<&Need> = policy.roles.iter().flat_map(|role| &role.quiet).collect();
            if !quiet.is_empty() {
                for (family, link_local) in LINK_LOCAL {
                    rules.push(format!("{} saddr {link_local} jump quiet_of_all", family.header()));
                }
                let mut list = BTreeSet::new();
                for need in quiet {
                    for peers in name_peers(need, "daddr", sets) {
                        list.insert(format!(
                            "{}{peers} counter goto {REFUSE_UNKNOWN_QUIETLY}",
                            name_opening(need)
                        ));
                    }
                }
                let list: Vec<String> = list.into_iter().collect();
                write_chain("quiet_of_all", "5a: quiet needs of any role", &list, out);
            }
            rules.push(format!("counter goto {REFUSE_UNKNOWN}{}", quote("5a: unknown_source")));
        }
    }
    write_chain("unknown", "5: sources that no server has", &rules, out);
}
