//! `portcullis check`

use std::path::Path;

use super::Exit;
use super::output::Output;
use super::policy_file::{examine, refuse};
use crate::policy::{describe, summarize};

pub fn run(path: &Path, output: &Output) -> anyhow::Result<Exit> {
    match examine(path)? {
        Ok(compiled) => {
            output.either(&summarize(&compiled.policy), || describe(&compiled.policy))?;
            Ok(Exit::Done)
        }
        Err(diagnostics) => Err(refuse(&diagnostics, output)),
    }
}
