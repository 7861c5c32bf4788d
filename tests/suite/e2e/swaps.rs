//! One packet sees one policy.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use portcullis::abi::Reason;
use portcullis::compile::{Tables, compile};
use portcullis::gate::Verdict;
use portcullis::policy::{Policy, parse};

use super::policies::{dmz, dmz_with_web, twin};
use super::testbed::{Testbed, exclusive, share_machine};
use super::traffic::{FORBIDDEN, Traffic, syn};
use crate::support::patience::eventually;

const DEFAULT_SWAPS: u64 = 10_000;
/// Questions at a time, and the time between: the machine has others to serve.
const QUESTIONS: usize = 64;
const PACE: Duration = Duration::from_micros(500);

/// Grace periods in hurry, for a swap waits for several; as before when dropped. The lock keeps
/// another run of the tests from taking our setting for the machine's.
struct Hurry {
    before: String,
    _lock: Option<Flock<File>>,
}

impl Hurry {
    const KNOB: &str = "/sys/kernel/rcu_expedited";

    fn new() -> Hurry {
        let lock = File::create(std::env::temp_dir().join("pc-hurry.lock")).ok();
        let lock = lock.and_then(|file| Flock::lock(file, FlockArg::LockExclusive).ok());
        let before = fs::read_to_string(Hurry::KNOB).unwrap_or_default();
        // A kernel without the knob takes longer, and that is all.
        let _ = fs::write(Hurry::KNOB, "1");
        Hurry { before, _lock: lock }
    }
}

impl Drop for Hurry {
    fn drop(&mut self) {
        if !self.before.is_empty() {
            let _ = fs::write(Hurry::KNOB, self.before.trim());
        }
    }
}

fn read(text: &str) -> (Policy, Tables) {
    let policy = parse(text, "twin.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let tables = compile(&policy).unwrap_or_else(|errors| panic!("{errors}"));
    (policy, tables)
}

#[test]
fn one_packet_sees_one_policy_however_often_it_is_swapped() {
    let _machine = exclusive();
    let swaps =
        std::env::var("PORTCULLIS_SWAPS").map_or(DEFAULT_SWAPS, |text| text.parse().expect("a number"));
    let testbed = Testbed::new();
    testbed.attach(&twin(0));
    let place = testbed.place();
    let (gate, asker) = (testbed.open_gate(), testbed.open_gate());
    let twins = [read(&twin(0)), read(&twin(1))];
    let first = gate.live_settings().expect("settings").expect("a policy").generation;

    let traffic = Traffic::start(&testbed);
    traffic.flow();
    let hurry = Hurry::new();
    let done = AtomicBool::new(false);
    let (asked, seconds) = std::thread::scope(|scope| {
        // The generation that an answer names must be the one whose rules it follows.
        let questions = scope.spawn(|| {
            let frames = [syn(9001), syn(9002)];
            let mut asked = [0_u64; 2];
            while !done.load(Ordering::Relaxed) {
                std::thread::sleep(PACE);
                for (which, frame) in frames.iter().enumerate().cycle().take(QUESTIONS) {
                    let answer = asker.explain(frame, false, None).expect("an answer");
                    let live = (u64::from(answer.generation) - first) as usize % 2;
                    let expected = if live == which {
                        (Verdict::Pass, Some(Reason::Need))
                    } else {
                        (Verdict::Drop, Some(Reason::NewFlow))
                    };
                    assert_eq!(
                        (answer.verdict, answer.reason),
                        expected,
                        "by generation {}",
                        answer.generation
                    );
                    asked[live] += 1;
                }
            }
            asked
        });
        let seconds = testbed.router.enter(|| {
            let start = Instant::now();
            for number in 1..=swaps {
                let (policy, tables) = &twins[number as usize % 2];
                let generation = gate.apply(&place, policy, tables).expect("a swap");
                assert_eq!(generation, first + number);
            }
            start.elapsed().as_secs_f64()
        });
        traffic.flow();
        done.store(true, Ordering::Relaxed);
        (questions.join().expect("the questions"), seconds)
    });
    drop(hurry);

    let report = traffic.stop(&testbed);
    eprintln!(
        "{swaps} swaps in {seconds:.1} s ({:.0}/s); {} answers by one policy, {} by the other; {report:?}",
        swaps as f64 / seconds,
        asked[0],
        asked[1]
    );
    assert!(asked.iter().all(|count| *count > 0), "both policies were asked: {asked:?}");
    let status = testbed.show("status");
    assert_eq!(status["generation"], first + swaps);
    let counters = gate.counters(false).expect("counters");
    let new_flow = counters.iter().find(|(reason, ..)| *reason == Reason::NewFlow).expect("a counter");
    assert_eq!(new_flow.1, report.dropped, "the counter, after all swaps");
}

#[test]
fn counters_the_ledger_and_the_names_of_servers_survive_another_policy() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&dmz());
    let tap = testbed.tap_internet();
    testbed.prove_drops(&tap, 7);
    let gate = testbed.open_gate();
    let counters = gate.counters(false).expect("counters");
    assert_eq!(gate.ledger().expect("the ledger").len(), 1);

    // the same servers in another order and another one, so that ids could shift
    let other = dmz_with_web(r#""tcp/80""#).replacen(
        "[servers.ns1]",
        "[servers.aaa]\naddresses = [\"192.0.2.7\"]\nroles = [\"web\"]\n\n[servers.ns1]",
        1,
    );
    testbed.apply(&other);
    assert_eq!(gate.counters(false).expect("counters"), counters);
    assert_eq!(testbed.dropped("web1", "udp", FORBIDDEN, "new_flow"), 7);
    testbed.prove_drops(&tap, 5);
    assert_eq!(testbed.dropped("web1", "udp", FORBIDDEN, "new_flow"), 12);

    // a server that is gone keeps its row and its name
    let without = other.replacen(
        "[servers.web1]\naddresses = [\"192.0.2.80\", \"2001:db8:1::80\"]",
        "[servers.www]\naddresses = [\"192.0.2.80\"]",
        1,
    );
    assert_ne!(without, other);
    testbed.apply(&without);
    assert_eq!(testbed.dropped("web1", "udp", FORBIDDEN, "new_flow"), 12);
    testbed.send_from_web(FORBIDDEN, 3);
    eventually("the new name counts for itself", || {
        testbed.dropped("www", "udp", FORBIDDEN, "new_flow") == 3
    });
    assert_eq!(testbed.dropped("web1", "udp", FORBIDDEN, "new_flow"), 12);
    testbed.detach();
    testbed.wait_for_detach();
    testbed.prove_passes(&tap, 4);
}
