//! The NIC goes down, comes up, goes away, grows; its namespace dies.

use std::fs;

use nix::sys::signal::Signal;

use crate::e2e::policies::{dmz, twin};
use crate::e2e::testbed::{NIC, Testbed, exclusive, share_machine};
use crate::e2e::traffic::Traffic;
use crate::support::patience::eventually;

#[test]
fn a_nic_that_goes_down_and_up_again_keeps_its_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    testbed.attach(&dmz());
    for round in 0..3 {
        testbed.router.ip(&format!("link set {NIC} down\n"));
        let status = testbed.show("status");
        assert_eq!((&status["attached"], &status["tracker"]), (&"native".into(), &"tcx".into()), "{round}");
        testbed.restore_after_down();
        testbed.prove_drops(&tap, 3);
    }
    assert_eq!(testbed.show("status")["generation"], 1);
}

#[test]
fn a_nic_made_again_has_no_gate_until_somebody_attaches_it_and_every_command_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("policy.toml", &dmz());
    testbed.attach(&dmz());
    testbed.prove_drops(&tap, 2);
    testbed.replace_cable();
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"no".into(), &false.into()), "{status:#}");
    assert!(status["warnings"].to_string().contains("nothing is dropped"), "{status:#}");
    testbed.run("apply", &[&path]).refused(&["NOT ATTACHED: nothing is dropped", "help: portcullis attach"]);
    testbed.run("attach", &["-p", &path]).done();
    testbed.prove_drops(&tap, 2);

    // a daemon attaches it by itself
    let mut daemon = testbed.daemon(&dmz(), &[]);
    testbed.replace_cable();
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was"]);
    daemon.wait_for_line(&["attached to dmz0 again: native"]);
    testbed.prove_drops(&tap, 2);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_larger_mtu_leaves_the_gate_in_the_driver_and_jumbo_frames_are_judged() {
    const JUMBO: usize = 8_000;
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    for mtu in [3_600, 9_000, 1_500, 9_000] {
        testbed.router.ip(&format!("link set {NIC} mtu {mtu}\nlink set wan0 mtu {mtu}\n"));
        testbed.dmz.ip(&format!("link set eth0 mtu {mtu}\n"));
        testbed.internet.ip(&format!("link set eth0 mtu {mtu}\n"));
        let status = testbed.show("status");
        assert_eq!(
            (&status["attached"], &status["enforcing"]),
            (&"native".into(), &true.into()),
            "mtu {mtu}"
        );
        testbed.prove_drops(&tap, 2);
    }
    // one frame of several buffers: forbidden, then permitted
    let send = |from: &str, port: u16| {
        let socket = crate::e2e::socket::udp(&testbed.dmz, from, 0);
        let to = std::net::SocketAddr::new(crate::e2e::testbed::ip("198.51.100.99"), port);
        socket.send_to(&vec![0x5a; JUMBO], to).expect("a jumbo datagram");
    };
    let before = testbed.dropped("web1", "udp", 4_001, "new_flow");
    send("192.0.2.80", 4_001);
    eventually("the jumbo frame is dropped", || {
        testbed.dropped("web1", "udp", 4_001, "new_flow") == before + 1
    });
    send("192.0.2.53", 53);
    eventually("the permitted one passes", || tap.count(|one| one.payload_bytes == JUMBO) == 1);
    testbed.catch_up(&tap);
    assert_eq!(tap.count(|one| one.destination_port == 4_001), 0);
}

#[test]
fn policies_are_swapped_while_the_nic_goes_down_and_up() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let leak = testbed.tap_internet();
    for which in 1..=6 {
        testbed.router.ip(&format!("link set {NIC} down\n"));
        testbed.apply(&twin(which));
        testbed.restore_after_down();
        testbed.prove_drops(&leak, 1);
    }
    // and traffic goes on as before
    let traffic = Traffic::start(&testbed);
    traffic.flow();
    traffic.stop(&testbed);
}

#[test]
fn a_namespace_that_is_deleted_under_its_gate_takes_no_other_gate_with_it() {
    let _machine = share_machine();
    let (gone, stays) = (Testbed::new(), Testbed::new());
    let tap = stays.tap_internet();
    stays.attach(&dmz());
    let mut daemon = gone.daemon(&dmz(), &[]);
    let pins = gone.pins();
    // the daemon lives in it, so the kernel keeps it; its NICs go
    gone.router.ip(&format!("link delete {NIC}\n"));
    daemon.wait_for_line(&["opened: critical gate", "no longer attached (was"]);
    assert!(daemon.end(Signal::SIGTERM).success());
    gone.run("show", &["status"]).refused(&["no interface `dmz0`"]);
    // what is pinned can be removed without its NIC
    assert!(pins.exists());
    gone.detach();
    assert!(!pins.exists());
    drop(gone);
    assert!(!fs::exists(&pins).expect("a bpffs"));
    stays.prove_drops(&tap, 3);
    assert_eq!(stays.show("status")["attached"], "native");
}
