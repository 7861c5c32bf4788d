//! `portcullis run`: starts the daemon.

use super::shared::refuse_policy;
use crate::cli::RunArgs;
use crate::compile::compile;
use crate::daemon;
use crate::exit::Exit;
use crate::memory::return_memory;
use crate::output::Output;
use crate::policy_file::{CompiledPolicy, read_policy};

/// Runs the daemon until a signal or a `detach` ends it.
///
/// # Errors
/// When the policy is bad, or the daemon can't start or go on.
pub fn run(arguments: &RunArgs, output: &Output) -> anyhow::Result<Exit> {
    let policy =
        read_policy(&arguments.policy)?.map_err(|diagnostics| refuse_policy(&diagnostics, output))?;
    // Reading needs as much memory for a moment as compiling does.
    return_memory();
    let tables = compile(&policy).map_err(|diagnostics| refuse_policy(&diagnostics, output))?;
    let options = daemon::Options {
        policy_file: &arguments.policy,
        detach_on_exit: arguments.detach_on_exit,
        metrics: arguments.metrics,
        colour: output.colours_stderr(),
    };
    daemon::run(&arguments.interface.name, CompiledPolicy { policy, tables }, &options)?;
    Ok(Exit::Done)
}
