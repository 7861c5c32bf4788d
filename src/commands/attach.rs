//! `portcullis attach`: attaches the gate without a daemon.

use std::path::Path;

use serde_json::json;

use super::shared::{find_place, load_policy, save_quarantines};
use crate::daemon::describe_attachment;
use crate::exit::Exit;
use crate::gate::Gate;
use crate::output::Output;

/// Attaches the gate, or replaces the programs of one that is attached, without a gap.
///
/// # Errors
/// When the policy is bad or the gate can't be attached.
pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load_policy(policy, output)?;
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let (gate, attachment) = Gate::attach(&place, &compiled.policy, &compiled.tables)?;
    drop(lock);
    save_quarantines(&gate, &place, output);
    for warning in &attachment.warnings {
        output.warn(warning);
    }
    let value = json!({
        "interface": interface,
        "attached": attachment.mode.name(),
        "tracker": attachment.hook.name(),
        "generation": attachment.generation,
        "replaced": attachment.replaced,
        "quarantines": attachment.quarantines,
    });
    output.either(&value, || {
        let how = if attachment.replaced { " (replaced without a gap)" } else { "" };
        let mut text = format!("{}{how}\n", describe_attachment(interface, &attachment, &compiled.policy));
        for quarantine in &attachment.quarantines {
            text.push_str(&format!("as before: {quarantine}\n"));
        }
        text
    })?;
    Ok(Exit::Done)
}
