//! `portcullis quarantine` and `portcullis release`: cut off a server and end that.

use std::time::Duration;

use serde_json::json;

use super::shared::exit_by_attachment;
use crate::clock::show_duration;
use crate::exit::Exit;
use crate::gate::{Gate, GatePlace};
use crate::output::Output;

/// Cuts off a server but for its management, for a time or until it is released.
///
/// # Errors
/// When there is no gate, or no such server in its policy.
pub fn run(interface: &str, server: &str, time: Option<Duration>, output: &Output) -> anyhow::Result<Exit> {
    let place = GatePlace::of(interface)?;
    let _lock = place.lock()?;
    let gate = Gate::open(&place)?;
    let seconds = time.map(|time| time.as_secs());
    gate.quarantine(server, seconds)?;
    output.either(&json!({ "server": server, "quarantined": true, "seconds": seconds }), || {
        let until = match seconds {
            Some(seconds) => format!("for {}", show_duration(seconds)),
            None => "until it is released".to_owned(),
        };
        format!(
            "{server} is in quarantine {until}: only its management gets an answer\n\
             next: portcullis release -i {interface} {server}\n"
        )
    })?;
    Ok(exit_by_attachment(&gate, &place, output))
}

/// Ends a quarantine.
///
/// # Errors
/// As [`run`].
pub fn release(interface: &str, server: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = GatePlace::of(interface)?;
    let _lock = place.lock()?;
    let gate = Gate::open(&place)?;
    let released = gate.release(server)?;
    output.either(&json!({ "server": server, "quarantined": false, "released": released }), || {
        if released {
            format!("{server} is released: its policy holds again\n")
        } else {
            format!("{server} was not in quarantine\n")
        }
    })?;
    Ok(Exit::Done)
}
