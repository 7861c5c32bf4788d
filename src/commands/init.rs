//! `portcullis init`

use crate::exit::Exit;
use crate::output::Output;
use crate::policy::STARTER;

pub fn run(output: &Output) -> anyhow::Result<Exit> {
    output.either(&serde_json::json!({ "policy": STARTER }), || STARTER.to_owned())?;
    Ok(Exit::Done)
}
