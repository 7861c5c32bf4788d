//! One file per command.

mod alarms;
mod apply;
mod attach;
mod check;
mod detach;
mod diff;
mod explain;
mod init;
mod quarantine;
mod report;
mod show;
mod top;

use crate::cli::{Cli, Command, Subject};
use crate::exit::Exit;
use crate::output::Output;

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
        Command::Run { interface, policy, detach_on_exit, metrics } => {
            let options =
                crate::daemon::Options { path: policy, detach_on_exit: *detach_on_exit, metrics: *metrics };
            crate::daemon::run(&interface.interface, &options, &output)
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
