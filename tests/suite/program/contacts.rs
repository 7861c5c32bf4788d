//! The addresses of a row's drops: the first sixteen, and the eight most frequent.

use std::net::{IpAddr, Ipv4Addr};

use portcullis::abi::Reason;
use portcullis::drops::Contacts;

use super::fast_path::opening;
use crate::support::cpu::{allowed_cpus, on_cpu, on_one_cpu};
use crate::support::dmz::{POLICY, V4, V6};
use crate::support::frame::{link_frame, udp};
use crate::support::test_gate::TestGate;

/// Sources and destinations of the one row whose port is this.
#[track_caller]
fn contacts(gate: &TestGate, port: u16) -> [Contacts; 2] {
    let rows = gate.ledger_rows(false);
    let row = rows.iter().find(|row| row.kind.port == port).expect("a row of the port");
    let reader = gate.contact_reader().expect("the addresses");
    let (sources, destinations) = reader.read(row.number).expect("the addresses").expect("a row");
    [sources, destinations]
}

fn send(gate: &TestGate, frame: &[u8], count: u32) {
    gate.programs.run_filter(frame, count).expect("a run");
}

fn target(number: u32) -> IpAddr {
    Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 51, 100, 0)) + number).into()
}

#[test]
fn the_first_sixteen_destinations_are_listed_in_their_order_and_a_seventeenth_is_known_to_be() {
    for port in [445, 53] {
        let gate = TestGate::dmz();
        // one way by the fast path, one by the full one
        let frame = |number| match port {
            445 => opening(V4.web, target(number), port),
            _ => udp((V4.web, 40_000), (target(number), port)),
        };
        for number in 1..=16 {
            // again and again, by turns
            [number, 1, number].into_iter().for_each(|number| send(&gate, &frame(number), 1));
            let [sources, destinations] = contacts(&gate, port);
            assert_eq!(destinations.first, (1..=number).map(target).collect::<Vec<_>>());
            assert_eq!((sources.first, sources.is_full), (vec![V4.web], false));
            assert!(!destinations.is_full);
        }
        for number in [17, 18, 300] {
            send(&gate, &frame(number), 1);
            let [sources, destinations] = contacts(&gate, port);
            assert_eq!(destinations.first, (1..=16).map(target).collect::<Vec<_>>());
            assert!(destinations.is_full && !sources.is_full, "{number}");
        }
    }
}

#[test]
fn both_families_and_the_machines_of_a_prefix_are_listed() {
    let policy = format!("{POLICY}[servers.farm]\naddresses = [\"192.0.2.128/26\"]\nroles = [\"web\"]\n");
    let gate = TestGate::new(&policy);
    let machine = |number: u8| IpAddr::from([192, 0, 2, 128 + number]);
    for number in [5, 3, 5, 9, 3] {
        send(&gate, &opening(machine(number), target(1), 445), 1);
    }
    let [sources, destinations] = contacts(&gate, 445);
    assert_eq!(sources.first, [5, 3, 9].map(machine));
    assert_eq!(sources.frequent, [(machine(3), 2), (machine(5), 2), (machine(9), 1)]);
    assert_eq!((destinations.first, destinations.frequent), (vec![target(1)], vec![(target(1), 5)]));
    send(&gate, &opening(V4.web, V4.peer, 22), 1);
    send(&gate, &opening(V6.web, V6.peer, 22), 2);
    let [sources, destinations] = contacts(&gate, 22);
    assert_eq!(sources.first, [V4.web, V6.web]);
    assert_eq!(destinations.frequent, [(V6.peer, 2), (V4.peer, 1)]);
}

#[test]
fn a_frame_without_addresses_lists_none() {
    let gate = TestGate::dmz();
    gate.drops(&link_frame(0x88f7, &[0; 46]), Reason::Ethertype);
    for end in contacts(&gate, 0x88f7) {
        assert_eq!(end, Contacts::default());
    }
}

#[test]
fn few_packets_are_counted_exactly_and_many_by_an_estimate() {
    let gate = TestGate::dmz();
    on_one_cpu(|| {
        for (number, count) in [(1, 10), (2, 20), (3, 5)] {
            send(&gate, &opening(V4.web, target(number), 445), count);
        }
        let [sources, destinations] = contacts(&gate, 445);
        assert_eq!(destinations.frequent, [(target(2), 20), (target(1), 10), (target(3), 5)]);
        assert!(!destinations.is_estimate && !sources.is_estimate);
        send(&gate, &opening(V4.web, target(4), 445), 100_000);
        let [_, destinations] = contacts(&gate, 445);
        let (most, packets) = destinations.frequent[0];
        assert!(destinations.is_estimate);
        // one packet in 64, at random: 1,562 of them, give or take six standard deviations
        assert!(most == target(4) && (84_800..115_200).contains(&packets), "{packets}");
        assert_eq!(destinations.frequent[1..], [(target(2), 20), (target(1), 10), (target(3), 5)]);
    });
}

#[test]
fn the_most_frequent_addresses_are_found_among_many_others() {
    let gate = TestGate::dmz();
    // a worm on a thousand addresses, and three that it calls again and again
    for round in 0..40 {
        for number in 1_000..1_100 {
            send(&gate, &opening(V4.web, target(number + 100 * (round % 10)), 445), 1);
        }
        for (number, count) in [(1, 60), (2, 40), (3, 80)] {
            send(&gate, &opening(V4.web, target(number), 445), count);
        }
    }
    let [_, destinations] = contacts(&gate, 445);
    let most: Vec<IpAddr> = destinations.frequent.iter().map(|(ip, _)| *ip).collect();
    assert!((1..=3).all(|number| most.contains(&target(number))), "{:?}", destinations.frequent);
    assert!(destinations.is_estimate && destinations.frequent.len() == 8);
}

#[test]
fn what_several_cpus_list_at_once_is_listed_once_and_counted_together() {
    let gate = TestGate::dmz();
    let cpus = allowed_cpus();
    std::thread::scope(|scope| {
        for cpu in &cpus {
            let gate = &gate;
            scope.spawn(move || {
                on_cpu(*cpu, || {
                    for _ in 0..3 {
                        (1..=5).for_each(|number| send(gate, &opening(V4.web, target(number), 445), 1));
                    }
                });
            });
        }
    });
    let [sources, destinations] = contacts(&gate, 445);
    let mut first = destinations.first.clone();
    first.sort_unstable();
    assert_eq!(first, (1..=5).map(target).collect::<Vec<_>>());
    let each = 3 * cpus.len() as u64;
    assert_eq!(destinations.frequent, (1..=5).map(|number| (target(number), each)).collect::<Vec<_>>());
    assert_eq!(sources.frequent, [(V4.web, 5 * each)]);
    assert!(!destinations.is_full && !destinations.is_estimate);
}

#[test]
fn rows_that_share_an_entry_for_their_most_frequent_addresses_say_that_they_estimate() {
    let gate = TestGate::sized(POLICY, &[("ledger", 4_096), ("servers", 64)]);
    on_one_cpu(|| {
        send(&gate, &opening(V4.web, target(1), 1), 10);
        // rows are given out in order: the 1,024th after it shares its entry
        for port in 2..=1_024 {
            send(&gate, &opening(if port < 500 { V4.web } else { V4.ns }, target(2), port), 1);
        }
        let number = |port| gate.ledger_rows(false).iter().find(|row| row.kind.port == port).unwrap().number;
        send(&gate, &opening(V4.ns, target(3), 1_025), 4);
        assert_eq!((number(1_025) ^ number(1)) & 1023, 0, "they share it");
        let [_, destinations] = contacts(&gate, 1);
        assert_eq!(destinations.frequent, [(target(1), 10)]);
        assert!(destinations.is_estimate);
        let [_, destinations] = contacts(&gate, 1_025);
        assert_eq!((destinations.first, destinations.frequent), (vec![target(3)], vec![]));
        assert!(destinations.is_estimate);
        // the busier one has it in the end
        send(&gate, &opening(V4.ns, target(4), 1_025), 40);
        let [_, destinations] = contacts(&gate, 1_025);
        assert!(matches!(destinations.frequent[..], [(ip, 30..)] if ip == target(4)), "{destinations:?}");
        assert_eq!(contacts(&gate, 1)[1].frequent, []);
    });
}
