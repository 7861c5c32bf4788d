//! One file per command.

mod alarms;
mod apply;
mod attach;
mod check;
mod detach;
mod diff;
mod explain;
mod init;
mod output;
mod policy_file;
mod quarantine;
mod report;
mod request;
mod run;
mod show;
mod top;

use std::process::ExitCode;

use crate::cli::{Cli, Command, Subject};
use output::Output;

/// Exit status. Clap itself leaves with 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// Failed, or differs.
    Failed,
    /// Wrong usage that only the command can see.
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// Runs the command that was asked for.
///
/// # Errors
/// What went wrong, with what to do about it.
pub fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let output = Output::new(cli.json, cli.color);
    crate::gate::route_messages();
    match &cli.command {
        Command::Init => init::run(&output),
        Command::Check { policy } => check::run(policy, &output),
        Command::Run { interface, policy, raise_on_exit, metrics } => {
            let options = run::Options { path: policy, raise_on_exit: *raise_on_exit, metrics: *metrics };
            run::run(&interface.interface, &options, &output)
        }
        Command::Alarms(question) => alarms::run(question, &output),
        Command::Top { interface } => top::run(&interface.interface),
        Command::Report(question) => report::run(question, &output),
        Command::Attach { interface, policy } => attach::run(&interface.interface, policy, &output),
        Command::Detach { interface: Some(interface), .. } => detach::run(interface, &output),
        Command::Detach { interface: None, .. } => detach::run_on_orphans(&output),
        Command::Apply { interface, policy } => apply::run(&interface.interface, policy, &output),
        Command::Diff { interface, policy } => diff::run(&interface.interface, policy, &output),
        Command::Show { interface: Some(interface), subject } if *subject != Subject::Gates => {
            show::run(interface, *subject, &output)
        }
        Command::Show { .. } => show::run_on_all(&output),
        Command::Explain(question) => explain::run(question, &output),
        Command::Quarantine { interface, server, time } => {
            quarantine::run(&interface.interface, server, *time, &output)
        }
        Command::Release { interface, server } => quarantine::release(&interface.interface, server, &output),
    }
}
