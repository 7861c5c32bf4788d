//! Answers in flows that are known: judged by the flow and the policy of now alone.

use libbpf_rs::{MapCore, MapFlags};
use portcullis::abi::{Reason, flow, flow_key};

use super::count;
use crate::support::cpu::on_one_cpu;
use crate::support::dmz::POLICY;
use crate::support::frame::{ACK, RST, l4_of, patched, tcp, udp};
use crate::support::test_gate::{XDP_PASS, with_dmz_in_both_families};

#[test]
fn an_answer_in_a_flow_needs_the_flow_and_the_live_policy() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let (server, peer) = family.visit();
            gate.establish(server, peer);
            let answer = tcp(server, peer, ACK);
            for _ in 0..3 {
                gate.passes(&answer, Reason::Reply);
            }
            let flows = gate.entries::<flow_key, flow>("established");
            assert_eq!((flows.len(), flows[0].1.server), (1, gate.id_of("web1")));
            gate.drops(&tcp(server, (family.peer, 51_001), ACK), Reason::NoFlow);
            gate.drops(&tcp(server, (family.other, 51_000), ACK), Reason::NoFlow);
            gate.drops(&tcp((family.web, 443), peer, ACK), Reason::NoFlow);
            gate.quarantine("web1", None).unwrap();
            gate.drops(&answer, Reason::Quarantined);
            gate.release("web1").unwrap();
            gate.passes(&answer, Reason::Reply);
            // the same address under another name
            gate.swap(&POLICY.replace("servers.web1", "servers.web9"));
            for _ in 0..2 {
                gate.passes(&answer, Reason::Reply);
            }
            let flows = gate.entries::<flow_key, flow>("established");
            assert_eq!((flows.len(), flows[0].1.server), (1, gate.id_of("web9")));
            gate.quarantine("web9", None).unwrap();
            gate.drops(&answer, Reason::Quarantined);
            gate.release("web9").unwrap();
            // bound to a MAC that it does not have
            gate.swap(&POLICY.replace("[servers.web1]", "[servers.web1]\nmac = \"02:00:00:00:00:77\""));
            gate.drops(&answer, Reason::Spoofed);
            gate.swap(&POLICY.replace("\"tcp/80\", ", ""));
            gate.drops(&answer, Reason::NoFlow);
        });
    });
}

#[test]
fn an_answer_in_a_tracked_flow_is_judged_by_its_flow_alone() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let peer = (family.peer, 51_000);
            gate.establish((family.web, 80), peer);
            gate.to_server(&udp(peer, (family.ns, 53)));
            gate.passes(&udp((family.ns, 53), peer), Reason::Reply);
            let plain = [tcp((family.unknown, 80), peer, ACK), udp((family.unknown, 53), peer)];
            for (frame, map) in plain.iter().zip(["established", "datagrams"]) {
                gate.drops(frame, Reason::UnknownSource);
                // the flow of one who is no server: asked again, whose it is would be found out
                let [(mut key, flow)] = gate.entries::<flow_key, flow>(map)[..] else { panic!("one flow") };
                key.server = portcullis::abi::to_address(family.unknown);
                // SAFETY: both are plain, without padding
                let (key, flow) = unsafe { (plain::as_bytes(&key), plain::as_bytes(&flow)) };
                gate.maps.find(map).expect("a map").update(key, flow, MapFlags::ANY).unwrap();
                let before = count(&gate, Reason::Reply);
                assert_eq!(gate.programs.run_filter(frame, 1).unwrap().action, XDP_PASS);
                assert_eq!(count(&gate, Reason::Reply), before + 1);
            }
        });
    });
}

#[test]
fn the_flow_of_a_datagram_has_its_server_before_the_first_answer() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let question = udp((family.peer, 51_000), (family.ns, 53));
            let server = || {
                let flows = gate.entries::<flow_key, flow>("datagrams");
                assert_eq!(flows.len(), 1);
                flows[0].1.server
            };
            gate.to_server(&question);
            assert_eq!(server(), gate.id_of("ns1"));
            gate.swap(&POLICY.replace("servers.ns1", "servers.ns9"));
            gate.to_server(&question);
            assert_eq!(server(), gate.id_of("ns9"));
        });
    });
}

#[test]
fn a_datagram_that_lies_about_its_length_is_no_answer() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let (server, peer) = family.question();
            gate.to_server(&udp(peer, server));
            let answer = udp(server, peer);
            for _ in 0..3 {
                gate.passes(&answer, Reason::Reply);
            }
            let length = l4_of(family.ns) + 4;
            for lie in [[0, 7], [0xff, 0xff]] {
                gate.drops(&patched(&answer, length, &lie), Reason::Malformed);
            }
        });
    });
}

#[test]
fn a_peers_reset_ends_no_flow_and_its_servers_own_does() {
    on_one_cpu(|| {
        with_dmz_in_both_families(|gate, family| {
            let (server, peer) = family.visit();
            gate.establish(server, peer);
            gate.passes(&tcp(server, peer, ACK), Reason::Reply);
            gate.to_server(&tcp(peer, server, RST));
            for _ in 0..3 {
                gate.age("established", 11);
                gate.passes(&tcp(server, peer, ACK), Reason::Reply);
            }
            gate.passes(&tcp(server, peer, RST), Reason::Reply);
            gate.age("established", 11);
            gate.drops(&tcp(server, peer, ACK), Reason::NoFlow);
        });
    });
}
