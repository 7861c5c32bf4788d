//! Every command dies before each of its changes of the kernel's state in turn, until it runs
//! through. Each time one whole policy is live, and the next command works.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::e2e::command::{Daemon, Outcome};
use crate::e2e::kills::{find_twin, kill_after, time_command};
use crate::e2e::policies::twin;
use crate::e2e::tap::Tap;
use crate::e2e::testbed::{NIC, Testbed, V4, exclusive, ip, share_machine};
use crate::support::chance::Chance;
use crate::support::patience::{PATIENCE, deadline, eventually};

/// More changes than any command makes.
pub const MOST_POINTS: usize = 1_000;
/// Of commands that load the programs, every so many-th point is tried.
const LOAD_STEP: usize = 9;

pub fn load_step() -> usize {
    std::env::var("PORTCULLIS_CHAOS_STEP").ok().and_then(|step| step.parse().ok()).unwrap_or(LOAD_STEP)
}

/// Runs a command that ends before its Nth change.
fn die_at(testbed: &Testbed, point: usize, args: &[&str]) -> Outcome {
    let mut command = testbed.router.prepare(args);
    command.env("PORTCULLIS_DIE_AT", point.to_string());
    Outcome::of(&mut command)
}

/// Whether it died where it should; whatever it said before that is no success.
#[track_caller]
pub fn died(outcome: &Outcome, point: usize) -> bool {
    match outcome.code {
        Some(0) => false,
        // nsenter hands on the signal
        None => {
            assert_eq!(outcome.out, "", "point {point}: it spoke before it was done");
            true
        }
        Some(_) => panic!("point {point}: {outcome:#?}"),
    }
}

/// Everything that is pinned, and whatever is left beside it.
pub fn list_pins(testbed: &Testbed) -> BTreeSet<String> {
    fn walk(folder: &Path, root: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, root, found);
            } else {
                found.insert(path.strip_prefix(root).expect("below it").display().to_string());
            }
        }
    }
    let pins = testbed.pins();
    let mut found = BTreeSet::new();
    walk(&pins, &pins, &mut found);
    let staging = format!("{}::new", pins.display());
    assert!(!Path::new(&staging).exists(), "half a gate is left at {staging}");
    found
}

/// What `show status` says is so: it may not say that the gate drops when it does not.
#[track_caller]
pub fn prove_status(testbed: &Testbed, tap: &Tap) {
    let outcome = testbed.run("show", &["status", "-j"]);
    match outcome.code {
        Some(0) => {
            let status = outcome.json();
            assert_eq!(status["enforcing"] == true, testbed.has_xdp(), "{status:#}");
            assert_eq!(status["attached"] == "native", testbed.has_xdp(), "{status:#}");
        }
        // none, or one that was cut short: with the way out
        _ => {
            outcome.refused(&["help:"]);
        }
    }
    if !testbed.has_xdp() {
        testbed.prove_passes(tap, 1);
    }
}

/// A gate with the first twin, both policies in files, and the tap.
pub fn stage() -> (Testbed, [String; 2], Tap) {
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let paths = [testbed.write("0.toml", &twin(0)), testbed.write("1.toml", &twin(1))];
    let tap = testbed.tap_internet();
    (testbed, paths, tap)
}

/// A half-open flow to a service that the second twin revokes: so there is something to do after
/// the swap. Nobody listens there.
fn open_what_only_the_first_allows(testbed: &Testbed) {
    let web = std::net::SocketAddr::new(ip(V4.web), 1500);
    testbed.internet.enter(|| {
        let refused = std::net::TcpStream::connect_timeout(&web, deadline(PATIENCE));
        assert!(refused.is_err(), "somebody listens");
    });
    assert!(testbed.show("flows").to_string().contains("half_open"), "the flow is not there");
}

#[test]
fn an_apply_that_dies_before_any_of_its_changes_leaves_one_whole_policy() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    let whole = list_pins(&testbed);
    let mut changed = 0;
    for point in 1..MOST_POINTS {
        open_what_only_the_first_allows(&testbed);
        let outcome = die_at(&testbed, point, &["apply", "-i", NIC, &paths[1]]);
        if !died(&outcome, point) {
            eprintln!("apply: {} points, {changed} of them after the swap", point - 1);
            assert!(point > 20 && changed >= 1, "{point} points, {changed} after the swap");
            assert_eq!(find_twin(&testbed, &place), 1);
            return;
        }
        changed += find_twin(&testbed, &place);
        if point % 4 == 0 {
            testbed.prove_drops(&tap, 1);
        }
        testbed.run("apply", &[&paths[0]]).done();
        assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        assert_eq!(list_pins(&testbed), whole, "point {point}");
    }
    panic!("it never ran through");
}

#[test]
fn an_edit_that_dies_before_any_of_its_changes_is_in_force_and_listed_or_neither() {
    let _machine = share_machine();
    let (testbed, _, tap) = stage();
    let allow = ["allow", "-i", NIC, "web1", "out", "udp/7777", "--for", "1h"];
    let is_allowed = || testbed.verdict("web1", V4.peer, "udp/7777").0 == "pass";
    let mut begun = 0;
    for point in 1..MOST_POINTS {
        let outcome = die_at(&testbed, point, &allow);
        let edits = testbed.show("edits").as_array().expect("a list").clone();
        assert_eq!(is_allowed(), !edits.is_empty(), "point {point}: {edits:#?}");
        if !died(&outcome, point) {
            eprintln!("allow: {} points, {begun} of them live", point - 1);
            assert!(point > 5 && begun >= 1, "{point} points, {begun} live");
            break;
        }
        begun += edits.len();
        for edit in edits {
            let number = edit["number"].to_string();
            // the cancellation dies as well, and then ends it
            for point in 1..MOST_POINTS {
                if !died(&die_at(&testbed, point, &["allow", "-i", NIC, "--cancel", &number]), point) {
                    break;
                }
                if testbed.show("edits").as_array().is_some_and(Vec::is_empty) {
                    assert!(!is_allowed(), "point {point}");
                    break;
                }
                assert!(is_allowed(), "point {point}");
            }
        }
        assert!(!is_allowed(), "point {point}");
    }
    testbed.prove_drops(&tap, 1);
}

#[test]
fn an_upgrade_that_dies_before_any_of_its_changes_leaves_the_gate_attached() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    let whole = list_pins(&testbed);
    for point in (1..MOST_POINTS).step_by(load_step()) {
        let outcome = die_at(&testbed, point, &["attach", "-i", NIC, "-p", &paths[1]]);
        if !died(&outcome, point) {
            eprintln!("attach on a gate: at most {} points", point - 1);
            assert!(point > 20);
            return;
        }
        assert!(testbed.has_xdp(), "point {point}");
        find_twin(&testbed, &place);
        testbed.prove_drops(&tap, 1);
        testbed.run("attach", &["-p", &paths[0]]).done();
        assert_eq!(find_twin(&testbed, &place), 0, "point {point}");
        assert_eq!(list_pins(&testbed), whole, "point {point}");
    }
    panic!("it never ran through");
}

#[test]
fn a_first_attach_that_dies_before_any_of_its_changes_claims_nothing_and_the_next_works() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let whole = list_pins(&testbed);
    testbed.detach();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        let outcome = die_at(&testbed, point, &["attach", "-i", NIC, "-p", &paths[0]]);
        if !died(&outcome, point) {
            eprintln!("first attach: at most {} points", point - 1);
            assert!(point > 50);
            return;
        }
        prove_status(&testbed, &tap);
        testbed.run("attach", &["-p", &paths[0]]).done();
        assert_eq!(list_pins(&testbed), whole, "point {point}");
        testbed.prove_drops(&tap, 1);
        testbed.detach();
        assert!(!testbed.pins().exists() && !testbed.has_xdp(), "point {point}");
    }
    panic!("it never ran through");
}

#[test]
fn a_detach_that_dies_before_any_of_its_changes_is_finished_by_the_next() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        let outcome = die_at(&testbed, point, &["detach", "-i", NIC]);
        if !died(&outcome, point) {
            eprintln!("detach: at most {} points", point - 1);
            assert!(point > 20);
            return;
        }
        prove_status(&testbed, &tap);
        // whoever does not know better tries to attach it again
        let outcome = testbed.run("attach", &["-p", &paths[0]]);
        if outcome.code == Some(0) {
            testbed.prove_drops(&tap, 1);
        } else {
            outcome.refused(&["incomplete", "help:", "detach -i dmz0"]);
        }
        testbed.detach();
        assert!(!testbed.pins().exists() && !testbed.has_xdp(), "point {point}");
        list_pins(&testbed);
        testbed.run("attach", &["-p", &paths[0]]).done();
        testbed.prove_drops(&tap, 1);
    }
    panic!("it never ran through");
}

#[test]
fn a_quarantine_or_release_that_dies_is_whole_or_not_there() {
    let _machine = share_machine();
    let (testbed, _, tap) = stage();
    let is_quarantined = || {
        let status = testbed.show("status");
        let listed = status["quarantined"].to_string().contains("mx1");
        let cut = testbed.verdict("192.0.2.25", "198.51.100.99", "udp/9000").1 == "quarantined";
        assert_eq!(listed, cut, "what is said and what is done: {status:#}");
        cut
    };
    for (command, wanted) in [("quarantine", true), ("release", false)] {
        let mut through = false;
        for point in 1..MOST_POINTS {
            let outcome = die_at(&testbed, point, &[command, "-i", NIC, "mx1"]);
            through = !died(&outcome, point);
            let now = is_quarantined();
            if through {
                assert_eq!(now, wanted);
                break;
            }
            testbed.prove_drops(&tap, 1);
            // a retry mends it, from wherever it stands
            testbed.run(command, &["mx1"]);
            assert_eq!(is_quarantined(), wanted, "{command}, point {point}");
            testbed.run(if wanted { "release" } else { "quarantine" }, &["mx1"]).done();
        }
        assert!(through, "{command} never ran through");
    }
}

#[test]
fn a_quarantine_of_an_address_and_its_file_are_whole_or_not_there_wherever_a_command_dies() {
    let _machine = share_machine();
    let (testbed, paths, _tap) = stage();
    let mail = "192.0.2.25";
    let cut = || testbed.verdict(mail, "198.51.100.99", "udp/9000").1 == "quarantined";
    let listed = || testbed.quarantined_addresses().len() == 1;
    for (command, wanted) in [("quarantine", true), ("release", false)] {
        let mut through = false;
        for point in 1..MOST_POINTS {
            let outcome = die_at(&testbed, point, &[command, "-i", NIC, mail]);
            through = !died(&outcome, point);
            assert_eq!(listed(), cut(), "{command}, point {point}: what is said and what is done");
            let now = cut();
            // the router reboots just then: either the one or the other, and nothing is damaged
            testbed.reboot();
            let said = testbed.run("attach", &["-p", &paths[0]]).done();
            assert!(!said.err.contains("quarantine"), "{command}, point {point}: {said:#?}");
            assert_eq!(listed(), cut(), "{command}, point {point}, after a reboot");
            if through {
                assert_eq!((now, cut()), (wanted, wanted), "{command}");
                break;
            }
            // a retry mends it, from wherever it stands, for the next reboot too
            testbed.run(command, &[mail]).done();
            assert_eq!(cut(), wanted, "{command}, point {point}");
            testbed.run(if wanted { "release" } else { "quarantine" }, &[mail]).done();
        }
        assert!(through, "{command} never ran through");
    }
}

#[test]
fn a_pickup_that_dies_before_any_of_its_changes_is_whole_or_not_there() {
    let _machine = share_machine();
    let (testbed, _, tap) = stage();
    let left = || testbed.show("status")["pickup_s"].as_u64().expect("seconds");
    let (mut opened, mut before) = (0, 0);
    for point in 1..MOST_POINTS {
        let outcome = die_at(&testbed, point, &["pickup", "-i", NIC, "--for", "10m"]);
        if !died(&outcome, point) {
            eprintln!("pickup: {} points, {opened} of them after it was done", point - 1);
            assert!(point > 2 && opened >= 1 && before >= 1, "{point} points, {opened} after it was done");
            testbed.prove_drops(&tap, 1);
            return;
        }
        if left() > 0 { opened += 1 } else { before += 1 }
    }
    panic!("it never ran through");
}

#[test]
fn an_apply_that_dies_and_renames_a_server_in_quarantine_never_frees_it() {
    let _machine = share_machine();
    let (testbed, paths, _tap) = stage();
    // the one has it as `first`, the other as `second`
    let cut = || testbed.verdict("192.0.2.53", "198.51.100.99", "udp/9000").1 == "quarantined";
    testbed.run("quarantine", &["first"]).done();
    for point in 1..MOST_POINTS {
        let outcome = die_at(&testbed, point, &["apply", "-i", NIC, &paths[1]]);
        let through = !died(&outcome, point);
        assert!(cut(), "point {point}");
        if through {
            assert!(
                outcome.out.contains("192.0.2.53 stays in quarantine: it was first's, and second has it now")
            );
            testbed.run("release", &["second"]).done();
            assert!(!cut());
            return;
        }
        testbed.run("apply", &[&paths[0]]).done();
        assert!(cut(), "point {point}");
    }
    panic!("it never ran through");
}

#[test]
fn an_attach_that_dies_while_it_restores_quarantines_is_followed_by_one_that_does() {
    let _machine = share_machine();
    let (testbed, paths, _tap) = stage();
    testbed.run("quarantine", &["mx1"]).done();
    testbed.run("quarantine", &["192.0.2.80"]).done();
    let cut = || {
        ["192.0.2.25", "192.0.2.80"]
            .map(|from| testbed.verdict(from, "198.51.100.99", "udp/9000").1 == "quarantined")
    };
    testbed.detach();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        let outcome = die_at(&testbed, point, &["attach", "-i", NIC, "-p", &paths[0]]);
        let through = !died(&outcome, point);
        if !through {
            testbed.run("attach", &["-p", &paths[0]]).done();
        }
        assert_eq!(cut(), [true, true], "point {point}");
        if through {
            return;
        }
        testbed.detach();
    }
    panic!("it never ran through");
}

#[test]
fn a_fall_back_that_dies_before_any_of_its_changes_is_followed_by_one_that_attaches_the_gate() {
    let _machine = share_machine();
    let (testbed, _, tap) = stage();
    let bad = testbed.write("bad.toml", "[polcy]\n");
    testbed.run("quarantine", &["mx1"]).done();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        testbed.reboot();
        let outcome = die_at(&testbed, point, &["attach", "--fall-back", "-i", NIC, "-p", &bad]);
        let through = outcome.code.is_some();
        prove_status(&testbed, &tap);
        testbed.run("attach", &["--fall-back", "-p", &bad]).refused(&["attached and enforcing"]);
        prove_whole_with_quarantine(&testbed, &tap, point);
        if through {
            assert!(point > 50);
            return;
        }
    }
    panic!("it never ran through");
}

/// After a death at this point the gate drops, its pins are whole, and `mx1` is in quarantine.
#[track_caller]
fn prove_whole_with_quarantine(testbed: &Testbed, tap: &Tap, point: usize) {
    testbed.prove_drops(tap, 1);
    let cut = testbed.verdict("192.0.2.25", "198.51.100.99", "udp/9000").1;
    assert_eq!(cut, "quarantined", "point {point}");
    list_pins(testbed);
}

#[test]
fn an_attach_that_dies_before_it_has_kept_its_policy_leaves_whole_confirmed_ones() {
    let _machine = share_machine();
    let (testbed, paths, _tap) = stage();
    let bad = testbed.write("bad.toml", "[polcy]\n");
    for point in 1..MOST_POINTS {
        let outcome = die_at(&testbed, point, &["apply", "-i", NIC, &paths[1]]);
        let through = !died(&outcome, point);
        testbed.reboot();
        let said =
            testbed.run("attach", &["--fall-back", "-p", &bad]).refused(&["is attached and enforcing"]);
        assert!(!said.err.contains("can't be used"), "point {point}: {said:#?}");
        if through {
            assert!(said.err.contains("1.toml"), "{said:#?}");
            return;
        }
        testbed.run("apply", &[&paths[0]]).done();
    }
    panic!("it never ran through");
}

#[test]
fn a_gate_of_an_older_layout_stays_until_the_new_one_is_there_wherever_its_attach_dies() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    testbed.run("quarantine", &["mx1"]).done();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        let state =
            libbpf_rs::MapHandle::from_pinned_path(testbed.pins().join("maps/state")).expect("the map");
        let older = u64::from(portcullis::abi::layout::LAYOUT_VERSION.0) - 1;
        libbpf_rs::MapCore::update(
            &state,
            &0_u32.to_ne_bytes(),
            &older.to_ne_bytes(),
            libbpf_rs::MapFlags::ANY,
        )
        .expect("a write");
        drop(state);
        let outcome = die_at(&testbed, point, &["attach", "-i", NIC, "-p", &paths[0]]);
        let through = !died(&outcome, point);
        assert!(testbed.has_xdp(), "point {point}");
        testbed.run("attach", &["-p", &paths[0]]).done();
        prove_whole_with_quarantine(&testbed, &tap, point);
        if through {
            assert!(point > 50);
            return;
        }
    }
    panic!("it never ran through");
}

/// Starts a daemon that dies before its Nth change; false: it made fewer, and ended when it was asked to.
fn daemon_dies_at(testbed: &Testbed, point: usize, policy: &str) -> bool {
    let mut command = testbed.router.prepare(&["run", "-i", NIC, "-p", policy]);
    command.env("PORTCULLIS_DIE_AT", point.to_string());
    let mut daemon = Daemon::start(command);
    let mut is_up = false;
    eventually("the daemon dies or comes up", || {
        is_up = !daemon.find(&["attached to dmz0: "]).is_empty();
        is_up || !daemon.is_running()
    });
    if is_up {
        daemon.signal(Signal::SIGTERM);
    }
    // the last changes come after the gate is attached: audit events, and how far they were reported
    let status = daemon.wait();
    assert!(is_up && status.success() || status.code().is_none(), "point {point}: {:#?}", daemon.said());
    !status.success()
}

#[test]
fn a_daemon_that_dies_before_any_of_its_changes_leaves_the_gate_attached_and_the_next_works() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        if !daemon_dies_at(&testbed, point, &paths[1]) {
            eprintln!("run on a gate: at most {} points", point - 1);
            assert!(point > 20);
            // neither locks nor sockets of those before are in the way
            let mut daemon = testbed.daemon(&twin(0), &[]);
            testbed.prove_drops(&tap, 1);
            assert!(daemon.end(Signal::SIGTERM).success());
            return;
        }
        assert!(testbed.has_xdp(), "point {point}");
        find_twin(&testbed, &place);
        testbed.prove_drops(&tap, 1);
    }
    panic!("it never came up");
}

#[test]
fn a_first_daemon_that_dies_before_any_of_its_changes_claims_nothing_and_the_next_works() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    testbed.detach();
    for point in (1..MOST_POINTS).step_by(load_step()) {
        if !daemon_dies_at(&testbed, point, &paths[0]) {
            eprintln!("first run: at most {} points", point - 1);
            assert!(point > 50);
            return;
        }
        prove_status(&testbed, &tap);
        let mut daemon = testbed.daemon(&twin(0), &[]);
        testbed.prove_drops(&tap, 1);
        assert!(daemon.end(Signal::SIGTERM).success());
        testbed.detach();
        assert!(!testbed.pins().exists() && !testbed.has_xdp(), "point {point}");
    }
    panic!("it never came up");
}

#[test]
fn small_commands_killed_at_random_moments_change_nothing_by_halves() {
    const KILLS: usize = 10;
    let _machine = exclusive();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    let mut chance = Chance::new(0x00c0_ffee);
    let commands: [&[&str]; 6] = [
        &["quarantine", "-i", NIC, "mx1"],
        &["release", "-i", NIC, "mx1"],
        &["diff", "-i", NIC, &paths[0]],
        &["show", "-i", NIC, "status"],
        &["show", "-i", NIC, "drops"],
        &["explain", "-i", NIC, "--from", "192.0.2.80", "--to", "198.51.100.99", "tcp/80"],
    ];
    for args in commands {
        let whole = time_command(&testbed, args);
        for _ in 0..KILLS {
            kill_after(&testbed, args, chance.time(whole));
            assert_eq!(find_twin(&testbed, &place), 0);
        }
        testbed.prove_drops(&tap, 1);
    }
    // and whatever they left, the next ones mend
    testbed.run("quarantine", &["mx1"]).done();
    assert_eq!(testbed.verdict("192.0.2.25", "198.51.100.99", "udp/9000").1, "quarantined");
    testbed.run("release", &["mx1"]).done();
    assert_eq!(testbed.verdict("192.0.2.25", "198.51.100.99", "udp/9000").0, "pass");
}

#[test]
fn two_writers_at_once_both_come_to_an_end_and_one_whole_policy_is_live() {
    let _machine = share_machine();
    let (testbed, paths, tap) = stage();
    let place = testbed.place();
    // an apply of the policy that is live changes nothing
    let changes = std::sync::atomic::AtomicU64::new(0);
    for _ in 0..5 {
        std::thread::scope(|scope| {
            for path in [&paths[0], &paths[1], &paths[0], &paths[1]] {
                let (testbed, changes) = (&testbed, &changes);
                scope.spawn(move || {
                    let unchanged = testbed.run("apply", &[path, "-j"]).done().json()["unchanged"].clone();
                    changes.fetch_add(u64::from(unchanged == false), std::sync::atomic::Ordering::Relaxed);
                });
            }
            let (testbed, path) = (&testbed, &paths[0]);
            scope.spawn(move || testbed.run("quarantine", &["mx1"]).done());
            scope.spawn(move || testbed.run("diff", &[path]));
        });
        find_twin(&testbed, &place);
        testbed.run("release", &["mx1"]).done();
    }
    let changes = changes.into_inner();
    assert!(changes >= 5, "{changes} changes");
    assert_eq!(testbed.show("status")["generation"], 1 + changes, "each apply counts");
    testbed.prove_drops(&tap, 1);
}

#[test]
fn the_fault_points_are_in_builds_with_debug_assertions_and_in_no_release() {
    // run by `cargo test --release`, this proves that they are not there
    let program = std::fs::read(env!("CARGO_BIN_EXE_portcullis")).expect("the program");
    let names: [&[u8]; 4] =
        [b"PORTCULLIS_DIE_AT", b"PORTCULLIS_NO_ROOM_AT", b"PORTCULLIS_NO_TCX", b"PORTCULLIS_CLOCK_OFFSET"];
    for name in names {
        let is_there = program.windows(name.len()).any(|window| window == name);
        assert_eq!(is_there, cfg!(debug_assertions), "{}", String::from_utf8_lossy(name));
    }
    // what people install has no debug assertions, nor can the manifest put them in
    let manifest = include_str!("../../../Cargo.toml");
    let release = manifest.split_once("[profile.release]").expect("a release profile").1;
    let release = release.split("\n[").next().unwrap_or_default();
    assert!(!release.contains("debug-assertions"), "{release}");
}
