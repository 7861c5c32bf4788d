//! What servers ask the router from their link-local addresses (RFC 8106).

use std::net::IpAddr;

use portcullis::abi::Reason;

use crate::support::dmz::{POLICY, ip};
use crate::support::frame::{SYN, UDP, fragment, from_mac, tagged, tcp, udp, udp_datagram};
use crate::support::test_gate::TestGate;

const OTHER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x20];
const ROUTER_OF_POLICY: [u8; 6] = [0x02, 0, 0, 0, 0, 0x30];

fn policy(services: &str) -> String {
    let text = POLICY
        .replace("[servers.ns1]", "[servers.ns1]\nmac = [\"02:00:00:00:00:11\", \"02:00:00:00:00:10\"]")
        .replace("[policy]", &format!("[policy]\n{services}"));
    format!("{text}\n[routers.other]\naddresses = [\"fe80::30\"]\nmac = \"02:00:00:00:00:30\"\n")
}

fn actors() -> (IpAddr, IpAddr) {
    (ip("fe80::10"), ip("fe80::1"))
}

#[test]
fn a_server_asks_the_router_from_its_link_local_address() {
    let gate = TestGate::new(&policy("link_services = [\"udp/53\", \"tcp/53\"]"));
    let (near, router) = actors();
    for to in [router, ip("ff02::fb"), ip("ff01::1")] {
        gate.passes(&udp((near, 40_000), (to, 53)), Reason::Need);
    }
    let question = tcp((near, 40_000), (router, 53), SYN);
    gate.passes(&question, Reason::Need);
    gate.passes(&from_mac(&question, [0x02, 0, 0, 0, 0, 0x11]), Reason::Need);
    let answer = gate.explain(&question, false, None).unwrap();
    assert_eq!(answer.server, gate.id_of("ns1"), "the server of that MAC");
}

#[test]
fn nobody_else_does_and_nothing_else_passes() {
    let text = policy("link_services = [\"udp/53\", \"tcp/53\"]");
    let gate = TestGate::new(&text);
    let (near, router) = actors();
    let question = udp((near, 40_000), (router, 53));
    let rest = udp_datagram((near, 40_000), (router, 53), &[0; 16]);
    for frame in [
        from_mac(&question, OTHER_MAC),
        from_mac(&question, ROUTER_OF_POLICY),
        udp((near, 40_000), (router, 54)),
        udp((near, 53), (router, 40_000)),
        tcp((near, 40_000), (router, 80), SYN),
        // a router forwards these
        udp((near, 40_000), (ip("2001:db8:50::50"), 53)),
        udp((near, 40_000), (ip("ff05::fb"), 53)),
        udp((near, 40_000), (ip("ff0e::fb"), 53)),
        // no link-local source
        udp((ip("2001:db8:1::99"), 40_000), (router, 53)),
        udp((ip("169.254.0.10"), 40_000), (ip("169.254.0.1"), 53)),
        udp((ip("::"), 40_000), (router, 53)),
        fragment(near, router, UDP, (7, 0, true), &rest),
    ] {
        assert_eq!(gate.drops(&frame, Reason::UnknownSource).key.server, 0);
    }
    gate.swap(&policy(""));
    gate.drops(&question, Reason::UnknownSource);
    gate.swap(&text);
    gate.passes(&question, Reason::Need);
}

#[test]
fn quarantine_closes_the_services_of_the_link() {
    let gate = TestGate::new(&policy("link_services = [\"udp/53\"]"));
    let (near, router) = actors();
    let question = udp((near, 40_000), (router, 53));
    gate.quarantine("web1", None).unwrap();
    gate.passes(&question, Reason::Need);
    gate.quarantine("ns1", None).unwrap();
    let row = gate.drops(&question, Reason::Quarantined);
    assert_eq!((row.key.server, row.key.port, row.key.flags), (gate.id_of("ns1"), 53, 0));
    gate.release("ns1").unwrap();
    gate.passes(&question, Reason::Need);
}

#[test]
fn quarantine_closes_the_services_of_the_link_in_observe_too() {
    let text = policy("link_services = [\"udp/53\"]").replace("[policy]", "[policy]\nmode = \"observe\"");
    let gate = TestGate::new(&text);
    let (near, router) = actors();
    let question = udp((near, 40_000), (router, 53));
    gate.passes(&question, Reason::Need);
    gate.would_drop(&udp((near, 40_000), (router, 54)), Reason::UnknownSource);
    gate.quarantine("ns1", None).unwrap();
    gate.drops(&question, Reason::Quarantined);
    gate.release("ns1").unwrap();
    gate.passes(&question, Reason::Need);
}

#[test]
fn a_server_of_a_vlan_asks_in_its_vlan_alone() {
    let text = policy("link_services = [\"udp/53\"]").replace("[servers.ns1]", "[servers.ns1]\nvlan = 7");
    let gate = TestGate::new(&text);
    let (near, router) = actors();
    let question = udp((near, 40_000), (router, 53));
    for tpid in [0x8100, 0x88a8] {
        gate.passes(&tagged(&question, tpid, 7), Reason::Need);
        gate.drops(&tagged(&question, tpid, 8), Reason::UnknownSource);
        gate.drops(&tagged(&tagged(&question, 0x8100, 7), tpid, 7), Reason::UnknownSource);
    }
    gate.drops(&question, Reason::UnknownSource);
    gate.drops(&tagged(&question, 0x8100, 0), Reason::UnknownSource);
    // without one, in any
    gate.swap(&policy("link_services = [\"udp/53\"]"));
    gate.passes(&question, Reason::Need);
    gate.passes(&tagged(&question, 0x8100, 8), Reason::Need);
}
