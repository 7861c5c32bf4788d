//! Rows 5 and 6: whose address it is, and whether the frame comes from there.

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::{SYN, UDP, fragment, from_mac, link_frame, tagged, tcp, udp};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

fn with_unknown_sources(word: &str) -> TestGate {
    TestGate::new(&POLICY.replace("[policy]", &format!("[policy]\nunknown_sources = \"{word}\"")))
}

#[test]
fn a_source_that_no_server_has_is_dropped_by_default() {
    for gate in [TestGate::dmz(), with_unknown_sources("deny")] {
        in_both_families(|family| {
            let row =
                gate.drops(&tcp((family.unknown, 40_000), (family.peer, 6667), SYN), Reason::UnknownSource);
            assert_eq!((row.key.server, row.key.port, row.key.flags), (0, 6667, 0));
            // what a server may do, nobody else may
            gate.drops(&udp((family.unknown, 40_000), (family.peer, 53)), Reason::UnknownSource);
            gate.passes(&udp((family.ns, 40_000), (family.peer, 53)), Reason::Need);
        });
    }
}

#[test]
fn the_neighbours_of_a_servers_address_are_not_the_server() {
    let gate = TestGate::dmz();
    for near in ["192.0.2.52", "192.0.2.54", "198.51.100.53", "0.0.0.0", "::ffff"] {
        let from = ip(near);
        let to = if from.is_ipv4() { V4.peer } else { V6.peer };
        gate.drops(&udp((from, 40_000), (to, 53)), Reason::UnknownSource);
    }
    for near in ["2001:db8:1::52", "2001:db8:1::54", "2001:db8:1:0:1::53", "2001:db8:2::53", "::"] {
        gate.drops(&udp((ip(near), 40_000), (V6.peer, 53)), Reason::UnknownSource);
    }
}

#[test]
fn a_quiet_unknown_source_is_dropped_without_an_alarm() {
    let gate = with_unknown_sources("quiet");
    in_both_families(|family| {
        let frame = tcp((family.unknown, 40_000), (family.peer, 80), SYN);
        let row = gate.drops(&frame, Reason::UnknownSource);
        assert_eq!(row.key.flags, 1, "DROP_QUIET");
        // a server's drop is as loud as ever
        let row = gate.drops(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
        assert_eq!(row.key.flags, 0);
    });
}

#[test]
fn an_allowed_unknown_source_may_send_whatever_is_in_order() {
    let gate = with_unknown_sources("allow");
    in_both_families(|family| {
        gate.passes(&tcp((family.unknown, 40_000), (family.peer, 80), SYN), Reason::UnknownAllowed);
        gate.passes(&udp((family.unknown, 40_000), (family.peer, 9)), Reason::UnknownAllowed);
        gate.drops(&tcp((family.unknown, 40_000), (family.peer, 80), 0), Reason::Malformed);
        gate.drops(&tcp((family.web, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
    });
    gate.drops(&link_frame(0x8137, &[0; 46]), Reason::Ethertype);
}

/// A bare prefix, a longer one within it, and an address within that.
const NESTED: &str = r#"
[roles.none]
out = ["udp/1"]
[roles.two]
out = ["udp/2"]
[roles.three]
out = ["udp/3"]
[servers.farm]
addresses = ["192.0.2.128/26", "2001:db8:1::/64"]
roles = ["none"]
[servers.rack]
addresses = ["192.0.2.144/28", "2001:db8:1:0:8000::/65"]
roles = ["two"]
[servers.host]
addresses = ["192.0.2.150", "2001:db8:1:0:8000::150"]
roles = ["three"]
"#;

#[test]
fn the_longest_prefix_that_holds_an_address_is_its_server() {
    let gate = TestGate::new(NESTED);
    let cases = [
        ("192.0.2.128", "farm", 1),
        ("192.0.2.143", "farm", 1),
        ("192.0.2.144", "rack", 2),
        ("192.0.2.149", "rack", 2),
        ("192.0.2.150", "host", 3),
        ("192.0.2.151", "rack", 2),
        ("192.0.2.159", "rack", 2),
        ("192.0.2.160", "farm", 1),
        ("192.0.2.191", "farm", 1),
        ("2001:db8:1::", "farm", 1),
        ("2001:db8:1:0:7fff:ffff:ffff:ffff", "farm", 1),
        ("2001:db8:1:0:8000::", "rack", 2),
        ("2001:db8:1:0:8000::150", "host", 3),
        ("2001:db8:1:0:ffff:ffff:ffff:ffff", "rack", 2),
    ];
    for (address, server, permitted) in cases {
        let from = ip(address);
        let to = if from.is_ipv4() { V4.peer } else { V6.peer };
        for port in 1..=3 {
            let frame = udp((from, 40_000), (to, port));
            if port == permitted {
                gate.passes(&frame, Reason::Need);
            } else {
                let row = gate.drops(&frame, Reason::NewFlow);
                assert_eq!(row.key.server, gate.id_of(server), "the server of {address}");
            }
        }
    }
    for outside in ["192.0.2.127", "192.0.2.192", "2001:db8:0:ffff::1", "2001:db8:1:1::"] {
        let from = ip(outside);
        let to = if from.is_ipv4() { V4.peer } else { V6.peer };
        gate.drops(&udp((from, 40_000), (to, 1)), Reason::UnknownSource);
    }
}

#[test]
fn a_bound_address_from_another_mac_is_a_spoof() {
    let gate = TestGate::new(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:10\""));
    in_both_families(|family| {
        let frame = udp((family.ns, 40_000), (family.peer, 53));
        gate.passes(&frame, Reason::Need);
        for byte in 0..6 {
            let mut mac = [2, 0, 0, 0, 0, 0x10];
            mac[byte] ^= 1;
            let row = gate.drops(&from_mac(&frame, mac), Reason::Spoofed);
            assert_eq!((row.key.server, row.key.port), (gate.id_of("ns1"), 53));
        }
        // who is not bound may have any
        let other = udp((family.web, 40_000), (family.loghost, 514));
        gate.passes(&from_mac(&other, [2, 9, 9, 9, 9, 9]), Reason::Need);
    });
}

#[test]
fn a_bound_address_from_another_vlan_is_a_spoof() {
    let gate = TestGate::new(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nvlan = 7"));
    in_both_families(|family| {
        let frame = udp((family.ns, 40_000), (family.peer, 53));
        gate.passes(&tagged(&frame, 0x8100, 7), Reason::Need);
        // priority 5, and "may be dropped": not a part of the VLAN's number
        gate.passes(&tagged(&frame, 0x8100, 0xb007), Reason::Need);
        for tci in [0, 6, 8, 0x107, 0xe006, 0x0807] {
            gate.drops(&tagged(&frame, 0x8100, tci), Reason::Spoofed);
        }
        gate.drops(&frame, Reason::Spoofed);
        // a VLAN within another is another
        for (inner, outer) in [(7, 8), (8, 7), (7, 7)] {
            gate.drops(&tagged(&tagged(&frame, 0x8100, inner), 0x88a8, outer), Reason::Spoofed);
        }
        let other = udp((family.web, 40_000), (family.loghost, 514));
        gate.passes(&other, Reason::Need);
        gate.passes(&tagged(&other, 0x8100, 9), Reason::Need);
    });
}

#[test]
fn a_spoof_is_found_before_anything_it_might_be_permitted() {
    let gate =
        TestGate::new(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:10\""));
    in_both_families(|family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        let answer = tcp(server, peer, 0x18);
        gate.drops(&from_mac(&answer, [2, 0, 0, 0, 0, 0x11]), Reason::Spoofed);
        gate.passes(&answer, Reason::Reply);
        // and quarantine does not hide it
        gate.quarantine("web1", None).unwrap();
        gate.drops(&from_mac(&answer, [2, 0, 0, 0, 0, 0x11]), Reason::Spoofed);
        gate.drops(&answer, Reason::Quarantined);
        assert!(gate.release("web1").unwrap().was);
    });
}

#[test]
fn the_ledger_knows_the_last_source_and_destination() {
    with_dmz_in_both_families(|gate, family| {
        for to in [family.peer, family.other] {
            let row = gate.drops(&tcp((family.web, 40_000), (to, 80), SYN), Reason::NewFlow);
            let address = portcullis::abi::from_address;
            assert_eq!(address(&row.row.last_source), Some(family.web));
            assert_eq!(address(&row.row.last_destination), Some(to));
        }
    });
}

#[test]
fn a_later_fragment_of_the_links_own_has_no_port_to_be_quiet_by() {
    let gate = TestGate::new(&POLICY.replace("\"udp/137-138\"", "\"udp\""));
    for (source, peer) in [(ip("0.0.0.0"), V4.peer), (ip("fe80::1"), V6.peer)] {
        let whole = gate.drops(&udp((source, 5353), (peer, 5353)), Reason::UnknownSource);
        assert_eq!(whole.key.flags, 1);
        let later = gate.drops(&fragment(source, peer, UDP, (3, 9, false), &[0; 16]), Reason::UnknownSource);
        assert_eq!(later.key.flags, 0);
    }
}
