//! `portcullis test-alarm`: sends a test alarm through every sink of the daemon, and says which one took it.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::shared::find_place;
use crate::daemon::control::{Request, ask_daemon, no_daemon};
use crate::escape::escape;
use crate::exit::Exit;
use crate::output::{Output, align};
use crate::sink::SinkAnswer;

/// Asks the daemon. Without one nobody would hear of a real alarm either, so then it fails.
///
/// # Errors
/// When no daemon runs, or it does not answer.
pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let Some(answers) = ask_daemon(&place, &Request::TestAlarm)? else {
        bail!("no daemon runs, so no alarm reaches anybody: {}", no_daemon(&place));
    };
    let read = |answer: Value| serde_json::from_value::<SinkAnswer>(answer);
    let answers: Vec<SinkAnswer> = answers
        .into_iter()
        .map(read)
        .collect::<Result<_, _>>()
        .context("the daemon's answer can't be read\nhelp: restart the daemon")?;
    let is_well = answers.iter().all(|answer| answer.took);
    output.either(&json!({ "interface": place.interface, "sinks": answers }), || describe(&answers))?;
    Ok(if is_well { Exit::Done } else { Exit::Failed })
}

fn describe(answers: &[SinkAnswer]) -> String {
    let row = |answer: &SinkAnswer| {
        let outcome = match &answer.why {
            None => "took the test".to_owned(),
            Some(error) => format!("DID NOT: {}", escape(error)),
        };
        vec![escape(&answer.sink).into_owned(), outcome]
    };
    align(&answers.iter().map(row).collect::<Vec<_>>())
}
