//! Floods from forged senders, each in its own table: what is in the others stays, byte for byte
//! of its keys, and goes on.
//!
//! `PORTCULLIS_FLOOD` says how many packets each flood has; ten million take minutes.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use libbpf_rs::MapCore as _;
use portcullis::abi::Reason;
use portcullis::clock::now_ns;
use portcullis::gate::FlowTable;

use crate::support::chance::Chance;
use crate::support::dmz::{FAMILIES, Family, POLICY, in_both_families, v4, v6};
use crate::support::frame::{
    ACK, SYN, UDP, echo_reply, echo_request, fragment, l4_of, tcp, tcp_numbered, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, XDP_PASS};

const FLOOD: u64 = 150_000;
/// TCP connections that stay open.
const CONNECTIONS: u32 = 1_000;
/// Entries of every other table.
const OTHERS: u32 = 200;
/// In the order of [`TestGate`]'s maps.
const TABLES: [&str; 6] = ["established", "half_open", "datagrams", "icmp_queries", "unlisted", "fragments"];

fn flood_size() -> u64 {
    std::env::var("PORTCULLIS_FLOOD").ok().and_then(|count| count.parse().ok()).unwrap_or(FLOOD)
}

/// A peer of its own for each number.
fn peer(family: Family, number: u32) -> (IpAddr, u16) {
    let host = number % 200;
    let address = match family.web {
        IpAddr::V4(_) => v4(203, 0, 113, host as u8),
        IpAddr::V6(_) => v6(0x2001_0db8_0050_0000, host.into()),
    };
    (address, 20_000 + (number / 200) as u16)
}

fn keys(gate: &TestGate, table: &str) -> BTreeSet<Vec<u8>> {
    gate.maps.find(table).expect("a map").keys().collect()
}

/// A gate of the default sizes in whose tables legitimate peers and servers have something open.
struct Scene {
    family: Family,
    gate: TestGate,
    before: Vec<BTreeSet<Vec<u8>>>,
    began_ns: u64,
}

impl Scene {
    fn new(family: Family) -> Scene {
        let sizes = [
            ("established", 262_144),
            ("half_open", 65_536),
            ("datagrams", 65_536),
            ("icmp", 16_384),
            ("unlisted", 65_536),
            ("fragments", 16_384),
        ];
        let gate = TestGate::fresh(POLICY, &sizes);
        let (web, ns) = ((family.web, 80), (family.ns, 53));
        let peer = |number| peer(family, number);
        let track = |frame: &[u8]| gate.programs.run_track(frame, 1).expect("a run");
        let filter = |frame: &[u8]| gate.programs.run_filter(frame, 1).expect("a run");
        for number in 0..CONNECTIONS {
            track(&tcp_numbered(peer(number), web, SYN, (1000, 0)));
            filter(&tcp_numbered(web, peer(number), SYN | ACK, (5000, 1001)));
            track(&tcp_numbered(peer(number), web, ACK, (1001, 5001)));
        }
        for number in 0..OTHERS {
            track(&tcp(peer(number), (family.web, 443), SYN));
            track(&udp(peer(number), ns));
            track(&echo_request(peer(number).0, family.web, 500 + number as u16));
            track(&tcp(peer(number), (family.web, 4444), SYN));
            filter(&first_fragment(family, number as u16));
        }
        let before: Vec<_> = TABLES.iter().map(|table| keys(&gate, table)).collect();
        assert_eq!(before[0].len(), CONNECTIONS as usize);
        assert!(before[1..].iter().all(|keys| keys.len() == OTHERS as usize));
        Scene { family, gate, before, began_ns: now_ns() }
    }

    /// Sends a flood by the tracker, or by the filter, from both CPUs at once.
    fn flood(&self, template: &[u8], track: bool, forge: impl Fn(&mut [u8], [u8; 8]) + Sync) -> u64 {
        let programs = &self.gate.programs;
        self.flood_by(|| {
            let (forge, mut frame) = (&forge, template.to_vec());
            move |random| {
                forge(&mut frame, random);
                let run = if track { programs.run_track(&frame, 1) } else { programs.run_filter(&frame, 1) };
                run.expect("a run");
            }
        })
    }

    /// The same of whatever is to be sent for eight random bytes, by a sender of each thread's own.
    fn flood_by<S: FnMut([u8; 8])>(&self, sender: impl Fn() -> S + Sync) -> u64 {
        let count = flood_size();
        let start = now_ns();
        std::thread::scope(|scope| {
            for thread in 0..2_u64 {
                let sender = &sender;
                scope.spawn(move || {
                    let mut send = sender();
                    let mut chance = Chance::part(0x9e37_79b9_7f4a_7c15, thread);
                    for _ in 0..count / 2 {
                        send(chance.next().to_le_bytes());
                    }
                });
            }
        });
        (now_ns() - start) / count
    }

    /// The flood is where it belongs and nowhere else, and whoever was there goes on.
    #[track_caller]
    fn prove_unharmed(&self, flooded: &str, ns_each: u64) {
        for (table, before) in TABLES.iter().zip(&self.before) {
            let now = keys(&self.gate, table);
            if *table == flooded {
                let room = self.gate.maps.find(table).expect("a map").max_entries() as usize;
                assert!(now.len() > before.len() && now.len() <= room, "{table}: {} of {room}", now.len());
                eprintln!("{} packets, {ns_each} ns each: {} of {room} in {table}", flood_size(), now.len());
            } else {
                assert!(now == *before, "{table} has {} entries, not {}", now.len(), before.len());
            }
        }
        // a long flood takes longer than a datagram's flow lives: as if it had taken no time
        let took_ns = now_ns() - self.began_ns;
        for table in TABLES.iter().filter(|table| **table != flooded) {
            self.gate.age_ns(table, took_ns.wrapping_neg());
        }
        let filter = |frame: &[u8]| self.gate.programs.run_filter(frame, 1).expect("a run").action;
        let family = self.family;
        let web = (family.web, 80);
        let peer = |number| peer(family, number);
        for number in 0..CONNECTIONS {
            assert_eq!(filter(&tcp(web, peer(number), ACK)), XDP_PASS, "connection {number}");
        }
        self.gate.passes(&tcp(web, peer(7), ACK), Reason::Reply);
        if flooded != "datagrams" {
            self.gate.passes(&udp((family.ns, 53), peer(7)), Reason::Reply);
        }
        if flooded != "icmp_queries" {
            self.gate.passes(&echo_reply(family.web, peer(7).0, 507), Reason::Reply);
        }
        if flooded != "unlisted" {
            self.gate.drops(&tcp((family.web, 4444), peer(7), SYN | ACK), Reason::UnlistedService);
        }
        if flooded != "fragments" {
            let rest = fragment(family.web, family.loghost, UDP, (7, 3, false), &[0x5a; 16]);
            self.gate.passes(&rest, Reason::LaterFragment);
        }
        // and a new client comes in
        self.gate.establish((family.web, 443), (family.peer, 61_000));
    }
}

fn first_fragment(family: Family, id: u16) -> Vec<u8> {
    let datagram = udp_datagram((family.web, 40_000), (family.loghost, 514), &[0; 16]);
    fragment(family.web, family.loghost, UDP, (id, 0, true), &datagram)
}

/// Anybody but the documentation's peers of this test.
fn forge_address(frame: &mut [u8], family: Family, random: [u8; 8]) {
    match family.web {
        // 198.18.0.0/15 is for benchmarks
        IpAddr::V4(_) => frame[26..30].copy_from_slice(&[198, 18 + (random[0] & 1), random[1], random[2]]),
        // 2001:db8:8000::/47
        IpAddr::V6(_) => frame[26..30].copy_from_slice(&[0x80, random[0] & 1, random[1], random[2]]),
    }
}

fn forge_sender(frame: &mut [u8], family: Family, random: [u8; 8]) {
    forge_address(frame, family, random);
    let port = l4_of(family.web);
    frame[port..port + 2].copy_from_slice(&random[3..5]);
}

#[test]
fn a_flood_of_syns_to_a_service_costs_no_connection_and_touches_no_other_table() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let syn = tcp((family.other, 1), (family.web, 80), SYN);
        let each = scene.flood(&syn, true, |frame, random| forge_sender(frame, family, random));
        scene.prove_unharmed("half_open", each);
    });
}

#[test]
fn a_flood_of_syns_that_the_server_answers_costs_no_connection_either() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let (web, peer, programs) = ((family.web, 80), (family.other, 1), &scene.gate.programs);
        // where the peer's address has the bytes that a forged sender's has
        let (address, port) = if family.web.is_ipv4() { (30, 36) } else { (42, 56) };
        let passed = AtomicU64::new(0);
        let each = scene.flood_by(|| {
            let mut syn = tcp_numbered(peer, web, SYN, (1000, 0));
            let mut answer = tcp_numbered(web, peer, SYN | ACK, (5000, 1001));
            let passed = &passed;
            move |random| {
                forge_sender(&mut syn, family, random);
                answer[address..address + 4].copy_from_slice(&syn[26..30]);
                answer[port..port + 2].copy_from_slice(&random[3..5]);
                programs.run_track(&syn, 1).expect("a run");
                let action = programs.run_filter(&answer, 1).expect("a run").action;
                passed.fetch_add(u64::from(action == XDP_PASS), Ordering::Relaxed);
            }
        });
        // each handshake is remembered for as long as its answer takes, and nothing is made of it
        assert_eq!(passed.into_inner(), flood_size() / 2 * 2, "answers that pass");
        scene.prove_unharmed("half_open", each);
    });
}

#[test]
fn a_flood_of_guessed_acknowledgments_establishes_nothing() {
    in_both_families(|family| {
        let mut scene = Scene::new(family);
        let (web, programs) = ((family.web, 80), &scene.gate.programs);
        let client = |number: u8| (family.other, 30_000 + u16::from(number));
        // across the end of the numbers
        let number_of = |number: u8| 0xffff_ff80_u32.wrapping_add(number.into());
        let syn = |number: u8| tcp_numbered(client(number), web, SYN, (1000, 0));
        let ack = |number: u8, right: u32| tcp_numbered(client(number), web, ACK, (1001, right));
        for number in 0..=u8::MAX {
            programs.run_track(&syn(number), 1).expect("a run");
            let answer = tcp_numbered(web, client(number), SYN | ACK, (number_of(number), 1001));
            assert_eq!(programs.run_filter(&answer, 1).expect("a run").action, XDP_PASS, "answer {number}");
        }
        scene.before[1] = keys(&scene.gate, "half_open");
        assert_eq!(scene.before[1].len(), OTHERS as usize + 256);

        let (gate, programs) = (&scene.gate, &scene.gate.programs);
        let at = l4_of(family.web) + 8;
        let each = scene.flood_by(|| {
            let syns: Vec<_> = (0..=u8::MAX).map(syn).collect();
            let mut acks: Vec<_> = (0..=u8::MAX).map(|number| ack(number, 0)).collect();
            move |random| {
                let which = usize::from(random[0]);
                // the SYN+ACK carries nothing: only the number after its own acknowledges it
                let server = number_of(random[0]);
                let mut guess = match random[1] & 15 {
                    0 => server,
                    1 => server.wrapping_add(2),
                    2 => 0,
                    _ => u32::from_le_bytes(random[4..].try_into().expect("four bytes")),
                };
                if guess == server.wrapping_add(1) {
                    guess = !guess;
                }
                acks[which][at..at + 4].copy_from_slice(&guess.to_be_bytes());
                // a long flood takes longer than a handshake lives: its client sends the SYN again
                if random[2] & 63 == 0 {
                    programs.run_track(&syns[which], 1).expect("a run");
                }
                programs.run_track(&acks[which], 1).expect("a run");
            }
        });
        eprintln!("{each} ns each");
        for (table, before) in TABLES.iter().zip(&scene.before) {
            assert!(keys(gate, table) == *before, "{table}");
        }
        // of these very handshakes the right number establishes each
        let mut established = scene.before[0].clone();
        for number in 0..=u8::MAX {
            let right = number_of(number).wrapping_add(1);
            programs.run_track(&ack(number, right), 1).expect("a run");
            established.insert(flow_key_of(web, client(number)));
        }
        assert_eq!(established.len(), CONNECTIONS as usize + 256);
        assert!(keys(gate, "established") == established, "not all of them are established");
    });
}

#[test]
fn a_flood_of_datagrams_touches_no_other_table() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let datagram = udp((family.other, 1), (family.ns, 53));
        let each = scene.flood(&datagram, true, |frame, random| forge_sender(frame, family, random));
        scene.prove_unharmed("datagrams", each);
    });
}

#[test]
fn a_flood_of_pings_touches_no_other_table() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let id = l4_of(family.web) + 4;
        let each = scene.flood(&echo_request(family.other, family.web, 1), true, |frame, random| {
            forge_address(frame, family, random);
            frame[id..id + 2].copy_from_slice(&random[3..5]);
        });
        scene.prove_unharmed("icmp_queries", each);
    });
}

#[test]
fn a_flood_of_openings_to_what_is_no_service_touches_no_other_table() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let syn = tcp((family.other, 1), (family.web, 4444), SYN);
        let port = l4_of(family.web) + 2;
        let each = scene.flood(&syn, true, |frame, random| {
            forge_sender(frame, family, random);
            // any port but a service's
            frame[port..port + 2].copy_from_slice(&[0x20 | random[5] & 0x1f, random[6]]);
        });
        scene.prove_unharmed("unlisted", each);
    });
}

#[test]
fn a_server_s_flood_of_first_fragments_touches_no_other_table() {
    in_both_families(|family| {
        let scene = Scene::new(family);
        let each = scene.flood(&first_fragment(family, 1), false, |frame, random| match family.web {
            // 65,536 ids, to two log hosts
            IpAddr::V4(_) => {
                frame[18..20].copy_from_slice(&random[..2]);
                frame[33] = 20 + (random[2] & 1);
            }
            IpAddr::V6(_) => frame[58..62].copy_from_slice(&random[..4]),
        });
        scene.prove_unharmed("fragments", each);
    });
}

#[test]
fn a_new_client_gets_in_while_a_flood_turns_half_open_over_more_slowly_than_its_round_trip() {
    // Measured: how many forged SYNs may come between a client's SYN and its ACK.
    FAMILIES.into_iter().for_each(measure_half_open);
}

fn measure_half_open(family: Family) {
    let scene = Scene::new(family);
    let mut chance = Chance::new(0x2545_f491_4f6c_dd1d);
    let mut frame = tcp((family.other, 1), (family.web, 80), SYN);
    let mut survived = Vec::new();
    let long = flood_size() >= 1_000_000;
    let more: &[u32] = if long { &[128_000, 256_000, 512_000, 1_024_000] } else { &[] };
    for &between in [1_000, 64_000].iter().chain(more) {
        // a full table to begin with
        let (server, client) = ((family.web, 80), (family.peer, 50_000));
        let programs = &scene.gate.programs;
        let mut flood = |count: u32| {
            for _ in 0..count {
                forge_sender(&mut frame, family, chance.next().to_le_bytes());
                programs.run_track(&frame, 1).expect("a run");
            }
        };
        flood(70_000);
        programs.run_track(&tcp_numbered(client, server, SYN, (1000, 0)), 1).expect("a run");
        programs.run_filter(&tcp_numbered(server, client, SYN | ACK, (5000, 1001)), 1).expect("a run");
        flood(between);
        programs.run_track(&tcp_numbered(client, server, ACK, (1001, 5001)), 1).expect("a run");
        let in_it = scene.gate.has_flow(FlowTable::Established, server, client);
        survived.push((between, in_it));
        scene.gate.maps.established.handle().delete(&flow_key_of(server, client)).ok();
        scene.gate.maps.half_open.handle().delete(&flow_key_of(server, client)).ok();
    }
    eprintln!("forged SYNs between a client's SYN and its ACK, and whether it got in: {survived:?}");
    assert!(survived.iter().all(|(_, in_it)| *in_it), "a client was kept out: {survived:?}");
}

fn flow_key_of(server: (IpAddr, u16), client: (IpAddr, u16)) -> Vec<u8> {
    let key = portcullis::abi::flow_key {
        server: portcullis::abi::to_address(server.0),
        peer: portcullis::abi::to_address(client.0),
        server_port_be: server.1.to_be(),
        peer_port_be: client.1.to_be(),
        protocol: 6,
        ..Default::default()
    };
    // SAFETY: integers without padding.
    unsafe { plain::as_bytes(&key).to_vec() }
}
