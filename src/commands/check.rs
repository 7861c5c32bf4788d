//! `portcullis check`

use std::path::Path;

use crate::exit::Exit;
use crate::output::Output;
use crate::policy::{describe, summarize};
use crate::policy_file::{examine, refuse};

pub fn run(path: &Path, output: &Output) -> anyhow::Result<Exit> {
    match examine(path)? {
        Ok(compiled) => {
            output.either(&summarize(&compiled.policy), || describe(&compiled.policy))?;
            Ok(Exit::Done)
        }
        Err(diagnostics) => Err(refuse(&diagnostics, output)),
    }
}
