//! `portcullis attach`

use std::path::Path;

use serde_json::json;

use crate::exit::Exit;
use crate::gate::{Gate, GatePlace};
use crate::output::Output;
use crate::policy_file::load;

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = GatePlace::of(interface)?;
    let _lock = place.lock()?;
    let (_, attachment) = Gate::attach(&place, &compiled.policy, &compiled.tables)?;
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
