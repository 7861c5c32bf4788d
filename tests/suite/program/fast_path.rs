//! The short way through: what was found before holds until something changes, and not longer.

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::Reason;
use portcullis::abi::{flow, flow_key, layout, quarantine, quota_key, state};

use super::ledger::fill;
use crate::support::dmz::{FAMILIES, POLICY, V4, V6};
use crate::support::frame::{ACK, FIN, RST, SYN, from_mac, l4_of, padded, patched, tagged, tcp, udp};
use crate::support::test_gate::{Row, TestGate, XDP_PASS};

/// An opening to a port that no need of web1 knows.
fn opening(server: IpAddr, peer: IpAddr, port: u16) -> Vec<u8> {
    tcp((server, 40_000), (peer, port), SYN)
}

/// Processors that this thread may run on.
fn allowed_cpus() -> Vec<usize> {
    let own = nix::unistd::Pid::from_raw(0);
    let allowed = nix::sched::sched_getaffinity(own).expect("the affinity");
    (0..nix::sched::CpuSet::count()).filter(|cpu| allowed.is_set(*cpu) == Ok(true)).collect()
}

fn on_cpu<T: Send>(cpu: usize, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let working = scope.spawn(|| {
            let mut set = nix::sched::CpuSet::new();
            set.set(cpu).expect("a processor");
            nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set).expect("the affinity");
            work()
        });
        working.join().expect("the work")
    })
}

/// On one processor from beginning to end, for each has verdicts of its own.
fn on_one_cpu(test: impl FnOnce() + Send) {
    on_cpu(allowed_cpus()[0], test);
}

/// Makes the quarantines older than they may be, without a word to the filter.
fn end_quarantines(bench: &TestGate) {
    for (id, mut row) in bench.entries::<u32, quarantine>("quarantines") {
        row.until_ns -= 61_000_000_000;
        // SAFETY: plain data, without padding
        let bytes = unsafe { plain::as_bytes(&row) };
        bench.gate.maps.quarantines.handle().update(&id.to_ne_bytes(), bytes, MapFlags::ANY).unwrap();
    }
}

/// Bytes of `struct known_opening`: address, MAC and port, epoch, what was found.
const OPENING: usize = 32;

/// The epoch of the calling thread's CPU, as its last opening left it.
fn epoch(bench: &TestGate) -> [u8; 4] {
    let cpu = nix::sched::sched_getcpu().expect("a processor");
    let cpus = bench.gate.maps.cpus.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    cpus[cpu][24..28].try_into().unwrap()
}

/// A verdict that the filter keeps, and where.
#[derive(Clone, Debug, PartialEq)]
struct Known {
    key: Vec<u8>,
    at: usize,
    bytes: Vec<u8>,
}

/// What the tool has told the programs.
fn read_state(bench: &TestGate, word: state) -> u64 {
    let words: HashMap<u32, u64> = bench.entries("state").into_iter().collect();
    words[&word.0]
}

/// The entries of `verdict_cache` that this policy uses of a CPU's part: the first ones.
fn part_of(bench: &TestGate, cpu: usize) -> RangeInclusive<u32> {
    let word = read_state(bench, state::STATE_VERDICT_CACHE);
    let first = cpu as u32 * (word >> 32) as u32;
    first..=first + word as u32
}

/// What the filter keeps of the live policy, where it keeps it.
fn known(bench: &TestGate) -> Vec<Known> {
    let (map, epoch) = (&bench.gate.maps.verdict_cache, epoch(bench));
    let cpu = nix::sched::sched_getcpu().expect("a processor");
    let mut found = Vec::new();
    for key in part_of(bench, cpu).map(|index| index.to_ne_bytes().to_vec()) {
        let places = map.lookup(&key, MapFlags::ANY).unwrap().unwrap();
        let kept = places.chunks(OPENING).enumerate().filter(|(_, bytes)| bytes[24..28] == epoch);
        found.extend(kept.map(|(place, bytes)| Known {
            key: key.clone(),
            at: place * OPENING,
            bytes: bytes.to_vec(),
        }));
    }
    found
}

/// Makes the filter believe something else.
fn put(bench: &TestGate, place: &Known, bytes: &[u8]) {
    let map = &bench.gate.maps.verdict_cache;
    let mut places = map.lookup(&place.key, MapFlags::ANY).unwrap().unwrap();
    places[place.at..place.at + OPENING].copy_from_slice(bytes);
    map.update(&place.key, &places, MapFlags::ANY).unwrap();
}

/// Passes and drops by this reason so far.
fn count(bench: &TestGate, reason: Reason) -> u64 {
    let counters = bench.gate.counters(false).unwrap();
    counters.iter().find(|count| count.0 == reason).map_or(0, |count| count.1)
}

#[test]
fn a_verdict_that_is_known_is_not_found_again() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let first = bench.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let found = known(&bench);
            let [place] = &found[..] else { panic!("one verdict: {found:?}") };
            // were it found again, this word would not be believed
            let mut lie = place.bytes.clone();
            assert_eq!(lie[31], Reason::NewFlow.number());
            lie[31] = Reason::Spoofed.number();
            put(&bench, place, &lie);
            bench.gate.programs.run_filter(&opening(family.web, family.other, 6667), 1).unwrap();
            assert_eq!(count(&bench, Reason::Spoofed), 1);
            // and the row is the one that it was
            let rows = bench.ledger_rows(false);
            assert_eq!((rows.len(), rows[0].packets, rows[0].kind.port), (1, 2, 6667));
            assert_eq!(rows[0].number, first.row.number);
            assert_eq!(rows[0].bytes, 2 * opening(family.web, family.peer, 6667).len() as u64);
        }
    });
}

#[test]
fn an_opening_that_was_permitted_is_known_as_well() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let frame = opening(family.ns, family.peer, 53);
            bench.passes(&frame, Reason::Need);
            let found = known(&bench);
            let [place] = &found[..] else { panic!("one verdict: {found:?}") };
            for peer in [family.peer, family.other] {
                bench.passes(&opening(family.ns, peer, 53), Reason::Need);
            }
            assert_eq!(known(&bench), std::slice::from_ref(place));
            // another port of it, and another server's same port, are not
            bench.drops(&opening(family.ns, family.peer, 54), Reason::NewFlow);
            bench.drops(&opening(family.web, family.peer, 53), Reason::NewFlow);
            // found again, it would pass
            let mut lie = place.bytes.clone();
            lie[28..32].copy_from_slice(&[0, 0, 0, Reason::Spoofed.number()]);
            put(&bench, place, &lie);
            bench.gate.programs.run_filter(&frame, 1).unwrap();
            assert_eq!(count(&bench, Reason::Spoofed), 1);
            assert_eq!(count(&bench, Reason::Need), 3);
        }
    });
}

#[test]
fn a_permission_that_is_known_is_not_asked_for_again() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let frame = opening(family.web, family.peer, 6667);
            bench.drops(&frame, Reason::NewFlow);
            let place = known(&bench).remove(0);
            // found again, it would be dropped
            let mut lie = place.bytes.clone();
            lie[28..31].copy_from_slice(&bench.id_of("web1").to_le_bytes()[..3]);
            lie[31] = Reason::Need.number();
            put(&bench, &place, &lie);
            assert_eq!(bench.gate.programs.run_filter(&frame, 1).unwrap().action, XDP_PASS);
            assert_eq!(count(&bench, Reason::Need), 1);
        }
    });
}

#[test]
fn a_permission_that_is_known_ends_with_its_policy_and_at_a_quarantine() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let frame = opening(family.ns, family.peer, 53);
            let pass = || (0..3).for_each(|_| bench.passes(&frame, Reason::Need));
            pass();
            bench.swap(&POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"udp/53\"]"));
            thrice(&bench, family.ns, 53, Reason::NewFlow);
            bench.swap(POLICY);
            pass();
            bench.gate.quarantine("ns1", None).unwrap();
            thrice(&bench, family.ns, 53, Reason::Quarantined);
            bench.gate.release("ns1").unwrap();
            pass();
            // bound to a MAC that it does not have
            bench.swap(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:77\""));
            thrice(&bench, family.ns, 53, Reason::Spoofed);
        }
    });
}

#[test]
fn a_quarantine_that_was_cut_short_after_its_first_write_stops_what_was_permitted() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        let frame = opening(V4.ns, V4.peer, 53);
        bench.passes(&frame, Reason::Need);
        bench.passes(&frame, Reason::Need);
        let changes = bench.entries::<u32, u64>("state");
        bench.gate.quarantine("ns1", None).unwrap();
        // as if the command had been killed before it told that something has changed
        let key = state::STATE_QUARANTINE_CHANGES.0;
        let (_, before) = changes.iter().find(|(index, _)| *index == key).unwrap();
        bench
            .gate
            .maps
            .state
            .handle()
            .update(&key.to_ne_bytes(), &before.to_ne_bytes(), MapFlags::ANY)
            .unwrap();
        bench.drops(&frame, Reason::Quarantined);
    });
}

#[test]
fn what_a_limit_counts_or_a_destination_changes_is_not_known() {
    on_one_cpu(|| {
        let limited = POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"tcp/53 limit 2/m\"]");
        let bench = TestGate::new(&limited);
        let frame = opening(V4.ns, V4.peer, 53);
        bench.passes(&frame, Reason::Need);
        bench.passes(&frame, Reason::Need);
        bench.drops(&frame, Reason::Rate);
        bench.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        assert_eq!(known(&bench), []);
        // whoever is called, but not all without a limit
        bench.swap(&POLICY.replace("out   = [", "out   = [\"tcp/6514 limit 2/m\", "));
        for _ in 0..3 {
            bench.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        }
        bench.passes(&opening(V4.web, V4.peer, 6514), Reason::Need);
        bench.passes(&opening(V4.web, V4.peer, 6514), Reason::Need);
        bench.drops(&opening(V4.web, V4.peer, 6514), Reason::Rate);
        // segments and datagrams of what may be opened are judged each
        bench.passes(&tcp((V4.ns, 40_000), (V4.peer, 53), ACK), Reason::OwnConnection);
        assert_eq!(known(&bench), []);
    });
}

#[test]
fn four_verdicts_that_meet_are_all_known_and_a_fifth_takes_the_place_of_one() {
    on_one_cpu(|| {
        let bench = TestGate::sized(POLICY, &[("ledger", 16_384)]);
        let ports = 1000..3000;
        for port in ports.clone() {
            bench.gate.programs.run_filter(&opening(V4.web, V4.peer, port), 1).unwrap();
        }
        let mut filled = std::collections::BTreeMap::<_, usize>::new();
        for place in known(&bench) {
            *filled.entry(place.key).or_default() += 1;
        }
        let full = filled.values().filter(|places| **places == 4).count();
        let gone = ports.len() - filled.values().sum::<usize>();
        assert!(full > 0 && gone > 0 && gone < ports.len() / 2, "{full} full, {gone} gone");
        for port in ports.clone() {
            bench.gate.programs.run_filter(&opening(V4.web, V4.other, port), 1).unwrap();
        }
        let rows = bench.ledger_rows(false);
        assert_eq!(rows.len(), ports.len());
        assert!(rows.iter().all(|row| row.packets == 2), "each in its own row");
    });
}

#[test]
fn a_verdict_is_found_in_each_of_its_four_places() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        bench.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
        let first = known(&bench).remove(0);
        for (times, at) in [0, 1, 2, 3].map(|place| place * OPENING).into_iter().enumerate() {
            put(&bench, &known(&bench).remove(0), &[0; OPENING]);
            let mut lie = first.bytes.clone();
            lie[31] = Reason::Spoofed.number();
            put(&bench, &Known { at, ..first.clone() }, &lie);
            bench.gate.programs.run_filter(&opening(V4.web, V4.peer, 6667), 1).unwrap();
            assert_eq!(count(&bench, Reason::Spoofed), times as u64 + 1, "at {at}");
        }
    });
}

#[test]
fn what_is_half_written_or_of_another_sender_is_not_believed() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        bench.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
        let place = known(&bench).remove(0);
        // address, MAC, port, epoch
        for byte in [15, 16, 17, 22, 23, 24] {
            let mut other = place.bytes.clone();
            other[byte] ^= 1;
            other[31] = Reason::Spoofed.number();
            put(&bench, &place, &other);
            bench.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
            for place in known(&bench) {
                put(&bench, &place, &[0; OPENING]);
            }
        }
    });
}

#[test]
fn a_quarantine_that_has_run_out_is_over_and_its_verdict_gives_up_its_place() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        bench.gate.quarantine("ns1", Some(60)).unwrap();
        thrice(&bench, V4.ns, 53, Reason::Quarantined);
        end_quarantines(&bench);
        bench.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        let [place] = &known(&bench)[..] else { panic!("one verdict") };
        assert_eq!(place.bytes[31], Reason::Need.number());
    });
}

#[test]
fn a_borrowed_address_is_only_observed_when_its_owners_quarantine_has_run_out() {
    on_one_cpu(|| {
        let observe = POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
        let policy = observe.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\"");
        let bench = TestGate::new(&policy);
        let borrowed = from_mac(&opening(V4.web, V4.peer, 6667), [2, 0, 0, 0, 0, 2]);
        bench.gate.quarantine("web1", Some(60)).unwrap();
        bench.drops(&borrowed, Reason::Spoofed);
        bench.drops(&borrowed, Reason::Spoofed);
        end_quarantines(&bench);
        bench.would_drop(&borrowed, Reason::Spoofed);
    });
}

#[test]
fn each_cpu_knows_its_own_verdicts_by_its_own_epoch() {
    let [first, .., last] = allowed_cpus()[..] else { panic!("two processors are needed") };
    // a gate that nobody had before: both begin with the same number
    let bench = TestGate::sized(POLICY, &[("ledger", 128)]);
    let opened = |cpu, reason| {
        on_cpu(cpu, || match reason {
            Reason::Need => bench.passes(&opening(V4.ns, V4.peer, 53), reason),
            _ => drop(bench.drops(&opening(V4.ns, V4.peer, 53), reason)),
        });
        on_cpu(cpu, || epoch(&bench))
    };
    let permitted = opened(first, Reason::Need);
    bench.swap(&POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"udp/53\"]"));
    // the last one's first policy has the number that the first one had for another policy
    assert_eq!(opened(last, Reason::NewFlow), permitted);
    opened(first, Reason::NewFlow);
    opened(last, Reason::NewFlow);
    let of = |cpu| on_cpu(cpu, || known(&bench).remove(0).bytes[..24].to_vec());
    assert_eq!(of(first), of(last), "one opening that both know");
}

#[test]
fn each_cpu_keeps_what_it_knows_in_its_own_part() {
    let [first, .., last] = allowed_cpus()[..] else { panic!("two processors are needed") };
    let bench = TestGate::sized(POLICY, &[("ledger", 16_384)]);
    let mut found = Vec::new();
    for cpu in [first, last] {
        for port in 1000..1100 {
            on_cpu(cpu, || bench.gate.programs.run_filter(&opening(V4.web, V4.peer, port), 1)).unwrap();
        }
        let map = &bench.gate.maps.verdict_cache;
        let taken = |key: &Vec<u8>| {
            let places = map.lookup(key, MapFlags::ANY).unwrap().unwrap();
            places.chunks(OPENING).any(|bytes| bytes[24..28] != [0; 4])
        };
        let indexes = map.keys().filter(taken);
        found.push(indexes.map(|key| u32::from_ne_bytes(key[..].try_into().unwrap())).collect::<Vec<_>>());
    }
    assert!(found[0].iter().all(|index| part_of(&bench, first).contains(index)) && !found[0].is_empty());
    let mine = found[1].iter().filter(|index| !found[0].contains(index));
    assert_eq!(mine.clone().count(), found[0].len());
    assert!(mine.into_iter().all(|index| part_of(&bench, last).contains(index)));
}

#[test]
fn a_server_by_its_prefix_is_known_by_each_of_its_addresses() {
    on_one_cpu(|| {
        let policy = POLICY.replace("[\"192.0.2.10\",", "[\"192.0.2.0/27\", \"192.0.2.10\",");
        let bench = TestGate::new(&policy);
        for host in [1, 2] {
            let server = IpAddr::from([192, 0, 2, host]);
            let row = thrice(&bench, server, 6667, Reason::NewFlow)[2];
            assert_eq!((row.key.server, row.row.packets), (bench.id_of("web1"), 3 * u64::from(host)));
        }
        thrice(&bench, IpAddr::from([192, 0, 2, 33]), 6667, Reason::UnknownSource);
        thrice(&bench, V4.ns, 6667, Reason::NewFlow);
        // one of its addresses becomes another's
        bench.swap(&policy.replace("[\"192.0.2.53\",", "[\"192.0.2.53\", \"192.0.2.2\","));
        let row = bench.drops(&opening(IpAddr::from([192, 0, 2, 2]), V4.peer, 6667), Reason::NewFlow);
        assert_eq!(row.key.server, bench.id_of("ns1"));
        bench.passes(&opening(IpAddr::from([192, 0, 2, 2]), V4.peer, 53), Reason::Need);
    });
}

#[test]
fn a_permission_is_one_macs_where_the_server_has_one() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench =
                TestGate::new(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:01\""));
            let frame = opening(family.ns, family.peer, 53);
            for _ in 0..3 {
                bench.passes(&from_mac(&frame, [2, 0, 0, 0, 0, 1]), Reason::Need);
                bench.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 2]), Reason::Spoofed);
            }
        }
    });
}

#[test]
fn a_server_whose_number_has_no_room_is_not_known() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        let most = (1_u64 << 24) - 1;
        let last = state::STATE_SERVER_ID.0.to_ne_bytes();
        bench.gate.maps.state.handle().update(&last, &(most - 1).to_ne_bytes(), MapFlags::ANY).unwrap();
        bench.swap(&POLICY.replace("servers.ns1", "servers.ns8"));
        bench.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        assert_eq!((u64::from(bench.id_of("ns8")), known(&bench).len()), (most, 1));
        bench.swap(&POLICY.replace("servers.ns1", "servers.ns9"));
        bench.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        assert_eq!((u64::from(bench.id_of("ns9")), known(&bench).len()), (most + 1, 0));
    });
}

/// Sends it three times: found, known, and known with another destination.
fn thrice(bench: &TestGate, server: IpAddr, port: u16, reason: Reason) -> [Row; 3] {
    let family = if server.is_ipv4() { V4 } else { V6 };
    [family.peer, family.peer, family.other].map(|peer| bench.drops(&opening(server, peer, port), reason))
}

#[test]
fn a_known_verdict_counts_as_the_first_one_did() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let [first, _, last] = thrice(&bench, family.web, 6667, Reason::NewFlow);
            assert_eq!(last.row.packets, 3);
            assert_eq!(last.row.sampled_packets, 1, "one sample in a second");
            assert_eq!(first.key.server, last.key.server);
            assert_ne!(first.row.last_destination.word_be, last.row.last_destination.word_be);
            // another length is another number of bytes
            let long = padded(&opening(family.web, family.peer, 6667), 1400);
            assert_eq!(bench.drops(&long, Reason::NewFlow).row.bytes, last.row.bytes + 1400);
        }
    });
}

#[test]
fn a_second_later_it_is_sampled_again() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        let [.., row] = thrice(&bench, V4.web, 6667, Reason::NewFlow);
        bench.move_samples(row.row.sampled_ns - 1_000_000_001);
        let [next, _, last] = thrice(&bench, V4.web, 6667, Reason::NewFlow);
        assert_eq!((next.row.sampled_packets, last.row.sampled_packets), (4, 4));
    });
}

#[test]
fn another_policy_is_asked_anew() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            thrice(&bench, family.web, 6667, Reason::NewFlow);
            bench.swap(&POLICY.replace("out   = [\"udp/514", "out   = [\"tcp/6667\", \"udp/514"));
            bench.passes(&opening(family.web, family.peer, 6667), Reason::Need);
            bench.swap(POLICY);
            thrice(&bench, family.web, 6667, Reason::NewFlow);
            bench.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
            for _ in 0..3 {
                bench.would_drop(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            }
            bench.swap(&POLICY.replace("quiet = [\"udp", "quiet = [\"tcp/6667\", \"udp"));
            let [.., row] = thrice(&bench, family.web, 6667, Reason::NewFlow);
            assert_eq!(row.key.flags, 1, "quiet");
        }
    });
}

#[test]
fn a_quarantine_and_its_end_are_seen_at_once() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            thrice(&bench, family.web, 6667, Reason::NewFlow);
            thrice(&bench, family.ns, 6667, Reason::NewFlow);
            bench.gate.quarantine("web1", None).unwrap();
            thrice(&bench, family.web, 6667, Reason::Quarantined);
            assert_eq!(known(&bench).len(), 1, "that is known as well");
            thrice(&bench, family.ns, 6667, Reason::NewFlow);
            assert!(bench.gate.release("web1").unwrap());
            thrice(&bench, family.web, 6667, Reason::NewFlow);

            bench.gate.quarantine("ns1", Some(60)).unwrap();
            // what it may do at other times is known as a drop as well
            thrice(&bench, family.ns, 53, Reason::Quarantined);
            assert!(bench.gate.release("ns1").unwrap());
            bench.passes(&opening(family.ns, family.peer, 53), Reason::Need);
        }
    });
}

#[test]
fn it_holds_for_one_address_one_mac_and_one_port() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let policy = POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\"");
            let bench = TestGate::new(&policy);
            let own = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 1]);
            let borrowed = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 2]);
            let frame = opening(family.web, family.peer, 6667);
            for _ in 0..3 {
                bench.drops(&own(&frame), Reason::NewFlow);
                bench.drops(&borrowed(&frame), Reason::Spoofed);
            }
            assert_eq!(known(&bench).len(), 2, "both are known");
            for bit in 0..48 {
                let mut mac = [2, 0, 0, 0, 0, 1];
                mac[bit / 8] ^= 1 << (bit % 8);
                // one kind in four places: it may have been pushed out
                bench.drops(&own(&frame), Reason::NewFlow);
                bench.drops(&from_mac(&frame, mac), Reason::Spoofed);
            }
            for port in [6666, 6668, 6667 ^ 0x100, 6667 ^ 0x8000] {
                let row = bench.drops(&own(&opening(family.web, family.peer, port)), Reason::NewFlow);
                assert_eq!((row.key.port, row.row.packets), (port, 1));
            }
            let row = bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            assert_eq!((row.key.server, row.row.packets), (bench.id_of("ns1"), 1));
        }
    });
}

#[test]
fn it_holds_for_plain_openings_and_for_nothing_else() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let policy = POLICY.replace("[servers.web1]", "[servers.web1]\nvlan = 7");
            let bench = TestGate::new(&policy);
            let frame = opening(family.web, family.peer, 6667);
            for _ in 0..3 {
                bench.drops(&frame, Reason::Spoofed);
                bench.drops(&tagged(&frame, 0x8100, 7), Reason::NewFlow);
            }
            // the same port by other means
            for _ in 0..2 {
                bench.drops(&tcp((family.ns, 40_000), (family.peer, 6667), ACK), Reason::NoFlow);
                bench.drops(&tcp((family.ns, 40_000), (family.peer, 6667), SYN | ACK), Reason::NoFlow);
                bench.drops(&tcp((family.ns, 40_000), (family.peer, 6667), RST), Reason::Backscatter);
                bench.drops(&udp((family.ns, 40_000), (family.peer, 6667)), Reason::NewFlow);
                bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            }
            let flags = l4_of(family.ns) + 13;
            let frame = opening(family.ns, family.peer, 6667);
            for flag in [SYN | FIN, SYN | RST, 0] {
                bench.drops(&patched(&frame, flags, &[flag]), Reason::Malformed);
            }
        }
    });
}

#[test]
fn where_destinations_differ_nothing_is_kept() {
    on_one_cpu(|| {
        let quiet = "quiet = [\"tcp/6667 to 203.0.113.50\", \"udp";
        let bench = TestGate::new(&POLICY.replace("quiet = [\"udp", quiet));
        for _ in 0..3 {
            assert_eq!(bench.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow).key.flags, 1);
            assert_eq!(bench.drops(&opening(V4.web, V4.other, 6667), Reason::NewFlow).key.flags, 0);
            // a port that some may be called on
            bench.drops(&opening(V4.web, V4.peer, 6514), Reason::Destination);
            bench.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        }
        assert!(known(&bench).is_empty());
    });
}

#[test]
fn what_found_no_row_of_its_own_is_known_and_counted_as_such() {
    on_one_cpu(|| {
        let bench = TestGate::sized(POLICY, &[("ledger", 2)]);
        thrice(&bench, V4.web, 1001, Reason::NewFlow);
        let [.., row] = thrice(&bench, V4.web, 1002, Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets), (0, 3));
        assert_eq!(bench.gate.statistic().unwrap().ledger_full, 3);
    });
}

/// What the filter keeps of servers without further rows, of this epoch: place and bytes.
fn spent(bench: &TestGate) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (map, epoch) = (&bench.gate.maps.quota_cache, epoch(bench));
    let of_cpu = layout::QUOTA_CACHE_PER_CPU.0;
    let first = nix::sched::sched_getcpu().expect("a processor") as u32 * of_cpu;
    (first..first + of_cpu)
        .map(|index| index.to_ne_bytes().to_vec())
        .map(|key| (map.lookup(&key, MapFlags::ANY).unwrap().unwrap(), key))
        .filter(|(value, _)| value[16..20] == epoch)
        .map(|(value, key)| (key, value))
        .collect()
}

#[test]
fn a_server_without_further_rows_is_known_and_its_other_ports_count_as_the_rest() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::sized(POLICY, &[("ledger", 2)]);
            bench.drops(&opening(family.web, family.peer, 1001), Reason::NewFlow);
            assert_eq!(spent(&bench), []);
            let rest = bench.drops(&opening(family.web, family.peer, 1002), Reason::NewFlow);
            assert_eq!(rest.key.port, 0);
            let found = spent(&bench);
            let [(key, bytes)] = &found[..] else { panic!("one server: {found:?}") };
            for port in 1003..1020 {
                let row = bench.drops(&opening(family.web, family.other, port), Reason::NewFlow);
                assert_eq!((row.key.port, row.row.packets), (0, u64::from(port) - 1001));
                assert_eq!(bench.gate.statistic().unwrap().ledger_full, u64::from(port) - 1001);
            }
            // the one that has a row goes on in it, though its place may have been taken
            for place in known(&bench) {
                put(&bench, &place, &[0; OPENING]);
            }
            let row = bench.drops(&opening(family.web, family.peer, 1001), Reason::NewFlow);
            assert_eq!((row.key.port, row.row.packets), (1001, 2));
            // found again, it would be counted where it belongs
            let mut lie = bytes.clone();
            lie[20..24].copy_from_slice(&row.row.number.to_ne_bytes());
            bench.gate.maps.quota_cache.update(key, &lie, MapFlags::ANY).unwrap();
            bench.gate.programs.run_filter(&opening(family.web, family.peer, 1030), 1).unwrap();
            let rows = bench.ledger_rows(false);
            assert_eq!((rows.len(), rows[0].kind.port, rows[0].packets), (1, 1001, 3));
        }
    });
}

#[test]
fn what_is_known_of_a_server_without_further_rows_says_nothing_of_its_needs() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let needs = "out   = [\"tcp/7000-7999\", \"tcp/6514 to @loghosts\", ";
            let policy = POLICY.replace("out   = [", needs).replace(", \"tcp/6514 to @loghosts\"]", "]");
            let bench = TestGate::sized(&policy, &[("ledger", 2)]);
            for port in [1001, 1002, 1003] {
                bench.drops(&opening(family.web, family.peer, port), Reason::NewFlow);
            }
            assert_eq!(spent(&bench).len(), 1);
            bench.passes(&opening(family.web, family.peer, 7500), Reason::Need);
            bench.passes(&opening(family.web, family.loghost, 6514), Reason::Need);
            bench.drops(&opening(family.web, family.peer, 6514), Reason::Destination);
            // a port that it serves itself has a need, if none to call
            bench.drops(&opening(family.web, family.peer, 80), Reason::NewFlow);
            // another server at the same; it becomes one of the kind as well
            for port in [1003, 1004, 1005] {
                let row = bench.drops(&opening(family.ns, family.peer, port), Reason::NewFlow);
                assert_eq!(row.key.server, bench.id_of("ns1"));
            }
            assert_eq!(spent(&bench).len(), 2);
            bench.passes(&opening(family.ns, family.peer, 53), Reason::Need);
        }
    });
}

#[test]
fn what_is_known_of_a_server_without_further_rows_ends_with_policy_and_quarantine() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::sized(POLICY, &[("ledger", 2)]);
            let spend = |ports: std::ops::Range<u16>| {
                for port in ports {
                    let row = bench.drops(&opening(family.web, family.peer, port), Reason::NewFlow);
                    assert_eq!(row.key.flags, 0);
                }
                assert_eq!(spent(&bench).len(), 1);
            };
            spend(1001..1004);
            bench.gate.quarantine("web1", None).unwrap();
            for port in [1005, 1006, 1007] {
                bench.drops(&opening(family.web, family.peer, port), Reason::Quarantined);
            }
            assert_eq!(spent(&bench), []);
            bench.gate.release("web1").unwrap();
            spend(1006..1008);
            bench.swap(&POLICY.replace("quiet = [\"udp", "quiet = [\"tcp/1009\", \"udp"));
            assert_eq!(bench.drops(&opening(family.web, family.peer, 1009), Reason::NewFlow).key.flags, 1);
            spend(1010..1012);
            bench.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
            bench.would_drop(&opening(family.web, family.peer, 1013), Reason::NewFlow);
            bench.would_drop(&opening(family.web, family.peer, 1014), Reason::NewFlow);
            // whose it is has to be looked at each time
            bench.swap(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\""));
            for port in 1015..1018 {
                let frame = opening(family.web, family.peer, port);
                bench.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 1]), Reason::NewFlow);
                bench.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 2]), Reason::Spoofed);
            }
            assert_eq!(spent(&bench), []);
        }
    });
}

#[test]
fn a_server_has_no_further_rows_when_its_own_and_the_common_ones_are_gone_and_not_before() {
    let check = |full: bool| {
        let bench = TestGate::sized(POLICY, &[("ledger", 64)]);
        if full {
            // no room in the table itself, which may pass
            fill(&bench, "ledger");
        }
        let web = bench.id_of("web1");
        let own = read_state(&bench, state::STATE_QUOTA_GUARANTEED);
        let common = read_state(&bench, state::STATE_QUOTA_SHARED);
        let most = read_state(&bench, state::STATE_QUOTA_MAX);
        let mut port = 1000;
        let mut is_spent = |rows: u64, common_rows: u64| {
            for (owner, rows) in [(web, rows), (quota_key::QUOTA_SHARED.0, common_rows)] {
                let shares = bench.gate.maps.ledger_quotas.handle();
                shares.update(&owner.to_ne_bytes(), &rows.to_ne_bytes(), MapFlags::ANY).unwrap();
            }
            for (key, value) in spent(&bench) {
                bench.gate.maps.quota_cache.update(&key, &vec![0; value.len()], MapFlags::ANY).unwrap();
            }
            port += 1;
            bench.drops(&opening(V4.web, V4.peer, port), Reason::NewFlow);
            !spent(&bench).is_empty()
        };
        assert!(!is_spent(own - 1, common));
        assert!(!is_spent(own, common - 1));
        assert!(is_spent(own, common));
        assert!(is_spent(most, 0), "as many as one may have");
    };
    on_one_cpu(|| [false, true].into_iter().for_each(check));
}

#[test]
fn the_row_of_the_rest_is_sampled_once_in_a_second() {
    on_one_cpu(|| {
        let bench = TestGate::sized(POLICY, &[("ledger", 2)]);
        let scan = |ports: std::ops::Range<u16>| {
            let each = ports.map(|port| bench.drops(&opening(V4.web, V4.peer, port), Reason::NewFlow).row);
            each.collect::<Vec<_>>().pop().unwrap()
        };
        let row = scan(1001..1010);
        assert_eq!((row.packets, row.sampled_packets), (8, 1));
        bench.move_samples(row.sampled_ns - 1_000_000_001);
        let row = scan(1010..1020);
        assert_eq!((row.packets, row.sampled_packets), (18, 9));
    });
}

#[test]
fn an_answer_in_a_flow_needs_the_flow_and_the_policy_of_now() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let (server, peer) = ((family.web, 80), (family.peer, 51_000));
            bench.establish(server, peer);
            let answer = tcp(server, peer, ACK);
            for _ in 0..3 {
                bench.passes(&answer, Reason::Reply);
            }
            let flows = bench.entries::<flow_key, flow>("established");
            assert_eq!((flows.len(), flows[0].1.server), (1, bench.id_of("web1")));
            bench.drops(&tcp(server, (family.peer, 51_001), ACK), Reason::NoFlow);
            bench.drops(&tcp(server, (family.other, 51_000), ACK), Reason::NoFlow);
            bench.drops(&tcp((family.web, 443), peer, ACK), Reason::NoFlow);
            bench.gate.quarantine("web1", None).unwrap();
            bench.drops(&answer, Reason::Quarantined);
            bench.gate.release("web1").unwrap();
            bench.passes(&answer, Reason::Reply);
            // the same address under another name
            bench.swap(&POLICY.replace("servers.web1", "servers.web9"));
            for _ in 0..2 {
                bench.passes(&answer, Reason::Reply);
            }
            let flows = bench.entries::<flow_key, flow>("established");
            assert_eq!((flows.len(), flows[0].1.server), (1, bench.id_of("web9")));
            bench.gate.quarantine("web9", None).unwrap();
            bench.drops(&answer, Reason::Quarantined);
            bench.gate.release("web9").unwrap();
            // bound to a MAC that it does not have
            bench.swap(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:77\""));
            bench.drops(&answer, Reason::Spoofed);
            bench.swap(&POLICY.replace("\"tcp/80\", ", ""));
            bench.drops(&answer, Reason::NoFlow);
        }
    });
}

#[test]
fn an_answer_in_a_known_flow_is_not_asked_for_again() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let peer = (family.peer, 51_000);
            bench.establish((family.web, 80), peer);
            bench.to_server(&udp(peer, (family.ns, 53)));
            bench.passes(&udp((family.ns, 53), peer), Reason::Reply);
            let plain = [tcp((family.unknown, 80), peer, ACK), udp((family.unknown, 53), peer)];
            for (frame, map) in plain.iter().zip(["established", "datagrams"]) {
                bench.drops(frame, Reason::UnknownSource);
                // the flow of one who is no server: asked again, whose it is would be found out
                let [(mut key, flow)] = bench.entries::<flow_key, flow>(map)[..] else { panic!("one flow") };
                key.server = portcullis::abi::to_address(family.unknown);
                // SAFETY: both are plain, without padding
                let (key, flow) = unsafe { (plain::as_bytes(&key), plain::as_bytes(&flow)) };
                bench.gate.maps.find(map).expect("a map").update(key, flow, MapFlags::ANY).unwrap();
                let before = count(&bench, Reason::Reply);
                assert_eq!(bench.gate.programs.run_filter(frame, 1).unwrap().action, XDP_PASS);
                assert_eq!(count(&bench, Reason::Reply), before + 1);
            }
        }
    });
}

#[test]
fn a_place_that_another_address_has_taken_is_not_believed() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            let place = known(&bench).remove(0);
            bench.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let others = known(&bench);
            let web = others.iter().find(|other| **other != place).expect("another place");
            // as if the two had the same place
            put(&bench, &place, &web.bytes);
            let row = bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            assert_eq!((row.key.server, row.row.packets), (bench.id_of("ns1"), 2));
        }
    });
}

#[test]
fn a_mapped_address_is_malformed_whatever_is_known_of_its_ipv4_one() {
    on_one_cpu(|| {
        let bench = TestGate::dmz();
        thrice(&bench, V4.web, 6667, Reason::NewFlow);
        let IpAddr::V4(web) = V4.web else { panic!("an IPv4 address") };
        let mapped = IpAddr::V6(web.to_ipv6_mapped());
        bench.drops(&opening(mapped, V6.peer, 6667), Reason::Malformed);
        thrice(&bench, V6.web, 6667, Reason::NewFlow);
        bench.drops(&opening(V6.web, mapped, 6667), Reason::Malformed);
    });
}

#[test]
fn the_flow_of_a_datagram_has_its_server_before_the_first_answer() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let question = udp((family.peer, 51_000), (family.ns, 53));
            let server = || {
                let flows = bench.entries::<flow_key, flow>("datagrams");
                assert_eq!(flows.len(), 1);
                flows[0].1.server
            };
            bench.to_server(&question);
            assert_eq!(server(), bench.id_of("ns1"));
            bench.swap(&POLICY.replace("servers.ns1", "servers.ns9"));
            bench.to_server(&question);
            assert_eq!(server(), bench.id_of("ns9"));
        }
    });
}

#[test]
fn a_datagram_that_lies_about_its_length_is_no_answer() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let (server, peer) = ((family.ns, 53), (family.peer, 51_000));
            bench.to_server(&udp(peer, server));
            let answer = udp(server, peer);
            for _ in 0..3 {
                bench.passes(&answer, Reason::Reply);
            }
            let length = l4_of(family.ns) + 4;
            for lie in [[0, 7], [0xff, 0xff]] {
                bench.drops(&patched(&answer, length, &lie), Reason::Malformed);
            }
        }
    });
}

#[test]
fn an_answer_does_not_wake_a_flow_that_its_peer_has_reset() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = TestGate::dmz();
            let (server, peer) = ((family.web, 80), (family.peer, 51_000));
            bench.establish(server, peer);
            bench.passes(&tcp(server, peer, ACK), Reason::Reply);
            bench.to_server(&tcp(peer, server, RST));
            bench.age("established", 6);
            bench.passes(&tcp(server, peer, ACK), Reason::Reply);
            bench.age("established", 5);
            bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        }
    });
}
