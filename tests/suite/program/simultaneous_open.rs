//! Rows 11 and 13: a peer's bare SYN that crosses a SYN of the server's own. The server answers it with a SYN+ACK,
//! and nothing listens there.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, in_both_families};
use crate::support::frame::{ACK, Endpoint, PSH, RST, SYN, TCP, fragment, tcp, udp};
use crate::support::own_openings;
use crate::support::test_gate::{SECOND_NS, TestGate};

const QUIET: u8 = 1;
const OWN_PORT: u8 = 4;
const PRESUMED: u8 = 8;

const MAIL: &str = r#"
[sets]
clients = ["203.0.113.50", "2001:db8:50::50"]

[roles.mail]
in    = ["tcp/25", "udp/53"]
out   = ["tcp/25", "tcp/113 limit 1/m", "tcp/1024-2047 to @clients sport 20"]
quiet = ["tcp/445"]

[roles.limited]
out = ["tcp/25 limit 2/s"]

[servers.mail1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["mail", "limited"]

[servers.mail2]
addresses = ["192.0.2.53", "2001:db8:1::53"]
roles = ["mail"]
"#;

/// An ephemeral port of the server.
const OWN: u16 = 40_000;

fn ends(family: Family, service: u16) -> (Endpoint, Endpoint) {
    ((family.web, OWN), (family.peer, service))
}

/// The rest of a connection that both ends opened passes.
#[track_caller]
fn goes_on(gate: &TestGate, server: Endpoint, peer: Endpoint) {
    for flags in [SYN | ACK, SYN | ACK, ACK, ACK | PSH] {
        gate.passes(&tcp(server, peer, flags), Reason::OwnConnection);
    }
}

#[track_caller]
fn is_back_door(gate: &TestGate, server: Endpoint, peer: Endpoint) {
    let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::UnlistedService);
    assert_eq!((row.key.port, row.key.flags), (server.1, OWN_PORT));
}

#[test]
fn a_syn_that_crosses_the_servers_own_makes_no_back_door() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        let (server, peer) = ends(family, 25);
        let (own, crossing) = (tcp(server, peer, SYN), tcp(peer, server, SYN));
        for own_first in [true, false] {
            gate.forget_flows();
            if own_first {
                gate.passes(&own, Reason::Need);
            }
            gate.to_server(&crossing);
            if !own_first {
                gate.passes(&own, Reason::Need);
            }
            goes_on(&gate, server, peer);
        }
        // sent again and again, as a cached verdict lets it pass
        for port in OWN..OWN + 5 {
            let server = (family.web, port);
            gate.passes(&tcp(server, peer, SYN), Reason::Need);
            gate.to_server(&tcp(peer, server, SYN));
            goes_on(&gate, server, peer);
        }
    });
}

#[test]
fn a_listener_is_a_back_door_although_the_server_may_call_the_peers_port() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        let (server, peer) = ends(family, 25);
        // the server's own SYN was another's: of another port, to another port or peer, or no SYN at all
        gate.passes(&tcp((family.web, OWN + 1), peer, SYN), Reason::Need);
        gate.passes(&tcp(server, (family.other, 25), SYN), Reason::Need);
        gate.passes(&tcp(server, peer, ACK), Reason::OwnConnection);
        gate.passes(&tcp(server, peer, RST), Reason::OwnConnection);
        gate.drops(&udp(server, peer), Reason::NewFlow);
        gate.to_server(&tcp(peer, server, SYN));
        is_back_door(&gate, server, peer);
        // and the SYN of another server
        gate.passes(&tcp((family.ns, OWN), peer, SYN), Reason::Need);
        is_back_door(&gate, server, peer);
    });
}

#[test]
fn the_servers_own_syn_counts_as_long_as_it_may_be_answered() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        let (server, peer) = ends(family, 25);
        for (age, counts) in [(0, true), (60, true), (119, true), (121, false)] {
            gate.forget_flows();
            gate.passes(&tcp(server, peer, SYN), Reason::Need);
            if age > 0 {
                gate.age("own_openings", age);
            }
            gate.to_server(&tcp(peer, server, SYN));
            if counts {
                goes_on(&gate, server, peer);
                continue;
            }
            is_back_door(&gate, server, peer);
            // sent once more, it counts from then
            gate.passes(&tcp(server, peer, SYN), Reason::Need);
            goes_on(&gate, server, peer);
        }
    });
}

#[test]
fn a_peer_whose_ports_could_not_be_read_crosses_it_as_well() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        let (server, peer) = ends(family, 25);
        gate.to_server(&fragment(peer.0, server.0, TCP, (9, 0, true), &[0; 2]));
        is_back_door(&gate, server, peer);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        goes_on(&gate, server, peer);
    });
}

#[test]
fn a_need_with_a_sport_and_one_with_a_limit_open_it_too() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        let (server, peer) = ((family.web, 20), (family.peer, 1500));
        gate.to_server(&tcp(peer, server, SYN));
        is_back_door(&gate, server, peer);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        goes_on(&gate, server, peer);

        // over the limit the SYN is dropped, and its socket waits all the same
        let mut reasons = Vec::new();
        for port in OWN..OWN + 8 {
            let (server, peer) = ((family.web, port), (family.peer, 113));
            let frame = tcp(server, peer, SYN);
            let before = own_openings::read(&gate);
            let answer = gate.explain(&frame, false, None).unwrap();
            match answer.reason {
                Some(Reason::Need) => gate.passes(&frame, Reason::Need),
                _ => assert_eq!(gate.drops(&frame, Reason::Rate).key.port, 113),
            }
            reasons.push(answer.reason);
            let after = own_openings::read(&gate);
            assert_eq!(after.len(), before.len() + 1);
            gate.to_server(&tcp(peer, server, SYN));
            goes_on(&gate, server, peer);
        }
        assert!(reasons.contains(&Some(Reason::Rate)), "the limit was never reached: {reasons:?}");
    });
}

#[test]
fn the_crossing_of_an_opening_that_is_dropped_quietly_is_no_more_than_a_stray() {
    for tracking in ["strict", "service"] {
        let gate = TestGate::new(&format!("[policy]\ntracking = \"{tracking}\"\n{MAIL}"));
        in_both_families(|family| {
            for port in OWN..OWN + 4 {
                let (server, peer) = ((family.web, port), (family.peer, 445));
                // by the cache from the second one on
                let row = gate.drops(&tcp(server, peer, SYN), Reason::NewFlow);
                assert_eq!(row.key.flags, QUIET);
                gate.to_server(&tcp(peer, server, SYN));
                let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
                assert_eq!((row.key.port, row.key.flags), (445, 0));
            }
            // what nobody opened from there is a listener
            let (server, peer) = ((family.web, 4444), (family.peer, 445));
            gate.to_server(&tcp(peer, server, SYN));
            is_back_door(&gate, server, peer);
        });
    }
}

#[test]
fn the_crossing_of_an_opening_that_raised_its_alarm_hides_no_listener() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        for port in OWN..OWN + 4 {
            let (server, peer) = ((family.web, port), (family.peer, 6667));
            assert_eq!(gate.drops(&tcp(server, peer, SYN), Reason::NewFlow).key.flags, 0);
            gate.to_server(&tcp(peer, server, SYN));
            is_back_door(&gate, server, peer);
        }
    });
}

#[test]
fn service_tracking_takes_a_permitted_segment_for_the_servers_own_as_ever() {
    let gate = TestGate::new(&format!("[policy]\ntracking = \"service\"\n{MAIL}"));
    in_both_families(|family| {
        let (server, peer) = ends(family, 25);
        for _ in 0..2 {
            goes_on(&gate, server, peer);
            gate.passes(&tcp(server, peer, SYN), Reason::Need);
        }
        is_back_door(&gate, (family.web, 4444), (family.peer, 51_000));
    });
}

#[test]
fn a_policy_that_revokes_the_need_makes_no_back_door_of_it() {
    in_both_families(|family| {
        let gate = TestGate::new(MAIL);
        let (server, peer) = ends(family, 25);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        gate.to_server(&tcp(peer, server, SYN));
        gate.swap(&MAIL.replace("\"tcp/25\", \"tcp/113", "\"tcp/113").replace("\"tcp/25 limit 2/s\"", ""));
        let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags), (25, 0));
    });
}

#[test]
fn in_quarantine_the_crossing_is_quiet_and_a_listener_is_not() {
    in_both_families(|family| {
        let gate = TestGate::new(MAIL);
        let (server, peer) = ends(family, 25);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        gate.to_server(&tcp(peer, server, SYN));
        gate.to_server(&tcp((family.peer, 25), (family.web, 4444), SYN));
        gate.quarantine("mail1", None).unwrap();
        let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::Quarantined);
        assert_eq!((row.key.port, row.key.flags), (25, QUIET));
        for (frame, port) in [
            (tcp((family.web, 4444), peer, SYN | ACK), 25),
            (tcp(server, peer, ACK), 25),
            (tcp(server, peer, SYN), 25),
        ] {
            let row = gate.drops(&frame, Reason::Quarantined);
            assert_eq!((row.key.port, row.key.flags), (port, 0));
        }
    });
}

/// The id of a server.
fn id_of(gate: &TestGate, name: &str) -> u32 {
    gate.ids_by_name().expect("names")[name]
}

/// Ports of `server` from which SYNs to `peer` are noted in the same bucket as that from its own port.
fn ports_of_one_bucket(id: u32, server: Endpoint, peer: Endpoint) -> impl Iterator<Item = u16> {
    let (bucket, _) = own_openings::locate(id, [server, peer], TCP);
    (32_768..=65_535_u16)
        .filter(move |port| *port != server.1)
        .filter(move |port| own_openings::locate(id, [(server.0, *port), peer], TCP).0 == bucket)
}

#[test]
fn an_opening_is_noted_under_its_own_tag_and_time() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        gate.forget_flows();
        let (server, peer) = ends(family, 25);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        let [entry] = own_openings::read(&gate)[..] else { panic!("one opening, one entry") };
        let place = own_openings::locate(id_of(&gate, "mail1"), [server, peer], TCP);
        assert_eq!((entry.bucket, entry.tag), place);
        let ticks = (portcullis::clock::now_ns() >> 24) as u32;
        assert!(ticks.wrapping_sub(entry.tick) < ((5 * SECOND_NS) >> 24) as u32, "{entry:?} at {ticks}");
        // not written again within a second, and then it is
        gate.age_ns("own_openings", SECOND_NS / 2);
        let before = own_openings::read(&gate);
        gate.age_ns("own_openings", 2 * SECOND_NS);
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        let after = own_openings::read(&gate);
        assert_eq!(after.len(), 1);
        assert!(after[0].tick.wrapping_sub(before[0].tick) < 1 << 31, "{before:?} {after:?}");
    });
}

#[test]
fn a_bucket_that_may_have_lost_the_servers_own_syn_raises_no_alarm_and_lets_nothing_pass() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        gate.forget_flows();
        let (server, peer) = ends(family, 25);
        let id = id_of(&gate, "mail1");
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        // older than those that follow
        gate.age("own_openings", 2);
        let ports: Vec<u16> = ports_of_one_bucket(id, server, peer).take(4).collect();
        assert_eq!(ports.len(), 4, "too few ports share a bucket");
        for (number, port) in ports.iter().enumerate() {
            gate.to_server(&tcp(peer, server, SYN));
            gate.passes(&tcp(server, peer, SYN | ACK), Reason::OwnConnection);
            gate.passes(&tcp((family.web, *port), peer, SYN), Reason::Need);
            assert_eq!(own_openings::read(&gate).len(), (number + 2).min(4), "four to a bucket");
        }
        // The fifth has pushed out the first. A peer's SYN that crossed it must not look like a backdoor.
        for port in &ports {
            gate.passes(&tcp((family.web, *port), peer, SYN | ACK), Reason::OwnConnection);
        }
        let row = gate.drops(&tcp(server, peer, SYN | ACK), Reason::NoFlow);
        assert_eq!((row.key.port, row.key.flags), (25, PRESUMED));
        // a service of the server has lost nothing by it
        gate.to_server(&tcp(peer, (family.web, 25), SYN));
        gate.passes(&tcp((family.web, 25), peer, SYN | ACK), Reason::Reply);
        // where no need permits the answer, it was no SYN of the server's that is noted
        gate.to_server(&tcp((family.peer, 51_000), server, SYN));
        is_back_door(&gate, server, (family.peer, 51_000));
        // and as soon as one of the four is too old, the bucket has lost nothing
        gate.age("own_openings", 121);
        gate.drops(&tcp(server, peer, SYN | ACK), Reason::UnlistedService);
    });
}

#[test]
fn a_server_that_opens_much_pushes_out_no_opening_of_another() {
    let gate = TestGate::new(MAIL);
    in_both_families(|family| {
        gate.forget_flows();
        let (server, peer) = ((family.ns, OWN), (family.peer, 25));
        gate.passes(&tcp(server, peer, SYN), Reason::Need);
        gate.age("own_openings", 60);
        // as many as its region holds, several times over
        for port in 1024..u16::MAX {
            let frame = tcp((family.web, port), peer, SYN);
            gate.programs.run_filter(&frame, 1).expect("a run");
        }
        let (bucket, tag) = own_openings::locate(id_of(&gate, "mail2"), [server, peer], TCP);
        let entries = own_openings::read(&gate);
        assert!(entries.iter().any(|entry| (entry.bucket, entry.tag) == (bucket, tag)));
        assert!(entries.len() > 8_000, "the region of mail1 is not full: {}", entries.len());
        gate.to_server(&tcp(peer, server, SYN));
        goes_on(&gate, server, peer);
    });
}
