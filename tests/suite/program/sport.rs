//! Needs that hold for some of the server's own ports.

use portcullis::abi::Reason;

use crate::support::dmz::in_both_families;
use crate::support::frame::{IP, SYN, UDP, fragment, tcp, udp, udp_datagram, unreachable};
use crate::support::test_gate::TestGate;

/// Active FTP, a DNS server with a fixed port, and a need for all ports beside them.
const FTP: &str = r#"
[sets]
clients = ["203.0.113.50", "2001:db8:50::50"]

[roles.ftp]
in = ["tcp/21"]
out = [
    "tcp/1024-65535 to @clients sport 20",
    "udp/53 sport 5300-5303",
    "tcp/8080",
]

[servers.ftp1]
addresses = ["192.0.2.10", "2001:db8:1::10"]
roles = ["ftp"]

[servers.web1]
addresses = ["192.0.2.53", "2001:db8:1::53"]
"#;

#[test]
fn a_need_holds_for_the_port_that_it_names_and_no_other() {
    let gate = TestGate::new(FTP);
    in_both_families(|family| {
        let data = |own, peer, port| tcp((family.web, own), (peer, port), SYN);
        // again and again, for the filter remembers verdicts
        for _ in 0..3 {
            for port in [1024, 5000, 65_535] {
                gate.passes(&data(20, family.peer, port), Reason::Need);
                for own in [19, 21, 40_000, 0] {
                    let row = gate.drops(&data(own, family.peer, port), Reason::NewFlow);
                    assert_eq!((row.key.port, row.key.flags), (port, 0));
                }
                // the port is permitted, and this destination is not
                gate.drops(&data(20, family.other, port), Reason::Destination);
                gate.drops(&data(21, family.other, port), Reason::NewFlow);
                gate.drops(&tcp((family.ns, 20), (family.peer, port), SYN), Reason::NewFlow);
            }
            for port in [1023, 80, 0] {
                gate.drops(&data(20, family.peer, port), Reason::NewFlow);
            }
            // a need without `sport` holds for every port
            for own in [20, 21, 40_000] {
                gate.passes(&data(own, family.other, 8080), Reason::Need);
            }
        }
    });
}

#[test]
fn a_range_of_own_ports_ends_where_it_says() {
    let gate = TestGate::new(FTP);
    in_both_families(|family| {
        for (own, permitted) in
            [(5299, false), (5300, true), (5301, true), (5302, true), (5303, true), (5304, false)]
        {
            let question = udp((family.web, own), (family.peer, 53));
            match permitted {
                true => gate.passes(&question, Reason::Need),
                false => _ = gate.drops(&question, Reason::NewFlow),
            }
            // the port belongs to UDP, and the service to port 53
            gate.drops(&tcp((family.web, own), (family.peer, 53), SYN), Reason::NewFlow);
            gate.drops(&udp((family.web, own), (family.peer, 54)), Reason::NewFlow);
        }
        let datagram = udp_datagram((family.web, 5301), (family.peer, 53), &[0; 16]);
        gate.passes(&fragment(family.web, family.peer, UDP, (7, 0, true), &datagram), Reason::Need);
        gate.passes(&fragment(family.web, family.peer, UDP, (7, 3, false), &[0; 16]), Reason::LaterFragment);
    });
}

#[test]
fn the_connection_that_such_a_need_opens_goes_on() {
    let gate = TestGate::new(FTP);
    in_both_families(|family| {
        let own = |own| tcp((family.web, own), (family.peer, 5000), 0x10);
        gate.passes(&own(20), Reason::OwnConnection);
        gate.drops(&own(22), Reason::NoFlow);
        gate.quarantine("ftp1", None).unwrap();
        gate.drops(&tcp((family.web, 20), (family.peer, 5000), SYN), Reason::Quarantined);
        gate.release("ftp1").unwrap();
        gate.passes(&tcp((family.web, 20), (family.peer, 5000), SYN), Reason::Need);
    });
}

#[test]
fn a_limit_counts_what_such_a_need_lets_pass() {
    let gate = TestGate::new(&FTP.replace("sport 20\"", "sport 20 limit 2/m\""));
    in_both_families(|family| {
        gate.swap(FTP);
        let data = tcp((family.web, 20), (family.peer, 5000), SYN);
        for _ in 0..5 {
            gate.passes(&data, Reason::Need);
        }
    });
    gate.swap(&FTP.replace("sport 20\"", "sport 20 limit 2/m\""));
    let family = crate::support::dmz::V4;
    let data = tcp((family.web, 20), (family.peer, 5000), SYN);
    gate.passes(&data, Reason::Need);
    gate.passes(&data, Reason::Need);
    gate.drops(&data, Reason::Rate);
    gate.passes(&tcp((family.web, 20), (family.peer, 8080), SYN), Reason::Need);
}

#[test]
fn an_error_about_an_answer_to_such_a_need_passes_and_about_another_it_does_not() {
    let gate = TestGate::new(FTP);
    in_both_families(|family| {
        let about = |answer: Vec<u8>| unreachable(family.web, family.peer, &answer[IP..]);
        let answer = |from, own| about(udp((family.peer, from), (family.web, own)));
        gate.passes(&answer(53, 5300), Reason::FlowError);
        gate.drops(&answer(53, 5304), Reason::Backscatter);
        gate.drops(&answer(54, 5300), Reason::Backscatter);
        let segment = |own| about(tcp((family.peer, 5000), (family.web, own), 0x10));
        gate.passes(&segment(20), Reason::FlowError);
        gate.drops(&segment(21), Reason::Backscatter);
    });
}

#[test]
fn an_answer_to_such_a_need_opens_nothing_on_the_server() {
    let gate = TestGate::new(FTP);
    in_both_families(|family| {
        gate.swap(FTP);
        gate.forget_flows();
        for own in [5300, 5304] {
            gate.to_server(&udp((family.peer, 53), (family.web, own)));
        }
        // so when the need is gone, the server's next question is no back door
        gate.swap(&FTP.replace("\"udp/53 sport 5300-5303\",", ""));
        gate.drops(&udp((family.web, 5300), (family.peer, 53)), Reason::NewFlow);
        gate.drops(&udp((family.web, 5304), (family.peer, 53)), Reason::UnlistedService);
    });
}

/// As [`FTP`], with these needs beside a full port 20.
fn with_needs(needs: &[&str]) -> String {
    let list: Vec<String> = needs.iter().map(|need| format!("\"{need}\"")).collect();
    FTP.replace("\"tcp/1024-65535 to @clients sport 20\",", &format!("{},", list.join(", ")))
}

/// How many connections the server may open at once from port 20.
fn count_openings(needs: &[&str]) -> usize {
    let gate = TestGate::new(&with_needs(needs));
    let family = crate::support::dmz::V4;
    let data = tcp((family.web, 20), (family.peer, 5000), SYN);
    let passed =
        (0..20).take_while(|_| gate.explain(&data, false, None).unwrap().reason == Some(Reason::Need));
    passed.inspect(|_| gate.passes(&data, Reason::Need)).count()
}

#[test]
fn the_order_of_needs_with_and_without_a_sport_does_not_matter() {
    for (needs, count) in [
        (["tcp/5000 limit 2/m", "tcp/5000 sport 20"], 20),
        (["tcp/5000 limit 2/m", "tcp/5000-5001 to @clients sport 1-20"], 20),
        (["tcp/5000", "tcp/5000 sport 20 limit 2/m"], 20),
        (["tcp/5000 limit 2/m", "tcp/5000 sport 20 limit 3/m"], 5),
        (["tcp/5000 limit 3/m", "tcp/5000 sport 20 limit 2/m"], 5),
        (["tcp/5000 limit 3/m", "tcp/5000 sport 21"], 3),
        (["tcp/5000 limit 3/m", "tcp/5001 sport 20"], 3),
    ] {
        assert_eq!(count_openings(&needs), count, "{needs:?}");
        let [one, other] = needs;
        assert_eq!(count_openings(&[other, one]), count, "{other}, {one}");
    }
}
