//! VRRP: a router of the policy may say that it is one, and no server may.

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, in_each, ip};
use crate::support::frame::{
    ICMPV6, Ipv4, Ipv6, SERVER_MAC, ethernet, from_mac, icmp, icmp_message, link_frame, raw_ip, udp,
};
use crate::support::layers::fix_ipv4_checksum;
use crate::support::test_gate::TestGate;

const QUIET: u8 = 1;
const VRRP: u8 = 112;
const MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0f, 0x03];
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 0x0a];
const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0x0f, 0x04];
const CONTENT: [u8; 20] = [0x31, 10, 100, 1, 0, 100, 0, 0, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0];

#[derive(Clone, Copy)]
struct Actors {
    router: IpAddr,
    /// Of the same link, and in no policy.
    other: IpAddr,
    server: IpAddr,
    group: IpAddr,
    other_group: IpAddr,
    peer: IpAddr,
}

fn with_actors(test: impl FnMut(Actors)) {
    let actors = |texts: [&str; 6]| {
        let [router, other, server, group, other_group, peer] = texts.map(ip);
        Actors { router, other, server, group, other_group, peer }
    };
    let families = [
        actors(["192.0.2.3", "192.0.2.4", "192.0.2.10", "224.0.0.18", "224.0.0.5", "203.0.113.50"]),
        actors(["fe80::2:3", "fe80::2:4", "2001:db8:1::10", "ff02::12", "ff02::5", "2001:db8:50::50"]),
    ];
    in_each(families, |actors| actors.router, test);
}

fn policy() -> String {
    format!(
        "{POLICY}\n[routers.peer]\naddresses = [\"192.0.2.3\", \"fe80::2:3\"]\n\
         mac = [\"02:00:00:00:0f:03\", \"00:00:5e:00:01:0a\"]\n"
    )
}

fn send(from: IpAddr, to: IpAddr, hops: u8) -> Vec<u8> {
    if from.is_ipv6() {
        return Ipv6::new(from, to, VRRP, &CONTENT).hop_limit(hops).frame();
    }
    let mut packet = Ipv4::new(from, to, VRRP, &CONTENT).packet();
    packet[8] = hops;
    packet[10..12].fill(0);
    fix_ipv4_checksum(&mut packet[..20]);
    ethernet(&packet)
}

#[test]
fn the_adverts_of_a_router_of_the_policy_pass() {
    let gate = TestGate::new(&policy());
    with_actors(|who| {
        let advert = send(who.router, who.group, 255);
        for mac in [MAC, VIRTUAL_MAC] {
            gate.passes(&from_mac(&advert, mac), Reason::Router);
        }
        // its address from another host is anybody's
        for mac in [OTHER_MAC, SERVER_MAC] {
            let row = gate.drops(&from_mac(&advert, mac), Reason::UnknownSource);
            assert_eq!(row.key.flags, 0);
        }
        // and so is its MAC with another address
        let row = gate.drops(&from_mac(&send(who.other, who.group, 255), MAC), Reason::UnknownSource);
        assert_eq!(row.key.flags, 0);
        gate.swap(POLICY);
        assert_eq!(gate.drops(&from_mac(&advert, MAC), Reason::UnknownSource).key.flags, 0);
        gate.swap(&policy());
        gate.passes(&from_mac(&advert, MAC), Reason::Router);
    });
}

#[test]
fn what_else_a_router_sends_is_dropped_quietly() {
    let gate = TestGate::new(&policy());
    with_actors(|who| {
        for frame in [
            send(who.router, who.group, 254),
            send(who.router, who.group, 1),
            send(who.router, who.other_group, 255),
            send(who.router, who.peer, 255),
            udp((who.router, 40_000), (who.peer, 53)),
            icmp(who.router, who.peer, if who.router.is_ipv4() { (8, 0) } else { (128, 0) }, [0; 4], &[0; 8]),
        ] {
            let row = gate.drops(&from_mac(&frame, MAC), Reason::UnknownSource);
            assert_eq!((row.key.server, row.key.flags), (0, QUIET));
        }
        let kinds = if who.router.is_ipv4() { [5, 9] } else { [137, 134] };
        for kind in kinds {
            let message = icmp(who.router, who.peer, (kind, 0), [0; 4], &[0; 32]);
            assert_eq!(gate.drops(&from_mac(&message, MAC), Reason::RogueRouter).key.flags, QUIET);
            assert_eq!(gate.drops(&from_mac(&message, OTHER_MAC), Reason::RogueRouter).key.flags, 0);
            let message = icmp(who.server, who.peer, (kind, 0), [0; 4], &[0; 32]);
            assert_eq!(gate.drops(&from_mac(&message, MAC), Reason::RogueRouter).key.flags, 0);
        }
    });
}

#[test]
fn what_a_router_tells_the_link_from_other_addresses_is_dropped_quietly() {
    const IGMP: u8 = 2;
    let gate = TestGate::new(&policy());
    // without an address, and from the one that both routers share
    let reports = [("0.0.0.0", "224.0.0.22"), ("192.0.2.1", "224.0.0.22"), ("192.0.2.1", "224.0.0.1")]
        .map(|(from, to)| raw_ip(ip(from), ip(to), IGMP, &[0; 16]));
    let shared = ip("2001:db8:1::1");
    let advertisement = |to: IpAddr| {
        let message = icmp_message(shared, to, (136, 0), [0x20, 0, 0, 0], &[0xfe; 16]);
        Ipv6::new(shared, to, ICMPV6, &message).hop_limit(255).frame()
    };
    for frame in reports.iter().chain([&advertisement(ip("ff02::1"))]) {
        for (mac, flags) in [(MAC, QUIET), (VIRTUAL_MAC, QUIET), (OTHER_MAC, 0), (SERVER_MAC, 0)] {
            let row = gate.drops(&from_mac(frame, mac), Reason::UnknownSource);
            assert_eq!((row.key.server, row.key.flags), (0, flags), "{mac:02x?}");
        }
    }
    // what goes elsewhere is reported, as are advertisements of a router that is none
    let beyond = [
        raw_ip(ip("192.0.2.1"), ip("224.0.1.1"), IGMP, &[0; 16]),
        raw_ip(ip("0.0.0.0"), ip("203.0.113.50"), IGMP, &[0; 16]),
        udp((shared, 40_000), (ip("ff05::1"), 53)),
        advertisement(ip("2001:db8:50::50")),
    ];
    let adverts = [("192.0.2.1", "224.0.0.18"), ("0.0.0.0", "224.0.0.18"), ("2001:db8:1::1", "ff02::12")]
        .map(|(from, to)| send(ip(from), ip(to), 255));
    for frame in beyond.iter().chain(&adverts) {
        assert_eq!(gate.drops(&from_mac(frame, MAC), Reason::UnknownSource).key.flags, 0);
    }
    gate.swap(POLICY);
    assert_eq!(gate.drops(&from_mac(&reports[0], MAC), Reason::UnknownSource).key.flags, 0);
}

#[test]
fn a_router_finds_its_neighbours_as_everybody_does() {
    let gate = TestGate::new(&policy());
    gate.passes(&from_mac(&link_frame(0x0806, &[0; 46]), MAC), Reason::LinkLayer);
    let (from, to) = (ip("fe80::2:3"), ip("ff02::1:ff00:1"));
    let message = icmp_message(from, to, (135, 0), [0; 4], &[0xfe; 16]);
    let solicitation = Ipv6::new(from, to, ICMPV6, &message).hop_limit(255).frame();
    gate.passes(&from_mac(&solicitation, MAC), Reason::Neighbour);
}

#[test]
fn a_router_of_the_policy_finds_its_neighbours_from_a_global_address_too() {
    let routers = "addresses = [\"192.0.2.3\", \"fe80::2:3\"";
    let gate = TestGate::new(&policy().replace(routers, &format!("{routers}, \"2001:db8:1::3\"")));
    let discovery = |from: &str, to: &str, kind: u8, hops: u8| {
        let (from, to) = (ip(from), ip(to));
        let message = icmp_message(from, to, (kind, 0), [0; 4], &[0xfe; 16]);
        Ipv6::new(from, to, ICMPV6, &message).hop_limit(hops).frame()
    };
    let global = "2001:db8:1::3";
    for kind in [135, 136] {
        let message = discovery(global, "ff02::1:ff00:1", kind, 255);
        gate.passes(&from_mac(&message, MAC), Reason::Neighbour);
        // its address from another host, and another address of it
        assert_eq!(gate.drops(&from_mac(&message, OTHER_MAC), Reason::UnknownSource).key.flags, 0);
        let other = discovery("2001:db8:1::4", "ff02::1:ff00:1", kind, 255);
        assert_eq!(gate.drops(&from_mac(&other, MAC), Reason::UnknownSource).key.flags, QUIET);
        // what a router would forward
        for beyond in
            [discovery(global, "2001:db8:50::50", kind, 255), discovery(global, "ff05::1", kind, 255)]
        {
            assert_eq!(gate.drops(&from_mac(&beyond, MAC), Reason::UnknownSource).key.flags, QUIET);
        }
        let tired = discovery(global, "ff02::1:ff00:1", kind, 254);
        assert_eq!(gate.drops(&from_mac(&tired, MAC), Reason::UnknownSource).key.flags, QUIET);
        // an answer from the address that both share goes to one host
        let shared = |hops| discovery("2001:db8:1::1", "2001:db8:1::2", kind, hops);
        for (hops, mac, flags) in [(255, MAC, QUIET), (254, MAC, 0), (255, OTHER_MAC, 0)] {
            let row = gate.drops(&from_mac(&shared(hops), mac), Reason::UnknownSource);
            assert_eq!(row.key.flags, flags, "{hops} {mac:02x?}");
        }
    }
}

#[test]
fn a_router_asks_the_link_for_members_of_groups_quietly() {
    const IGMP: u8 = 2;
    let gate = TestGate::new(&policy());
    let igmp = |from: &str, to: &str, ttl: u8| {
        let mut packet = Ipv4::new(ip(from), ip(to), IGMP, &[0x11, 0, 0xee, 0xff, 0, 0, 0, 0]).packet();
        packet[8] = ttl;
        packet[10..12].fill(0);
        fix_ipv4_checksum(&mut packet[..20]);
        ethernet(&packet)
    };
    let mld = |from: &str, to: &str, hops: u8| {
        let message = icmp_message(ip(from), ip(to), (130, 0), [0; 4], &[0; 16]);
        Ipv6::new(ip(from), ip(to), ICMPV6, &message).hop_limit(hops).frame()
    };
    // of all groups and of one, from an address of the policy and from others
    let queries = [
        igmp("192.0.2.3", "224.0.0.1", 1),
        igmp("0.0.0.0", "224.0.0.1", 1),
        igmp("192.0.2.1", "224.0.1.1", 1),
        igmp("0.0.0.0", "239.1.2.3", 1),
        mld("fe80::2:3", "ff02::1", 1),
        mld("fe80::2:4", "ff02::1", 1),
        mld("fe80::2:4", "ff0e::1:2", 1),
        mld("fe80::2:3", "ff05::1:2", 1),
    ];
    for query in &queries {
        assert_eq!(gate.drops(&from_mac(query, MAC), Reason::UnknownSource).key.flags, QUIET);
        assert_eq!(gate.drops(&from_mac(query, OTHER_MAC), Reason::UnknownSource).key.flags, 0);
    }
    // what could be forwarded, and what is no such question
    for other in [
        igmp("192.0.2.1", "224.0.1.1", 2),
        igmp("192.0.2.1", "203.0.113.50", 1),
        mld("fe80::2:4", "ff0e::1:2", 2),
        mld("fe80::2:4", "2001:db8:50::50", 1),
        udp((ip("192.0.2.1"), 40_000), (ip("239.1.2.3"), 1900)),
    ] {
        assert_eq!(gate.drops(&from_mac(&other, MAC), Reason::UnknownSource).key.flags, 0);
    }
}

#[test]
fn a_server_that_claims_to_be_the_router_is_a_rogue_unless_it_needs_to() {
    let gate = TestGate::new(&policy());
    with_actors(|who| {
        gate.swap(&policy());
        for (to, hops) in [(who.group, 255), (who.group, 64), (who.peer, 255)] {
            for mac in [SERVER_MAC, MAC] {
                let row = gate.drops(&from_mac(&send(who.server, to, hops), mac), Reason::RogueRouter);
                assert_eq!((row.key.server, row.key.protocol), (gate.id_of("web1"), VRRP));
                assert_eq!(row.key.flags, 0);
            }
        }
        let needs = "out   = [\"vrrp to 224.0.0.18, ff02::12\", \"udp/514";
        gate.swap(&policy().replace("out   = [\"udp/514", needs));
        gate.passes(&send(who.server, who.group, 255), Reason::Need);
        gate.drops(&send(who.server, who.peer, 255), Reason::Destination);
    });
}
