//! How drops scale over CPUs: all of them at once, in the same row of the ledger and in rows of their own.

use std::sync::Barrier;

use anyhow::{Context as _, Result};
use portcullis::compile::compile;
use portcullis::gate::Gate;
use portcullis::policy::parse;

use crate::Options;
use crate::cpu;
use crate::network::FROM_SERVERS;
use crate::policy::{Shape, write_policy};
use crate::report::{Cell, Report, Section};
use crate::statistics::{Spread, zip};

/// Drops of each CPU in a round.
const DROPS: u32 = 2_000_000;
/// Earlier ones, which make the rows and fill the caches.
const WARM: u32 = 10_000;

/// The frames of the CPUs at a time.
const CASES: [(&str, &str); 2] =
    [("same row", "a worm's SYNs from one server"), ("own rows", "SYNs of one server for each CPU")];

pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let text = write_policy(&Shape::default());
    let policy = parse(&text, "bench.toml").map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let tables = compile(&policy).map_err(|errors| anyhow::anyhow!("{errors}"))?;
    let gate = Gate::load(&policy, &tables)?;
    let cpus = cpu::allowed()?;
    let mut numbers = vec![1];
    while numbers.last().is_some_and(|last| 2 * last < cpus.len()) {
        numbers.push(2 * numbers[numbers.len() - 1]);
    }
    if cpus.len() > 1 {
        numbers.push(cpus.len());
    }
    let mut series = vec![vec![Vec::new(); numbers.len()]; CASES.len()];
    for _ in 0..options.rounds {
        for (case, (key, _)) in CASES.iter().enumerate() {
            for (at, number) in numbers.iter().enumerate() {
                let own_rows = *key == "own rows";
                series[case][at].push(time_drop(&gate, &cpus[..*number], own_rows)?);
            }
        }
    }
    let mut lines = Vec::new();
    for ((key, title), series) in CASES.iter().zip(&series) {
        for (number, times) in numbers.iter().zip(series) {
            let scaled = zip(times, &series[0], |together, alone| together / alone);
            lines.push(vec![
                Cell::Text((*title).to_owned()),
                Cell::Text(number.to_string()),
                Cell::Ns(Spread::of(times)),
                Cell::Ratio(Spread::of(&scaled)),
            ]);
            report.record(format!("scale/{key}/{number}"), times.clone());
        }
    }
    report.sections.push(Section {
        key: "scale",
        title: "Drops on several CPUs at once".to_owned(),
        note: "Measured by test run: the time of one drop of a known kind, on the slowest of the CPUs that drop at \
               the same time. It includes what a test run itself takes. The ratio is to one CPU alone. It stays \
               near 1 if no CPU waits for another."
            .to_owned(),
        columns: vec!["traffic", "CPUs", "ns", "ratio to one"],
        lines,
    });
    Ok(())
}

/// Nanoseconds of a drop, on the slowest of these CPUs.
fn time_drop(gate: &Gate, cpus: &[usize], own_rows: bool) -> Result<f64> {
    let barrier = Barrier::new(cpus.len());
    let times = std::thread::scope(|scope| {
        let threads: Vec<_> = cpus
            .iter()
            .enumerate()
            .map(|(number, cpu)| {
                let barrier = &barrier;
                let server = if own_rows { number as u8 } else { 0 };
                scope.spawn(move || -> Result<u32> {
                    cpu::stay_on(&[*cpu])?;
                    let frame = syn(server, number as u8);
                    gate.programs.run_filter(&frame, WARM)?;
                    barrier.wait();
                    Ok(gate.programs.run_filter(&frame, DROPS)?.duration_ns)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(0))).collect::<Result<Vec<_>>>()
    })?;
    let slowest = times.into_iter().max().context("no CPU")?;
    Ok(f64::from(slowest))
}

/// A SYN of a server to tcp/445 of a peer.
fn syn(server: u8, peer: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend(FROM_SERVERS.destination);
    frame.extend(FROM_SERVERS.source);
    frame.extend([0x08, 0x00]);
    frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
    frame.extend([198, 18, 0, server]);
    frame.extend([198, 51, 100, peer]);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(445_u16.to_be_bytes());
    frame.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
