//! The program that `scripts/bench` runs. It measures what the gate costs, beside other filters and beside the
//! least that any filter costs.

#![expect(unreachable_pub, reason = "a binary exports nothing")]
#![expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "the benchmark runs in the foreground of a terminal, and nothing of it hangs on a reader"
)]

mod btf;
mod burden;
mod candidates;
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
mod names;
mod network;
mod plot;
mod policy;
mod report;
mod scale;
mod statistics;
mod targets;
mod throughput;
mod tool;
mod traffic;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use report::Report;

/// Measures the gate
#[derive(Parser, Debug)]
#[command(name = "scripts/bench", bin_name = "scripts/bench", args_conflicts_with_subcommands = true)]
pub struct Options {
    /// Number of rounds; the tables show medians over them
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Run only these groups: GROUP[,GROUP...]
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    only: Vec<String>,
    /// Run three rounds, for a first look
    #[arg(long)]
    quick: bool,
    /// Measure another build of the programs beside this one
    #[arg(long, value_name = "OBJECT")]
    variant: Option<PathBuf>,
    /// Write the tables into docs/performance.md, and the plots beside it
    #[arg(long)]
    record: bool,
    /// The CPU to measure on [default: the last one]
    #[arg(long)]
    cpu: Option<usize>,
    /// `cargo bench` adds this
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Flood(flood::Flood),
}

/// A group measures one thing and adds sections, series and targets to the report. It fails only where a
/// filter passes or drops the wrong packet, never because of a time. To add one: a file, and a row below.
type Group = fn(&Options, &mut Report) -> Result<()>;

/// The groups, in the order in which they run.
const GROUPS: &[(&str, Group)] = &[
    ("wire", wire::run),
    ("cost", cost::run),
    ("names", names::run),
    ("scale", scale::run),
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
    // After an interrupt the next test run fails, and the values on the stack clean up. A group that reaches
    // no test run within ten seconds is ended, and the next run removes its leftovers.
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
