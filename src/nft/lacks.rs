//! What the gate does under a policy, and a ruleset of nft can't.

use crate::net::{ICMP, ICMPV6};
use crate::policy::{Direction, Need, Policy, Questions, Settings, Tracking, UnknownSources};

/// A sentence each, of what this policy uses.
pub(super) fn list_lacks(policy: &Policy, interface: &str) -> Vec<String> {
    // No `..`, so that a new key does not compile until somebody has thought of it here.
    let Settings {
        mode: _,
        tracking,
        unknown_sources,
        management,
        link_services: _,
        quiet_ethertypes,
        pickup_s,
        // these rules ask conntrack for every flow
        handover: _,
        dhcp,
    } = &policy.settings;
    let needs = |direction: Direction| policy.roles.iter().flat_map(move |role| role.needs_of(direction));
    let mut lacks: Vec<String> = [
        "Alarms, the ledger, explain, quarantines and edits are the gate's. Here rules count what they refuse, and the \
         kernel's log has ten lines a second of it.",
        "Row 2: the kernel's own checks decide what is malformed, apart from lengths and flags of TCP, and IPv4-mapped \
         addresses. To conntrack a datagram with a wrong checksum is malformed, unless \
         net.netfilter.nf_conntrack_checksum is 0.",
        "Row 8: the kernel puts fragments together, and the whole packet is judged.",
        "Row 12: an ICMP error passes by the flow that conntrack has for it. Its sender may be another server with the \
         same roles.",
        "Row 16: nft looks through an authentication header of IPv6, so an `ah` need holds in IPv4 alone, and what is \
         inside is judged.",
        "Row 19: packets to the MAC of another host count as any others.",
    ]
    .map(str::to_owned)
    .into();
    lacks.insert(
        1,
        format!(
            "It judges what comes from {interface}, and from VLAN interfaces such as {interface}.7. What comes from a \
             bridge, a bond or another upper device of {interface} has another name."
        ),
    );
    let mut frames = "Row 1: frames other than IP pass".to_owned();
    if !quiet_ethertypes.0.is_empty() {
        frames.push_str(&format!(", those of `quiet_ethertypes` ({quiet_ethertypes}) too"));
    }
    lacks.insert(2, frames + ".");
    match tracking.value {
        Tracking::Strict => {
            lacks.push(
                "Row 9: conntrack knows the flows. It refuses segments outside the window, unless \
                 net.netfilter.nf_conntrack_tcp_be_liberal is 1. A flow ends by its timeouts, and at any reset."
                    .to_owned(),
            );
            lacks.push(format!(
                "Pickup: nft does not know when {} s are over. With net.netfilter.nf_conntrack_tcp_loose 1, the \
                 kernel's default, open connections are taken over at any time. With 0 they end.",
                pickup_s.value
            ));
            lacks.push(
                "Row 11: a SYN+ACK in a flow that the peer has opened is refused, also where a SYN of the server has \
                 crossed the peer's. So is any SYN+ACK with URG. After an \
                 opening that conntrack does not read, such as half a datagram, a SYN+ACK to a port that an `out` need \
                 permits passes."
                    .to_owned(),
            );
        }
        Tracking::Service => {
            lacks.push("Row 12: an ICMP error needs a flow of conntrack in service tracking too.".to_owned());
        }
    }
    let limited = needs(Direction::Out).filter(|need| need.limit.is_some()).count();
    if limited > 0 {
        lacks.push(
            "Limits: the tokens are not the gate's. They are whole again each time that this is loaded."
                .to_owned(),
        );
    }
    if !policy.needed_names().is_empty() {
        lacks.push("Names: nft learns no addresses, so what a need opens by a name stays closed.".to_owned());
    }
    if policy.servers.iter().any(|server| policy.questions_of(server) == Questions::Named) {
        lacks.push("`dns`: nft reads no questions, so a resolver may be asked anything.".to_owned());
    }
    let asked = |need: &&Need| {
        let untracked: &[u16] = match need.protocol {
            ICMP => &[42],
            ICMPV6 => &[139, 160],
            _ => &[],
        };
        untracked.iter().any(|kind| need.ports.contains(kind))
    };
    if tracking.value == Tracking::Strict && needs(Direction::In).chain(management).any(|need| asked(&need)) {
        lacks.push(
            "Row 9: conntrack does not track extended echo requests and node information, so their answers are \
             refused."
                .to_owned(),
        );
    }
    if unknown_sources.value == UnknownSources::Allow {
        lacks.push(
            "A request that a machine without a name sends to a server opens a flow, so the server may answer it."
                .to_owned(),
        );
    }
    if policy.servers.iter().any(|server| server.vlan.is_some()) {
        lacks.push(format!(
            "Row 6: VLAN 7 is the interface {interface}.7. A VLAN interface with another name is not judged at all."
        ));
    }
    if dhcp.value {
        lacks.push(
            "Row 4: a DHCP client that renews its lease by unicast is logged as any other packet.".to_owned(),
        );
    }
    lacks
}
