//! Datagrams of servers: one from a port that is no service is no answer, so its verdict is kept as that of an
//! opening.

use std::net::IpAddr;

use portcullis::abi::Reason;

use super::{count, known, opening, put};
use crate::support::cpu::on_one_cpu;
use crate::support::dmz::{Family, POLICY, in_both_families};
use crate::support::frame::{padded, udp};
use crate::support::test_gate::{TestGate, XDP_PASS, with_dmz_in_both_families};

/// From a port that no need has.
fn call(server: IpAddr, peer: IpAddr, port: u16) -> Vec<u8> {
    udp((server, 40_000), (peer, port))
}

/// Makes the filter drop what it has kept, as spoofed, and counts that it did so with this frame.
fn is_known(gate: &TestGate, frame: &[u8]) -> bool {
    let found = known(gate);
    let [place] = &found[..] else { panic!("one verdict: {found:?}") };
    let mut lie = place.bytes.clone();
    lie[28..32].copy_from_slice(&[0, 0, 0, Reason::Spoofed.number()]);
    put(gate, place, &lie);
    let before = count(gate, Reason::Spoofed);
    gate.programs.run_filter(frame, 1).expect("a run");
    put(gate, place, &place.bytes);
    count(gate, Reason::Spoofed) > before
}

#[test]
fn a_forbidden_datagram_and_a_permitted_one_are_not_decided_again() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            for count in 1..=2 {
                let row = gate.drops(&call(family.web, family.peer, 6667), Reason::NewFlow);
                assert_eq!((row.key.port, row.key.protocol, row.row.packets), (6667, 17, count));
            }
            assert!(is_known(&gate, &call(family.web, family.other, 6667)));
            assert!(is_known(&gate, &padded(&call(family.web, family.peer, 6667), 80)));
            gate.swap(POLICY);
            gate.passes(&call(family.ns, family.peer, 53), Reason::Need);
            assert!(is_known(&gate, &call(family.ns, family.other, 53)));
            gate.passes(&call(family.ns, family.other, 53), Reason::Need);
        });
    });
}

#[test]
fn a_datagram_from_the_port_of_any_service_is_decided_each_time() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            gate.drops(&call(family.ns, family.peer, 6667), Reason::NewFlow);
            let others = known(&gate);
            // udp/53 is a service of the name server alone
            for _ in 0..2 {
                gate.drops(&udp((family.web, 53), (family.peer, 6667)), Reason::NewFlow);
                gate.passes(&udp((family.ns, 53), (family.peer, 53)), Reason::Need);
            }
            assert_eq!(known(&gate), others);
            // and what is known of other ports is not believed for this one
            assert!(!is_known(&gate, &udp((family.ns, 53), (family.peer, 6667))));
            let (server, peer) = ((family.ns, 53), (family.peer, 6667));
            gate.to_server(&udp(peer, server));
            gate.passes(&udp(server, peer), Reason::Reply);
        });
    });
}

#[test]
fn an_answer_from_a_port_that_is_no_service_has_its_reason_though_other_datagrams_are_known() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let (server, peer) = ((family.web, 40_000), (family.peer, 6667));
            let answer = udp(server, peer);
            for _ in 0..2 {
                gate.drops(&answer, Reason::NewFlow);
            }
            gate.to_server(&udp(peer, server));
            for _ in 0..2 {
                gate.drops(&answer, Reason::UnlistedService);
            }
            // another peer's port was not asked from
            gate.drops(&udp(server, (family.other, 6667)), Reason::NewFlow);
            gate.age("unlisted", 119);
            gate.drops(&answer, Reason::UnlistedService);
            gate.age("unlisted", 2);
            gate.drops(&answer, Reason::NewFlow);
        });
    });
}

#[test]
fn what_is_known_of_one_protocol_says_nothing_about_the_other() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let permits = POLICY
                .replace("\"udp/53\", \"tcp/53\"]\n\n[roles.managed]", "\"udp/53\"]\n\n[roles.managed]");
            assert_ne!(permits, POLICY);
            gate.swap(&permits);
            for _ in 0..2 {
                gate.passes(&call(family.ns, family.peer, 53), Reason::Need);
                gate.drops(&opening(family.ns, family.peer, 53), Reason::NewFlow);
            }
            assert_eq!(known(&gate).len(), 2);
        });
    });
}

#[test]
fn a_port_that_becomes_a_service_or_is_opened_by_an_edit_answers_at_once() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let (server, peer) = ((family.web, 40_000), (family.peer, 6667));
            let talks = |gate: &TestGate| {
                gate.to_server(&udp(peer, server));
                gate.passes(&udp(server, peer), Reason::Reply);
            };
            let is_mute = |gate: &TestGate| {
                for _ in 0..2 {
                    gate.drops(&call(family.web, family.other, 6667), Reason::NewFlow);
                }
            };
            is_mute(&gate);
            let number = gate.allow("web1", "in", "udp/40000");
            talks(&gate);
            gate.cancel_edit(number).unwrap();
            gate.drops(&udp(server, peer), Reason::NewFlow);
            gate.forget_flows();
            is_mute(&gate);
            for more in ["udp/40000", "udp/30000-50000", "udp"] {
                let more = format!("in = [\"tcp/80\", \"{more}\", ");
                gate.swap(&POLICY.replace("in = [\"tcp/80\", ", &more));
                talks(&gate);
                gate.swap(POLICY);
                gate.forget_flows();
                is_mute(&gate);
            }
        });
    });
}

#[test]
fn an_edit_of_another_protocol_or_direction_leaves_datagrams_known() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            gate.allow("web1", "in", "tcp/40000");
            gate.allow("ns1", "out", "udp/40000");
            let frame = call(family.web, family.peer, 6667);
            gate.drops(&frame, Reason::NewFlow);
            assert!(is_known(&gate, &frame));
            // what an edit has is decided each time
            for _ in 0..2 {
                gate.passes(&call(family.ns, family.peer, 40_000), Reason::Need);
            }
            assert_eq!(known(&gate).len(), 1);
        });
    });
}

#[test]
fn datagrams_of_a_server_without_further_rows_are_counted_in_its_rest() {
    on_one_cpu(|| {
        let check = |family: Family| {
            let gate = TestGate::sized(POLICY, &[("ledger", 2)]);
            gate.drops(&call(family.web, family.peer, 1001), Reason::NewFlow);
            for port in 1002..1020 {
                let row = gate.drops(&call(family.web, family.peer, port), Reason::NewFlow);
                assert_eq!((row.key.port, row.row.packets), (0, u64::from(port) - 1001));
                assert_eq!(gate.program_statistics().unwrap().ledger_full, u64::from(port) - 1001);
            }
            // a need is none of them
            assert_eq!(
                gate.programs.run_filter(&call(family.web, family.loghost, 514), 1).unwrap().action,
                XDP_PASS
            );
        };
        in_both_families(check);
    });
}
