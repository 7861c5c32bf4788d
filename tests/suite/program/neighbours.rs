//! Row 4: what an IPv6 link and a DHCP client can't do without, and who plays the router.

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, V4, V6, ip};
use crate::support::frame::{
    HOP_BY_HOP, ICMPV6, Ipv6, UDP, ethernet, icmp, icmp_message, packet, udp, udp_datagram,
};
use crate::support::test_gate::TestGate;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;
const MLD_QUERY: u8 = 130;
const MLD_REPORT: u8 = 131;
const MLD2_REPORT: u8 = 143;

const LINK_LOCAL: &str = "fe80::10";
const ALL_NODES: &str = "ff02::1";

/// A message of neighbour discovery, with a target address as most have it.
fn discovery(from: IpAddr, kind: u8, hop_limit: u8) -> Vec<u8> {
    let to = ip(ALL_NODES);
    let message = icmp_message(from, to, (kind, 0), [0; 4], &[0xfe; 16]);
    Ipv6::new(from, to, ICMPV6, &message).hop_limit(hop_limit).frame()
}

/// A message of multicast listener discovery, with the router alert that it always has.
fn listener(from: IpAddr, kind: u8, hop_limit: u8) -> Vec<u8> {
    let to = ip("ff02::16");
    let message = icmp_message(from, to, (kind, 0), [0; 4], &[0xff; 20]);
    let packet = Ipv6::new(from, to, ICMPV6, &message).hop_limit(hop_limit);
    packet.extension(HOP_BY_HOP, &[0, 5, 2, 0, 0, 1, 0]).frame()
}

#[test]
fn neighbour_discovery_passes_from_a_link_local_an_unspecified_or_a_servers_address() {
    let gate = TestGate::dmz();
    for kind in [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        for source in [ip(LINK_LOCAL), ip("febf::1"), ip("::"), V6.web] {
            gate.passes(&discovery(source, kind, 255), Reason::Neighbour);
        }
    }
}

#[test]
fn neighbour_discovery_that_may_have_been_forwarded_is_no_neighbours() {
    let gate = TestGate::dmz();
    for kind in [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        for hop_limit in [0, 1, 64, 254] {
            for source in [ip(LINK_LOCAL), ip("::")] {
                gate.drops(&discovery(source, kind, hop_limit), Reason::UnknownSource);
            }
            gate.drops(&discovery(V6.web, kind, hop_limit), Reason::NewFlow);
        }
    }
}

#[test]
fn neighbour_discovery_from_an_address_that_nobody_has_is_no_neighbours() {
    let gate = TestGate::dmz();
    // the first ones outside of fe80::/10 as well
    for source in [V6.unknown, ip("fec0::1"), ip("fe7f::1")] {
        gate.drops(&discovery(source, NEIGHBOUR_SOLICITATION, 255), Reason::UnknownSource);
    }
}

#[test]
fn neighbour_discovery_stays_on_the_link() {
    // A router forwards what a global address sends to another one, whatever it is.
    let gate = TestGate::dmz();
    for kind in [ROUTER_SOLICITATION, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT] {
        let message = |from, to: IpAddr| {
            let message = icmp_message(from, to, (kind, 0), [0; 4], &[0xfe; 16]);
            Ipv6::new(from, to, ICMPV6, &message).hop_limit(255).frame()
        };
        // where the form of the address does not tell, the routing table does: see the e2e tier
        for to in ["ff02::1", "ff02::1:ff00:1", "fe80::1"] {
            gate.passes(&message(V6.web, ip(to)), Reason::Neighbour);
        }
        gate.drops(&message(V6.web, ip("ff05::1")), Reason::NewFlow);
        gate.drops(&message(V6.web, V6.peer), Reason::NewFlow);
    }
}

#[test]
fn listener_reports_pass_with_hop_limit_1_only() {
    let gate = TestGate::dmz();
    for kind in [MLD_REPORT, MLD2_REPORT] {
        for source in [ip(LINK_LOCAL), ip("::"), V6.web] {
            gate.passes(&listener(source, kind, 1), Reason::Neighbour);
        }
        for hop_limit in [0, 2, 64, 255] {
            gate.drops(&listener(ip(LINK_LOCAL), kind, hop_limit), Reason::UnknownSource);
            gate.drops(&listener(V6.web, kind, hop_limit), Reason::NewFlow);
        }
        gate.drops(&listener(V6.unknown, kind, 1), Reason::UnknownSource);
    }
}

#[test]
fn a_listener_query_from_a_server_is_dropped() {
    let gate = TestGate::dmz();
    gate.drops(&listener(ip(LINK_LOCAL), MLD_QUERY, 1), Reason::UnknownSource);
    gate.drops(&listener(V6.web, MLD_QUERY, 1), Reason::NewFlow);
}

#[test]
fn whoever_plays_the_router_is_dropped_whatever_the_source_and_the_hop_limit() {
    let gate = TestGate::dmz();
    for kind in [ROUTER_ADVERTISEMENT, REDIRECT] {
        for source in [ip(LINK_LOCAL), ip("::"), V6.web, V6.unknown] {
            for hop_limit in [1, 64, 255] {
                let row = gate.drops(&discovery(source, kind, hop_limit), Reason::RogueRouter);
                assert_eq!((row.key.protocol, row.key.port), (ICMPV6, u16::from(kind)));
            }
        }
    }
    // behind an extension header, the usual way around a filter
    let message = icmp_message(ip(LINK_LOCAL), ip(ALL_NODES), (ROUTER_ADVERTISEMENT, 0), [0; 4], &[0; 8]);
    let hidden = Ipv6::new(ip(LINK_LOCAL), ip(ALL_NODES), ICMPV6, &message).hop_limit(255);
    gate.drops(&hidden.options(HOP_BY_HOP, 0).frame(), Reason::RogueRouter);
}

#[test]
fn an_ipv4_redirect_or_router_advertisement_is_a_rogue_routers_as_well() {
    let gate = TestGate::dmz();
    for source in [V4.web, V4.unknown] {
        gate.drops(&icmp(source, V4.peer, (5, 1), [192, 0, 2, 1], &[0; 28]), Reason::RogueRouter);
        gate.drops(&icmp(source, V4.peer, (9, 0), [1, 2, 7, 8], &[0; 8]), Reason::RogueRouter);
    }
    // a solicitation asks for a router, and plays none
    gate.drops(&icmp(V4.web, V4.peer, (10, 0), [0; 4], &[]), Reason::NewFlow);
}

#[test]
fn neighbour_discovery_is_judged_before_mac_and_quarantine() {
    let gate =
        TestGate::new(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:99\""));
    gate.quarantine("ns1", None).unwrap();
    for source in [V6.web, V6.ns] {
        gate.passes(&discovery(source, NEIGHBOUR_SOLICITATION, 255), Reason::Neighbour);
    }
}

fn dhcp_on() -> TestGate {
    TestGate::new(&POLICY.replace("[policy]", "[policy]\ndhcp = true"))
}

/// Discover, or a request for the lease's renewal.
fn dhcp4_frames() -> [Vec<u8>; 2] {
    [udp((ip("0.0.0.0"), 68), (ip("255.255.255.255"), 67)), udp((V4.web, 68), (ip("255.255.255.255"), 67))]
}

/// Solicit.
fn dhcp6_frame() -> Vec<u8> {
    udp((ip(LINK_LOCAL), 546), (ip("ff02::1:2"), 547))
}

#[test]
fn dhcp_clients_pass_where_dhcp_is_on() {
    let gate = dhcp_on();
    for frame in dhcp4_frames() {
        gate.passes(&frame, Reason::Dhcp);
    }
    gate.passes(&dhcp6_frame(), Reason::Dhcp);
}

#[test]
fn dhcp_clients_are_dropped_where_dhcp_is_off() {
    let gate = TestGate::dmz();
    let [discover, renewal] = dhcp4_frames();
    gate.drops(&discover, Reason::UnknownSource);
    gate.drops(&renewal, Reason::NewFlow);
    gate.drops(&dhcp6_frame(), Reason::UnknownSource);
}

#[test]
fn what_is_no_dhcp_client_gains_nothing_by_dhcp() {
    let gate = dhcp_on();
    let (nobody, everybody) = (ip("0.0.0.0"), ip("255.255.255.255"));
    // a server's answers, and ports next to the right ones
    for (from, to) in [(67, 68), (68, 66), (67, 67), (69, 67), (68, 68), (546, 547)] {
        gate.drops(&udp((nobody, from), (everybody, to)), Reason::UnknownSource);
    }
    for (from, to) in [(547, 546), (546, 546), (547, 547), (545, 547), (68, 67)] {
        gate.drops(&udp((ip(LINK_LOCAL), from), (ip("ff02::1:2"), to)), Reason::UnknownSource);
    }
    let tcp = crate::support::frame::tcp((nobody, 68), (everybody, 67), 2);
    gate.drops(&tcp, Reason::UnknownSource);
}

#[test]
fn a_dhcp_client_without_an_address_talks_to_the_link_and_not_to_the_internet() {
    let gate = dhcp_on();
    gate.drops(&udp((V4.unknown, 68), (V4.peer, 67)), Reason::UnknownSource);
    gate.drops(&udp((ip(LINK_LOCAL), 546), (ip("ff05::1:3"), 547)), Reason::UnknownSource);
    gate.drops(&udp((ip("0.0.0.0"), 68), (V4.peer, 67)), Reason::UnknownSource);
    gate.drops(&udp((ip(LINK_LOCAL), 546), (V6.peer, 547)), Reason::UnknownSource);
}

#[test]
fn a_dhcp_client_that_renews_where_it_has_leased_is_dropped_without_an_alarm() {
    // Nothing in the packet tells whether it stays on the link; the client broadcasts in the end.
    const QUIET: u8 = 1;
    let gate = dhcp_on();
    gate.to_server(&udp((V4.ns, 67), (V4.web, 68)));
    assert_eq!(gate.drops(&udp((V4.web, 68), (V4.ns, 67)), Reason::NewFlow).key.flags, QUIET);
    assert_eq!(gate.drops(&udp((V4.web, 68), (V4.ns, 68)), Reason::NewFlow).key.flags, 0);
    gate.passes(&udp((V4.web, 68), (ip("255.255.255.255"), 67)), Reason::Dhcp);
    gate.drops(&udp((V6.web, 546), (ip("ff05::1:3"), 547)), Reason::NewFlow);
}

#[test]
fn a_fragment_is_no_dhcp_client() {
    let gate = dhcp_on();
    let (from, to) = ((ip("0.0.0.0"), 68), (ip("255.255.255.255"), 67));
    let datagram = udp_datagram(from, to, &[0; 64]);
    let later = crate::support::frame::fragment(from.0, to.0, UDP, (1, 9, false), &datagram);
    gate.drops(&later, Reason::UnknownSource);
    gate.passes(&ethernet(&packet(from.0, to.0, UDP, &datagram)), Reason::Dhcp);
}
