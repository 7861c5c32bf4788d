//! What depends on the kernel and its drivers: NICs with and without XDP, VLAN tags, bonds, queueing,
//! the tracker's hook. `scripts/vm` runs this tier in a virtual machine for each kernel; it needs NICs that
//! only such a machine has.

mod bonds;
mod conntrack;
mod cpus;
mod netem;
mod nics;
mod tracker;
mod vlans;

use std::net::SocketAddr;

use crate::e2e::policies::dmz;
use crate::e2e::socket::{ARRIVES, NEVER, TcpServer, tcp_talks};
use crate::e2e::tap::Tap;
use crate::e2e::testbed::{FAMILIES, Testbed, V4, ip};
use crate::support::patience::eventually;

/// Peers reach the web server in both families, which takes the filter and the tracker.
#[track_caller]
fn prove_service(testbed: &Testbed) {
    let _server = TcpServer::start(&testbed.dmz, 80);
    for family in FAMILIES {
        let web = SocketAddr::new(ip(family.web), 80);
        eventually(&format!("{} is served", family.peer), || {
            tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES)
        });
    }
}

/// The web server opens nothing, and nothing that it tries gets out.
#[track_caller]
fn prove_gate(testbed: &Testbed, tap: &Tap) {
    prove_service(testbed);
    testbed.prove_drops(tap, 5);
    let _beyond = TcpServer::start(&testbed.internet, 80);
    let target = SocketAddr::new(ip(V4.peer), 80);
    assert!(!tcp_talks(&testbed.dmz, ip(V4.web), target, NEVER), "the web server got out");
}

/// Passes, drops, passes again; how the filter is attached meanwhile, and what `attach` said of it.
#[track_caller]
fn prove_cycle(testbed: &Testbed) -> (String, String) {
    let tap = testbed.tap_internet();
    testbed.prove_passes(&tap, 3);
    let said = testbed.attach(&dmz()).err;
    prove_gate(testbed, &tap);
    let status = testbed.show("status");
    assert_eq!(status["enforcing"], true, "{status:#}");
    testbed.detach();
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 3);
    (status["attached"].as_str().expect("a word").to_owned(), said)
}
