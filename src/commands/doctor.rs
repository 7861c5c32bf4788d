//! `portcullis doctor`: proves the gate, and finds the ways around it.

use std::path::Path;

use serde_json::Value;

use super::shared::find_place;
use crate::daemon::control::{Request, ask_daemon};
use crate::doctor::{SinkFacts, SinkState, examine};
use crate::exit::Exit;
use crate::gate::{Gate, GateError, GatePlace};
use crate::output::Output;

/// Looks at everything, and says what is wrong. Exit status 1: something severe is.
///
/// # Errors
/// When there is no such interface, or the gate may not be read.
pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let gate = match Gate::open(&place) {
        Ok(gate) => Some(gate),
        Err(GateError::NotAttached { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let diagnosis = examine(&place, gate.as_ref(), &ask_for_sinks(&place), Path::new("/"));
    output.either(&diagnosis, || diagnosis.describe(output.colours_stdout()))?;
    Ok(if diagnosis.severe { Exit::Failed } else { Exit::Done })
}

fn ask_for_sinks(place: &GatePlace) -> SinkFacts {
    let read = |sink: &Value| {
        let text = |key: &str| sink[key].as_str().map(str::to_owned);
        SinkState { name: text("sink").unwrap_or_default(), error: text("why") }
    };
    match ask_daemon(place, &Request::Sinks) {
        Ok(None) => SinkFacts::NoDaemon,
        Ok(Some(sinks)) => SinkFacts::Known(sinks.iter().map(read).collect()),
        Err(error) => SinkFacts::Silent(error.to_string()),
    }
}
