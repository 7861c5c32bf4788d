//! `portcullis attach`

use std::path::Path;

use serde_json::json;

use super::Exit;
use super::output::Output;
use super::policy_file::load;
use crate::gate::{Gate, Place};

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = Place::of(interface)?;
    let _lock = place.lock()?;
    let (_, attachment) = Gate::put_down(&place, &compiled.policy, &compiled.tables)?;
    for warning in &attachment.warnings {
        output.warn(warning);
    }
    let mode = attachment.mode.name();
    let value = json!({
        "interface": interface,
        "attached": mode,
        "tracker": attachment.hook.name(),
        "generation": attachment.generation,
        "replaced": attachment.replaced,
    });
    output.either(&value, || {
        let done = if attachment.replaced { "replaced without a gap" } else { "down" };
        format!("the gate on {interface} is {done}: {mode}, generation {}\n", attachment.generation)
    })?;
    Ok(Exit::Done)
}
