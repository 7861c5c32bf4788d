//! `portcullis report`: one page for the incident file. It stands alone: no script, no font, no
//! picture from elsewhere, and a policy in its head that lets a browser fetch none.

mod lanes;
mod map;
mod page;
mod samples;
mod tally;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::cli::ReportArgs;
use crate::clock::wall_now;
use crate::daemon::control::collect_report;
use crate::exit::Exit;
use crate::gate::GatePlace;
use crate::output::Output;

/// Writes the page.
///
/// # Errors
/// When there is nothing to report from, or the file can't be written.
pub fn run(question: &ReportArgs, output: &Output) -> anyhow::Result<Exit> {
    let now = wall_now();
    let (from, to) = (question.from, question.to.unwrap_or(now));
    if from >= to {
        bail!("--from {from:.0} is not before --to {to:.0}");
    }
    let place = match &question.interface {
        Some(interface) => GatePlace::of_any(interface)?,
        None => find_place()?,
    };
    let found = collect_report(&place, from, to)?;
    let page = page::render(&page::Cover { interface: &place.interface, from, to, made: now }, &found);
    if question.output == Path::new("-") {
        output.text(&page)?;
        return Ok(Exit::Done);
    }
    write(&question.output, &page)?;
    let path = question.output.display().to_string();
    let drops: u64 = found.counts.iter().map(|row| row.packets).sum();
    let told = serde_json::json!({
        "file": path, "from": from.to_string(), "to": to.to_string(),
        "alarms": found.alarms.len(), "drops": drops, "samples": found.samples.len(),
    });
    output.either(&told, || {
        format!("{path}: {} alarms and {drops} drops from {from:.0} to {to:.0}\n", found.alarms.len())
    })?;
    Ok(Exit::Done)
}

/// Replaces the file in one step. It tells attackers what was seen: its owner's business.
fn write(path: &Path, page: &str) -> anyhow::Result<()> {
    let fresh = path.with_added_extension("new");
    let _ = fs::remove_file(&fresh);
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&fresh)
        .and_then(|mut file| file.write_all(page.as_bytes()))
        .and_then(|()| fs::rename(&fresh, path));
    written.inspect_err(|_| drop(fs::remove_file(&fresh))).with_context(|| {
        format!("could not write {}\nhelp: is there room, and may you write there?", path.display())
    })
}

/// The only interface of this network namespace that has a history.
fn find_place() -> anyhow::Result<GatePlace> {
    let interfaces = nix::net::if_::if_nameindex().context("could not list the interfaces")?;
    let names: Vec<String> = (&interfaces)
        .into_iter()
        .filter_map(|interface| interface.name().to_str().ok().map(str::to_owned))
        .filter(|name| {
            GatePlace::of_any(name).is_ok_and(|place| place.history().join(crate::history::FILE).exists())
        })
        .collect();
    match &names[..] {
        [name] => Ok(GatePlace::of_any(name)?),
        [] => bail!("no interface has a history\nhelp: name one that is gone with -i IF"),
        names => bail!("several interfaces have a history: {}\nhelp: -i IF", names.join(", ")),
    }
}
