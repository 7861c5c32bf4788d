//! `--fall-back`: a policy that is refused never leaves the NIC without a gate.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use portcullis::abi::layout;

use super::command::{Daemon, Outcome};
use super::policies::dmz;
use super::socket::udp;
use super::testbed::{NIC, Testbed, V4, ip, share_machine};
use crate::support::patience::eventually;

/// A way to break the policy file at this path.
type Break = fn(&str);

const BREAKS: [(&str, Break); 5] = [
    ("a mistake", |path| fs::write(path, "[polcy]\n").expect("a file")),
    ("no file", |path| fs::remove_file(path).expect("the file")),
    ("no set file", |path| {
        let text = dmz().replace("[sets]", "[sets]\nnone = { file = \"none.txt\" }");
        fs::write(path, text).expect("a file");
    }),
    ("a FIFO", |path| {
        fs::remove_file(path).expect("the file");
        mkfifo(path, Mode::S_IRWXU).expect("a FIFO");
    }),
    ("a folder", |path| {
        fs::remove_file(path).expect("the file");
        fs::create_dir(path).expect("a folder");
    }),
];

fn attach(testbed: &Testbed, path: &str) -> Outcome {
    testbed.run("attach", &["--fall-back", "-p", path])
}

pub fn set_layout(testbed: &Testbed, version: u64) {
    let state = MapHandle::from_pinned_path(testbed.pins().join("maps/state")).expect("the map");
    state.update(&0_u32.to_ne_bytes(), &version.to_ne_bytes(), MapFlags::ANY).expect("a write");
}

fn restore(path: &str) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir(path);
    fs::write(path, dmz()).expect("a file");
}

#[test]
fn whatever_is_wrong_with_the_policy_the_last_confirmed_one_is_attached_at_boot_with_its_quarantines() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("dmz0.toml", &dmz());
    attach(&testbed, &path).done();
    testbed.run("quarantine", &["mx1"]).done();
    for (what, spoil) in BREAKS {
        eprintln!("{what}");
        let generation = testbed.show("status")["generation"].clone();
        spoil(&path);
        // a gate that is attached stays
        attach(&testbed, &path).refused(&["stays attached and enforcing", "confirmed 20", "help: repair"]);
        assert_eq!(testbed.show("status")["generation"], generation, "{what}");
        testbed.reboot();
        if what != "a FIFO" {
            // typed by a person
            assert_eq!(testbed.run("attach", &["-p", &path]).code, Some(1), "{what}");
            assert!(!testbed.has_xdp(), "{what}");
        }
        attach(&testbed, &path).refused(&["is attached and enforcing", "last confirmed policy", &path]);
        testbed.prove_drops(&tap, 2);
        let cut = testbed.verdict(V4.mail, V4.exchanger, "tcp/25").1;
        assert_eq!(cut, "quarantined", "{what}");
        restore(&path);
        attach(&testbed, &path).done();
        testbed.reboot();
        attach(&testbed, &path).done();
    }
}

#[test]
fn without_a_confirmed_policy_the_command_says_that_there_is_no_gate() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", "[polcy]\n");
    for command in ["attach", "run"] {
        let outcome = testbed.run(command, &["--fall-back", "-p", &path]);
        outcome.failed(2, &["NO GATE is attached to dmz0", "no policy was ever confirmed"]);
        assert!(!testbed.has_xdp());
    }
}

#[test]
fn a_damaged_confirmed_policy_gives_way_to_the_one_before_it() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("dmz0.toml", &dmz());
    attach(&testbed, &path).done();
    testbed.apply(&format!("# the second\n{}", dmz()));
    let second = testbed.history().join("policies/2.toml");
    fs::write(&second, "damaged").expect("a file");
    fs::write(&path, "[polcy]\n").expect("a file");
    testbed.reboot();
    attach(&testbed, &path).refused(&["2.toml can't be used", "is attached and enforcing"]);
    testbed.prove_drops(&tap, 2);
}

#[test]
fn the_daemon_goes_on_under_the_last_confirmed_policy_and_raises_a_critical_alarm() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let path = testbed.write("dmz0.toml", &dmz());
    attach(&testbed, &path).done();
    testbed.reboot();
    fs::write(&path, "[polcy]\n").expect("a file");
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "--fall-back", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["was refused", "last confirmed policy"]);
    daemon.wait_for_line(&["critical", "gate"]);
    testbed.prove_drops(&tap, 2);
    fs::write(&path, dmz()).expect("a file");
    daemon.signal(Signal::SIGHUP);
    daemon.wait_for_line(&["generation 3 is live"]);
    assert!(daemon.end(Signal::SIGTERM).success());
}

#[test]
fn a_gate_of_an_older_layout_is_replaced_without_a_gap_and_keeps_its_quarantines() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.attach(&dmz());
    testbed.run("quarantine", &["mx1"]).done();
    let tap = testbed.tap_internet();
    for _ in 0..2 {
        set_layout(&testbed, u64::from(layout::LAYOUT_VERSION.0) - 1);
        testbed.run("show", &["status"]).refused(&["attach replaces the gate without a gap"]);
        let said = testbed.run("attach", &["-p", &path]).done();
        assert!(said.out.contains("mx1") && said.err.contains("made anew"), "{said:#?}");
        assert!(!testbed.pins().with_file_name("dmz0::new").exists());
        testbed.prove_drops(&tap, 3);
        assert_eq!(testbed.verdict(V4.mail, V4.exchanger, "tcp/25").1, "quarantined");
    }
}

#[test]
fn a_worm_that_never_stops_gets_no_packet_out_while_gates_of_an_older_layout_are_replaced() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    let is_over = AtomicBool::new(false);
    let sent = thread::scope(|scope| {
        let worm = scope.spawn(|| {
            let socket = udp(&testbed.dmz, V4.web, 0);
            let mut sent = 0_u64;
            while !is_over.load(Ordering::Relaxed) {
                let _ = socket.send_to(b"worm", SocketAddr::new(ip(V4.peer), 4_711));
                sent += 1;
            }
            sent
        });
        for _ in 0..5 {
            set_layout(&testbed, u64::from(layout::LAYOUT_VERSION.0) - 1);
            testbed.run("attach", &["-p", &path]).done();
        }
        is_over.store(true, Ordering::Relaxed);
        worm.join().expect("the worm")
    });
    assert!(sent > 1_000, "{sent} packets");
    testbed.prove_drops(&tap, 2);
    assert_eq!(tap.count_to(ip(V4.web), 17, 4_711), 0, "of {sent} packets");
    testbed.detach();
    testbed.wait_for_detach();
    let worm = udp(&testbed.dmz, V4.web, 0);
    eventually("the tap would have seen it", || {
        let _ = worm.send_to(b"worm", SocketAddr::new(ip(V4.peer), 4_711));
        tap.count_to(ip(V4.web), 17, 4_711) > 0
    });
    testbed.attach(&dmz());
    assert_eq!(testbed.show("status")["attached"], "native");
}

#[test]
fn under_fall_back_a_newer_layout_stays_in_force_and_missing_pins_are_made_anew() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &dmz());
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    set_layout(&testbed, 99);
    attach(&testbed, &path).refused(&["layout 99", "stays attached, unchanged"]);
    set_layout(&testbed, u64::from(layout::LAYOUT_VERSION.0));
    testbed.prove_drops(&tap, 2);
    fs::remove_file(testbed.pins().join("maps/ledger")).expect("a pin");
    attach(&testbed, &path).done();
    testbed.prove_drops(&tap, 2);
}
