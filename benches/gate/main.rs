//! What `scripts/bench` runs: how much the gate costs, next to other filters and to the limit.

mod btf;
mod burden;
mod cases;
mod control;
mod cost;
mod cpu;
mod daemon;
mod delay;
mod document;
mod engine;
mod environment;
mod filters;
mod flood;
mod generator;
mod machine;
mod netns_lab;
mod network;
mod plot;
mod policy;
mod report;
mod statistics;
mod targets;
mod throughput;
mod traffic;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;

/// Measures the gate
#[derive(Parser, Debug)]
#[command(name = "scripts/bench", args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Rounds, of which the table has the medians
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// These groups alone: GROUP[,GROUP...]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<String>,
    /// Three rounds, for a look
    #[arg(long)]
    quick: bool,
    /// Another object of the programs, measured beside: what is tried
    #[arg(long, value_name = "OBJECT")]
    variant: Option<PathBuf>,
    /// Write the tables into docs/performance.md, and the plots beside it
    #[arg(long)]
    record: bool,
    /// The CPU to measure on: the last one, unless told
    #[arg(long)]
    cpu: Option<usize>,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Flood(flood::Flood),
}

/// A group measures something and adds its sections, series and targets to the report; it asserts
/// nothing but that what it measures does its duty. A file of its own, and a line below.
type Group = fn(&Options, &mut Report) -> Result<()>;

/// In the order in which they run.
const GROUPS: &[(&str, Group)] = &[
    ("wire", wire::run),
    ("cost", cost::run),
    ("policies", control::run),
    ("daemon", burden::run),
    ("delay", delay::run),
    ("iperf", throughput::run),
];

fn main() -> ExitCode {
    let mut options = Options::parse();
    let result = match &options.command {
        Some(Command::Flood(flood)) => flood::run(flood),
        None => measure(&mut options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &mut Options) -> Result<()> {
    if options.quick {
        options.rounds = options.rounds.min(3);
    }
    let names: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    if let Some(only) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        anyhow::bail!("no group `{only}`\nhelp: there are: {}", names.join(", "));
    }
    // What is interrupted cleans up behind it, at its next test run; what does not come to one is
    // ended all the same, and the next run cleans up.
    ctrlc::set_handler(|| {
        eprintln!("interrupted");
        engine::interrupt();
        std::thread::sleep(std::time::Duration::from_secs(10));
        std::process::exit(1);
    })?;
    cpu::pin_to(options.cpu.unwrap_or(cpu::count() - 1))?;
    let mut report = Report::default();
    report.facts = machine::describe(options.rounds);
    for (name, run) in GROUPS {
        if options.only.is_empty() || options.only.iter().any(|only| only == name) {
            eprintln!("measuring: {name}");
            run(options, &mut report)?;
        }
    }
    targets::judge(&mut report);
    println!("{}", report.print_text());
    if options.record {
        document::write(&report)?;
    }
    Ok(())
}
