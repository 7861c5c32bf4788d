//! `portcullis run`: starts the daemon.

use std::fmt::Display;

use super::shared::{load_policy_file, pass_tests, record_refusal, refuse_policy};
use crate::audit::{Action, Entry};
use crate::cli::RunArgs;
use crate::compile::compile;
use crate::daemon;
use crate::exit::Exit;
use crate::gate::FallBackFailed;
use crate::memory::return_memory;
use crate::output::Output;
use crate::policy_file::{CompiledPolicy, read_policy};
use crate::stderr::notice;

/// Runs the daemon until a signal or a `detach` ends it.
///
/// # Errors
/// When the policy is bad, or the daemon can't start or go on.
pub fn run(arguments: &RunArgs, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Attach, why).file(&arguments.policy);
    let compiled = match arguments.fall_back {
        true => load_policy_file(&arguments.policy, output),
        false => Ok(record_refusal(&arguments.interface.name, refused, output, || load(arguments, output))?),
    };
    let options = daemon::Options {
        policy_file: &arguments.policy,
        fall_back: arguments.fall_back,
        detach_on_exit: arguments.detach_on_exit,
        watch: arguments.watch,
        metrics: arguments.metrics,
        colour: output.colours_stderr(),
    };
    match daemon::run(&arguments.interface.name, compiled, &options) {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.downcast_ref::<FallBackFailed>().is_some_and(|failed| !failed.is_attached) => {
            notice!("portcullis: {error:#}");
            Ok(Exit::Trouble)
        }
        Err(error) => Err(error),
    }
}

fn load(arguments: &RunArgs, output: &Output) -> anyhow::Result<CompiledPolicy> {
    let policy =
        read_policy(&arguments.policy)?.map_err(|diagnostics| refuse_policy(&diagnostics, output))?;
    // Reading needs as much memory for a moment as compiling does.
    return_memory();
    let tables = compile(&policy).map_err(|diagnostics| refuse_policy(&diagnostics, output))?;
    pass_tests(CompiledPolicy { policy, tables }, output)
}
