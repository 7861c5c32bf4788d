//! Row 7: a server that is cut off, and its management that is not.

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::Reason;
use portcullis::abi::quarantine;
use portcullis::clock::now_ns;

use crate::support::dmz::{POLICY, V4, V6, in_both_families, ip};
use crate::support::frame::{
    ACK, RST, SYN, TCP, UDP, cut, echo_reply, fragment, from_mac, link_frame, patched, raw_ip, tcp,
    tcp_header, udp, udp_datagram,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

#[test]
fn a_server_in_quarantine_may_do_nothing_that_it_may_do_otherwise() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = family.question();
        gate.establish(server, peer);
        gate.to_server(&udp(peer, server));
        let permitted = [
            (tcp(server, peer, ACK), Reason::Reply),
            (udp(server, peer), Reason::Reply),
            (udp((family.ns, 40_000), (family.peer, 53)), Reason::Need),
            (tcp((family.ns, 40_000), (family.peer, 53), SYN), Reason::Need),
            (tcp((family.ns, 40_000), (family.peer, 53), ACK), Reason::OwnConnection),
        ];
        for (frame, reason) in &permitted {
            gate.passes(frame, *reason);
        }
        gate.quarantine("ns1", None).unwrap();
        for (frame, _) in &permitted {
            let row = gate.drops(frame, Reason::Quarantined);
            assert_eq!(row.key.server, gate.id_of("ns1"));
        }
        // the others go on
        gate.passes(&udp((family.web, 40_000), (family.loghost, 514)), Reason::Need);
        assert!(gate.release("ns1").unwrap().was);
        for (frame, reason) in &permitted {
            gate.passes(frame, *reason);
        }
    });
}

#[test]
fn quarantine_names_every_drop_of_its_server() {
    let gate = TestGate::dmz();
    gate.quarantine("web1", None).unwrap();
    in_both_families(|family| {
        let frames = [
            tcp((family.web, 40_000), (family.peer, 80), SYN),
            tcp((family.web, 80), (family.peer, 51_000), RST),
            echo_reply(family.web, family.peer, 1),
            raw_ip(family.web, family.peer, 47, &[0; 8]),
            fragment(family.web, family.peer, UDP, (1, 4, false), &[0; 16]),
        ];
        for frame in frames {
            gate.drops(&frame, Reason::Quarantined);
        }
        // form and source come first
        gate.drops(&tcp((family.web, 40_000), (family.peer, 80), 0), Reason::Malformed);
        gate.drops(&tcp((family.unknown, 40_000), (family.peer, 80), SYN), Reason::UnknownSource);
    });
}

#[test]
fn the_management_flow_of_a_server_in_quarantine_stays_open() {
    with_dmz_in_both_families(|gate, family| {
        let (server, bastion) = ((family.web, 22), (family.bastion, 50_000));
        gate.establish(server, bastion);
        gate.quarantine("web1", None).unwrap();
        gate.passes(&tcp(server, bastion, ACK), Reason::Reply);
        // and another can be opened
        gate.establish(server, (family.bastion, 50_001));
        // but only by the management, and only its service
        gate.drops(&tcp(server, (family.bastion, 50_002), ACK), Reason::Quarantined);
        gate.to_server(&tcp((family.bastion, 50_003), (family.web, 80), SYN));
        gate.drops(&tcp((family.web, 80), (family.bastion, 50_003), SYN | ACK), Reason::Quarantined);
        gate.to_server(&tcp((family.peer, 50_003), server, SYN));
        gate.drops(&tcp(server, (family.peer, 50_003), SYN | ACK), Reason::Quarantined);
        // a bare SYN is no answer, to nobody
        gate.drops(&tcp(server, bastion, SYN), Reason::Quarantined);
        gate.release("web1").unwrap();
    });
}

#[test]
fn a_management_need_that_a_role_repeats_stays_open_in_quarantine() {
    let gate = TestGate::new(&POLICY.replace("in = [\"tcp/80\"", "in = [\"tcp/22\", \"tcp/80\""));
    in_both_families(|family| {
        gate.establish((family.web, 22), (family.bastion, 50_000));
        gate.establish((family.web, 22), (family.peer, 50_000));
        gate.quarantine("web1", None).unwrap();
        gate.passes(&tcp((family.web, 22), (family.bastion, 50_000), ACK), Reason::Reply);
        gate.drops(&tcp((family.web, 22), (family.peer, 50_000), ACK), Reason::Quarantined);
        gate.release("web1").unwrap();
    });
}

#[test]
fn the_fragments_of_a_management_flow_pass_and_no_others() {
    with_dmz_in_both_families(|gate, family| {
        let (server, bastion) = ((family.ns, 22), (family.bastion, 50_000));
        gate.establish(server, bastion);
        let question = udp_datagram((family.ns, 40_000), (family.peer, 53), &[0; 16]);
        let first =
            |to, protocol, id, payload: &[u8]| fragment(family.ns, to, protocol, (id, 0, true), payload);
        let later = |to, protocol, id| fragment(family.ns, to, protocol, (id, 3, false), &[0; 16]);
        gate.passes(&first(family.peer, UDP, 1, &question), Reason::Need);
        gate.quarantine("ns1", None).unwrap();
        gate.drops(&later(family.peer, UDP, 1), Reason::Quarantined);

        let mut segment = tcp_header(server, bastion, ACK, (1, 1));
        segment.extend_from_slice(&[0; 4]);
        gate.passes(&first(family.bastion, TCP, 2, &segment), Reason::Reply);
        gate.passes(&later(family.bastion, TCP, 2), Reason::LaterFragment);
        gate.release("ns1").unwrap();
    });
}

#[test]
fn a_quarantine_for_a_time_ends_by_itself() {
    let gate = TestGate::dmz();
    let question = udp((V4.ns, 40_000), (V4.peer, 53));
    gate.quarantine("ns1", Some(3600)).unwrap();
    gate.drops(&question, Reason::Quarantined);
    let ends_in = |seconds: i64| {
        let mut row = quarantine { since_ns: 1, ..Default::default() };
        row.until_ns = now_ns().checked_add_signed(seconds * 1_000_000_000).unwrap();
        // SAFETY: a quarantine is integers without padding.
        let value = unsafe { plain::as_bytes(&row) };
        let key = gate.id_of("ns1").to_ne_bytes();
        gate.maps.quarantines.handle().update(&key, value, MapFlags::EXIST).unwrap();
    };
    ends_in(60);
    gate.drops(&question, Reason::Quarantined);
    ends_in(-1);
    gate.passes(&question, Reason::Need);
}

#[test]
fn quarantine_is_enforced_where_everything_else_is_only_observed() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    in_both_families(|family| {
        let frame = tcp((family.web, 40_000), (family.peer, 80), SYN);
        gate.would_drop(&frame, Reason::NewFlow);
        gate.quarantine("web1", None).unwrap();
        gate.drops(&frame, Reason::Quarantined);
        gate.would_drop(&tcp((family.ns, 40_000), (family.peer, 80), SYN), Reason::NewFlow);
        gate.release("web1").unwrap();
        gate.would_drop(&frame, Reason::NewFlow);
    });
}

#[test]
fn no_drop_of_a_server_in_quarantine_is_only_observed() {
    let text = POLICY.replace("[policy]", "[policy]\nmode = \"observe\"");
    let gate = TestGate::new(&text.replace("[servers.web1]", "[servers.web1]\nvlan = 7"));
    in_both_families(|family| {
        let odd = |from| tcp((from, 40_000), (family.peer, 80), 0);
        let elsewhere = tcp((family.web, 40_000), (family.peer, 80), SYN);
        gate.would_drop(&odd(family.ns), Reason::Malformed);
        gate.would_drop(&elsewhere, Reason::Spoofed);
        gate.quarantine("ns1", None).unwrap();
        gate.quarantine("web1", None).unwrap();
        // neither an odd form nor another place on the link is a way out
        gate.drops(&odd(family.ns), Reason::Malformed);
        gate.drops(&elsewhere, Reason::Spoofed);
        gate.drops(&odd(family.web), Reason::Malformed);
        gate.would_drop(&odd(family.unknown), Reason::Malformed);
        assert!(gate.release("ns1").unwrap().was && gate.release("web1").unwrap().was);
        gate.would_drop(&odd(family.ns), Reason::Malformed);
    });
}

#[test]
fn quarantine_lives_through_a_change_of_policy() {
    let gate = TestGate::dmz();
    gate.quarantine("ns1", None).unwrap();
    gate.swap(&format!("{POLICY}\n# another text\n"));
    gate.drops(&udp((V4.ns, 40_000), (V4.peer, 53)), Reason::Quarantined);
    assert!(gate.release("ns1").unwrap().was);
    gate.passes(&udp((V4.ns, 40_000), (V4.peer, 53)), Reason::Need);
}

#[test]
fn a_fragment_over_the_header_of_a_management_flow_is_quarantined() {
    with_dmz_in_both_families(|gate, family| {
        let (server, peer) = ((family.web, 22), (family.bastion, 50_000));
        gate.establish(server, peer);
        gate.quarantine("web1", None).unwrap();
        let segment = tcp_header(server, peer, ACK, (1, 1));
        gate.passes(
            &fragment(server.0, peer.0, TCP, (9, 0, true), &[&segment[..], &[0; 4]].concat()),
            Reason::Reply,
        );
        gate.drops(&fragment(server.0, peer.0, TCP, (9, 1, false), &[0; 16]), Reason::Quarantined);
        gate.passes(&fragment(server.0, peer.0, TCP, (9, 3, false), &[0; 16]), Reason::LaterFragment);
        gate.release("web1").unwrap();
    });
}

/// A flow is management's or not by the policy under which it was asked for or answered last.
#[test]
fn a_flow_is_managements_as_long_as_the_live_policy_says_so() {
    let managed = POLICY.replace(
        "management = [\"tcp/22 from @bastion\"]",
        "management = [\"tcp/22 from @bastion\", \"udp/161 from @bastion\"]",
    );
    let unmanaged = POLICY
        .replace("management = [\"tcp/22 from @bastion\"]", "management = [\"tcp/2222 from @bastion\"]")
        .replace("in = [\"tcp/80\"", "in = [\"tcp/22\", \"udp/161\", \"tcp/80\"");
    let gate = TestGate::new(&managed);
    for (before, after, stays_open) in [(&managed, &unmanaged, false), (&unmanaged, &managed, true)] {
        in_both_families(|family| {
            let (ssh, snmp) = ((family.web, 22), (family.web, 161));
            let peer = |port| (family.bastion, port);
            gate.swap(before);
            gate.forget_flows();
            gate.to_server(&tcp(peer(1), ssh, SYN));
            gate.to_server(&tcp(peer(2), ssh, SYN));
            gate.establish(ssh, peer(3));
            gate.to_server(&udp(peer(4), snmp));
            gate.to_server(&udp(peer(5), snmp));
            gate.swap(after);
            // asked again, or answered
            gate.to_server(&tcp(peer(1), ssh, SYN));
            gate.passes(&tcp(ssh, peer(2), SYN | ACK), Reason::Reply);
            gate.passes(&tcp(ssh, peer(3), ACK), Reason::Reply);
            gate.to_server(&udp(peer(4), snmp));
            gate.passes(&udp(snmp, peer(5)), Reason::Reply);
            gate.quarantine("web1", None).unwrap();
            for answer in [
                tcp(ssh, peer(1), SYN | ACK),
                tcp(ssh, peer(2), SYN | ACK),
                tcp(ssh, peer(3), ACK),
                udp(snmp, peer(4)),
                udp(snmp, peer(5)),
            ] {
                match stays_open {
                    true => gate.passes(&answer, Reason::Reply),
                    false => _ = gate.drops(&answer, Reason::Quarantined),
                }
            }
            assert!(gate.release("web1").unwrap().was);
        });
    }
}

#[test]
fn a_malformed_packet_in_the_name_of_an_address_in_quarantine_is_nobodys() {
    let gate = TestGate::new(&POLICY.replace("[policy]", "[policy]\nmode = \"observe\""));
    gate.quarantine_address(V4.ns, None, None).unwrap();
    gate.drops(&udp((V4.ns, 40_000), (V4.peer, 53)), Reason::Quarantined);
    // an IPv4 address in an IPv6 header is believed as little as the rest of it
    let mapped = ip("::ffff:192.0.2.53");
    let row = gate.would_drop(&udp((mapped, 40_000), (V6.peer, 53)), Reason::Malformed);
    assert_eq!(row.key.server, 0);
}

#[test]
fn what_shows_no_address_is_held_in_quarantine_by_its_mac() {
    let text = POLICY
        .replace("[policy]", "[policy]\nmode = \"observe\"")
        .replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:10\"");
    let gate = TestGate::new(&text);
    let cut_short = cut(&udp((V4.web, 40_000), (V4.peer, 53)), 30);
    let other_version = patched(&udp((V4.web, 40_000), (V4.peer, 53)), 14, &[0x55]);
    let mapped = udp((ip("::ffff:192.0.2.10"), 40_000), (V6.peer, 53));
    let odd = [
        (link_frame(0x9000, &[0; 46]), Reason::Ethertype),
        (cut_short, Reason::Malformed),
        (other_version, Reason::Malformed),
        (mapped, Reason::Malformed),
        // an address that no server has
        (udp((V4.unknown, 40_000), (V4.peer, 53)), Reason::UnknownSource),
        (udp((V6.unknown, 40_000), (V6.peer, 53)), Reason::UnknownSource),
    ];
    const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
    for (frame, reason) in &odd {
        gate.would_drop(frame, *reason);
        gate.quarantine("web1", None).unwrap();
        gate.drops(frame, *reason);
        gate.would_drop(&from_mac(frame, OTHER), *reason);
        gate.release("web1").unwrap();
        // another server's quarantine is none of this machine's
        gate.quarantine("ns1", None).unwrap();
        gate.would_drop(frame, *reason);
        gate.release("ns1").unwrap();
    }
    // an address with the MAC that was seen there
    gate.quarantine_address(V4.ns, Some(OTHER), None).unwrap();
    for (frame, reason) in &odd {
        gate.drops(&from_mac(frame, OTHER), *reason);
        gate.would_drop(frame, *reason);
    }
    // what the link needs goes on
    gate.quarantine("web1", None).unwrap();
    gate.passes(&link_frame(0x0806, &[0; 46]), Reason::LinkLayer);
}
