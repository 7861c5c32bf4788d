//! Idle flows end as nf_conntrack's would. Time is not waited for: entries are made older.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::in_both_families;
use crate::support::frame::{
    ACK, FIN, RST, SYN, UDP, echo_reply, echo_request, fragment, raw_ip, tcp, tcp_numbered, udp, udp_datagram,
};
use crate::support::test_gate::{SECOND_NS, TestGate, with_dmz_in_both_families};

const OWN_PORT: u8 = 4;

#[test]
fn an_established_flow_lives_for_five_idle_days() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.age("established", 431_990);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        // that was a sign of life
        gate.age("established", 431_990);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
        gate.age("established", 432_001);
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}

#[test]
fn a_peers_packet_is_a_sign_of_life() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.age("established", 431_990);
        gate.to_server(&tcp(peer, server, ACK));
        gate.age("established", 431_990);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn an_established_flow_that_has_ended_is_not_woken_by_its_peer() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.age("established", 432_001);
        gate.to_server(&tcp(peer, server, ACK));
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    });
}

#[test]
fn a_flow_that_its_server_has_finished_lives_for_two_minutes() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for (age, lives) in [(118, true), (121, false)] {
            gate.forget_flows();
            gate.establish(server, peer);
            gate.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
            gate.age("established", age);
            match lives {
                true => gate.passes(&tcp(server, peer, ACK), Reason::Reply),
                false => drop(gate.drops(&tcp(server, peer, ACK), Reason::NoFlow)),
            }
        }
    });
}

#[test]
fn a_fin_in_a_peers_name_cuts_nothing_until_the_server_has_answered_it() {
    // Whoever guesses the ports can forge one, and nothing in it would show that.
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.establish(server, peer);
        gate.to_server(&tcp(peer, server, FIN | ACK));
        gate.age("established", 3600);
        gate.passes(&tcp(server, peer, ACK), Reason::Reply);
    });
}

#[test]
fn a_flow_that_its_server_has_reset_ends_after_ten_seconds() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for flags in [RST, RST | ACK] {
            for (age, lives) in [(8, true), (11, false)] {
                gate.forget_flows();
                gate.establish(server, peer);
                gate.passes(&tcp(server, peer, flags), Reason::Reply);
                gate.age("established", age);
                match lives {
                    true => gate.passes(&tcp(server, peer, ACK), Reason::Reply),
                    false => drop(gate.drops(&tcp(server, peer, ACK), Reason::NoFlow)),
                }
            }
        }
    });
}

#[test]
fn a_reset_in_a_peers_name_cuts_nothing_and_lengthens_nothing() {
    // Whoever guesses the ports can forge one. The socket stays open if its number is wrong (RFC 5961).
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for numbers in [(1001, 5001), (1002, 5001), (0x7fff_ffff, 0)] {
            for flags in [RST, RST | ACK] {
                gate.forget_flows();
                gate.establish(server, peer);
                gate.to_server(&tcp_numbered(peer, server, flags, numbers));
                gate.age("established", 431_990);
                gate.to_server(&tcp_numbered(peer, server, flags, numbers));
                gate.passes(&tcp(server, peer, ACK), Reason::Reply);
                // a reset is no sign of life
                gate.age("established", 431_990);
                gate.to_server(&tcp_numbered(peer, server, flags, numbers));
                gate.age("established", 11);
                gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
            }
        }
    });
}

#[test]
fn after_a_peers_reset_the_flow_ends_as_its_server_ends_it() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        for (flags, alive, ended) in [(RST, 8, 11), (FIN | ACK, 118, 121)] {
            for (age, lives) in [(alive, true), (ended, false)] {
                gate.forget_flows();
                gate.establish(server, peer);
                gate.to_server(&tcp_numbered(peer, server, RST, (1001, 5001)));
                gate.passes(&tcp(server, peer, flags), Reason::Reply);
                gate.age("established", age);
                match lives {
                    true => gate.passes(&tcp(server, peer, ACK), Reason::Reply),
                    false => drop(gate.drops(&tcp(server, peer, ACK), Reason::NoFlow)),
                }
            }
        }
    });
}

#[test]
fn a_half_open_flow_lives_for_a_minute() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.age("half_open", 58);
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        gate.age("half_open", 61);
        gate.drops(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::NoFlow);
        // too late to be established
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
        gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        // a new try is a new flow
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
    });
}

#[test]
fn a_handshake_begun_anew_after_its_minute_knows_nothing_of_the_old_one() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.visit();
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        gate.age("half_open", 61);
        gate.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        gate.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
        assert!(!gate.has_flow(FlowTable::Established, server, peer), "the old SYN+ACK's number");
    });
}

#[test]
fn a_datagram_can_be_answered_for_thirty_seconds() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        for (age, lives) in [(28, true), (31, false)] {
            gate.forget_flows();
            gate.to_server(&udp(peer, server));
            gate.age("datagrams", age);
            match lives {
                true => gate.passes(&udp(server, peer), Reason::Reply),
                false => {
                    let row = gate.drops(&udp(server, peer), Reason::NoFlow);
                    assert_eq!((row.key.port, row.key.flags), (53, OWN_PORT));
                }
            }
        }
    });
}

#[test]
fn an_answered_datagram_flow_lives_for_two_minutes() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        gate.to_server(&udp(peer, server));
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.to_server(&udp(peer, server));
        gate.age("datagrams", 118);
        gate.passes(&udp(server, peer), Reason::Reply);
        gate.age("datagrams", 121);
        gate.drops(&udp(server, peer), Reason::NoFlow);
        // a question after that is a new flow, and has thirty seconds again
        gate.to_server(&udp(peer, server));
        gate.age("datagrams", 31);
        gate.drops(&udp(server, peer), Reason::NoFlow);
    });
}

#[test]
fn a_ping_can_be_answered_for_thirty_seconds() {
    with_dmz_in_both_families(|gate, family| {
        for (age, lives) in [(28, true), (31, false)] {
            gate.forget_flows();
            gate.to_server(&echo_request(family.peer, family.web, 9));
            gate.age("icmp_queries", age);
            let reply = echo_reply(family.web, family.peer, 9);
            match lives {
                true => gate.passes(&reply, Reason::Reply),
                false => {
                    let row = gate.drops(&reply, Reason::NoFlow);
                    let request = if family.web.is_ipv4() { 8 } else { 128 };
                    assert_eq!((row.key.port, row.key.flags), (request, OWN_PORT));
                }
            }
        }
    });
}

/// Ages that are a hundredth of a second beyond: more can only make it older, so nothing here hangs on time.
#[test]
fn what_is_idle_ends_with_the_second_that_is_documented() {
    const GRE: u8 = 47;
    const JUST_NS: u64 = SECOND_NS / 100;
    let policy = "[roles.open]\nin = [\"udp/53\", \"gre\", \"icmp/echo-request\", \"icmpv6/echo-request\"]\n\
                  out = [\"udp/123\"]\n[servers.web1]\naddresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\n\
                  roles = [\"open\"]\n";
    let gate = TestGate::new(policy);
    in_both_families(|family| {
        let (web, peer) = (family.web, family.peer);
        let datagram = udp_datagram((web, 123), (peer, 123), &[0; 32]);
        let first = fragment(web, peer, UDP, (5, 0, true), &datagram[..24]);
        let later = fragment(web, peer, UDP, (5, 3, false), &datagram[24..]);
        let gre = |from, to| raw_ip(from, to, GRE, &[0; 16]);
        for (table, seconds, opening, answer, gone) in [
            ("datagrams", 30, udp((peer, 9000), (web, 53)), udp((web, 53), (peer, 9000)), Reason::NoFlow),
            ("datagrams", 600, gre(peer, web), gre(web, peer), Reason::NoFlow),
            ("icmp_queries", 30, echo_request(peer, web, 3), echo_reply(web, peer, 3), Reason::NoFlow),
        ] {
            for late in [false, true] {
                gate.forget_flows();
                gate.to_server(&opening);
                gate.age_ns(
                    table,
                    if late { seconds * SECOND_NS + JUST_NS } else { (seconds - 2) * SECOND_NS },
                );
                match late {
                    false => gate.passes(&answer, Reason::Reply),
                    true => drop(gate.drops(&answer, gone)),
                }
            }
        }
        gate.passes(&first, Reason::Need);
        // as long as a receiver keeps it
        let seconds = if family.web.is_ipv4() { 28 } else { 58 };
        gate.age_ns("fragments", seconds * SECOND_NS);
        gate.passes(&later, Reason::LaterFragment);
        gate.age_ns("fragments", 2 * SECOND_NS + JUST_NS);
        gate.drops(&later, Reason::Fragment);
    });
}
