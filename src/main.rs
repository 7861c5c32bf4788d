//! Parses the command line, runs one command, and says what went wrong.

use std::process::ExitCode;

use clap::Parser;
use portcullis::cli::Cli;
use portcullis::commands::{self, Exit};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).format_timestamp(None).format_target(false).init();

    match commands::run(&cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            eprintln!("portcullis: {error:#}");
            Exit::Failed.into()
        }
    }
}
