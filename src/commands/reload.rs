//! `portcullis reload`: makes the daemon read its policy file again, and says what became of it.

use anyhow::{anyhow, bail};
use serde_json::json;

use super::shared::find_place;
use crate::audit::Who;
use crate::daemon::control::{Request, ask_daemon, no_daemon};
use crate::exit::Exit;
use crate::output::Output;

/// As SIGHUP, for a person.
///
/// # Errors
/// When no daemon runs, or the daemon refuses the file. The live policy stays as it was then.
pub fn run(interface: &str, force: bool, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let who = Box::new(Who::of_this_process());
    let Some(answers) = ask_daemon(&place, &Request::Reload { force, who })? else {
        bail!("no daemon runs, so nothing was read: {}", no_daemon(&place));
    };
    let text = answers.first().and_then(|answer| answer.as_str());
    let text = text.ok_or_else(|| anyhow!("the daemon gave no answer\nhelp: its log says what it did"))?;
    output.either(&json!({ "interface": place.interface, "reloaded": true, "text": text }), || {
        format!("{text}\n")
    })?;
    Ok(Exit::Done)
}
