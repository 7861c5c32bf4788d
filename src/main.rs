//! Parses the command line, runs one command and reports what went wrong.

use std::process::ExitCode;
use std::time::Duration;

use portcullis::cli::{Cli, Command, Export, Import, ReplayArgs};
use portcullis::commands::{
    alarms, apply, attach, check, confirm, detach, diff, doctor, edits, explain, export, init, learn,
    manuals, needs, pickup, quarantine, reload, replay, report, rollback, run, show, state, takeover, test,
    test_alarm, top,
};
use portcullis::exit::Exit;
use portcullis::gate::EditAction;
use portcullis::output::Output;
use portcullis::{gate, stderr};

/// How long the last messages may take to reach standard error.
const LAST_MESSAGES: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = Cli::read();
    start_log(cli.verbose);
    gate::route_messages();
    let exit = dispatch(&cli).unwrap_or_else(|error| {
        stderr::notice(format_args!("portcullis: {error:#}"));
        match cli.command {
            // as that of diff(1), whose 1 says that the two differ
            Command::Diff { .. } | Command::Test { .. } => Exit::Trouble,
            Command::Replay(ReplayArgs { against: Some(_), .. }) => Exit::Trouble,
            _ => Exit::Failed,
        }
    });
    stderr::finish(LAST_MESSAGES);
    exit.into()
}

fn start_log(verbose: u8) {
    let level = match verbose {
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
}

fn dispatch(cli: &Cli) -> anyhow::Result<Exit> {
    let output = Output::new(cli.json, cli.color);
    match &cli.command {
        Command::Init { interface, output: file } => {
            init::run(interface.as_deref(), file.as_deref(), &output)
        }
        Command::Check { policies, unused: Some(time), interface: Some(interface), .. } => {
            needs::check_unused(interface, *time, policies, &output)
        }
        Command::Check { policies, servers, quiet, .. } => check::run(policies, *servers, *quiet, &output),
        Command::Test { policies } => test::run(policies, &output),
        Command::Run(arguments) => run::run(arguments, &output),
        Command::Attach { interface, policy, fall_back: false } => {
            attach::run(&interface.name, policy, &output)
        }
        Command::Attach { interface, policy, fall_back: true } => {
            attach::run_with_fall_back(&interface.name, policy, &output)
        }
        Command::Detach { interface: Some(interface), .. } => detach::run(interface, &output),
        Command::Detach { interface: None, .. } => detach::run_on_orphans(&output),
        Command::Apply(arguments) => apply::run(arguments, &output),
        Command::Confirm { interface } => confirm::run(&interface.name, &output),
        Command::Reload { interface, force } => reload::run(&interface.name, *force, &output),
        Command::Rollback(arguments) => rollback::run(arguments, &output),
        Command::Diff { interface, policy } => diff::run(&interface.name, policy, &output),
        Command::Show { interface, subject, since } => {
            show::run(interface.as_deref(), *subject, *since, &output)
        }
        Command::Replay(arguments) => replay::run(arguments, &output),
        Command::Learn(arguments) => learn::run(arguments, &output),
        Command::Explain(arguments) => explain::run(arguments, &output),
        Command::Allow(arguments) => edits::run(EditAction::Allow, arguments, &output),
        Command::Deny(arguments) => edits::run(EditAction::Deny, arguments, &output),
        Command::Quarantine { interface, target, time, address_only } => {
            quarantine::run(&interface.name, target, *time, *address_only, &output)
        }
        Command::Release { interface, target } => quarantine::release(&interface.name, target, &output),
        Command::Alarms(arguments) => alarms::run(arguments, &output),
        Command::Doctor { interface } => doctor::run(&interface.name, &output),
        Command::TestAlarm { interface } => test_alarm::run(&interface.name, &output),
        Command::Top { interface } => top::run(&interface.name),
        Command::Report(arguments) => report::run(arguments, &output),
        Command::Pickup { interface, time } => pickup::run(&interface.name, *time, &output),
        Command::Export(Export::Nft { policy, interface }) => {
            export::run_nft(policy, interface.as_deref(), &output)
        }
        Command::Takeover { interface, time } => takeover::run(&interface.name, *time, &output),
        Command::Export(Export::State { interface }) => state::export(&interface.name, &output),
        Command::Import(Import::State { interface, file }) => state::import(&interface.name, file, &output),
        Command::Manuals { date, folder } => manuals::run(*date, folder),
    }
}
