//! Row 15 for datagrams: an answer in no flow is expected towards a peer that has asked, and an attack
//! towards anybody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::Reason;
use portcullis::clock::now_ns;
use portcullis::gate::FlowTable;

use crate::support::dmz::{Family, POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::{Endpoint, echo_reply, echo_request, udp};
use crate::support::test_gate::{SECOND_NS, TestGate, with_dmz_in_both_families};

const OWN_PORT: u8 = 4;
const PRESUMED: u8 = 8;
/// `HEARD_EPOCH_S`
const EPOCH_NS: u64 = 600 * SECOND_NS;
/// A word's part that is no epoch.
const BELOW_EPOCH: u64 = (1 << 48) - 1;

/// Lets an epoch that is about to end do so, for a test that ages what was heard by epochs.
fn await_epoch() {
    let left_ns = EPOCH_NS - now_ns() % EPOCH_NS;
    if left_ns < 5 * SECOND_NS {
        std::thread::sleep(Duration::from_nanos(left_ns));
    }
}

/// Makes what was heard older, as if nothing had come for so many epochs.
fn age_heard(gate: &TestGate, epochs: u64) {
    for name in ["heard", "heard_bits"] {
        let map = gate.maps.find(name).unwrap();
        let half = map.max_entries() / 2;
        let words: Vec<u64> = (0..2 * half)
            .map(|at| map.lookup(&at.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap())
            .map(|bytes| u64::from_ne_bytes(bytes.try_into().unwrap()))
            .collect();
        let mut older = vec![0; words.len()];
        for (at, word) in words.into_iter().enumerate().filter(|(_, word)| *word != 0) {
            let epoch = (word >> 48).wrapping_sub(epochs) & 0xffff;
            older[(epoch & 1) as usize * half as usize + at % half as usize] =
                epoch << 48 | word & BELOW_EPOCH;
        }
        for (at, word) in (0_u32..).zip(older) {
            map.update(&at.to_ne_bytes(), &word.to_ne_bytes(), MapFlags::ANY).unwrap();
        }
    }
}

/// Questions in the names of so many peers.
fn flood(gate: &TestGate, family: Family, server: Endpoint, peers: u32) {
    for number in 0..peers {
        let peer = match family.ns {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(0x0b00_0000 + number)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8_00aa << 80 | u128::from(number))),
        };
        gate.programs.run_track(&udp((peer, 51_000), server), 1).expect("a run");
    }
}

#[test]
fn an_answer_33_seconds_late_is_no_flow_and_no_attack() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        gate.to_server(&udp(peer, server));
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.forget_flows();
        gate.to_server(&udp(peer, server));
        gate.age("datagrams", 33);
        let row = gate.drops(&udp(server, peer), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.protocol, row.key.flags), (53, 17, OWN_PORT));
        assert_eq!(row.key.server, gate.id_of("ns1"));
        // who never asked this server, or asked another service of it, did not ask this one
        for (from, to) in [
            (server, (family.other, peer.1)),
            ((family.ns, 5353), peer),
            ((family.web, 53), peer),
            ((family.ns, 40_000), peer),
        ] {
            let row = gate.drops(&udp(from, to), Reason::NewFlow);
            assert_eq!((row.key.port, row.key.flags), (peer.1, 0));
        }
        // nor does a question to what is no service make any answer of the service late
        gate.to_server(&udp((family.other, 51_000), (family.ns, 5353)));
        gate.drops(&udp(server, (family.other, 51_000)), Reason::NewFlow);
    });
}

#[test]
fn a_reply_33_seconds_late_to_a_ping_is_no_flow_and_no_attack() {
    with_dmz_in_both_families(|gate, family| {
        let (request, reply) = if family.web.is_ipv4() { (8, 0) } else { (128, 129) };
        gate.to_server(&echo_request(family.peer, family.web, 9));
        gate.age("icmp_queries", 33);
        let row = gate.drops(&echo_reply(family.web, family.peer, 9), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags), (request, OWN_PORT));
        let row = gate.drops(&echo_reply(family.web, family.other, 9), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags), (reply, 0));
        // a ping is no question to the name server, and this one must not be answered at all
        gate.drops(&udp((family.ns, 53), (family.peer, 9)), Reason::NewFlow);
        gate.to_server(&echo_request(family.peer, family.ns, 9));
        gate.drops(&echo_reply(family.ns, family.peer, 9), Reason::Backscatter);
    });
}

#[test]
fn a_peer_is_remembered_for_ten_minutes_and_forgotten_after_twenty() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        for (epochs, heard) in [(0, true), (1, true), (2, false), (3, false), (65_535, false)] {
            gate.forget_flows();
            await_epoch();
            gate.to_server(&udp(peer, server));
            gate.age("datagrams", 700);
            age_heard(&gate, epochs);
            gate.drops(&udp(server, peer), if heard { Reason::NoFlow } else { Reason::NewFlow });
            // one more question, and it is remembered again
            gate.to_server(&udp(peer, server));
            gate.age("datagrams", 700);
            gate.drops(&udp(server, peer), Reason::NoFlow);
        }
    });
}

#[test]
fn a_peer_is_heard_by_the_server_and_not_by_one_of_its_addresses() {
    // a resolver that answers from its first address, whichever was asked
    let text = POLICY.replace("\"192.0.2.53\", ", "\"192.0.2.53\", \"192.0.2.54\", \"2001:db8:1::54\", ");
    let gate = TestGate::new(&text);
    for (family, asked) in [(V4, ip("192.0.2.54")), (V6, ip("2001:db8:1::54"))] {
        let peer = (family.peer, 51_000);
        gate.drops(&udp((family.ns, 53), peer), Reason::NewFlow);
        gate.to_server(&udp(peer, (asked, 53)));
        let row = gate.drops(&udp((family.ns, 53), peer), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags), (53, OWN_PORT));
        gate.passes(&udp((asked, 53), peer), Reason::Reply);
        // another server was not asked, and other peers did not ask
        gate.drops(&udp((family.web, 53), peer), Reason::NewFlow);
        gate.drops(&udp((family.ns, 53), (family.other, 51_000)), Reason::NewFlow);
    }
    // by another name it is another server
    gate.swap(&text.replace("servers.ns1", "servers.ns9"));
    gate.drops(&udp((V4.ns, 53), (V4.peer, 51_000)), Reason::NewFlow);
}

#[test]
fn each_bit_of_the_memory_is_counted_once() {
    with_dmz_in_both_families(|gate, family| {
        await_epoch();
        let words = |name| -> Vec<u64> {
            let map = gate.maps.find(name).unwrap();
            let word = |at: u32| map.lookup(&at.to_ne_bytes(), MapFlags::ANY).unwrap().unwrap();
            let words = (0..map.max_entries()).map(|at| u64::from_ne_bytes(word(at).try_into().unwrap()));
            words.map(|word| word & BELOW_EPOCH).collect()
        };
        for peers in [1, 40, 400] {
            flood(&gate, family, (family.ns, 53), peers);
            let bits: u64 = words("heard").iter().map(|word| u64::from(word.count_ones())).sum();
            assert_eq!(bits, words("heard_bits").iter().sum::<u64>(), "after {peers} peers");
            assert!(bits > 0);
        }
    });
}

#[test]
fn a_flow_that_its_server_keeps_goes_on_being_heard() {
    // in one second by the cached flow, and in the next by the first answer under a new policy
    for swapped in [false, true] {
        with_dmz_in_both_families(|gate, family| {
            await_epoch();
            let (server, peer) = family.question();
            gate.to_server(&udp(peer, server));
            gate.to_server(&echo_request(family.peer, family.web, 9));
            // .. long ago, and the server has answered all the time
            gate.forget_heard();
            for table in ["datagrams", "icmp_queries"] {
                gate.age(table, 2);
            }
            if swapped {
                gate.swap(POLICY);
            }
            gate.passes(&udp(server, peer), Reason::Reply);
            gate.passes(&echo_reply(family.web, family.peer, 9), Reason::Reply);
            for table in ["datagrams", "icmp_queries"] {
                gate.age(table, 121);
            }
            gate.drops(&udp(server, peer), Reason::NoFlow);
            gate.drops(&echo_reply(family.web, family.peer, 9), Reason::NoFlow);
            gate.drops(&udp(server, (family.other, 51_000)), Reason::NewFlow);
        });
    }
}

#[test]
fn whom_a_flood_has_pushed_out_of_the_flows_is_no_victim_of_an_attack() {
    let gate = TestGate::sized(POLICY, &[("heard", 1 << 20)]);
    in_both_families(|family| {
        let (server, peer) = family.question();
        gate.to_server(&udp(peer, server));
        flood(&gate, family, server, 20_000);
        assert!(!gate.has_flow(FlowTable::Datagrams, server, peer), "the flood was too small");
        let row = gate.drops(&udp(server, peer), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags), (53, OWN_PORT));
        // a name server that sends to whoever never asked is an attacker as ever
        let row = gate.drops(&udp(server, (family.other, 51_000)), Reason::NewFlow);
        assert_eq!((row.key.port, row.key.flags), (51_000, 0));
    });
}

#[test]
fn when_the_memory_of_peers_is_full_everybody_counts_as_heard_and_the_drop_says_so() {
    let text = POLICY.replace("in = [\"tcp/80\"", "in = [\"udp/53\", \"tcp/80\"");
    let gate = TestGate::new(&text);
    in_both_families(|family| {
        let (server, peer) = family.question();
        gate.forget_flows();
        await_epoch();
        gate.to_server(&udp(peer, server));
        flood(&gate, family, server, 100);
        gate.drops(&udp(server, (family.other, 51_000)), Reason::NewFlow);
        // a little more than half full, and so full that hardly a bit is left
        for peers in [900, 5000] {
            flood(&gate, family, server, peers);
            // of the first one's peer, a port from which it has not asked
            for to in [(peer.0, 51_001), (family.other, 51_000), (family.bastion, 51_000)] {
                let row = gate.drops(&udp(server, to), Reason::NoFlow);
                assert_eq!((row.key.port, row.key.flags), (53, OWN_PORT | PRESUMED));
            }
            // of a port that is no service nothing is presumed, and of another server neither
            gate.drops(&udp((family.ns, 5353), (family.other, 51_000)), Reason::NewFlow);
            gate.drops(&udp((family.web, 53), (family.other, 51_000)), Reason::NewFlow);
        }
        age_heard(&gate, 2);
        gate.drops(&udp(server, (family.other, 51_000)), Reason::NewFlow);
    });
}
