//! Handover: flows that our tables do not have, and the kernel's conntrack has.

use portcullis::abi::{Reason, state};
use portcullis::clock::now_ns;
use portcullis::gate::FlowTable;

use crate::support::conntrack_table::{
    ASSURED, CLOSE, ESTABLISHED, Entry, FIN_WAIT, SEEN_REPLY, SYN_RECV, TCP, Table, UDP, in_own_table,
};
use crate::support::dmz::{Family, POLICY, in_both_families};
use crate::support::frame::{ACK, Endpoint, FIN, PSH, RST, SYN, echo_reply, fragment, tcp, tcp_header, udp};
use crate::support::test_gate::TestGate;

/// The policy with the key, or without.
fn policy(handover: &str) -> String {
    POLICY.replacen("[policy]\n", &format!("[policy]\nhandover = \"{handover}\"\npickup = 0\n"), 1)
}

/// Runs a test in both families, in a namespace and with a gate of its own.
fn with_gate(test: impl Fn(&TestGate, &Table, Family) + Send + Sync) {
    in_own_table(|table| {
        in_both_families(|family| {
            table.clear();
            let gate = TestGate::new(&policy("conntrack"));
            gate.set_pickup(-1);
            test(&gate, table, family);
        });
    });
}

fn write_state(gate: &TestGate, index: state, value: u64) {
    gate.maps.state.put(&index.0, &value, libbpf_rs::MapFlags::ANY).expect("an update");
}

#[test]
fn a_segment_of_a_flow_that_conntrack_has_makes_it_a_flow_of_ours() {
    with_gate(|gate, table, family| {
        for (port, flags) in [(51_000, ACK), (51_001, ACK | PSH), (51_002, FIN | ACK)] {
            let (server, peer) = ((family.web, 80), (family.peer, port));
            gate.drops(&tcp(server, peer, flags), Reason::NoFlow);
            table.add(Entry::of_peer(TCP, server, peer));
            let asked = gate.program_statistics().unwrap().handover_asked;
            gate.passes(&tcp(server, peer, flags), Reason::Handover);
            assert!(gate.has_flow(FlowTable::Established, server, peer));
            // from now on without conntrack
            table.clear();
            gate.passes(&tcp(server, peer, ACK), Reason::Reply);
            assert_eq!(gate.program_statistics().unwrap().handover_asked, asked + 1);
        }
    });
}

#[test]
fn a_datagram_of_a_flow_that_conntrack_has_makes_it_a_flow_of_ours() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.question();
        gate.drops(&udp(server, peer), Reason::NewFlow);
        table.add(Entry { status: SEEN_REPLY, ..Entry::of_peer(UDP, server, peer) });
        gate.passes(&udp(server, peer), Reason::Handover);
        assert!(gate.has_flow(FlowTable::Datagrams, server, peer));
        table.clear();
        gate.passes(&udp(server, peer), Reason::Reply);
        // and it ends as any other
        gate.age("datagrams", 121);
        gate.drops(&udp(server, peer), Reason::NoFlow);
    });
}

#[test]
fn a_flow_that_was_handed_over_needs_no_word_of_its_peer() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        table.add(Entry::of_peer(TCP, server, peer));
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        table.clear();
        gate.age("established", 86_400);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
        gate.age("established", 121);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}

#[test]
fn every_entry_but_an_answered_one_of_a_peer_is_none() {
    with_gate(|gate, table, family| {
        let (web, peer) = family.visit();
        let (ns, asker) = family.question();
        let tcp_entry = Entry::of_peer(TCP, web, peer);
        let udp_entry = Entry::of_peer(UDP, ns, asker);
        let swap = |entry: Entry| Entry { original: entry.reply, reply: entry.original, ..entry };
        let other = (family.other, peer.1);
        let entries = [
            // the server opened it
            swap(tcp_entry),
            swap(udp_entry),
            // not answered, or not for long enough
            Entry { status: 0, ..tcp_entry },
            Entry { status: 0, ..udp_entry },
            Entry { status: SEEN_REPLY, ..tcp_entry },
            Entry { status: ASSURED, ..tcp_entry },
            // half-open, or about to end
            Entry { tcp_state: SYN_RECV, ..tcp_entry },
            Entry { tcp_state: FIN_WAIT, ..tcp_entry },
            Entry { tcp_state: CLOSE, ..tcp_entry },
            // another zone
            Entry { zone: 7, ..tcp_entry },
            Entry { zone: 7, ..udp_entry },
            // of another peer, another port, another protocol
            Entry { original: (other, web), reply: (web, other), ..tcp_entry },
            Entry::of_peer(TCP, (web.0, 443), peer),
            Entry::of_peer(TCP, web, (peer.0, peer.1 + 1)),
            Entry::of_peer(UDP, web, peer),
            Entry::of_peer(TCP, ns, asker),
            // the peer is known by another address there
            Entry { reply: (web, other), ..tcp_entry },
        ];
        for entry in entries {
            table.clear();
            table.add(entry);
            gate.drops(&tcp(web, peer, ACK), Reason::NoFlow);
            let row = gate.drops(&udp(ns, asker), Reason::NewFlow);
            assert_eq!(row.key.flags, 0, "{entry:?}");
            assert!(gate.flows().unwrap().is_empty(), "{entry:?}");
        }
        table.add(udp_entry);
        gate.passes(&udp(ns, asker), Reason::Handover);
    });
}

#[test]
fn a_flow_is_found_by_the_addresses_that_its_server_sees() {
    with_gate(|gate, table, family| {
        // the router has the public address, and hides the peer behind another
        let (server, seen) = family.visit();
        let (public, visitor) = ((family.loghost, 443), (family.other, 33_333));
        table.add(Entry { original: (visitor, public), ..Entry::of_peer(TCP, server, seen) });
        gate.drops(&tcp(server, visitor, ACK), Reason::NoFlow);
        gate.passes(&tcp(server, seen, ACK), Reason::Handover);
    });
}

#[test]
fn openings_and_resets_are_never_handed_over() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        table.add(Entry::of_peer(TCP, server, peer));
        gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        gate.drops(&tcp(server, peer, RST), Reason::Backscatter);
        gate.drops(&tcp(server, peer, RST | ACK), Reason::Backscatter);
        gate.drops(&echo_reply(family.web, family.peer, 7), Reason::NewFlow);
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 0);
        assert!(gate.flows().unwrap().is_empty());
    });
}

#[test]
fn only_a_live_service_that_the_peer_may_use_is_asked_for() {
    with_gate(|gate, table, family| {
        let peer = (family.peer, 51_000);
        for (server, peer) in [
            ((family.web, 81), peer),
            ((family.web, 4444), peer),
            ((family.ns, 80), peer),
            // the management's alone
            ((family.web, 22), peer),
            // the peer's side of a service is none
            ((family.web, 40_000), (family.peer, 80)),
        ] {
            table.add(Entry::of_peer(TCP, server, peer));
            gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        }
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 0);
        let managed = ((family.web, 22), (family.bastion, 51_000));
        table.add(Entry::of_peer(TCP, managed.0, managed.1));
        gate.passes(&tcp(managed.0, managed.1, ACK), Reason::Handover);
    });
}

#[test]
fn what_an_out_need_covers_is_the_servers_own_whatever_conntrack_has() {
    with_gate(|gate, table, family| {
        let (server, peer) = ((family.ns, 53), (family.peer, 53));
        table.add(Entry::of_peer(TCP, server, peer));
        table.add(Entry::of_peer(UDP, server, peer));
        gate.passes(&tcp(server, peer, ACK), Reason::OwnConnection);
        gate.passes(&udp(server, peer), Reason::Need);
        // nor by an edit, nor while flows are taken over
        let (server, peer) = ((family.web, 80), (family.peer, 7777));
        table.add(Entry::of_peer(TCP, server, peer));
        gate.allow("web1", "out", "tcp/7777");
        gate.passes(&tcp(server, peer, ACK), Reason::OwnConnection);
        gate.set_pickup(60);
        gate.passes(&tcp(server, peer, ACK), Reason::Pickup);
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 0);
    });
}

#[test]
fn conntrack_is_asked_before_pickup() {
    with_gate(|gate, table, family| {
        gate.set_pickup(60);
        let (server, peer) = family.visit();
        gate.passes(&tcp(server, (family.other, 51_000), ACK), Reason::Pickup);
        table.add(Entry::of_peer(TCP, server, peer));
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        gate.set_pickup(-1);
        // conntrack has heard both sides of one of the two
        gate.age("established", 121);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.drops(&tcp(server, (family.other, 51_000), ACK), Reason::NoFlow);
    });
}

#[test]
fn in_quarantine_the_management_alone_is_handed_over() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        let managed = ((family.web, 22), (family.bastion, 51_000));
        table.add(Entry::of_peer(TCP, server, peer));
        table.add(Entry::of_peer(TCP, managed.0, managed.1));
        gate.quarantine("web1", None).unwrap();
        let row = gate.drops(&tcp(server, peer, ACK), Reason::Quarantined);
        assert_eq!((row.key.server, row.key.port), (gate.id_of("web1"), 80));
        gate.passes(&tcp(managed.0, managed.1, ACK), Reason::Handover);
        gate.passes(&tcp(managed.0, managed.1, ACK), Reason::Reply);
        gate.release("web1").unwrap();
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
    });
}

#[test]
fn our_own_tables_are_senior_also_where_they_know_that_a_flow_is_over() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        table.add(Entry::of_peer(TCP, server, peer));
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
        gate.age("established", 121);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 0);
        // a half-open one lets answers pass by itself
        let half_open = (family.other, 51_000);
        gate.to_server(&tcp(half_open, server, SYN));
        table.add(Entry::of_peer(TCP, server, half_open));
        gate.passes(&tcp(server, half_open, ACK), Reason::Reply);
        // it is forgotten when it has been idle for long enough
        gate.age("established", 480);
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        gate.age("half_open", 61);
        gate.passes(&tcp(server, half_open, ACK), Reason::Handover);
    });
}

#[test]
fn what_was_over_before_a_takeover_may_have_begun_again_at_the_other_router() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
        gate.age("established", 121);
        table.add(Entry::of_peer(TCP, server, peer));
        write_state(gate, state::STATE_TAKEOVER_NS, now_ns() - 122 * 1_000_000_000);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        write_state(gate, state::STATE_TAKEOVER_NS, now_ns() - 1_000_000_000);
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
    });
}

#[test]
fn a_revoked_flow_does_not_come_back_with_its_service() {
    with_gate(|gate, table, family| {
        let (web, peer) = family.visit();
        let (ns, asker) = family.question();
        gate.establish(web, peer);
        gate.to_server(&udp(asker, ns));
        gate.passes(&udp(ns, asker), Reason::Reply);
        table.add(Entry::of_peer(TCP, web, peer));
        table.add(Entry::of_peer(UDP, ns, asker));
        gate.swap(&policy("conntrack").replace("\"tcp/80\", ", "").replace("in  = [\"udp/53\", ", "in  = ["));
        gate.drops(&tcp(web, peer, ACK), Reason::NoFlow);
        gate.drops(&udp(ns, asker), Reason::NewFlow);
        gate.swap(&policy("conntrack"));
        gate.drops(&tcp(web, peer, ACK), Reason::NoFlow);
        gate.drops(&udp(ns, asker), Reason::NoFlow);
        // nor does its peer wake it
        gate.to_server(&tcp(peer, web, ACK));
        gate.drops(&tcp(web, peer, ACK), Reason::NoFlow);
        assert_eq!(gate.program_statistics().unwrap().handover_asked, 0);
        // but it may ask anew
        gate.to_server(&udp(asker, ns));
        gate.passes(&udp(ns, asker), Reason::Reply);
        gate.establish(web, peer);
        gate.passes(&tcp(web, peer, ACK), Reason::Reply);
    });
}

#[test]
fn without_the_key_conntrack_counts_for_nothing() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        table.add(Entry::of_peer(TCP, server, peer));
        gate.swap(&policy("none"));
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        gate.swap(&policy("conntrack"));
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        // programs that were loaded without it need no conntrack
        let plain = TestGate::new(&policy("none"));
        plain.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        plain.swap(&policy("conntrack"));
        plain.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        assert!(plain.lacks_conntrack().unwrap() && !gate.lacks_conntrack().unwrap());
    });
}

#[test]
fn edits_hold_for_what_is_handed_over() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        table.add(Entry::of_peer(TCP, server, peer));
        let denied = gate.deny("web1", "in", "tcp/80");
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        gate.cancel_edit(denied).unwrap();
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        let (server, peer) = ((family.web, 8080), peer);
        table.add(Entry::of_peer(TCP, server, peer));
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        let allowed = gate.allow("web1", "in", "tcp/8080");
        gate.passes(&tcp(server, peer, ACK), Reason::Handover);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.cancel_edit(allowed).unwrap();
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}

#[test]
fn a_first_fragment_takes_its_later_ones_with_it() {
    with_gate(|gate, table, family| {
        let (server, peer) = family.visit();
        table.add(Entry::of_peer(TCP, server, peer));
        let mut segment = tcp_header(server, peer, ACK, (1, 1));
        segment.extend([0x55; 12]);
        let first = fragment(server.0, peer.0, TCP, (9, 0, true), &segment);
        let later = fragment(server.0, peer.0, TCP, (9, 32, false), &[0x55; 8]);
        gate.passes(&first, Reason::Handover);
        gate.passes(&later, Reason::LaterFragment);
    });
}

#[test]
fn questions_in_vain_are_bounded_and_those_beyond_are_counted() {
    with_gate(|_, table, family| {
        // what a CPU has asked in vain outlives a policy
        let gate = TestGate::fresh(&policy("conntrack"), &[]);
        gate.set_pickup(-1);
        let (server, peer) = family.visit();
        let frame = tcp(server, (family.other, 9), ACK);
        table.add(Entry::of_peer(TCP, server, peer));
        // within one second of the clock, or in the next attempt
        let refused = (0..20).any(|_| {
            gate.forget_flows();
            gate.programs.run_filter(&frame, 10_200).expect("a run");
            gate.programs.run_filter(&tcp(server, peer, ACK), 1).expect("a run");
            let statistics = gate.program_statistics().unwrap();
            statistics.handover_refused > 0 && gate.flows().unwrap().is_empty()
        });
        assert!(refused, "{:?}", gate.program_statistics());
    });
}

#[test]
fn while_a_router_takes_over_answers_of_its_services_raise_no_alarm() {
    with_gate(|gate, _, family| {
        let quiet = |row: crate::support::test_gate::Row| row.key.flags & 1 != 0;
        let peer = (family.peer, 51_000);
        let (web, ns) = ((family.web, 80), (family.ns, 53));
        let answers = |gate: &TestGate| {
            [
                quiet(gate.drops(&tcp(web, peer, ACK), Reason::NoFlow)),
                quiet(gate.drops(&udp(ns, peer), Reason::NewFlow)),
                quiet(gate.drops(&echo_reply(family.web, family.peer, 7), Reason::NewFlow)),
            ]
        };
        let others = |gate: &TestGate| {
            [
                quiet(gate.drops(&tcp(web, peer, SYN), Reason::NewFlow)),
                quiet(gate.drops(&tcp((family.web, 81), peer, ACK), Reason::NoFlow)),
                quiet(gate.drops(&tcp((family.web, 22), peer, ACK), Reason::NoFlow)),
                quiet(gate.drops(&udp((family.web, 53), peer), Reason::NewFlow)),
                quiet(gate.drops(&udp((family.ns, 54), peer), Reason::NewFlow)),
            ]
        };
        assert_eq!((answers(gate), others(gate)), ([false; 3], [false; 5]));
        write_state(gate, state::STATE_TAKEOVER_UNTIL_NS, now_ns() + 10_000_000_000);
        assert_eq!((answers(gate), others(gate)), ([true; 3], [false; 5]));
        write_state(gate, state::STATE_TAKEOVER_UNTIL_NS, now_ns() - 1_000_000_000);
        assert_eq!((answers(gate), others(gate)), ([false; 3], [false; 5]));
    });
}

#[test]
fn a_handed_over_flow_of_each_state_needs_just_what_it_says() {
    // all combinations at once: what passes is answered, assured and established, or of UDP answered
    with_gate(|gate, table, family| {
        let mut port = 20_000;
        for protocol in [TCP, UDP] {
            for status in [0, SEEN_REPLY, ASSURED, SEEN_REPLY | ASSURED] {
                for tcp_state in 1..=9 {
                    for by_peer in [true, false] {
                        port += 1;
                        let server = if protocol == TCP { (family.web, 443) } else { (family.ns, 53) };
                        let peer: Endpoint = (family.peer, port);
                        let entry = Entry { status, tcp_state, ..Entry::of_peer(protocol, server, peer) };
                        let entry = match by_peer {
                            true => entry,
                            false => Entry { original: entry.reply, reply: entry.original, ..entry },
                        };
                        table.add(entry);
                        let answered = status & SEEN_REPLY != 0 && by_peer;
                        match protocol {
                            TCP if answered && status & ASSURED != 0 && tcp_state == ESTABLISHED => {
                                gate.passes(&tcp(server, peer, ACK), Reason::Handover);
                            }
                            TCP => drop(gate.drops(&tcp(server, peer, ACK), Reason::NoFlow)),
                            _ if answered => gate.passes(&udp(server, peer), Reason::Handover),
                            _ => {
                                gate.forget_heard();
                                gate.drops(&udp(server, peer), Reason::NewFlow);
                            }
                        }
                    }
                }
            }
        }
    });
}
