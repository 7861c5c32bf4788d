//! `portcullis check`: checks a policy file and says what each server may do.

use std::path::Path;

use super::shared::load_policy;
use crate::exit::Exit;
use crate::output::Output;
use crate::policy::{describe, summarize};

/// Checks a policy file. Needs no privilege and no gate.
///
/// # Errors
/// When the file can't be read or is a bad policy.
pub fn run(path: &Path, output: &Output) -> anyhow::Result<Exit> {
    let policy = load_policy(path, output)?.policy;
    output.either(&summarize(&policy), || describe(&policy))?;
    Ok(Exit::Done)
}
