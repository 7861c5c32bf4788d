//! Row 7: answers of a server in quarantine are counted under its own port, without an alarm.

use portcullis::abi::Reason;

use crate::support::dmz::{Family, in_both_families};
use crate::support::frame::{
    ACK, Endpoint, FIN, IP, PSH, RST, SYN, UDP, echo_reply, echo_request, fragment, icmp, raw_ip, tcp, udp,
};
use crate::support::test_gate::{TestGate, with_dmz_in_both_families};

const QUIET: u8 = 1;
const OWN_PORT: u8 = 4;

#[track_caller]
fn check(gate: &TestGate, frame: &[u8], port: u16, answers: bool) -> u32 {
    let row = gate.drops(frame, Reason::Quarantined);
    let flags = if answers { QUIET | OWN_PORT } else { 0 };
    assert_eq!((row.key.port, row.key.flags), (port, flags));
    row.row.number
}

#[test]
fn answers_to_visitors_are_one_row_however_many_come() {
    with_dmz_in_both_families(|gate, family| {
        let visitor = |port| (family.peer, port);
        for port in 38_000..38_020 {
            gate.establish((family.web, 80), visitor(port));
        }
        gate.quarantine("web1", None).unwrap();
        for port in 38_000..38_042 {
            // of a flow or of none
            for flags in [ACK, SYN | ACK, FIN | ACK, RST, ACK | PSH] {
                check(&gate, &tcp((family.web, 80), visitor(port), flags), 80, true);
            }
        }
        assert_eq!(gate.ledger_rows(false).len(), 1);
        gate.release("web1").unwrap();
        gate.passes(&tcp((family.web, 80), visitor(38_000), ACK), Reason::Reply);
        gate.drops(&tcp((family.web, 80), visitor(38_041), ACK), Reason::NoFlow);
    });
}

#[test]
fn answers_to_questions_and_pings_are_answers_too() {
    with_dmz_in_both_families(|gate, family| {
        let reply = if family.web.is_ipv4() { 0 } else { 129 };
        let (server, peer) = family.question();
        for asked in [false, true] {
            if asked {
                gate.to_server(&udp(peer, server));
                gate.to_server(&echo_request(family.peer, family.web, 9));
            }
            gate.quarantine("ns1", None).unwrap();
            gate.quarantine("web1", None).unwrap();
            check(&gate, &udp(server, peer), 53, true);
            check(&gate, &echo_reply(family.web, family.peer, 9), reply, true);
            gate.release("ns1").unwrap();
            gate.release("web1").unwrap();
        }
    });
}

#[test]
fn what_the_server_does_of_its_own_accord_is_loud() {
    with_dmz_in_both_families(|gate, family| {
        gate.quarantine("web1", None).unwrap();
        gate.quarantine("ns1", None).unwrap();
        let (web, ns, peer): (IpOf, IpOf, IpOf) = (family.web, family.ns, family.peer);
        let request = if web.is_ipv4() { 8 } else { 128 };
        for (frame, port) in [
            // a bare SYN is no answer, from whatever port
            (tcp((web, 80), (peer, 445), SYN), 445),
            (tcp((web, 40_000), (peer, 445), SYN), 445),
            (tcp((web, 4444), (peer, 51_000), SYN | ACK), 51_000),
            (tcp((web, 53), (peer, 51_000), ACK), 51_000),
            (udp((ns, 40_000), (peer, 53)), 53),
            (udp((web, 53), (peer, 51_000)), 51_000),
            (echo_request(web, peer, 1), request),
            (raw_ip(web, peer, 47, &[0; 8]), 0),
        ] {
            check(&gate, &frame, port, false);
        }
        // nothing of a later fragment says what it is
        check(&gate, &fragment(ns, peer, UDP, (1, 4, false), &[0; 16]), 0, false);
    });
}

type IpOf = std::net::IpAddr;

#[test]
fn the_rest_of_a_large_answer_is_as_quiet_as_its_beginning() {
    with_dmz_in_both_families(|gate, family| {
        gate.quarantine("ns1", None).unwrap();
        let (ns, peer): (IpOf, IpOf) = (family.ns, family.peer);
        // the header of a datagram of 40 bytes, and 16 bytes of its data
        let begin = |from: u16, to: u16| {
            let header = [from, to, 40, 0].map(u16::to_be_bytes).concat();
            [header, vec![0; 16]].concat()
        };
        check(&gate, &fragment(ns, peer, UDP, (7, 0, true), &begin(53, 51_000)), 53, true);
        check(&gate, &fragment(ns, peer, UDP, (7, 3, false), &[0; 16]), 53, true);
        // and the rest of what it began by itself stays loud
        check(&gate, &fragment(ns, peer, UDP, (8, 0, true), &begin(40_000, 1434)), 1434, false);
        check(&gate, &fragment(ns, peer, UDP, (8, 3, false), &[0; 16]), 1434, false);
    });
}

#[test]
fn the_icmp_of_the_other_family_is_no_answer() {
    let gate = TestGate::dmz();
    gate.quarantine("web1", None).unwrap();
    in_both_families(|family: Family| {
        let (protocol, kind) = if family.web.is_ipv4() { (58, 129) } else { (1, 0) };
        let row = gate.drops(
            &raw_ip(family.web, family.peer, protocol, &[kind, 0, 0, 0, 0, 9, 0, 1]),
            Reason::Quarantined,
        );
        assert_eq!(row.key.flags, 0);
    });
}

#[test]
fn resets_and_errors_are_what_noise_is_answered_with() {
    with_dmz_in_both_families(|gate, family| {
        gate.establish((family.web, 80), (family.peer, 51_000));
        gate.quarantine("web1", None).unwrap();
        // in a flow, of a service, and of a port that is closed: a scan makes one row
        for flags in [RST, RST | ACK] {
            check(&gate, &tcp((family.web, 80), (family.peer, 51_000), flags), 80, true);
            check(&gate, &tcp((family.web, 443), (family.peer, 51_001), flags), 443, true);
            for port in [7, 4444, 40_000] {
                check(&gate, &tcp((family.web, port), (family.peer, 51_002), flags), port, true);
            }
        }
        let kinds = if family.web.is_ipv4() { [3, 4, 11, 12] } else { [1, 2, 3, 4] };
        let quoted = tcp((family.peer, 51_000), (family.web, 80), ACK);
        for kind in kinds {
            for quoted in [&quoted[IP..], &[0; 28]] {
                let error = icmp(family.web, family.peer, (kind, 0), [0; 4], quoted);
                check(&gate, &error, u16::from(kind), true);
            }
        }
        // the types around them are neither
        for kind in if family.web.is_ipv4() { [2, 10, 19] } else { [0, 5, 127] } {
            let other = icmp(family.web, family.peer, (kind, 0), [0; 4], &[0; 28]);
            check(&gate, &other, u16::from(kind), false);
        }
        gate.release("web1").unwrap();
    });
}

#[test]
fn a_visitor_from_whom_the_service_is_closed_is_answered_as_little() {
    with_dmz_in_both_families(|gate, family| {
        let ssh: Endpoint = (family.web, 22);
        gate.quarantine("web1", None).unwrap();
        check(&gate, &tcp(ssh, (family.peer, 51_000), SYN | ACK), 22, true);
        gate.establish(ssh, (family.bastion, 51_000));
        gate.release("web1").unwrap();
    });
}
