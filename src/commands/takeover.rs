//! `portcullis takeover`: for a while, answers of flows that nobody knows yet raise no alarm.

use std::fmt::Display;
use std::time::Duration;

use serde_json::json;

use super::shared::{find_place, open_gate, record, record_refusal};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, show_duration};
use crate::exit::Exit;
use crate::output::Output;

/// A router that takes over gets answers before conntrackd has given its kernel their flows. They are dropped as
/// ever, and counted.
///
/// # Errors
/// When there is no gate.
pub fn run(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Takeover, why);
    record_refusal(interface, refused, output, || begin(interface, time, output))
}

fn begin(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = open_gate(&place, output)?;
    let until_ns = gate.begin_takeover(&place, time.as_secs())?;
    let clock = Clock::now();
    let until = clock.to_wall(until_ns);
    let seconds = until_ns.saturating_sub(clock.mono_ns).div_ceil(1_000_000_000);
    let left = show_duration(seconds);
    let mark = gate.policy_mark();
    let detail = format!("for {left}, until {until:.0}");
    record(&place, Entry::done(Action::Takeover).detail(detail).change(mark.clone(), mark), output);
    drop(lock);
    let value = json!({ "interface": interface, "seconds": seconds, "until": until });
    output.either(&value, || {
        format!(
            "answers of connections that {interface} does not know yet raise no alarm until {until:.0}, for {left} more\n"
        )
    })?;
    Ok(Exit::Done)
}
