//! Whatever is killed at whatever moment, one whole policy stays live, and the next command
//! works as if nothing had happened.

use std::time::{Duration, Instant};

use portcullis::gate::{AttachMode, Gate, GatePlace, Verdict};

use super::command::Running;
use super::policies::twin;
use super::testbed::{NIC, Testbed, V4, exclusive, tracker_hook};
use super::traffic::{Traffic, syn};
use crate::support::chance::Chance;

const APPLY_KILLS: u32 = 120;
/// Of each command that loads the programs, which takes the kernel most of a second.
const LOAD_KILLS: u32 = 12;

/// Starts a command and kills it after a time; returns whether it was still at work.
pub fn kill_after(testbed: &Testbed, args: &[&str], time: Duration) -> bool {
    let running = Running::start(testbed.router.prepare(args));
    // the moment is what this is about
    std::thread::sleep(time);
    running.kill()
}

/// How long a command takes, and a little more: in this time it is killed.
pub fn time_command(testbed: &Testbed, args: &[&str]) -> Duration {
    let start = Instant::now();
    testbed.router.portcullis(args).done();
    start.elapsed() * 6 / 5
}

/// Which of the twins is live; its text and its verdicts agree, and it is attached.
#[track_caller]
pub fn find_twin(testbed: &Testbed, place: &GatePlace) -> usize {
    let (gate, mode) = testbed.router.enter(|| {
        let gate = Gate::open(place).expect("a gate");
        let mode = gate.find_mode(place).expect("a mode");
        (gate, mode)
    });
    assert_eq!(mode, AttachMode::Native);
    let (text, _) = gate.live_source().expect("the live policy").expect("a policy");
    let which = [0, 1].into_iter().find(|which| twin(*which) == text);
    let which = which.unwrap_or_else(|| panic!("neither policy is live, but:\n{text}"));
    for (twin, port) in [(0, 9001), (1, 9002)] {
        let answer = gate.explain(&syn(port), false, None).expect("an answer");
        let expected = if twin == which { Verdict::Pass } else { Verdict::Drop };
        assert_eq!(answer.verdict, expected, "tcp/{port} under policy {which}");
    }
    which
}

/// As [`find_twin`], by what the commands say.
#[track_caller]
fn ask_twin(testbed: &Testbed) -> usize {
    let text = testbed.run("show", &["policy"]).done().out;
    let which = [0, 1].into_iter().find(|which| twin(*which) == text).expect("one of the policies");
    for (twin, port) in [(0, "tcp/9001"), (1, "tcp/9002")] {
        let (verdict, _) = testbed.verdict(V4.web, V4.peer, port);
        assert_eq!(verdict, if twin == which { "pass" } else { "drop" }, "{port} under policy {which}");
    }
    let status = testbed.show("status");
    assert_eq!((&status["attached"], &status["enforcing"]), (&"native".into(), &true.into()), "{status:#}");
    which
}

/// A gate with one of the twins, the files of both, and traffic that flows.
fn start_traffic() -> (Testbed, [String; 2], Traffic) {
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let paths = [testbed.write("0.toml", &twin(0)), testbed.write("1.toml", &twin(1))];
    let traffic = Traffic::start(&testbed);
    traffic.flow();
    (testbed, paths, traffic)
}

#[test]
fn an_apply_that_is_killed_leaves_the_old_policy_or_the_new_one() {
    let _machine = exclusive();
    let (testbed, paths, traffic) = start_traffic();
    let place = testbed.place();
    let whole = time_command(&testbed, &["apply", "-i", NIC, &paths[0]]);
    let mut chance = Chance::new(0x9e37_79b9);
    let (mut old, mut at_work, mut changed) = (0, 0, 0);
    for number in 0..APPLY_KILLS {
        let time = chance.time(whole);
        at_work += u32::from(kill_after(&testbed, &["apply", "-i", NIC, &paths[1 - old]], time));
        let live = find_twin(&testbed, &place);
        if number % 10 == 0 {
            assert_eq!(ask_twin(&testbed), live);
        }
        changed += u32::from(live != old);
        // the next one works, whichever it is
        old = 1 - live;
        testbed.run("apply", &[&paths[old]]).done();
        assert_eq!(find_twin(&testbed, &place), old);
    }
    let report = traffic.stop(&testbed);
    eprintln!("{at_work} of {APPLY_KILLS} were killed at work, {changed} had changed the policy; {report:?}");
    assert!(at_work >= 10 && (1..APPLY_KILLS).contains(&changed), "the moments do not spread");
}

#[test]
fn an_upgrade_or_a_daemon_that_is_killed_leaves_the_gate_whole() {
    let _machine = exclusive();
    let (testbed, paths, traffic) = start_traffic();
    let place = testbed.place();
    let whole = time_command(&testbed, &["attach", "-i", NIC, "-p", &paths[0]]);
    let mut chance = Chance::new(0x2545_f491);
    let mut old = 0;
    for command in ["attach", "run"] {
        let mut at_work = 0;
        for number in 0..LOAD_KILLS {
            let time = chance.time(whole);
            let args = [command, "-i", NIC, "-p", &paths[1 - old]];
            at_work += u32::from(kill_after(&testbed, &args, time));
            let live = find_twin(&testbed, &place);
            assert_eq!(ask_twin(&testbed), live);
            old = 1 - live;
            if number % 4 == 0 {
                testbed.run("attach", &["-p", &paths[old]]).done();
            } else {
                testbed.run("apply", &[&paths[old]]).done();
            }
            assert_eq!(find_twin(&testbed, &place), old);
        }
        eprintln!("{at_work} of {LOAD_KILLS} were killed at work: {command}");
        assert!(at_work >= 3, "{command} was killed at work {at_work} times");
    }
    traffic.stop(&testbed);
}

#[test]
fn a_first_attach_that_is_killed_does_not_block_the_next() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &super::policies::dmz());
    let tap = testbed.tap_internet();
    let mut chance = Chance::new(0x1234_5678);
    let whole = time_command(&testbed, &["attach", "-i", NIC, "-p", &path]);
    testbed.detach();
    for _ in 0..LOAD_KILLS {
        kill_after(&testbed, &["attach", "-i", NIC, "-p", &path], chance.time(whole));
        testbed.run("attach", &["-p", &path]).done();
        let status = testbed.show("status");
        assert_eq!((&status["attached"], &status["tracker"]), (&"native".into(), &tracker_hook().into()));
        assert_eq!(status["warnings"], serde_json::json!([]));
        testbed.prove_drops(&tap, 2);
        testbed.detach();
        assert!(!testbed.pins().exists(), "pins are left");
        testbed.wait_for_detach();
        testbed.prove_passes(&tap, 1);
    }
}

#[test]
fn a_detach_that_is_killed_is_finished_by_the_next_one() {
    let _machine = exclusive();
    let testbed = Testbed::new();
    let path = testbed.write("policy.toml", &super::policies::dmz());
    let tap = testbed.tap_internet();
    let mut chance = Chance::new(0x0bad_cafe);
    testbed.attach(&super::policies::dmz());
    let whole = time_command(&testbed, &["detach", "-i", NIC]);
    for _ in 0..LOAD_KILLS {
        testbed.run("attach", &["-p", &path]).done();
        kill_after(&testbed, &["detach", "-i", NIC], chance.time(whole));
        testbed.run("detach", &[]).done();
        assert!(!testbed.pins().exists(), "pins are left");
        testbed.wait_for_detach();
        testbed.prove_passes(&tap, 1);
    }
}
