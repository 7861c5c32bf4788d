//! `portcullis takeover`: for a while, answers of flows that nobody knows yet raise no alarm.

use std::time::Duration;

use super::window::open_window;
use crate::audit::Action;
use crate::exit::Exit;
use crate::output::Output;

/// A router that takes over gets answers before conntrackd has given its kernel their flows. They are dropped as
/// ever, and counted.
///
/// # Errors
/// When there is no gate.
pub fn run(interface: &str, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    open_window(
        interface,
        Action::Takeover,
        |gate, place| gate.begin_takeover(place, time.as_secs()),
        |interface| format!("answers of connections that {interface} does not know yet raise no alarm"),
        output,
    )
}
