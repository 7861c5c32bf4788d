//! The short way through: what was found before holds until something changes, and not longer.

use std::net::IpAddr;

use libbpf_rs::{MapCore, MapFlags};
use portcullis::gate::contract::{ledger_row, state};
use portcullis::reason::Reason;

use crate::support::bench::{Bench, Row};
use crate::support::dmz::{FAMILIES, POLICY, V4, V6};
use crate::support::frame::{ACK, FIN, RST, SYN, from_mac, l4_of, padded, patched, tagged, tcp, udp};

/// An opening to a port that no need of web1 knows.
fn opening(server: IpAddr, peer: IpAddr, port: u16) -> Vec<u8> {
    tcp((server, 40_000), (peer, port), SYN)
}

/// As `drops`, on a processor of its own, for each has verdicts of its own.
fn on_one_cpu(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut set = nix::sched::CpuSet::new();
            let own = nix::unistd::Pid::from_raw(0);
            let allowed = nix::sched::sched_getaffinity(own).expect("the affinity");
            let first = (0..nix::sched::CpuSet::count()).find(|cpu| allowed.is_set(*cpu) == Ok(true));
            set.set(first.expect("a processor")).expect("a processor");
            nix::sched::sched_setaffinity(own, &set).expect("the affinity");
            test();
        });
    });
}

/// What the filter keeps: the place and bytes of each verdict of the live policy.
fn known(bench: &Bench) -> Vec<(Vec<u8>, Vec<u8>)> {
    let generation = bench.gate.live_settings().unwrap().unwrap().generation as u32;
    let map = bench.gate.map("known_drops");
    let changes_key = state::STATE_QUARANTINE_CHANGES.0.to_ne_bytes();
    let changes = bench.gate.map("state").lookup(&changes_key, MapFlags::ANY).unwrap().unwrap();
    (0..map.max_entries())
        .map(|index| index.to_ne_bytes().to_vec())
        .map(|key| (map.lookup(&key, MapFlags::ANY).unwrap().unwrap(), key))
        .filter(|(value, _)| value[24..28] == generation.to_ne_bytes() && value[28..32] == changes[..4])
        .map(|(value, key)| (key, value))
        .collect()
}

#[test]
fn a_verdict_that_is_known_is_not_found_again() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
            let first = bench.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let [(key, value)] = &known(&bench)[..] else { panic!("one verdict") };
            // were it found again, this word would not be believed
            let mut lie = value.clone();
            lie[44] = Reason::Spoofed.number();
            bench.gate.map("known_drops").update(key, &lie, MapFlags::ANY).unwrap();
            bench.gate.programs.run_filter(&opening(family.web, family.other, 6667), 1).unwrap();
            let counters = bench.gate.counters(false).unwrap();
            assert!(counters.iter().any(|count| (count.0, count.1) == (Reason::Spoofed, 1)));
            // and the row is the one that it was
            let rows = bench.ledger_rows(false);
            assert_eq!((rows.len(), rows[0].packets, rows[0].kind.port), (1, 2, 6667));
            assert_eq!(rows[0].number, first.row.number);
            assert_eq!(rows[0].bytes, 2 * opening(family.web, family.peer, 6667).len() as u64);
        }
    });
}

/// Sends it three times: found, known, and known with another destination.
fn thrice(bench: &Bench, server: IpAddr, port: u16, reason: Reason) -> [Row; 3] {
    let family = if server.is_ipv4() { V4 } else { V6 };
    [family.peer, family.peer, family.other].map(|peer| bench.drops(&opening(server, peer, port), reason))
}

#[test]
fn a_known_verdict_counts_as_the_first_one_did() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
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
        let bench = Bench::dmz();
        let [.., row] = thrice(&bench, V4.web, 6667, Reason::NewFlow);
        let number = row.row.number.to_ne_bytes();
        let earlier = ledger_row { sampled_ns: row.row.sampled_ns - 1_000_000_001, ..row.row };
        // SAFETY: plain data, without padding
        let bytes = unsafe { plain::as_bytes(&earlier) };
        bench.gate.map("ledger_rows").update(&number, bytes, MapFlags::ANY).unwrap();
        let [next, _, last] = thrice(&bench, V4.web, 6667, Reason::NewFlow);
        assert_eq!((next.row.sampled_packets, last.row.sampled_packets), (4, 4));
    });
}

#[test]
fn another_policy_is_asked_anew() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
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
            let bench = Bench::dmz();
            thrice(&bench, family.web, 6667, Reason::NewFlow);
            thrice(&bench, family.ns, 6667, Reason::NewFlow);
            bench.gate.quarantine("web1", None).unwrap();
            thrice(&bench, family.web, 6667, Reason::Quarantined);
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
fn a_quarantine_that_has_run_out_is_over() {
    on_one_cpu(|| {
        let bench = Bench::dmz();
        bench.gate.quarantine("ns1", Some(60)).unwrap();
        thrice(&bench, V4.ns, 53, Reason::Quarantined);
        // the table of quarantines and what the filter keeps, a minute older
        let ended = bench.entries::<u32, portcullis::gate::contract::quarantine>("quarantines");
        for (id, mut row) in ended {
            row.until_ns -= 60_000_000_000;
            // SAFETY: plain data, without padding
            let bytes = unsafe { plain::as_bytes(&row) };
            bench.gate.map("quarantines").update(&id.to_ne_bytes(), bytes, MapFlags::ANY).unwrap();
        }
        for (key, mut value) in known(&bench) {
            let until = u64::from_ne_bytes(value[32..40].try_into().unwrap());
            value[32..40].copy_from_slice(&(until - 60_000_000_000).to_ne_bytes());
            bench.gate.map("known_drops").update(&key, &value, MapFlags::ANY).unwrap();
        }
        bench.passes(&opening(V4.ns, V4.peer, 53), Reason::Need);
    });
}

#[test]
fn it_holds_for_one_address_one_mac_and_one_port() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let policy = POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\"");
            let bench = Bench::new(&policy);
            let own = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 1]);
            let borrowed = |frame: &[u8]| from_mac(frame, [2, 0, 0, 0, 0, 2]);
            let frame = opening(family.web, family.peer, 6667);
            for _ in 0..3 {
                bench.drops(&own(&frame), Reason::NewFlow);
                bench.drops(&borrowed(&frame), Reason::Spoofed);
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
            let bench = Bench::new(&policy);
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
        let bench = Bench::new(&POLICY.replace("quiet = [\"udp", quiet));
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
        let bench = Bench::sized(POLICY, &[("ledger", 2)]);
        thrice(&bench, V4.web, 1001, Reason::NewFlow);
        let [.., row] = thrice(&bench, V4.web, 1002, Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets), (0, 3));
        assert_eq!(bench.gate.tally().unwrap().ledger_full, 3);
    });
}

#[test]
fn an_answer_in_a_flow_needs_the_flow_and_the_policy_of_now() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
            let (server, peer) = ((family.web, 80), (family.peer, 51_000));
            bench.establish(server, peer);
            let answer = tcp(server, peer, ACK);
            for _ in 0..3 {
                bench.passes(&answer, Reason::Reply);
            }
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
fn a_place_that_another_address_has_taken_is_not_believed() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
            bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            let (place, _) = known(&bench).remove(0);
            bench.drops(&opening(family.web, family.peer, 6667), Reason::NewFlow);
            let others = known(&bench);
            let (_, web) = others.iter().find(|(key, _)| *key != place).expect("another place");
            // as if the two had the same place
            bench.gate.map("known_drops").update(&place, web, MapFlags::ANY).unwrap();
            let row = bench.drops(&opening(family.ns, family.peer, 6667), Reason::NewFlow);
            assert_eq!((row.key.server, row.row.packets), (bench.id_of("ns1"), 2));
        }
    });
}

#[test]
fn a_mapped_address_is_malformed_whatever_is_known_of_its_ipv4_one() {
    on_one_cpu(|| {
        let bench = Bench::dmz();
        thrice(&bench, V4.web, 6667, Reason::NewFlow);
        let IpAddr::V4(web) = V4.web else { panic!("an IPv4 address") };
        let mapped = IpAddr::V6(web.to_ipv6_mapped());
        bench.drops(&opening(mapped, V6.peer, 6667), Reason::Malformed);
        thrice(&bench, V6.web, 6667, Reason::NewFlow);
        bench.drops(&opening(V6.web, mapped, 6667), Reason::Malformed);
    });
}

#[test]
fn a_datagram_that_lies_about_its_length_is_no_answer() {
    on_one_cpu(|| {
        for family in FAMILIES {
            let bench = Bench::dmz();
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
            let bench = Bench::dmz();
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
