//! What comes back to the DMZ by the NIC that it came from.

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::Reason;

use crate::support::dmz::{Family, POLICY, in_both_families};
use crate::support::frame::{ACK, Endpoint, SYN, echo_reply, echo_request, tcp, tcp_numbered, udp};
use crate::support::test_gate::TestGate;

/// Of the loopback device, by which the frames of a test run go out.
const NIC: u32 = 1;
const ABOVE: u32 = 4242;
const ANOTHER: u32 = 4243;

fn gate_with(line: &str) -> TestGate {
    let gate = TestGate::new(&POLICY.replace("[policy]", &format!("[policy]\n{line}")));
    for index in [NIC, ABOVE] {
        let own = gate.maps.find("own_interfaces").unwrap();
        own.update(&index.to_ne_bytes(), &1_u32.to_ne_bytes(), MapFlags::ANY).unwrap();
    }
    gate
}

fn goes_back(gate: &TestGate, frame: &[u8], ifindex: u32) {
    gate.programs.run_track_from(frame, ifindex).unwrap();
}

/// Whatever this peer asks a service, the answer passes; and only then.
#[track_caller]
fn check(gate: &TestGate, family: Family, peer: std::net::IpAddr, from: u32, is_heard: bool) {
    gate.forget_flows();
    let syn: (Endpoint, Endpoint) = ((family.web, 80), (peer, 51_000));
    let question: (Endpoint, Endpoint) = ((family.ns, 53), (peer, 51_000));
    goes_back(gate, &tcp(syn.1, syn.0, SYN), from);
    goes_back(gate, &udp(question.1, question.0), from);
    goes_back(gate, &echo_request(peer, family.web, 9), from);
    let answer = tcp_numbered(syn.0, syn.1, SYN | ACK, (5000, 1));
    if is_heard {
        gate.passes(&answer, Reason::Reply);
        gate.passes(&udp(question.0, question.1), Reason::Reply);
        gate.passes(&echo_reply(family.web, peer, 9), Reason::Reply);
        // the rest of the handshake comes the same way
        goes_back(gate, &tcp_numbered(syn.1, syn.0, ACK, (1, 5001)), from);
        gate.passes(&tcp(syn.0, syn.1, ACK), Reason::Reply);
    } else {
        gate.drops(&answer, Reason::NoFlow);
        gate.drops(&udp(question.0, question.1), Reason::NewFlow);
        gate.drops(&echo_reply(family.web, peer, 9), Reason::NewFlow);
        assert!(gate.flows().unwrap().is_empty());
    }
}

#[test]
fn a_server_opens_no_flow_for_itself_in_a_strangers_name() {
    for line in ["unknown_sources = \"allow\"", "mode = \"observe\""] {
        // in observe what would be dropped is only counted
        let gate = gate_with(&format!("{line}\ntracking = \"strict\""));
        in_both_families(|family| {
            if line.starts_with("mode") {
                for from in [NIC, ABOVE] {
                    goes_back(&gate, &tcp((family.peer, 51_000), (family.web, 80), SYN), from);
                    assert!(gate.flows().unwrap().is_empty(), "{line} {from}");
                }
                return;
            }
            for from in [NIC, ABOVE] {
                for stranger in [family.peer, family.unknown] {
                    check(&gate, family, stranger, from, false);
                }
            }
            // from beyond, by any other interface
            check(&gate, family, family.peer, ANOTHER, true);
        });
    }
}

#[test]
fn what_the_router_itself_sends_has_come_in_by_no_interface_and_opens_flows() {
    const NOWHERE: u32 = 0;
    let gate = gate_with("unknown_sources = \"allow\"");
    in_both_families(|family| {
        // of its own address in the DMZ, and of the clients of a transparent proxy
        for source in [family.unknown, family.peer] {
            check(&gate, family, source, NOWHERE, true);
        }
    });
}

#[test]
fn servers_of_two_subnets_talk_to_each_other_by_the_same_nic() {
    for line in ["unknown_sources = \"allow\"", ""] {
        let gate = gate_with(line);
        in_both_families(|family| {
            for from in [NIC, ABOVE, ANOTHER] {
                gate.forget_flows();
                let (web, ns) = ((family.web, 80), (family.ns, 51_000));
                goes_back(&gate, &tcp(ns, web, SYN), from);
                gate.passes(&tcp_numbered(web, ns, SYN | ACK, (5000, 1)), Reason::Reply);
                goes_back(&gate, &tcp_numbered(ns, web, ACK, (1, 5001)), from);
                gate.passes(&tcp(web, ns, ACK), Reason::Reply);
            }
        });
    }
}
