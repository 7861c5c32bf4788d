//! `portcullis init`: prints a starter policy.

use crate::exit::Exit;
use crate::output::Output;
use crate::policy::STARTER;

/// Prints the starter policy.
///
/// # Errors
/// When standard output can't be written to.
pub fn run(output: &Output) -> anyhow::Result<Exit> {
    output.either(&serde_json::json!({ "policy": STARTER }), || STARTER.to_owned())?;
    Ok(Exit::Done)
}
