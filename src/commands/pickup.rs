//! `portcullis pickup`: for a while, takes over flows that are open already.

use std::fmt::Display;
use std::time::Duration;

use serde_json::json;

use super::shared::{find_place, open_gate, record, record_refusal};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, show_duration};
use crate::exit::Exit;
use crate::output::Output;

/// Opens the window of the attach again. What it does not take over: openings, flows of services that the policy
/// does not have, and anything of a server in quarantine.
///
/// # Errors
/// When there is no gate, or none whose tracker records flows.
pub fn run(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Pickup, why);
    record_refusal(interface, refused, output, || open_window(interface, time, output))
}

fn open_window(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = open_gate(&place, output)?;
    let until_ns = gate.extend_pickup(&place, time.as_secs())?;
    let clock = Clock::now();
    let until = clock.to_wall(until_ns);
    let seconds = until_ns.saturating_sub(clock.mono_ns).div_ceil(1_000_000_000);
    let left = show_duration(seconds);
    let mark = gate.policy_mark();
    let detail = format!("for {left}, until {until:.0}");
    record(&place, Entry::done(Action::Pickup).detail(detail).change(mark.clone(), mark), output);
    drop(lock);
    let value = json!({ "interface": interface, "seconds": seconds, "until": until });
    output.either(&value, || {
        format!(
            "connections that are open already are taken over on {interface} until {until:.0}, for {left} more\n"
        )
    })?;
    Ok(Exit::Done)
}
