//! Servers that have no further rows in the ledger: `quota_cache` has them, for each CPU.

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{Reason, layout, quota_class, quota_key};
use portcullis::clock::now_ns;

use super::super::ledger::fill;
use super::{OPENING, epoch, known, opening, put, thrice};
use crate::support::cpu::on_one_cpu;
use crate::support::dmz::{POLICY, V4, V6, in_both_families};
use crate::support::frame::from_mac;
use crate::support::test_gate::{SECOND_NS, TestGate};

#[test]
fn a_drop_without_a_row_of_its_own_is_cached_and_counted_in_the_overflow() {
    on_one_cpu(|| {
        let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
        thrice(&gate, V4.web, 1001, Reason::NewFlow);
        let [.., row] = thrice(&gate, V4.web, 1002, Reason::NewFlow);
        assert_eq!((row.key.port, row.row.packets), (0, 3));
        assert_eq!(gate.program_statistics().unwrap().ledger_full, 3);
    });
}

/// What the filter keeps of servers without further rows, of this epoch: place and bytes.
fn spent(gate: &TestGate) -> Vec<(Vec<u8>, Vec<u8>)> {
    let (map, epoch) = (&gate.maps.quota_cache, epoch(gate));
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
fn a_server_whose_quota_is_spent_is_cached_and_its_other_ports_count_in_the_overflow() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
            gate.drops(&opening(family.web, family.peer, 1001), Reason::NewFlow);
            assert_eq!(spent(&gate), []);
            let rest = gate.drops(&opening(family.web, family.peer, 1002), Reason::NewFlow);
            assert_eq!(rest.key.port, 0);
            let found = spent(&gate);
            let [(key, bytes)] = &found[..] else { panic!("one server: {found:?}") };
            for port in 1003..1020 {
                let row = gate.drops(&opening(family.web, family.other, port), Reason::NewFlow);
                assert_eq!((row.key.port, row.row.packets), (0, u64::from(port) - 1001));
                assert_eq!(gate.program_statistics().unwrap().ledger_full, u64::from(port) - 1001);
            }
            // the one that has a row goes on in it, though its place may have been taken
            for place in known(&gate) {
                put(&gate, &place, &[0; OPENING]);
            }
            let row = gate.drops(&opening(family.web, family.peer, 1001), Reason::NewFlow);
            assert_eq!((row.key.port, row.row.packets), (1001, 2));
            // no sample of it is due
            gate.move_samples(now_ns() + 3600 * SECOND_NS);
            gate.drops(&opening(family.web, family.peer, 1001), Reason::NewFlow);
            // found again, it would be counted where it belongs
            let mut lie = bytes.clone();
            lie[20..24].copy_from_slice(&row.row.number.to_ne_bytes());
            gate.maps.quota_cache.update(key, &lie, MapFlags::ANY).unwrap();
            gate.programs.run_filter(&opening(family.web, family.peer, 1030), 1).unwrap();
            let rows = gate.ledger_rows(false);
            assert_eq!((rows.len(), rows[0].kind.port, rows[0].packets), (1, 1001, 4));
        });
    });
}

#[test]
fn a_cached_spent_quota_says_nothing_about_the_servers_needs() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let needs = "out   = [\"tcp/7000-7999\", \"tcp/6514 to @loghosts\", ";
            let policy = POLICY.replace("out   = [", needs).replace(", \"tcp/6514 to @loghosts\"]", "]");
            let gate = TestGate::sized(&policy, &[("ledger", 2)]);
            for port in [1001, 1002, 1003] {
                gate.drops(&opening(family.web, family.peer, port), Reason::NewFlow);
            }
            assert_eq!(spent(&gate).len(), 1);
            gate.passes(&opening(family.web, family.peer, 7500), Reason::Need);
            gate.passes(&opening(family.web, family.loghost, 6514), Reason::Need);
            gate.drops(&opening(family.web, family.peer, 6514), Reason::Destination);
            // a port that it serves itself has a need, if none to call
            gate.drops(&opening(family.web, family.peer, 80), Reason::NewFlow);
            // another server at the same; it becomes one of the kind as well
            for port in [1003, 1004, 1005] {
                let row = gate.drops(&opening(family.ns, family.peer, port), Reason::NewFlow);
                assert_eq!(row.key.server, gate.id_of("ns1"));
            }
            assert_eq!(spent(&gate).len(), 2);
            gate.passes(&opening(family.ns, family.peer, 53), Reason::Need);
        });
    });
}

#[test]
fn a_cached_spent_quota_is_not_that_of_a_mac_in_quarantine() {
    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x30];
    on_one_cpu(|| {
        in_both_families(|family| {
            let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
            // of the same server, and the same machine
            let other = if family.web == V4.web { V6.web } else { V4.web };
            gate.quarantine_address(other, Some(MAC), None).unwrap();
            for port in 1001..1006 {
                let frame = opening(family.web, family.peer, port);
                gate.drops(&frame, Reason::NewFlow);
                gate.drops(&from_mac(&frame, MAC), Reason::Quarantined);
            }
            assert_eq!(spent(&gate).len(), 1);
        });
    });
}

#[test]
fn a_cached_spent_quota_ends_with_the_policy_and_with_a_quarantine() {
    on_one_cpu(|| {
        in_both_families(|family| {
            let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
            let spend = |ports: std::ops::Range<u16>| {
                for port in ports {
                    let row = gate.drops(&opening(family.web, family.peer, port), Reason::NewFlow);
                    assert_eq!(row.key.flags, 0);
                }
                assert_eq!(spent(&gate).len(), 1);
            };
            spend(1001..1004);
            gate.quarantine("web1", None).unwrap();
            for port in [1005, 1006, 1007] {
                gate.drops(&opening(family.web, family.peer, port), Reason::Quarantined);
            }
            assert_eq!(spent(&gate), []);
            gate.release("web1").unwrap();
            spend(1006..1008);
            gate.swap(&POLICY.replace("quiet = [\"udp", "quiet = [\"tcp/1009\", \"udp"));
            assert_eq!(gate.drops(&opening(family.web, family.peer, 1009), Reason::NewFlow).key.flags, 1);
            spend(1010..1012);
            gate.swap(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
            gate.would_drop(&opening(family.web, family.peer, 1013), Reason::NewFlow);
            gate.would_drop(&opening(family.web, family.peer, 1014), Reason::NewFlow);
            // whose it is has to be looked at each time
            gate.swap(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:01\""));
            for port in 1015..1018 {
                let frame = opening(family.web, family.peer, port);
                gate.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 1]), Reason::NewFlow);
                gate.drops(&from_mac(&frame, [2, 0, 0, 0, 0, 2]), Reason::Spoofed);
            }
            assert_eq!(spent(&gate), []);
        });
    });
}

#[test]
fn a_quota_is_spent_when_the_guaranteed_and_the_shared_rows_are_gone_and_not_before() {
    let check = |full: bool| {
        let gate = TestGate::sized(POLICY, &[("ledger", 64)]);
        if full {
            // no room in the table itself, which may pass
            fill(&gate, "ledger");
        }
        let web = gate.id_of("web1");
        let limits = gate.live_settings().unwrap().unwrap().limits[quota_class::CLASS_OWN.0 as usize];
        let [own, common, most] = [limits.guaranteed, limits.shared, limits.max].map(u64::from);
        let mut port = 1000;
        let mut is_spent = |rows: u64, common_rows: u64| {
            for (owner, rows) in [(web, rows), (quota_key::QUOTA_SHARED.0, common_rows)] {
                let shares = gate.maps.ledger_quotas.handle();
                shares.update(&owner.to_ne_bytes(), &rows.to_ne_bytes(), MapFlags::ANY).unwrap();
            }
            for (key, value) in spent(&gate) {
                gate.maps.quota_cache.update(&key, &vec![0; value.len()], MapFlags::ANY).unwrap();
            }
            port += 1;
            gate.drops(&opening(V4.web, V4.peer, port), Reason::NewFlow);
            !spent(&gate).is_empty()
        };
        assert!(!is_spent(own - 1, common));
        assert!(!is_spent(own, common - 1));
        assert!(is_spent(own, common));
        assert!(is_spent(most, 0), "as many as one may have");
    };
    on_one_cpu(|| [false, true].into_iter().for_each(check));
}
