//! Which sources and destinations count as the link's own: one bit off is a way out.

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, V4, V6, ip};
use crate::support::frame::{ICMPV6, IP, Ipv6, icmp, icmp_message, udp};
use crate::support::test_gate::TestGate;

const QUIET: u8 = 1;

fn solicitation(from: IpAddr, to: IpAddr) -> Vec<u8> {
    let message = icmp_message(from, to, (135, 0), [0; 4], &[0xfe; 16]);
    Ipv6::new(from, to, ICMPV6, &message).hop_limit(255).frame()
}

#[test]
fn what_is_quiet_is_quiet_from_an_address_of_the_link_and_from_none_beside_those() {
    let gate = TestGate::dmz();
    let of_the_link = ["0.0.0.0", "169.254.0.0", "169.254.255.255", "fe80::", "febf:ffff::1", "::"];
    let of_no_link = [
        "0.0.0.1",
        "128.0.0.0",
        "169.253.255.255",
        "169.255.0.0",
        "41.254.0.1",
        "fe7f:ffff::1",
        "fec0::1",
        "7e80::1",
        "::1",
        "::1:0:0",
        "::1:0:0:0:0",
        "1::",
    ];
    for (sources, flags) in [(&of_the_link[..], QUIET), (&of_no_link[..], 0)] {
        for source in sources.iter().map(|text| ip(text)) {
            let peer = if source.is_ipv4() { V4.peer } else { V6.peer };
            let row = gate.drops(&udp((source, 5353), (peer, 5353)), Reason::UnknownSource);
            assert_eq!(row.key.flags, flags, "{source}");
        }
    }
}

#[test]
fn a_server_finds_its_neighbours_by_link_scope_multicast_and_by_no_wider_one() {
    let gate = TestGate::dmz();
    for to in ["ff01::1", "ff02::1", "ff12::1", "ff00::1", "ff02:1::1", "fe80::1", "febf::1", "fe80:1::1"] {
        gate.passes(&solicitation(V6.web, ip(to)), Reason::Neighbour);
    }
    for to in
        ["ff03::1", "ff04::1", "ff05::1", "ff0e::1", "ff13::1", "fe00::1", "7f02::1", "fec0::1", "fe7f::1"]
    {
        gate.drops(&solicitation(V6.web, ip(to)), Reason::NewFlow);
    }
}

#[test]
fn the_numbers_of_neighbour_discovery_mean_nothing_in_ipv4() {
    let gate = TestGate::dmz();
    for kind in [131, 132, 133, 135, 136, 143] {
        for hops in [255, 1] {
            let mut frame = icmp(V4.web, ip("255.255.255.255"), (kind, 0), [0; 4], &[0xfe; 16]);
            frame[IP + 8] = hops;
            gate.drops(&frame, Reason::NewFlow);
        }
    }
}

#[test]
fn a_server_finds_its_neighbours_in_its_own_64_and_in_no_other() {
    // A test run comes from the loopback interface, which forwards nothing.
    let gate = TestGate::dmz();
    gate.passes(&solicitation(V6.web, ip("2001:db8:1::99")), Reason::Neighbour);
    for to in ["2001:db8:1:1::99", "2001:db9:1::99", "2001:db8:2::99"] {
        gate.drops(&solicitation(V6.web, ip(to)), Reason::NewFlow);
    }
}

#[test]
fn dhcp_goes_to_the_broadcast_address_and_to_no_other() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\ndhcp = true"));
    let nobody = (ip("0.0.0.0"), 68);
    gate.passes(&udp(nobody, (ip("255.255.255.255"), 67)), Reason::Dhcp);
    for to in ["255.255.255.254", "127.255.255.255", "192.0.2.255"] {
        gate.drops(&udp(nobody, (ip(to), 67)), Reason::UnknownSource);
    }
}
