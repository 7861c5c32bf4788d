//! Policies by chance, as text: what the tool's own parser and compiler make of them is part of
//! what is tested.

use std::fmt::Write as _;

use super::setting::{
    HOMES, NAMES, PEER_PREFIXES, RESOLVERS, ROUTER_MACS, ROUTERS, SERVER_MACS, VLANS, pick_client_port,
    pick_port, pick_service,
};
use crate::support::chance::Chance;

pub const SERVERS: [&str; 7] = ["web", "dns", "mail", "app", "farm", "nest", "lone"];
const ROLES: [&str; 5] = ["red", "green", "blue", "white", "black"];
const SETS: [&str; 3] = ["near", "far", "both"];

#[derive(Clone, Copy, PartialEq)]
enum Direction {
    In,
    Out,
    Quiet,
}

/// A policy; nearly always one that the tool takes.
pub fn make_policy(chance: &mut Chance) -> String {
    let mut text = String::from("[policy]\n");
    let names = chance.percent(50);
    let mut line = |line: &str| {
        text.push_str(line);
        text.push('\n');
    };
    if chance.percent(15) {
        line("mode = \"observe\"");
    }
    if !names && chance.percent(50) {
        line("tracking = \"service\"");
    }
    if chance.percent(50) {
        line("handover = \"conntrack\"");
    }
    match chance.below(10) {
        0..3 => line("unknown_sources = \"quiet\""),
        3 => line("unknown_sources = \"allow\""),
        _ => {}
    }
    if chance.percent(40) {
        line("dhcp = true");
    }
    if chance.percent(70) {
        let count = chance.within(1..3);
        line(&list_of(chance, "management", count, |chance| make_need(chance, Direction::In)));
    }
    if chance.percent(35) {
        line(&list_of(chance, "link_services", 2, make_link_service));
    }
    if chance.percent(40) {
        let ethertypes = [0x9000_u16, 0x8847, 0x8863, 0x0600];
        let count = chance.within(1..4);
        let listed: Vec<String> = ethertypes[..count].iter().map(|kind| format!("{kind:#x}")).collect();
        line(&format!("quiet_ethertypes = [{}]", listed.join(", ")));
    }
    line("[sets]");
    for set in SETS {
        let count = chance.within(1..5);
        line(&list_of(chance, set, count, |chance| chance.pick(&PEER_PREFIXES).to_owned()));
    }
    if names {
        line("named = [\"deb.vendor.example\", \"*.mirror.example\", \"203.0.113.50\"]");
    }
    for role in ROLES {
        line(&format!("[roles.{role}]"));
        if names && chance.percent(30) {
            line("dns = \"named\"");
        }
        for (key, direction, most) in
            [("in", Direction::In, 6), ("out", Direction::Out, 5), ("quiet", Direction::Quiet, 4)]
        {
            let count = chance.below(most);
            let named = names && direction == Direction::Out;
            if count > 0 || named {
                let mut list = list_of(chance, key, count, |chance| make_need(chance, direction));
                if named {
                    list.truncate(list.len() - 1);
                    for _ in 0..chance.below(4) {
                        let _ = writeln!(list, "    \"{}\",", make_named_need(chance));
                    }
                    if chance.percent(60) {
                        list.push_str(
                            "    \"udp/53\",\n    \"tcp/53 to 198.51.100.0/24, 2001:db8:2::/48\",\n",
                        );
                    }
                    list.push(']');
                }
                line(&list);
            }
        }
    }
    if chance.percent(50) {
        line("[routers.other]");
        let from = chance.below(3);
        let addresses: Vec<String> =
            ROUTERS[from..from + 2].iter().map(|address| format!("\"{address}\"")).collect();
        line(&format!("addresses = [{}]", addresses.join(", ")));
        let count = chance.within(1..4);
        line(&format!("mac = [{}]", list_macs(&ROUTER_MACS[..count])));
    }
    if names {
        let from = chance.below(2);
        let resolvers: Vec<String> =
            RESOLVERS[from..].iter().map(|address| format!("\"{address}\"")).collect();
        line("[names]");
        line(&format!("resolvers = [{}]", resolvers.join(", ")));
        line("from = [\"fuzz0\"]");
        line("private = [\"203.0.113.0/24\", \"2001:db8:50::/48\"]");
        line("nat64 = [\"2001:db8:64::/96\"]");
        line(chance.pick(&["ttl = [300, 86400]", "ttl = [10, 120]", "ttl = [60, 600]"]));
    }
    // answers to these are for all
    let forwards = names && chance.percent(60);
    let servers = make_servers(chance, forwards);
    // most of them ask, for what nobody asks is compared with nothing
    let asks = |chance: &mut Chance| {
        if names && chance.percent(80) { "roles = [\n    \"red\"," } else { "roles = [" }
    };
    for part in servers.split_inclusive("roles = [") {
        match part.strip_suffix("roles = [") {
            Some(part) => {
                text.push_str(part);
                text.push_str(asks(chance));
            }
            None => text.push_str(part),
        }
    }
    text.replace("    \"red\",\n    \"red\",\n", "    \"red\",\n")
}

fn list_macs(macs: &[[u8; 6]]) -> String {
    let show = |mac: &[u8; 6]| format!("\"{}\"", mac.map(|byte| format!("{byte:02x}")).join(":"));
    macs.iter().map(show).collect::<Vec<_>>().join(", ")
}

/// What servers may ask the router: without peers, `sport` and `limit`.
fn make_link_service(chance: &mut Chance) -> String {
    match chance.below(6) {
        0 => "icmpv6/echo-request".to_owned(),
        1 => "udp/67-5353".to_owned(),
        2 => format!("tcp/{}", pick_service(chance)),
        3 => "tcp/1000-6063".to_owned(),
        _ => format!("udp/{}", pick_service(chance)),
    }
}

/// The same policy without some of its lines, as an administrator revokes things; or with another
/// value somewhere.
pub fn change_policy(chance: &mut Chance, policy: &str) -> String {
    let needs: Vec<usize> = policy
        .lines()
        .enumerate()
        .filter(|(_, line)| line.starts_with("    \"") && line.contains('/'))
        .map(|(at, _)| at)
        .collect();
    if needs.is_empty() || chance.percent(10) {
        return make_policy(chance);
    }
    let gone: Vec<usize> = (0..chance.within(1..4)).map(|_| chance.pick(&needs)).collect();
    let lines = policy.lines().enumerate().filter(|(at, _)| !gone.contains(at));
    lines.fold(String::new(), |text, (_, line)| text + line + "\n")
}

/// One element a line, so that shrinking can take it away.
fn list_of(chance: &mut Chance, key: &str, count: usize, make: impl Fn(&mut Chance) -> String) -> String {
    let mut text = format!("{key} = [\n");
    for _ in 0..count {
        let _ = writeln!(text, "    \"{}\",", make(chance));
    }
    text + "]"
}

fn make_servers(chance: &mut Chance, forwards: bool) -> String {
    let mut text = String::new();
    let mut homes: Vec<&str> = HOMES.iter().map(|(home, _)| *home).collect();
    for server in SERVERS {
        if homes.is_empty() {
            break;
        }
        let count = chance.within(1..4).min(homes.len());
        let mine: Vec<String> =
            (0..count).map(|_| format!("\"{}\"", homes.swap_remove(chance.below(homes.len())))).collect();
        let _ = writeln!(text, "[servers.{server}]\naddresses = [{}]", mine.join(", "));
        let roles: Vec<&str> = ROLES.into_iter().filter(|_| chance.percent(45)).collect();
        text.push_str("roles = [\n");
        for role in roles {
            let _ = writeln!(text, "    \"{role}\",");
        }
        text.push_str("]\n");
        if chance.percent(25) {
            let from = chance.below(SERVER_MACS.len());
            let end = (from + chance.within(1..4)).min(SERVER_MACS.len());
            let _ = writeln!(text, "mac = [{}]", list_macs(&SERVER_MACS[from..end]));
        }
        if chance.percent(12) {
            let _ = writeln!(text, "vlan = {}", chance.pick(&VLANS));
        }
        match chance.below(12) {
            0 | 1 => text.push_str("mode = \"observe\"\n"),
            2 => text.push_str("mode = \"enforce\"\n"),
            _ => {}
        }
        if forwards && chance.percent(35) {
            text.push_str("forwards = true\n");
        }
    }
    text
}

fn make_need(chance: &mut Chance, direction: Direction) -> String {
    let mut text = match chance.below(20) {
        0..9 => format!("tcp{}", make_ports(chance)),
        9..14 => format!("udp{}", make_ports(chance)),
        14 => format!("sctp{}", make_ports(chance)),
        15 => chance.pick(&["icmp", "icmp/echo-request", "icmp/13", "icmp/0", "icmp/3"]).to_owned(),
        16 => chance.pick(&["icmpv6", "icmpv6/echo-request", "icmpv6/129", "icmpv6/1"]).to_owned(),
        17 => chance.pick(&["gre", "esp", "ah", "ipip", "sit", "igmp", "vrrp", "ospf"]).to_owned(),
        18 => chance.pick(&["253", "50", "59", "0", "6", "17"]).to_owned(),
        _ => format!("tcp/{}", chance.pick(&["http", "https", "smtp", "domain", "ssh"])),
    };
    if chance.percent(45) {
        text.push_str(if direction == Direction::In { " from " } else { " to " });
        let peers: Vec<String> = (0..chance.within(1..4))
            .map(|_| match chance.below(20) {
                0..6 => format!("@{}", chance.pick(&SETS)),
                6..8 => chance.pick(&SERVERS).to_owned(),
                _ => chance.pick(&PEER_PREFIXES).to_owned(),
            })
            .collect();
        text.push_str(&peers.join(", "));
    }
    let has_ports = ["tcp", "udp", "sctp"].iter().any(|protocol| text.starts_with(protocol));
    if direction == Direction::Out && has_ports && chance.percent(20) {
        text.push_str(" sport ");
        text.push_str(&match chance.below(4) {
            0 => "40000-51000".to_owned(),
            1 => "1024-65535".to_owned(),
            _ => pick_client_port(chance).to_string(),
        });
    }
    if direction == Direction::Out && chance.percent(25) {
        // 60/m and 1/s are the same rate, and not the same burst
        let limits = ["1/m", "2/m", "3/m", "6/m", "2/s", "1/s", "60/m"];
        let _ = write!(text, " limit {}", chance.pick(&limits));
    }
    text
}

/// A need with a name. It has no `sport`.
fn make_named_need(chance: &mut Chance) -> String {
    let service =
        chance.pick(&["tcp/443", "tcp/80", "tcp/443", "udp/123", "tcp", "udp", "icmp", "tcp/1-1023"]);
    let peers: Vec<&str> = (0..chance.within(1..3))
        .map(|_| match chance.below(6) {
            0 => "@named",
            1 => chance.pick(&PEER_PREFIXES),
            _ => chance.pick(&NAMES),
        })
        .collect();
    let limit =
        if chance.percent(40) { chance.pick(&[" limit 1/m", " limit 2/m", " limit 60/m"]) } else { "" };
    format!("{service} to {}{limit}", peers.join(", "))
}

fn make_ports(chance: &mut Chance) -> String {
    match chance.below(12) {
        0 => String::new(),
        1 => "/6000-6063".to_owned(),
        2 => "/1024-65535".to_owned(),
        3 => "/0-1023".to_owned(),
        4 => {
            let (a, b) = (pick_port(chance), pick_port(chance));
            format!("/{}-{}", a.min(b), a.max(b))
        }
        5 => "/137-138".to_owned(),
        _ => format!("/{}", pick_service(chance)),
    }
}

#[cfg(test)]
mod tests {
    use portcullis::policy::parse;

    use super::*;

    #[test]
    fn nearly_every_random_policy_is_accepted() {
        let mut chance = Chance::new(1);
        let mut taken = 0;
        for _ in 0..200 {
            let policy = make_policy(&mut chance);
            let changed = change_policy(&mut chance, &policy);
            taken += [policy, changed].iter().filter(|text| parse(text, "test.toml").is_ok()).count();
        }
        assert!(taken > 300, "only {taken} of 400");
    }
}
