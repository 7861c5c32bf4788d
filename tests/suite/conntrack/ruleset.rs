//! A ruleset of nft that says what a policy says, written from the policy's text alone. It leaves the
//! state of flows to conntrack.

use std::fmt::Write as _;

use ipnet::IpNet;

use super::policy::{Need, Policy, Server};
use crate::support::frame::{ICMP, ICMPV6, TCP, UDP};

/// Marks of conntrack's entries: those that a peer opened to a service, and those that a need permits.
const OF_PEER: u8 = 1;
const OF_SERVER: u8 = 2;

/// What no policy has to say, and what nft can say of a single packet: rows 3 and 4 of docs/verdicts.md, and
/// of row 12 that an error about a permitted flow passes.
const FIXED: &str = "
        ip option lsrr exists drop
        ip option ssrr exists drop
        rt type 0 drop
        rt seg-left > 0 drop
        icmp type { redirect, router-advertisement } drop
        icmpv6 type { nd-router-advert, nd-redirect } drop
";

/// Row 12: an error about a flow that passes.
const ERRORS: &str = "        meta l4proto { icmp, ipv6-icmp } ct state related ct mark { 1, 2 } accept\n";

/// The whole of it. `dmz` is the router's NIC in front of the servers.
pub fn write_ruleset(policy: &Policy, dmz: &str) -> String {
    let (mut leaving, mut arriving) = (String::new(), String::new());
    let strangers = drop_strangers(policy);
    for server in &policy.servers {
        for own in &server.addresses {
            let at = Place { policy, server, own: *own };
            server.services.iter().for_each(|need| at.write_service(need, &mut leaving, &mut arriving));
            server.openings.iter().for_each(|need| at.write_opening(need, &mut leaving));
        }
    }
    format!(
        "table inet opinion {{
    chain forward {{
        type filter hook forward priority filter; policy accept;
        iifname {dmz} jump leaving
        oifname {dmz} jump arriving
    }}
    chain leaving {{{FIXED}{strangers}{ERRORS}{leaving}
        drop
    }}
    chain arriving {{
{arriving}
        accept
    }}
}}
"
    )
}

/// Row 5: whoever is no server.
fn drop_strangers(policy: &Policy) -> String {
    let all: Vec<IpNet> = policy.servers.iter().flat_map(|server| server.addresses.clone()).collect();
    let outermost = all.iter().filter(|net| !all.iter().any(|other| other != *net && other.contains(*net)));
    let (v4, v6): (Vec<&IpNet>, Vec<&IpNet>) = outermost.partition(|net| net.addr().is_ipv4());
    let list = |nets: Vec<&IpNet>| nets.iter().map(|net| net.to_string()).collect::<Vec<_>>().join(", ");
    format!("        ip saddr != {{ {} }} drop\n        ip6 saddr != {{ {} }} drop\n", list(v4), list(v6))
}

/// Addresses of a server, and what else it takes to name them.
struct Place<'p> {
    policy: &'p Policy,
    server: &'p Server,
    own: IpNet,
}

impl Place<'_> {
    /// `ip saddr …`, without longer prefixes of other servers.
    fn name_own(&self, side: &str) -> String {
        let family = if self.own.addr().is_ipv6() { "ip6" } else { "ip" };
        let mut text = format!("{family} {side} {}", self.own);
        for other in self.policy.servers.iter().flat_map(|server| &server.addresses) {
            let inside = other != &self.own && self.own.contains(other);
            if inside && !self.server.addresses.contains(other) {
                let _ = write!(text, " {family} {side} != {other}");
            }
        }
        text
    }

    /// ` ip daddr { … }`. `None`: the need has no peer of this family.
    fn name_peers(&self, need: &Need, side: &str) -> Option<String> {
        let Some(peers) = &need.peers else {
            return Some(String::new());
        };
        let v6 = self.own.addr().is_ipv6();
        let names: Vec<String> =
            peers.iter().filter(|net| net.addr().is_ipv6() == v6).map(IpNet::to_string).collect();
        let family = if v6 { "ip6" } else { "ip" };
        (!names.is_empty()).then(|| format!(" {family} {side} {{ {} }}", names.join(", ")))
    }

    /// Needs of the other family's ICMP say nothing here.
    fn concerns(&self, need: &Need) -> bool {
        need.protocol != if self.own.addr().is_ipv6() { ICMP } else { ICMPV6 }
    }

    /// The peer opens the flow, and answers of the server pass: any packet in it but a bare SYN.
    fn write_service(&self, need: &Need, leaving: &mut String, arriving: &mut String) {
        let (Some(to), Some(from)) = (self.name_peers(need, "daddr"), self.name_peers(need, "saddr")) else {
            return;
        };
        if !self.concerns(need) {
            return;
        }
        let (own_source, own_destination) = (self.name_own("saddr"), self.name_own("daddr"));
        let no_syn = if need.protocol == TCP { " tcp flags & (syn | ack) != syn" } else { "" };
        let (answer, asked) = (name_answer(need), name_ports(need, "dport"));
        let _ = writeln!(
            leaving,
            "        {own_source}{to} {answer}{no_syn} ct direction reply ct state established accept"
        );
        let _ = writeln!(
            arriving,
            "        {own_destination}{from} {asked} ct state new ct mark set {OF_PEER} accept"
        );
    }

    /// The server opens the flow by a packet that the need names, TCP by a bare SYN.
    fn write_opening(&self, need: &Need, leaving: &mut String) {
        let Some(to) = self.name_peers(need, "daddr") else {
            return;
        };
        if !self.concerns(need) {
            return;
        }
        let (own, what) = (self.name_own("saddr"), name_ports(need, "dport"));
        let (syn, later) = if need.protocol == TCP {
            (" tcp flags & (syn | ack) == syn", " ct direction original")
        } else {
            ("", "")
        };
        let _ = writeln!(
            leaving,
            "        {own}{to} {what}{syn} ct state {{ new, established }} ct mark set {OF_SERVER} accept"
        );
        if need.protocol == TCP {
            let _ = writeln!(leaving, "        {own}{to} {what}{later} ct state established accept");
        }
    }
}

/// What names a packet to the service, or with `sport` one from it.
fn name_ports(need: &Need, side: &str) -> String {
    let ports = need
        .ports
        .map(|(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") });
    match (need.protocol, ports) {
        (TCP, Some(ports)) => format!("tcp {side} {ports}"),
        (UDP, Some(ports)) => format!("udp {side} {ports}"),
        (ICMP, Some(kind)) => format!("icmp type {kind}"),
        (ICMPV6, Some(kind)) => format!("icmpv6 type {kind}"),
        (protocol, _) => format!("meta l4proto {protocol}"),
    }
}

/// What names an answer of the service.
fn name_answer(need: &Need) -> String {
    match (need.protocol, need.ports) {
        (ICMP, Some((13, _))) => "icmp type timestamp-reply".to_owned(),
        (ICMP, _) => "icmp type echo-reply".to_owned(),
        (ICMPV6, _) => "icmpv6 type echo-reply".to_owned(),
        _ => name_ports(need, "sport"),
    }
}
