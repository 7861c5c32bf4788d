//! A third opinion, after the programs' and the model's: that of the kernel's own conntrack, which owes
//! nothing to this project. Two routers have the same servers behind them. One has the gate attached. The
//! other has the ruleset of nft that `portcullis export nft` prints for the same policy. The same packets go
//! through both, and each that only one of them lets through must be explained by a row of docs/verdicts.md.
//!
//! `PORTCULLIS_PACKETS` (60,000), `PORTCULLIS_MINUTES` (no limit) and `PORTCULLIS_SEED` (the time) say how
//! much.

mod answers;
mod campaign;
mod case;
mod differences;
mod examples;
mod fragments;
mod headers;
mod invent;
mod inventor;
mod late;
mod lifetime;
mod mutate;
mod pieces;
mod play;
mod policy;
mod reassembly;
mod rulesets;
mod shrink;
mod story;
mod wire;
mod world;

use std::str::FromStr;
use std::time::{Duration, Instant};

use campaign::{Order, describe, explain, find_unexplained, run};
use case::Record;
use differences::KNOWN_DIFFERENCES;
use inventor::Inventor;
use play::{Playing, Stage};
use policy::Policy;

use crate::support::chance::Chance;
use crate::support::cpu::stay_on_nth_cpu;

/// The run of every day makes the same each time, so a red one is due to a change. scripts/fuzz takes others.
const SEED: u64 = 20_261_129;

fn read_variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[test]
fn the_gate_and_conntrack_differ_only_where_the_documents_say_so() {
    let minutes: Option<f64> = read_variable("PORTCULLIS_MINUTES");
    let seed = read_variable("PORTCULLIS_SEED").unwrap_or(SEED);
    let order = Order {
        seed,
        // a time alone is enough
        packets: read_variable("PORTCULLIS_PACKETS").unwrap_or(if minutes.is_some() {
            u64::MAX
        } else {
            60_000
        }),
        time: minutes.map(|minutes| Duration::from_secs_f64(minutes * 60.0)),
        pause_s: if minutes.is_some() { 123 } else { 33 },
    };
    // what one processor is given first comes first
    stay_on_nth_cpu(1);
    let begun = Instant::now();
    let outcome = run(order);
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "conntrack: seed {seed}: {} packets in {} stories under {} policies, {} late talks, {} unexplained \
         differences ({} did not come again), {seconds:.0} s",
        outcome.packets,
        outcome.stories,
        outcome.policies,
        outcome.late,
        outcome.found.len(),
        outcome.passing,
    );
    println!(
        "of servers: {} passed, {} held; towards servers: {}; explained differences:",
        outcome.passed, outcome.held, outcome.arrived
    );
    for (known, count) in KNOWN_DIFFERENCES.iter().zip(&outcome.known) {
        println!("{count:8}  {:?} alone: {}", known.passes, known.name);
    }
    assert!(
        outcome.found.is_empty(),
        "the gate and conntrack differ (seed {seed})\n{}",
        outcome.found.join("\n\n")
    );
    assert!(outcome.passed > 0 && outcome.held > 0 && outcome.arrived > 0, "{outcome:?}");
    assert!(outcome.late > outcome.overslept, "the machine stood still");
    // a machine that stands still between two packets lets flows end
    assert!(outcome.passing <= 1 + outcome.packets / 200_000, "too many that did not come again");
}

#[test]
fn each_known_difference_is_one_and_shows_in_its_example() {
    stay_on_nth_cpu(0);
    let mut stage = Stage::new(Policy::read(examples::POLICY));
    let mut all: Vec<Playing> =
        KNOWN_DIFFERENCES.iter().map(|known| stage.begin((known.example)())).collect();
    // by their pauses, all at once
    while let Some(next) =
        all.iter_mut().filter(|playing| !playing.is_over()).min_by_key(|playing| playing.due())
    {
        std::thread::sleep(next.due().saturating_duration_since(Instant::now()));
        stage.advance(next);
    }
    let mut wrong = Vec::new();
    for (number, playing) in all.iter().enumerate() {
        assert!(!playing.overslept, "the machine stood still");
        let record = Record::new(&stage.policy, playing);
        let found: Vec<Option<usize>> =
            record.cases().filter(|case| case.who_passes().is_some()).map(|case| explain(&case)).collect();
        if !found.contains(&Some(number)) || found.contains(&None) {
            wrong.push(format!("{}: {found:?}\n{}", KNOWN_DIFFERENCES[number].name, describe(playing)));
        }
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), stage.worlds.describe());
}

#[test]
fn each_known_difference_quotes_the_documents() {
    let flat = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let document = flat(include_str!("../../../docs/verdicts.md"));
    let missing: Vec<&str> = KNOWN_DIFFERENCES
        .iter()
        .map(|known| known.row)
        .filter(|row| !document.contains(&flat(row)))
        .collect();
    assert!(missing.is_empty(), "docs/verdicts.md does not say: {missing:#?}");
}

/// The gate and the ruleset have policies that differ in one need, each way.
#[test]
fn a_need_that_only_one_of_them_has_is_noticed() {
    stay_on_nth_cpu(0);
    for need in ["\"tcp/80\", ", "\"tcp/25\", ", ", \"icmp/echo-request\""] {
        let full = examples::POLICY;
        let less = full.replacen(need, "", 1);
        assert_ne!(full, less, "the policy has no {need}");
        let [full, less] = [full, &less].map(Policy::read);
        for (gate, ruleset) in [(&full, &less), (&less, &full)] {
            let mut stage = Stage::of_two(full.clone(), gate, ruleset);
            let mut inventor = Inventor::new(Chance::new(21), &full);
            let noticed = (0..2000).any(|_| {
                let story = inventor.invent();
                let playing = stage.play(&story);
                find_unexplained(&stage, &playing).is_some()
            });
            assert!(noticed, "that only one of them has {need} makes no difference");
        }
    }
}
