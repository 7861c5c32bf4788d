//! Counts by CPU: no core waits for another, and the sums hold whatever the others do.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use libbpf_rs::{MapCore, MapFlags, MapType, ObjectBuilder};
use portcullis::clock::now_ns;
use portcullis::gate::OBJECT;

use super::fast_path::opening;
use crate::support::cpu::{allowed_cpus, on_cpu, on_one_cpu};
use crate::support::dmz::{POLICY, V4, V6};
use crate::support::frame::{ACK, tcp, udp};
use crate::support::own_openings;
use crate::support::test_gate::{SECOND_NS, TestGate};

/// Arrays of which each CPU has a part that is as large as any other's.
const BY_CPU: [&str; 5] = ["ledger_counts", "frequent", "hot_kinds", "verdict_cache", "quota_cache"];

/// Every map that CPUs share, byte for byte, and of those with a part for each CPU the parts of all but one.
fn dump_what_is_not_of(gate: &TestGate, cpu: usize) -> BTreeMap<(String, Vec<u8>), Vec<u8>> {
    let mut object = ObjectBuilder::default();
    let object = object.open_memory(OBJECT).expect("the object");
    let cpus = libbpf_rs::num_possible_cpus().expect("CPUs");
    let mut found = BTreeMap::new();
    for map in object.maps() {
        let name = map.name().to_string_lossy().into_owned();
        // what only private loads have
        let Some(map) = gate.maps.find(&name) else { continue };
        match map.map_type() {
            MapType::PercpuArray | MapType::PerfEventArray => continue,
            // they hold numbers of inner maps, which only a swap changes
            MapType::ArrayOfMaps => continue,
            MapType::Array | MapType::Hash | MapType::LruHash | MapType::LpmTrie => {}
            other => panic!("say whether CPUs share {name}, which is a {other:?}"),
        }
        // large, and read faster by its mapping
        if name == "own_openings" {
            let entries = own_openings::read(gate).into_iter();
            found.extend(entries.map(|entry| {
                let key = [entry.bucket, entry.place as u32, entry.tag].map(u32::to_ne_bytes).concat();
                ((name.clone(), key), entry.tick.to_ne_bytes().to_vec())
            }));
            continue;
        }
        let part = map.max_entries() as usize / cpus;
        let entries = map.lookup_batch(4096, MapFlags::ANY, MapFlags::ANY).expect("a table");
        for (key, value) in entries {
            let index = u32::from_ne_bytes(*key.first_chunk().expect("four bytes")) as usize;
            if !BY_CPU.contains(&name.as_str()) || index / part != cpu {
                found.insert((name.clone(), key), value);
            }
        }
    }
    found
}

/// Frames whose verdicts are known, and what is known of them. The ledger has room for one row of a server.
fn known_frames(gate: &TestGate) -> Vec<(&'static str, Vec<u8>)> {
    let (server, peer) = V4.visit();
    gate.establish(server, peer);
    vec![
        ("an opening that has a row", opening(V4.web, V4.peer, 1001)),
        ("an opening in the rest", opening(V4.web, V4.peer, 1002)),
        ("an opening that may pass", opening(V4.ns, V4.peer, 53)),
        ("a datagram that has a row", udp((V6.ns, 40_000), (V6.peer, 7))),
        ("an answer", tcp(server, peer, ACK)),
    ]
}

#[test]
fn a_packet_whose_verdict_is_known_writes_nothing_that_cpus_share() {
    let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
    let frames = known_frames(&gate);
    let send = |cpu: usize, frame: &[u8], count: u32| {
        on_cpu(cpu, || gate.programs.run_filter(frame, count).expect("a run"));
    };
    // the first ones make the rows, and each CPU gets to know the verdicts
    for (_, frame) in &frames {
        allowed_cpus().iter().for_each(|cpu| send(*cpu, frame, 3));
    }
    // once a second a CPU may claim a sample or refresh a flow: not within the next hour
    const HOUR_NS: u64 = 3600 * SECOND_NS;
    gate.move_samples(now_ns() + HOUR_NS);
    for flows in ["established", "own_openings"] {
        gate.age_ns(flows, 0_u64.wrapping_sub(HOUR_NS));
    }
    for cpu in allowed_cpus() {
        for (what, frame) in &frames {
            send(cpu, frame, 1);
            let before = dump_what_is_not_of(&gate, cpu);
            send(cpu, frame, 1_000);
            let after = dump_what_is_not_of(&gate, cpu);
            let changed = after.iter().filter(|(key, value)| before.get(*key) != Some(value));
            let names: Vec<_> = changed.map(|((name, _), _)| name.as_str()).collect();
            assert!(names.is_empty(), "{what}, on CPU {cpu}, writes {names:?}");
        }
    }
}

#[test]
fn each_cpu_counts_for_itself_and_the_sum_is_that_of_all() {
    let gate = TestGate::dmz();
    let frame = opening(V4.web, V4.peer, 445);
    let cpus = allowed_cpus();
    for (number, cpu) in cpus.iter().enumerate() {
        on_cpu(*cpu, || gate.programs.run_filter(&frame, 10 * (number as u32 + 1)).expect("a run"));
    }
    let (_, row) = gate.ledger().unwrap()[0];
    let of_cpu = |cpu: usize| {
        let index = cpu as u32 * gate.maps.ledger_rows.capacity() + row.number;
        gate.maps.ledger_counts.get(index).unwrap().unwrap().packets
    };
    for (number, cpu) in cpus.iter().enumerate() {
        assert_eq!(of_cpu(*cpu), 10 * (number as u64 + 1));
    }
    let sum = (1..=cpus.len() as u64).map(|number| 10 * number).sum::<u64>();
    assert_eq!((row.packets, row.bytes), (sum, sum * frame.len() as u64));
}

#[test]
fn a_sample_counts_the_drops_of_all_cpus() {
    let gate = TestGate::dmz();
    let consumer = gate.consume_samples().expect("a perf buffer");
    let frame = opening(V4.web, V4.peer, 445);
    let mut expected = 0;
    for cpu in allowed_cpus() {
        on_cpu(cpu, || gate.programs.run_filter(&frame, 100).expect("a run"));
        expected += 100;
    }
    gate.move_samples(1);
    gate.programs.run_filter(&frame, 1).expect("a run");
    let received = consumer.poll(std::time::Duration::ZERO).expect("a poll");
    let drops = |bytes: &Vec<u8>| portcullis::drops::decode(bytes).expect("a sample").drops;
    let counts: Vec<u64> = received.samples.iter().map(drops).collect();
    assert_eq!(counts, [1, expected], "the first one, and the rest with this one");
    assert_eq!(gate.ledger_rows(false)[0].sampled_packets, expected + 1);
}

#[test]
fn the_last_packet_is_that_of_the_cpu_which_counted_last() {
    let gate = TestGate::dmz();
    let address = portcullis::abi::from_address;
    for (turn, to) in [V4.peer, V4.other, V4.peer].into_iter().enumerate() {
        let cpus = allowed_cpus();
        on_cpu(cpus[turn % cpus.len()], || {
            let before = gate.ledger_rows(false).first().map_or(0, |row| row.last_ns);
            let start = now_ns();
            // the programs' clock ticks
            loop {
                gate.programs.run_filter(&opening(V4.web, to, 445), 1).expect("a run");
                let row = gate.ledger_rows(false)[0];
                assert!(now_ns() < start + 20 * SECOND_NS, "the clock stands still");
                if row.last_ns > before {
                    assert_eq!(address(&row.last_destination), Some(to), "turn {turn}");
                    break;
                }
            }
        });
    }
}

#[test]
fn sums_never_fall_and_count_every_packet_while_cpus_count_and_one_has_stopped() {
    const PACKETS: u32 = 20_000;
    let gate = TestGate::dmz();
    let frames = [opening(V4.web, V4.peer, 445), opening(V4.web, V4.peer, 22), udp((V6.ns, 1), (V6.peer, 7))];
    // a CPU that counts no more, as one that is offline: its part is nobody's
    on_one_cpu(|| {
        for frame in &frames {
            gate.programs.run_filter(frame, 1_000).expect("a run");
        }
    });
    let done = AtomicBool::new(false);
    let cpus = allowed_cpus();
    let others = if cpus.len() > 1 { &cpus[1..] } else { &cpus[..] };
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
            let mut readings = 0;
            while !done.load(Ordering::SeqCst) || readings == 0 {
                let begin: u64 = gate.count_dropped().expect("counters");
                let rows = gate.ledger().expect("the ledger");
                for (_, row) in &rows {
                    let before = last.insert(row.number, (row.packets, row.bytes)).unwrap_or_default();
                    assert!(row.packets >= before.0 && row.bytes >= before.1, "{before:?}, then {row:?}");
                }
                let sum: u64 = rows.iter().map(|(_, row)| row.packets).sum();
                let end = gate.count_dropped().expect("counters");
                // each CPU may have counted one packet in its row and not yet by its reason, or the other way
                let slack = others.len() as u64;
                assert!(sum + slack >= begin && sum <= end + slack, "{begin}, {sum}, {end}");
                readings += 1;
            }
            readings
        });
        let senders: Vec<_> = others
            .iter()
            .map(|cpu| {
                let (gate, frames) = (&gate, &frames);
                scope.spawn(move || {
                    on_cpu(*cpu, || {
                        for frame in frames {
                            gate.programs.run_filter(frame, PACKETS).expect("a run");
                        }
                    });
                })
            })
            .collect();
        senders.into_iter().for_each(|sender| sender.join().expect("the frames"));
        done.store(true, Ordering::SeqCst);
        assert!(reader.join().expect("the readings") > 0);
    });
    let packets = 1_000 + u64::from(PACKETS) * others.len() as u64;
    let rows = gate.ledger().unwrap();
    assert!(rows.len() == 3 && rows.iter().all(|(_, row)| row.packets == packets), "{rows:?}");
}
