//! Parses the command line, runs one command, and says what went wrong.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use portcullis::cli::Cli;
use portcullis::commands;
use portcullis::exit::Exit;
use portcullis::stderr;

/// How long a daemon that ends waits for whoever reads its standard error.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::parse();
    let level = match cli.verbose {
        0 => log::LevelFilter::Warn,
        1 => log::LevelFilter::Info,
        2 => log::LevelFilter::Debug,
        _ => log::LevelFilter::Trace,
    };
    env_logger::Builder::new()
        .filter_level(level)
        .format_timestamp(None)
        .format_target(false)
        .target(env_logger::Target::Pipe(Box::new(stderr::Log::default())))
        .init();

    let exit = commands::run(&cli).unwrap_or_else(|error| {
        stderr::notice(format_args!("portcullis: {error:#}"));
        Exit::Failed
    });
    stderr::finish(LAST_WORDS);
    exit.into()
}
