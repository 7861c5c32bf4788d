//! `portcullis report`: one page for the incident file. It stands alone: it has no script, no font and no
//! picture from elsewhere, and the content policy in its head lets a browser fetch none.

mod attempt_map;
mod page;
mod samples;
mod text;
mod timeline;
mod totals;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, bail};

use super::shared::find_any_place;
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
pub fn run(args: &ReportArgs, output: &Output) -> anyhow::Result<Exit> {
    let now = wall_now();
    let (from, to) = (args.from, args.to.unwrap_or(now));
    if from >= to {
        bail!("--from {from:.0} is not before --to {to:.0}");
    }
    let place = match &args.interface {
        Some(interface) => find_any_place(interface)?,
        None => find_place()?,
    };
    let data = collect_report(&place, from, to)?;
    let page = page::render(&page::Cover { interface: &place.interface, from, to, made: now }, &data);
    if args.output == Path::new("-") {
        output.text(&page)?;
        return Ok(Exit::Done);
    }
    write(&args.output, &page)?;
    let path = args.output.display().to_string();
    let drops: u64 = data.counts.iter().map(|count| count.packets).sum();
    let folded: u64 = data.counts.iter().filter(|count| count.folded).map(|count| count.packets).sum();
    let summary = serde_json::json!({
        "file": path, "from": from.to_string(), "to": to.to_string(),
        "alarms": data.alarms.len(), "drops": drops, "folded": folded, "samples": data.samples.len(),
    });
    output.either(&summary, || {
        let alarms = data.alarms.len();
        let mut text = format!("{path}: {alarms} alarms and {drops} drops from {from:.0} to {to:.0}\n");
        if folded > 0 {
            text.push_str(&format!(
                "{folded} of the drops are counted by server and reason alone: a server had more kinds than \
                 its share\n"
            ));
        }
        text
    })?;
    Ok(Exit::Done)
}

/// Replaces the file in one step. Only its owner may read it, because it tells attackers what was seen.
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
        format!("could not write {}\nhelp: check free space and permissions of its folder", path.display())
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
        [] => bail!("no interface has a history\nhelp: -i IF names one, even one that is gone"),
        names => {
            bail!("several interfaces have a history: {}\nhelp: choose one with -i IF", names.join(", "))
        }
    }
}
