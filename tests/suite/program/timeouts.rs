//! Idle flows end as nf_conntrack's would. Time is not waited for: entries are made older.

use portcullis::abi::Reason;
use portcullis::gate::FlowTable;

use crate::support::dmz::{FAMILIES, Family};
use crate::support::frame::{
    ACK, Endpoint, FIN, RST, SYN, UDP, echo_reply, echo_request, fragment, raw_ip, tcp, tcp_numbered, udp,
    udp_datagram,
};
use crate::support::test_gate::{SECOND_NS, TestGate};

fn ends(family: Family) -> (Endpoint, Endpoint) {
    ((family.web, 80), (family.peer, 51_000))
}

#[test]
fn an_established_flow_lives_for_five_idle_days() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.forget_flows();
        bench.establish(server, peer);
        bench.age("established", 431_990);
        bench.passes(&tcp(server, peer, ACK), Reason::Reply);
        // that was a sign of life
        bench.age("established", 431_990);
        bench.passes(&tcp(server, peer, ACK), Reason::Reply);
        bench.age("established", 432_001);
        bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    }
}

#[test]
fn a_peers_packet_is_a_sign_of_life() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.forget_flows();
        bench.establish(server, peer);
        bench.age("established", 431_990);
        bench.to_server(&tcp(peer, server, ACK));
        bench.age("established", 431_990);
        bench.passes(&tcp(server, peer, ACK), Reason::Reply);
    }
}

#[test]
fn an_established_flow_that_has_ended_is_not_woken_by_its_peer() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.forget_flows();
        bench.establish(server, peer);
        bench.age("established", 432_001);
        bench.to_server(&tcp(peer, server, ACK));
        bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
    }
}

#[test]
fn a_flow_that_its_server_has_finished_lives_for_two_minutes() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        for (age, lives) in [(118, true), (121, false)] {
            bench.forget_flows();
            bench.establish(server, peer);
            bench.passes(&tcp(server, peer, FIN | ACK), Reason::Reply);
            bench.age("established", age);
            match lives {
                true => bench.passes(&tcp(server, peer, ACK), Reason::Reply),
                false => drop(bench.drops(&tcp(server, peer, ACK), Reason::NoFlow)),
            }
        }
    }
}

#[test]
fn a_fin_in_a_peers_name_cuts_nothing_until_the_server_has_answered_it() {
    // Whoever guesses the ports can forge one, and nothing in it would tell.
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.forget_flows();
        bench.establish(server, peer);
        bench.to_server(&tcp(peer, server, FIN | ACK));
        bench.age("established", 3600);
        bench.passes(&tcp(server, peer, ACK), Reason::Reply);
    }
}

#[test]
fn a_flow_that_was_reset_ends_within_two_minutes() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        for by_server in [true, false] {
            bench.forget_flows();
            bench.establish(server, peer);
            if by_server {
                bench.passes(&tcp(server, peer, RST | ACK), Reason::Reply);
            } else {
                bench.to_server(&tcp(peer, server, RST | ACK));
            }
            // nf_conntrack's own is ten seconds; no reading of the contract says more than two minutes
            bench.age("established", 121);
            bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        }
    }
}

#[test]
fn a_reset_flow_ends_after_ten_seconds() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        for by_server in [true, false] {
            bench.forget_flows();
            bench.establish(server, peer);
            if by_server {
                bench.passes(&tcp(server, peer, RST), Reason::Reply);
            } else {
                // in the window: it follows the peer's last segment
                bench.to_server(&tcp_numbered(peer, server, RST, (1001, 5001)));
            }
            bench.age("established", 11);
            bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        }
    }
}

#[test]
fn a_half_open_flow_lives_for_a_minute() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.forget_flows();
        bench.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        bench.age("half_open", 58);
        bench.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        bench.age("half_open", 61);
        bench.drops(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::NoFlow);
        // too late to be established
        bench.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
        bench.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        // a new try is a new flow
        bench.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        bench.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
    }
}

#[test]
fn a_handshake_begun_anew_after_its_minute_knows_nothing_of_the_old_one() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ends(family);
        bench.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        bench.passes(&tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply);
        bench.age("half_open", 61);
        bench.to_server(&tcp_numbered(peer, server, SYN, (1000, 0)));
        bench.to_server(&tcp_numbered(peer, server, ACK, (1001, 5001)));
        assert!(!bench.has_flow(FlowTable::Established, server, peer), "the old SYN+ACK's number");
    }
}

#[test]
fn a_datagram_can_be_answered_for_thirty_seconds() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ((family.ns, 53), (family.peer, 51_000));
        for (age, lives) in [(28, true), (31, false)] {
            bench.forget_flows();
            bench.to_server(&udp(peer, server));
            bench.age("datagrams", age);
            match lives {
                true => bench.passes(&udp(server, peer), Reason::Reply),
                false => drop(bench.drops(&udp(server, peer), Reason::NewFlow)),
            }
        }
    }
}

#[test]
fn an_answered_datagram_flow_lives_for_two_minutes() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        let (server, peer) = ((family.ns, 53), (family.peer, 51_000));
        bench.forget_flows();
        bench.to_server(&udp(peer, server));
        bench.passes(&udp(server, peer), Reason::Reply);
        bench.to_server(&udp(peer, server));
        bench.age("datagrams", 118);
        bench.passes(&udp(server, peer), Reason::Reply);
        bench.age("datagrams", 121);
        bench.drops(&udp(server, peer), Reason::NewFlow);
        // a question after that is a new flow, and has thirty seconds again
        bench.to_server(&udp(peer, server));
        bench.age("datagrams", 31);
        bench.drops(&udp(server, peer), Reason::NewFlow);
    }
}

#[test]
fn a_ping_can_be_answered_for_thirty_seconds() {
    let bench = TestGate::dmz();
    for family in FAMILIES {
        for (age, lives) in [(28, true), (31, false)] {
            bench.forget_flows();
            bench.to_server(&echo_request(family.peer, family.web, 9));
            bench.age("icmp_queries", age);
            let reply = echo_reply(family.web, family.peer, 9);
            match lives {
                true => bench.passes(&reply, Reason::Reply),
                false => drop(bench.drops(&reply, Reason::Backscatter)),
            }
        }
    }
}

/// Ages that are a hundredth of a second beyond: more can only make it older, so nothing here hangs on time.
#[test]
fn what_is_idle_ends_with_the_second_that_is_documented() {
    const GRE: u8 = 47;
    const JUST_NS: u64 = SECOND_NS / 100;
    let policy = "[roles.open]\nin = [\"udp/53\", \"gre\", \"icmp/echo-request\", \"icmpv6/echo-request\"]\n\
                  out = [\"udp/123\"]\n[servers.web1]\naddresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\n\
                  roles = [\"open\"]\n";
    let bench = TestGate::new(policy);
    for family in FAMILIES {
        let (web, peer) = (family.web, family.peer);
        let datagram = udp_datagram((web, 123), (peer, 123), &[0; 32]);
        let first = fragment(web, peer, UDP, (5, 0, true), &datagram[..24]);
        let later = fragment(web, peer, UDP, (5, 3, false), &datagram[24..]);
        let gre = |from, to| raw_ip(from, to, GRE, &[0; 16]);
        for (table, seconds, opening, answer, gone) in [
            ("datagrams", 30, udp((peer, 9000), (web, 53)), udp((web, 53), (peer, 9000)), Reason::NewFlow),
            ("datagrams", 600, gre(peer, web), gre(web, peer), Reason::Protocol),
            ("icmp_queries", 30, echo_request(peer, web, 3), echo_reply(web, peer, 3), Reason::Backscatter),
        ] {
            for late in [false, true] {
                bench.forget_flows();
                bench.to_server(&opening);
                bench.age_ns(
                    table,
                    if late { seconds * SECOND_NS + JUST_NS } else { (seconds - 2) * SECOND_NS },
                );
                match late {
                    false => bench.passes(&answer, Reason::Reply),
                    true => drop(bench.drops(&answer, gone)),
                }
            }
        }
        bench.passes(&first, Reason::Need);
        bench.age_ns("fragments", 28 * SECOND_NS);
        bench.passes(&later, Reason::LaterFragment);
        bench.age_ns("fragments", 2 * SECOND_NS + JUST_NS);
        bench.drops(&later, Reason::Fragment);
    }
}
