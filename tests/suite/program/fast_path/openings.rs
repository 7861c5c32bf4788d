//! Openings of servers: the verdict that the filter keeps of one, in a part of `verdict_cache` that each CPU has
//! for itself.

use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{Reason, quarantine, state};

use super::{Known, OPENING, count, epoch, known, opening, part_of, put, thrice};
use crate::support::cpu::{allowed_cpus, on_cpu, on_one_cpu};
use crate::support::dmz::{POLICY, V4, V6, in_both_families};
use crate::support::frame::{ACK, FIN, RST, SYN, from_mac, l4_of, padded, patched, tagged, tcp, udp};
use crate::support::test_gate::{TestGate, XDP_PASS, with_dmz_in_both_families};

/// Makes the quarantines older than they may be, without a word to the filter.
fn end_quarantines(gate: &TestGate) {
    for (id, mut row) in gate.entries::<u32, quarantine>("quarantines") {
        row.until_ns -= 61_000_000_000;
        // SAFETY: plain data, without padding
        let bytes = unsafe { plain::as_bytes(&row) };
        gate.maps.quarantines.handle().update(&id.to_ne_bytes(), bytes, MapFlags::ANY).unwrap();
    }
}

#[test]
fn a_cached_verdict_is_not_computed_again() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let first = gate.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let found = known(&gate);
            let [place] = &found[..] else { panic!("one verdict: {found:?}") };
            // were it found again, this word would not be believed
            let mut lie = place.bytes.clone();
            assert_eq!(lie[31], Reason::NewFlow.number());
            lie[31] = Reason::Spoofed.number();
            put(&gate, place, &lie);
            gate.programs.run_filter(&opening(family.web, family.other, 6667), 1).unwrap();
            assert_eq!(count(&gate, Reason::Spoofed), 1);
            // and the row is the one that it was
            let rows = gate.ledger_rows(false);
            assert_eq!((rows.len(), rows[0].packets, rows[0].kind.port), (1, 2, 6667));
            assert_eq!(rows[0].number, first.row.number);
            assert_eq!(rows[0].bytes, 2 * opening(family.web, family.peer, 6667).len() as u64);
        });
    });
}

#[test]
fn a_permitted_opening_is_cached_as_well() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let frame = opening(family.ns, family.peer, 53);
            gate.passes(&frame, Reason::Need);
            let found = known(&gate);
            let [place] = &found[..] else { panic!("one verdict: {found:?}") };
            for peer in [family.peer, family.other] {
                gate.passes(&opening(family.ns, peer, 53), Reason::Need);
            }
            assert_eq!(known(&gate), std::slice::from_ref(place));
            // another port of it, and another server's same port, are not
            gate.drops(&opening(family.ns, family.peer, 54), Reason::NewFlow);
            gate.drops(&opening(family.web, family.peer, 53), Reason::NewFlow);
            // found again, it would pass
            let mut lie = place.bytes.clone();
            lie[28..32].copy_from_slice(&[0, 0, 0, Reason::Spoofed.number()]);
            put(&gate, place, &lie);
            gate.programs.run_filter(&frame, 1).unwrap();
            assert_eq!(count(&gate, Reason::Spoofed), 1);
            assert_eq!(count(&gate, Reason::Need), 3);
        });
    });
}

#[test]
fn a_cached_permission_is_not_looked_up_again() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let frame = opening(family.web, family.peer, 6667);
            gate.drops(&frame, Reason::NewFlow);
            let place = known(&gate).remove(0);
            // found again, it would be dropped
            let mut lie = place.bytes.clone();
            lie[28..31].copy_from_slice(&gate.id_of("web1").to_le_bytes()[..3]);
            lie[31] = Reason::Need.number();
            put(&gate, &place, &lie);
            assert_eq!(gate.programs.run_filter(&frame, 1).unwrap().action, XDP_PASS);
            assert_eq!(count(&gate, Reason::Need), 1);
        });
    });
}

#[test]
fn a_cached_permission_ends_with_its_policy_and_with_a_quarantine() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let frame = opening(family.ns, family.peer, 53);
            let pass = || (0..3).for_each(|_| gate.passes(&frame, Reason::Need));
            pass();
            gate.swap(&POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"udp/53\"]"));
            thrice(&gate, family.ns, 53, Reason::NewFlow);
            gate.swap(POLICY);
            pass();
            gate.quarantine("ns1", None).unwrap();
            thrice(&gate, family.ns, 53, Reason::Quarantined);
            gate.release("ns1").unwrap();
            pass();
            // bound to a MAC that it does not have
            gate.swap(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:77\""));
            thrice(&gate, family.ns, 53, Reason::Spoofed);
        });
    });
}

#[test]
fn a_quarantine_command_killed_after_its_first_write_stops_what_was_permitted() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let frame = opening(V4.ns, V4.peer, 53);
        gate.passes(&frame, Reason::Need);
        gate.passes(&frame, Reason::Need);
        let changes = gate.entries::<u32, u64>("state");
        gate.quarantine("ns1", None).unwrap();
        // as if the command had been killed before it said that something has changed
        let key = state::STATE_QUARANTINE_CHANGES.0;
        let (_, before) = changes.iter().find(|(index, _)| *index == key).unwrap();
        gate.maps.state.handle().update(&key.to_ne_bytes(), &before.to_ne_bytes(), MapFlags::ANY).unwrap();
        gate.drops(&frame, Reason::Quarantined);
    });
}

#[test]
fn verdicts_that_depend_on_a_limit_or_a_destination_are_not_cached() {
    on_one_cpu(|| {
        let limited = POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"tcp/53 limit 2/m\"]");
        let gate = TestGate::new(&limited);
        let frame = opening(V4.ns, V4.peer, 53);
        gate.passes(&frame, Reason::Need);
        gate.passes(&frame, Reason::Need);
        gate.drops(&frame, Reason::Rate);
        gate.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        assert_eq!(known(&gate), []);
        // whoever is called, but not all without a limit
        gate.swap(&POLICY.replace("out   = [", "out   = [\"tcp/6514 limit 2/m\", "));
        for _ in 0..3 {
            gate.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        }
        gate.passes(&opening(V4.web, V4.peer, 6514), Reason::Need);
        gate.passes(&opening(V4.web, V4.peer, 6514), Reason::Need);
        gate.drops(&opening(V4.web, V4.peer, 6514), Reason::Rate);
        // segments and datagrams of what may be opened are judged each
        gate.passes(&tcp((V4.ns, 40_000), (V4.peer, 53), ACK), Reason::OwnConnection);
        assert_eq!(known(&gate), []);
    });
}

#[test]
fn four_verdicts_in_one_slot_are_all_cached_and_a_fifth_replaces_one() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 16_384)]);
        let ports = 1000..3000;
        for port in ports.clone() {
            gate.programs.run_filter(&opening(V4.web, V4.peer, port), 1).unwrap();
        }
        let mut filled = std::collections::BTreeMap::<_, usize>::new();
        for place in known(&gate) {
            *filled.entry(place.key).or_default() += 1;
        }
        let full = filled.values().filter(|places| **places == 4).count();
        let gone = ports.len() - filled.values().sum::<usize>();
        assert!(full > 0 && gone > 0 && gone < ports.len() / 2, "{full} full, {gone} gone");
        for port in ports.clone() {
            gate.programs.run_filter(&opening(V4.web, V4.other, port), 1).unwrap();
        }
        let rows = gate.ledger_rows(false);
        assert_eq!(rows.len(), ports.len());
        assert!(rows.iter().all(|row| row.packets == 2), "each in its own row");
    });
}

#[test]
fn a_verdict_is_found_in_each_of_its_four_places() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        gate.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
        let first = known(&gate).remove(0);
        for (times, at) in [0, 1, 2, 3].map(|place| place * OPENING).into_iter().enumerate() {
            put(&gate, &known(&gate).remove(0), &[0; OPENING]);
            let mut lie = first.bytes.clone();
            lie[31] = Reason::Spoofed.number();
            put(&gate, &Known { at, ..first.clone() }, &lie);
            gate.programs.run_filter(&opening(V4.web, V4.peer, 6667), 1).unwrap();
            assert_eq!(count(&gate, Reason::Spoofed), times as u64 + 1, "at {at}");
        }
    });
}

#[test]
fn half_written_entries_and_those_of_another_sender_are_not_used() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        gate.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
        let place = known(&gate).remove(0);
        // address, MAC, port, epoch
        for byte in [15, 16, 17, 22, 23, 24] {
            let mut other = place.bytes.clone();
            other[byte] ^= 1;
            other[31] = Reason::Spoofed.number();
            put(&gate, &place, &other);
            gate.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow);
            for place in known(&gate) {
                put(&gate, &place, &[0; OPENING]);
            }
        }
    });
}

#[test]
fn an_expired_quarantine_is_over_and_its_cached_verdict_is_replaced() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        gate.quarantine("ns1", Some(60)).unwrap();
        thrice(&gate, V4.ns, 53, Reason::Quarantined);
        end_quarantines(&gate);
        gate.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        let [place] = &known(&gate)[..] else { panic!("one verdict") };
        // of a pass the uppermost bit of the reason is clear
        assert_eq!(place.bytes[31] & 32, 0);
    });
}

#[test]
fn a_spoofed_frame_is_only_observed_once_its_owners_quarantine_has_expired() {
    on_one_cpu(|| {
        let observe = POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
        let policy = observe.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\"");
        let gate = TestGate::new(&policy);
        let borrowed = from_mac(&opening(V4.web, V4.peer, 6667), [2, 0, 0, 0, 0, 2]);
        gate.quarantine("web1", Some(60)).unwrap();
        gate.drops(&borrowed, Reason::Spoofed);
        gate.drops(&borrowed, Reason::Spoofed);
        end_quarantines(&gate);
        gate.would_drop(&borrowed, Reason::Spoofed);
    });
}

#[test]
fn each_cpu_caches_its_own_verdicts_by_its_own_epoch() {
    let [first, .., last] = allowed_cpus()[..] else { panic!("two processors are needed") };
    // a gate that nobody had before: both begin with the same number
    let gate = TestGate::fresh(POLICY, &[("ledger", 128)]);
    let opened = |cpu, reason| {
        on_cpu(cpu, || match reason {
            Reason::Need => gate.passes(&opening(V4.ns, V4.peer, 53), reason),
            _ => drop(gate.drops(&opening(V4.ns, V4.peer, 53), reason)),
        });
        on_cpu(cpu, || epoch(&gate))
    };
    let permitted = opened(first, Reason::Need);
    gate.swap(&POLICY.replace("out = [\"udp/53\", \"tcp/53\"]", "out = [\"udp/53\"]"));
    // the last one's first policy has the number that the first one had for another policy
    assert_eq!(opened(last, Reason::NewFlow), permitted);
    opened(first, Reason::NewFlow);
    opened(last, Reason::NewFlow);
    let of = |cpu| on_cpu(cpu, || known(&gate).remove(0).bytes[..24].to_vec());
    assert_eq!(of(first), of(last), "one opening that both know");
}

#[test]
fn each_cpu_caches_in_its_own_part() {
    let [first, .., last] = allowed_cpus()[..] else { panic!("two processors are needed") };
    let gate = TestGate::fresh(POLICY, &[("ledger", 16_384)]);
    let mut found = Vec::new();
    for cpu in [first, last] {
        for port in 1000..1100 {
            on_cpu(cpu, || gate.programs.run_filter(&opening(V4.web, V4.peer, port), 1)).unwrap();
        }
        let map = &gate.maps.verdict_cache;
        let taken = |key: &Vec<u8>| {
            let places = map.lookup(key, MapFlags::ANY).unwrap().unwrap();
            places.chunks(OPENING).any(|bytes| bytes[24..28] != [0; 4])
        };
        let indexes = map.keys().filter(taken);
        found.push(indexes.map(|key| u32::from_ne_bytes(key[..].try_into().unwrap())).collect::<Vec<_>>());
    }
    assert!(found[0].iter().all(|index| part_of(&gate, first).contains(index)) && !found[0].is_empty());
    let mine = found[1].iter().filter(|index| !found[0].contains(index));
    assert_eq!(mine.clone().count(), found[0].len());
    assert!(mine.into_iter().all(|index| part_of(&gate, last).contains(index)));
}

#[test]
fn a_server_by_its_prefix_has_a_cached_verdict_for_each_of_its_addresses() {
    on_one_cpu(|| {
        let policy = POLICY.replace("[\"192.0.2.10\",", "[\"192.0.2.0/27\", \"192.0.2.10\",");
        let gate = TestGate::new(&policy);
        for host in [1, 2] {
            let server = IpAddr::from([192, 0, 2, host]);
            let row = thrice(&gate, server, 6667, Reason::NewFlow)[2];
            assert_eq!((row.key.server, row.row.packets), (gate.id_of("web1"), 3 * u64::from(host)));
        }
        thrice(&gate, IpAddr::from([192, 0, 2, 33]), 6667, Reason::UnknownSource);
        thrice(&gate, V4.ns, 6667, Reason::NewFlow);
        // one of its addresses becomes another's
        gate.swap(&policy.replace("[\"192.0.2.53\",", "[\"192.0.2.53\", \"192.0.2.2\","));
        let row = gate.drops(&opening(IpAddr::from([192, 0, 2, 2]), V4.peer, 6667), Reason::NewFlow);
        assert_eq!(row.key.server, gate.id_of("ns1"));
        gate.passes(&opening(IpAddr::from([192, 0, 2, 2]), V4.peer, 53), Reason::Need);
    });
}

#[test]
fn a_cached_permission_holds_for_one_mac_where_the_server_has_one() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let gate =
                TestGate::new(&POLICY.replace("[servers.ns1]", "[servers.ns1]\nmac = \"02:00:00:00:00:01\""));
            let frame = opening(family.ns, family.peer, 53);
            for _ in 0..3 {
                gate.passes(&from_mac(&frame, [2, 0, 0, 0, 0, 1]), Reason::Need);
                gate.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 2]), Reason::Spoofed);
            }
        });
    });
}

#[test]
fn a_server_whose_id_does_not_fit_is_not_cached() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let most = (1_u64 << 16) - 1;
        let last = state::STATE_SERVER_ID.0.to_ne_bytes();
        gate.maps.state.handle().update(&last, &(most - 1).to_ne_bytes(), MapFlags::ANY).unwrap();
        gate.swap(&POLICY.replace("servers.ns1", "servers.ns8"));
        gate.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        assert_eq!((u64::from(gate.id_of("ns8")), known(&gate).len()), (most, 1));
        gate.swap(&POLICY.replace("servers.ns1", "servers.ns9"));
        gate.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
        assert_eq!((u64::from(gate.id_of("ns9")), known(&gate).len()), (most + 1, 0));
    });
}

#[test]
fn a_cached_verdict_counts_like_the_first_one() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let [first, _, last] = thrice(&gate, family.web, 6667, Reason::NewFlow);
            assert_eq!(last.row.packets, 3);
            assert_eq!(last.row.sampled_packets, 1, "one sample in a second");
            assert_eq!(first.key.server, last.key.server);
            assert_ne!(first.row.last_destination.word_be, last.row.last_destination.word_be);
            // another length is another number of bytes
            let long = padded(&opening(family.web, family.peer, 6667), 1400);
            assert_eq!(gate.drops(&long, Reason::NewFlow).row.bytes, last.row.bytes + 1400);
        });
    });
}

#[test]
fn a_cached_verdict_is_sampled_again_a_second_later() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        let [.., row] = thrice(&gate, V4.web, 6667, Reason::NewFlow);
        gate.move_samples(row.row.sampled_ns - 1_000_000_001);
        let [next, _, last] = thrice(&gate, V4.web, 6667, Reason::NewFlow);
        assert_eq!((next.row.sampled_packets, last.row.sampled_packets), (4, 4));
    });
}

#[test]
fn a_new_policy_makes_its_verdicts_anew() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            thrice(&gate, family.web, 6667, Reason::NewFlow);
            gate.swap(&POLICY.replace("out   = [\"udp/514", "out   = [\"tcp/6667\", \"udp/514"));
            gate.passes(&opening(family.web, family.peer, 6667), Reason::Need);
            gate.swap(POLICY);
            thrice(&gate, family.web, 6667, Reason::NewFlow);
            gate.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
            for _ in 0..3 {
                gate.would_drop(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            }
            gate.swap(&POLICY.replace("quiet = [\"udp", "quiet = [\"tcp/6667\", \"udp"));
            let [.., row] = thrice(&gate, family.web, 6667, Reason::NewFlow);
            assert_eq!(row.key.flags, 1, "quiet");
        });
    });
}

#[test]
fn a_quarantine_and_its_end_are_seen_at_once() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            thrice(&gate, family.web, 6667, Reason::NewFlow);
            thrice(&gate, family.ns, 6667, Reason::NewFlow);
            gate.quarantine("web1", None).unwrap();
            thrice(&gate, family.web, 6667, Reason::Quarantined);
            assert_eq!(known(&gate).len(), 1, "that is known as well");
            thrice(&gate, family.ns, 6667, Reason::NewFlow);
            assert!(gate.release("web1").unwrap().was);
            thrice(&gate, family.web, 6667, Reason::NewFlow);

            gate.quarantine("ns1", Some(60)).unwrap();
            // what it may do at other times is known as a drop as well
            thrice(&gate, family.ns, 53, Reason::Quarantined);
            assert!(gate.release("ns1").unwrap().was);
            gate.passes(&opening(family.ns, family.peer, 53), Reason::Need);
        });
    });
}

#[test]
fn a_cached_verdict_holds_for_one_address_one_mac_and_one_port() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let policy = POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\"");
            let gate = TestGate::new(&policy);
            let own = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 1]);
            let borrowed = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 2]);
            let frame = opening(family.web, family.peer, 6667);
            for _ in 0..3 {
                gate.drops(&own(&frame), Reason::NewFlow);
                gate.drops(&borrowed(&frame), Reason::Spoofed);
            }
            assert_eq!(known(&gate).len(), 2, "both are known");
            for bit in 0..48 {
                let mut mac = [2, 0, 0, 0, 0, 1];
                mac[bit / 8] ^= 1 << (bit % 8);
                // one kind in four places: it may have been pushed out
                gate.drops(&own(&frame), Reason::NewFlow);
                gate.drops(&from_mac(&frame, mac), Reason::Spoofed);
            }
            for port in [6666, 6668, 6667 ^ 0x100, 6667 ^ 0x8000] {
                let row = gate.drops(&own(&opening(family.web, family.peer, port)), Reason::NewFlow);
                assert_eq!((row.key.port, row.row.packets), (port, 1));
            }
            let row = gate.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            assert_eq!((row.key.server, row.row.packets), (gate.id_of("ns1"), 1));
        });
    });
}

#[test]
fn a_cached_verdict_holds_for_plain_openings_and_nothing_else() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let policy = POLICY.replace("[servers.web1]", "[servers.web1]\nvlan = 7");
            let gate = TestGate::new(&policy);
            let frame = opening(family.web, family.peer, 6667);
            for _ in 0..3 {
                gate.drops(&frame, Reason::Spoofed);
                gate.drops(&tagged(&frame, 0x8100, 7), Reason::NewFlow);
            }
            // the same port by other means
            for _ in 0..2 {
                gate.drops(&tcp((family.ns, 40_000), (family.peer, 6667), ACK), Reason::NoFlow);
                gate.drops(&tcp((family.ns, 40_000), (family.peer, 6667), SYN | ACK), Reason::NoFlow);
                gate.drops(&tcp((family.ns, 40_000), (family.peer, 6667), RST), Reason::Backscatter);
                gate.drops(&udp((family.ns, 40_000), (family.peer, 6667)), Reason::NewFlow);
                gate.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            }
            let flags = l4_of(family.ns) + 13;
            let frame = opening(family.ns, family.peer, 6667);
            for flag in [SYN | FIN, SYN | RST, 0] {
                gate.drops(&patched(&frame, flags, &[flag]), Reason::Malformed);
            }
        });
    });
}

#[test]
fn nothing_is_cached_where_destinations_differ() {
    on_one_cpu(|| {
        let quiet = "quiet = [\"tcp/6667 to 203.0.113.50\", \"udp";
        let gate = TestGate::new(&POLICY.replace("quiet = [\"udp", quiet));
        for _ in 0..3 {
            assert_eq!(gate.drops(&opening(V4.web, V4.peer, 6667), Reason::NewFlow).key.flags, 1);
            assert_eq!(gate.drops(&opening(V4.web, V4.other, 6667), Reason::NewFlow).key.flags, 0);
            // a port that some may be called on
            gate.drops(&opening(V4.web, V4.peer, 6514), Reason::Destination);
            gate.passes(&opening(V4.web, V4.loghost, 6514), Reason::Need);
        }
        assert!(known(&gate).is_empty());
    });
}

#[test]
fn an_entry_of_another_address_in_the_same_slot_is_not_used() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            gate.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            let place = known(&gate).remove(0);
            gate.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let others = known(&gate);
            let web = others.iter().find(|other| **other != place).expect("another place");
            // as if the two had the same place
            put(&gate, &place, &web.bytes);
            let row = gate.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            assert_eq!((row.key.server, row.row.packets), (gate.id_of("ns1"), 2));
        });
    });
}

#[test]
fn a_mapped_address_is_malformed_even_when_its_ipv4_address_has_a_cached_verdict() {
    on_one_cpu(|| {
        let gate = TestGate::dmz();
        thrice(&gate, V4.web, 6667, Reason::NewFlow);
        let IpAddr::V4(web) = V4.web else { panic!("an IPv4 address") };
        let mapped = IpAddr::V6(web.to_ipv6_mapped());
        gate.drops(&opening(mapped, V6.peer, 6667), Reason::Malformed);
        thrice(&gate, V6.web, 6667, Reason::NewFlow);
        gate.drops(&opening(V6.web, mapped, 6667), Reason::Malformed);
    });
}
