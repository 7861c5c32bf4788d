//! Row 5a: a frame to another host of the link, which only a promiscuous NIC sees.

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::{
    ICMPV6, Ipv6, ROUTER_MAC, SERVER_MAC, SYN, UDP, fragment, from_mac, icmp_message, link_frame, patched,
    tcp, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, mac_number, with_dmz_in_both_families};

const NEIGHBOUR: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
const ARP: u16 = 0x0806;

fn to_mac(frame: &[u8], mac: [u8; 6]) -> Vec<u8> {
    patched(frame, 0, &mac)
}

/// What the web server may not send.
fn forbidden(family: Family) -> Vec<u8> {
    tcp((family.web, 40_000), (family.peer, 445), SYN)
}

/// A host of the link says where it is.
fn announce(gate: &TestGate, mac: [u8; 6]) {
    gate.passes(&from_mac(&link_frame(ARP, &[0; 46]), mac), Reason::LinkLayer);
}

#[test]
fn a_drop_of_a_frame_to_a_neighbour_is_elsewhere_and_one_row() {
    with_dmz_in_both_families(|gate, family| {
        gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::NewFlow);
        announce(&gate, NEIGHBOUR);
        let first = gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::Elsewhere);
        assert_eq!((first.key.server, first.key.port, first.key.flags), (gate.id_of("web1"), 0, 0));
        for port in [1, 80, 3306, 65_535] {
            let frame = to_mac(&tcp((family.web, 40_000), (family.peer, port), SYN), NEIGHBOUR);
            let row = gate.drops(&frame, Reason::Elsewhere);
            assert_eq!(row.row.number, first.row.number);
        }
        // whatever else is wrong with it
        gate.drops(&to_mac(&tcp((family.web, 1), (family.peer, 2), 0), NEIGHBOUR), Reason::Elsewhere);
        let row =
            gate.drops(&to_mac(&udp((family.unknown, 1), (family.peer, 2)), NEIGHBOUR), Reason::Elsewhere);
        assert_eq!((row.key.server, row.key.port), (0, 0));
        gate.quarantine("web1", None).unwrap();
        gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::Elsewhere);
        gate.drops(&forbidden(family), Reason::Quarantined);
        gate.release("web1").unwrap();
        // what is permitted passes, wherever it goes
        gate.passes(&to_mac(&udp((family.ns, 40_000), (family.peer, 53)), NEIGHBOUR), Reason::Need);
    });
}

#[test]
fn neighbour_discovery_tells_who_is_on_the_link_and_nothing_else_does() {
    let gate = TestGate::dmz();
    let frame = to_mac(&forbidden(V6), NEIGHBOUR);
    gate.passes(&from_mac(&udp((V6.ns, 40_000), (V6.peer, 53)), NEIGHBOUR), Reason::Need);
    gate.drops(&from_mac(&forbidden(V6), NEIGHBOUR), Reason::NewFlow);
    gate.passes(&from_mac(&link_frame(0x88cc, &[0; 46]), NEIGHBOUR), Reason::LinkLayer);
    gate.drops(&frame, Reason::NewFlow);
    let (from, to) = (ip("fe80::77"), ip("ff02::1:ff00:1"));
    let message = icmp_message(from, to, (135, 0), [0; 4], &[0xfe; 16]);
    let solicitation = Ipv6::new(from, to, ICMPV6, &message).hop_limit(255).frame();
    gate.passes(&from_mac(&solicitation, NEIGHBOUR), Reason::Neighbour);
    gate.drops(&frame, Reason::Elsewhere);
}

#[test]
fn what_this_machine_takes_is_never_elsewhere() {
    let ours = [
        [0x02, 0, 0, 0, 0, 0x88],             // of a macvlan, by the tool
        [0x00, 0x00, 0x5e, 0x00, 0x01, 0x0a], // the virtual router's (RFC 9568)
        [0x00, 0x00, 0x5e, 0x00, 0x02, 0xff],
        [0xff; 6],
        [0x01, 0x00, 0x5e, 0, 0, 0x12],
        [0x33, 0x33, 0, 0, 0, 0x12],
    ];
    // as near as can be to the virtual ones
    let others = [
        [0x00, 0x00, 0x5e, 0x00, 0x03, 0x0a],
        [0x00, 0x00, 0x5e, 0x00, 0x00, 0x0a],
        [0x02, 0x00, 0x5e, 0x00, 0x01, 0x0a],
    ];
    with_dmz_in_both_families(|gate, family| {
        let key = mac_number(ours[0]).to_ne_bytes();
        gate.maps.find("own_macs").unwrap().update(&key, &1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
        for mac in ours.iter().chain(&others) {
            gate.drops(&to_mac(&forbidden(family), *mac), Reason::NewFlow);
            announce(&gate, *mac);
        }
        announce(&gate, ROUTER_MAC);
        gate.drops(&forbidden(family), Reason::NewFlow);
        for mac in ours {
            gate.drops(&to_mac(&forbidden(family), mac), Reason::NewFlow);
        }
        for mac in others {
            gate.drops(&to_mac(&forbidden(family), mac), Reason::Elsewhere);
        }
        gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::NewFlow);
    });
}

#[test]
fn the_macs_of_the_policy_are_on_the_link() {
    let text = format!(
        "{}\n[routers.peer]\naddresses = [\"192.0.2.3\", \"fe80::3\"]\nmac = [\"02:00:00:00:00:03\", \"00:00:5e:00:01:0a\"]\n",
        POLICY
            .replace("[servers.ns1]", "[servers.ns1]\nmac = [\"02:00:00:00:00:10\", \"02:00:00:00:00:77\"]")
    );
    let gate = TestGate::new(&text);
    in_both_families(|family| {
        gate.swap(&text);
        for mac in [SERVER_MAC, NEIGHBOUR, [0x02, 0, 0, 0, 0, 0x03]] {
            gate.drops(&to_mac(&forbidden(family), mac), Reason::Elsewhere);
        }
        gate.drops(&to_mac(&forbidden(family), [0, 0, 0x5e, 0, 1, 0x0a]), Reason::NewFlow);
        gate.drops(&to_mac(&forbidden(family), [0x02, 0, 0, 0, 0, 0x04]), Reason::NewFlow);
        gate.swap(POLICY);
        gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::NewFlow);
    });
}

#[test]
fn elsewhere_is_remembered_for_no_other_frame() {
    with_dmz_in_both_families(|gate, family| {
        announce(&gate, NEIGHBOUR);
        for _ in 0..3 {
            gate.drops(&to_mac(&forbidden(family), NEIGHBOUR), Reason::Elsewhere);
            gate.drops(&forbidden(family), Reason::NewFlow);
        }
        // nor do the fragments to this machine share the reason of a first one to a neighbour
        let datagram = udp_datagram((family.ns, 40_000), (family.peer, 80), &[0; 16]);
        let first = fragment(family.ns, family.peer, UDP, (7, 0, true), &datagram);
        let later = fragment(family.ns, family.peer, UDP, (7, 3, false), &[0; 16]);
        gate.drops(&to_mac(&first, NEIGHBOUR), Reason::Elsewhere);
        gate.drops(&later, Reason::Fragment);
        gate.drops(&to_mac(&later, NEIGHBOUR), Reason::Elsewhere);
    });
}

#[test]
fn a_gate_that_observes_counts_what_goes_elsewhere() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    announce(&gate, NEIGHBOUR);
    let row = gate.would_drop(&to_mac(&forbidden(V4), NEIGHBOUR), Reason::Elsewhere);
    assert_eq!((row.key.port, row.key.flags), (0, 2));
}

#[test]
fn in_a_bridge_with_several_ports_a_host_of_the_policy_has_to_be_heard_on_this_link() {
    let text =
        format!("{POLICY}\n[servers.other]\naddresses = [\"192.0.2.77\"]\nmac = \"02:00:00:00:00:77\"\n");
    in_both_families(|family| {
        let gate = TestGate::new(&text);
        let frame = to_mac(&forbidden(family), NEIGHBOUR);
        let note = |mac: [u8; 6], value: u32| {
            gate.maps.own_macs.put(&mac_number(mac), &value, MapFlags::ANY).expect("an update");
        };
        note(ROUTER_MAC, 1);
        gate.drops(&frame, Reason::Elsewhere);
        note(ROUTER_MAC, 3);
        gate.drops(&frame, Reason::NewFlow);
        // one that is behind another port hears what this machine forwards, whoever claims its MAC
        announce(&gate, NEIGHBOUR);
        gate.drops(&frame, Reason::Elsewhere);
        note(NEIGHBOUR, 1_000 << 2);
        gate.drops(&frame, Reason::NewFlow);
        gate.maps.own_macs.remove(&mac_number(NEIGHBOUR)).expect("a deletion");
        gate.drops(&frame, Reason::Elsewhere);
    });
}
