//! `portcullis replay`: what a policy would have done to a capture.

use std::path::Path;

use super::shared::load_policy;
use crate::cli::ReplayArgs;
use crate::exit::Exit;
use crate::output::Output;
use crate::policy_file::CompiledPolicy;
use crate::replay::{DamageRecord, Request, compare, replay};
use crate::stderr;

/// Replays captures under a policy, or compares two policies on them.
///
/// # Errors
/// When a policy is bad, a file can't be opened, or the kernel refuses the programs.
pub fn run(arguments: &ReplayArgs, output: &Output) -> anyhow::Result<Exit> {
    let load = |path: &Path| -> anyhow::Result<CompiledPolicy> { load_policy(path, output) };
    let policy = load(&arguments.policy)?;
    let request = Request { files: &arguments.files, own_mac: arguments.mac };
    let Some(against) = &arguments.against else {
        let found = replay(&policy, &request)?;
        output.either(&found, || found.describe(output.colours_stdout()))?;
        return Ok(match tell_damages(&found.damages) {
            true => Exit::Failed,
            false => Exit::Done,
        });
    };
    let found = compare(&policy, &load(against)?, &request)?;
    output.either(&found, || found.describe())?;
    Ok(match (tell_damages(&found.damages), found.is_same()) {
        (true, _) => Exit::Trouble,
        (false, true) => Exit::Done,
        (false, false) => Exit::Failed,
    })
}

/// Prints where captures are damaged. `false`: nowhere.
fn tell_damages(damages: &[DamageRecord]) -> bool {
    for DamageRecord { file, offset, packets, why } in damages {
        stderr::notice(format_args!(
            "portcullis: {file}: damaged at byte {offset}, after packet {packets}: {why}\nhelp: what comes before was \
             replayed; capture again, or cut the file there"
        ));
    }
    !damages.is_empty()
}
