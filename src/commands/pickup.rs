//! `portcullis pickup`: for a while, takes over flows that are open already.

use std::time::Duration;

use super::window::open_window;
use crate::audit::Action;
use crate::exit::Exit;
use crate::output::Output;

/// Opens the window of the attach again. What it does not take over: openings, flows of services that the policy
/// does not have, and anything of a server in quarantine.
///
/// # Errors
/// When there is no gate, or none whose tracker records flows.
pub fn run(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    open_window(
        interface,
        Action::Pickup,
        |gate, place| gate.extend_pickup(place, time.as_secs()),
        |interface| format!("connections that are open already are taken over on {interface}"),
        output,
    )
}
