//! The loaded programs against the model: policies, sequences of frames both ways, and what an
//! administrator does, all by chance. Both must say the same of every frame and have the same flows,
//! counters and ledger afterwards.
//!
//! `PORTCULLIS_SEQUENCES` (20,000), `PORTCULLIS_MINUTES` (no limit) and `PORTCULLIS_SEED` (the time)
//! say how much. What was found once lies in `tests/corpus/sequences/` and is played each time.

mod campaign;
mod conversation;
mod differ;
mod event;
mod lookup;
mod mutation;
mod names;
pub mod network;
pub mod policies;
pub mod setting;
mod shrink;

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use campaign::{Order, Outcome, run};
use differ::{Differ, Disagreement, Room};
use event::{Sequence, read_sequence};
use network::enter_own_network;
use portcullis::abi::REASONS;

use crate::model::Rule;

const RESOLVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/resolvers");
const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/sequences");

/// So many meet every rule.
const ENOUGH_SEQUENCES: u64 = 200_000;
/// The run of every day. Edits and trials write tables, and a sequence takes ten times as long since.
const EVERY_DAY: u64 = 20_000;

/// The run of every day makes the same each time, so a red one is due to a change. scripts/fuzz takes others.
const SEED: u64 = 20_261_129;

fn read_variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn generated_sequences_agree_with_the_model() {
    let minutes: Option<f64> = read_variable("PORTCULLIS_MINUTES");
    let seed = read_variable("PORTCULLIS_SEED").unwrap_or(SEED);
    let order = Order {
        seed,
        // a time alone is enough
        sequences: read_variable("PORTCULLIS_SEQUENCES").unwrap_or(if minutes.is_some() {
            u64::MAX
        } else {
            EVERY_DAY
        }),
        time: minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        workers: read_variable("PORTCULLIS_WORKERS")
            .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from).min(2)),
        look_into: std::env::var_os("PORTCULLIS_OBJECT").is_none(),
    };
    let begun = Instant::now();
    let outcome = run(order);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "fuzz: seed {seed}: {} packets in {} sequences under {} policies, {} disagreements \
         ({} did not come again, {} of them while the machine stood still), {seconds:.0} s, {:.0} packets/s",
        outcome.packets,
        outcome.sequences,
        outcome.policies,
        outcome.found.len(),
        outcome.passing,
        outcome.stalled,
        outcome.packets as f64 / seconds,
    );
    for (number, (sequence, disagreement)) in outcome.found.iter().enumerate().filter(|_| order.look_into) {
        let path = keep(&format!("found-{seed}-{number}.txt"), sequence, disagreement);
        println!("\n{}\nkept in {}", describe(sequence, disagreement), path.display());
    }
    assert!(outcome.found.is_empty(), "program and model disagree (seed {seed})");
    assert!(outcome.packets > 0, "not one packet");
    check_coverage(&outcome);
    // a clock that ticks at the wrong moment is rare
    let unexplained = outcome.passing - outcome.stalled;
    assert!(unexplained <= 1 + outcome.policies / 100, "too many that did not come again");
}

/// A rule that no frame met was compared with nothing.
fn check_coverage(outcome: &Outcome) {
    let [ample, scarce] = &outcome.coverage;
    let mut all = ample.clone();
    all.add(scarce);
    let reasons = REASONS.iter().map(|reason| (reason.name().to_owned(), all.given(*reason)));
    let rules = Rule::ALL.iter().map(|rule| (format!("{rule:?}"), all.met(*rule)));
    let counts: Vec<(String, u64)> = reasons.chain(rules).collect();
    let mut seldom: Vec<&(String, u64)> = counts.iter().collect();
    seldom.sort_by_key(|(_, count)| *count);
    println!("fuzz: {} reasons and rules, the most seldom ones {:?}", counts.len(), &seldom[..12]);
    let names: Vec<&(String, u64)> = counts.iter().filter(|(name, _)| is_about_names(name)).collect();
    println!("fuzz: of names {names:?}");
    if outcome.sequences < ENOUGH_SEQUENCES {
        return;
    }
    // met about once in that many sequences, and held by the tests of programs
    let seldom = [Rule::LaterOverHeaders, Rule::Lease].map(|rule| format!("{rule:?}"));
    let never: Vec<&str> = counts
        .iter()
        .filter(|(name, count)| *count == 0 && !seldom.contains(name))
        .map(|(name, _)| name.as_str())
        .collect();
    assert!(never.is_empty(), "in {} sequences nothing met {never:?}", outcome.sequences);
    // A Bloom filter may know a peer that never asked: of a region half full one in 16, in each of two halves.
    for (room, coverage, most) in [("ample", ample, 0.001), ("scarce", scarce, 0.125)] {
        let (may, was) = (coverage.met(Rule::MayBeChance), coverage.met(Rule::ByChance));
        println!("fuzz: with {room} room {was} of {may} peers that never asked counted as heard");
        assert!(was as f64 <= 3.0 + may as f64 * most, "{was} of {may} with {room} room");
    }
}

fn is_about_names(rule: &str) -> bool {
    let also = ["QueryNoted", "Rebinding", "Granted", "CommonGrant", "StreamLost"];
    rule.starts_with("Name")
        || rule.to_lowercase().starts_with("question")
        || rule.starts_with("Answer")
        || also.contains(&rule)
}

#[test]
fn the_corpus_of_past_disagreements_agrees() {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(CORPUS).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the corpus is empty");
    let disagreements: Vec<String> = std::thread::scope(|scope| {
        // in a thread, for the network namespace is the thread's
        let playing = scope.spawn(|| {
            enter_own_network();
            let mut differs = [Room::Ample, Room::Scarce].map(Differ::new);
            let plays = paths.iter().flat_map(|path| [0, 1].map(|differ| (differ, path)));
            plays.filter_map(|(differ, path)| play_file(&mut differs[differ], path)).collect()
        });
        playing.join().expect("the corpus")
    });
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n\n"));
}

/// Frames of unbound and dnsmasq, which `make` beside them has caught.
#[test]
fn frames_of_real_resolvers_agree_and_open_what_they_answer() {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(RESOLVERS).expect("the corpus").map(|entry| entry.expect("an entry").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    assert!(paths.len() > 10, "{} files", paths.len());
    let disagreements: Vec<String> = std::thread::scope(|scope| {
        let playing = scope.spawn(|| {
            enter_own_network();
            let mut differ = Differ::new(Room::Ample);
            paths.iter().filter_map(|path| play_resolver(&mut differ, path)).collect()
        });
        playing.join().expect("the corpus")
    });
    assert!(disagreements.is_empty(), "{}", disagreements.join("\n\n"));
}

fn play_resolver(differ: &mut Differ, path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).expect("a file");
    let opens: BTreeSet<IpAddr> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# opens "))
        .map(|address| address.parse().expect("an address"))
        .collect();
    let disagreement = play_file(differ, path);
    let granted = differ.granted_addresses();
    let wrong = (granted != opens).then(|| format!("{}: {granted:?}, not {opens:?}", path.display()));
    disagreement.or(wrong)
}

fn play_file(differ: &mut Differ, path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).expect("a file");
    let sequence = read_sequence(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let result = differ.play(&sequence).unwrap_or_else(|| panic!("{}: no policy", path.display()));
    let disagreement = result.err()?;
    Some(format!("{}:\n{}", path.display(), describe(&sequence, &disagreement)))
}

/// Into the corpus, for this disagreement must not come back.
fn keep(name: &str, sequence: &Sequence, disagreement: &Disagreement) -> PathBuf {
    let path = Path::new(CORPUS).join(name);
    let comment: String = disagreement.what.lines().map(|line| format!("# {line}\n")).collect();
    fs::write(&path, comment + &sequence.to_string()).expect("the corpus");
    path
}

/// The sequence, with the opinions beside the event that parted them.
fn describe(sequence: &Sequence, disagreement: &Disagreement) -> String {
    let mut text = format!("{}", Sequence { policy: sequence.policy.clone(), events: Vec::new() });
    let opinions = format!("--> {}\n", disagreement.what.replace('\n', "\n    "));
    for (at, event) in sequence.events.iter().enumerate() {
        text.push_str(&format!("{event}\n"));
        if at == disagreement.at {
            text.push_str(&opinions);
        }
    }
    if disagreement.at >= sequence.events.len() {
        text.push_str(&opinions);
    }
    text
}
