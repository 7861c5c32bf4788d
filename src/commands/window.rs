//! For a while the gate does something else: what `pickup` and `takeover` have in common.

use std::fmt::Display;

use serde_json::json;

use super::shared::{find_place, open_gate, record, record_refusal};
use crate::audit::{Action, Entry};
use crate::clock::{Clock, show_duration};
use crate::exit::Exit;
use crate::gate::{Gate, GateError, GatePlace};
use crate::output::Output;

/// Begins a window, notes who did so, and says until when it lasts. `begin` returns its end, by CLOCK_MONOTONIC.
/// `describe` is what goes on meanwhile, for the name of an interface.
///
/// # Errors
/// When there is no gate, or `begin` refuses.
pub(super) fn open_window(
    interface: &str,
    action: Action,
    begin: impl FnOnce(&Gate, &GatePlace) -> Result<u64, GateError>,
    describe: impl FnOnce(&str) -> String,
    output: &Output,
) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(action, why);
    record_refusal(interface, refused, output, || {
        let place = find_place(interface)?;
        let interface = place.interface.as_str();
        let lock = place.lock()?;
        let gate = open_gate(&place, output)?;
        let until_ns = begin(&gate, &place)?;
        let clock = Clock::now();
        let until = clock.to_wall(until_ns);
        let seconds = until_ns.saturating_sub(clock.mono_ns).div_ceil(1_000_000_000);
        let left = show_duration(seconds);
        let mark = gate.policy_mark();
        let detail = format!("for {left}, until {until:.0}");
        record(&place, Entry::done(action).detail(detail).change(mark.clone(), mark), output);
        drop(lock);
        let value = json!({ "interface": interface, "seconds": seconds, "until": until });
        output.either(&value, || format!("{} until {until:.0}, for {left} more\n", describe(interface)))?;
        Ok(Exit::Done)
    })
}
