//! `portcullis export state` and `import state`: quarantines, edits and grants go from one router of a pair to the
//! other.
//!
//! Each holds under the receiver's own policy. What an import has brought is kept in a file of its own, so that the
//! next one can end what the sender has ended since.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::shared::{exit_by_attachment, find_place, live_policy, open_gate, record, save_quarantines};
use crate::audit::{Action, Entry};
use crate::clock::wall_now;
use crate::exit::Exit;
use crate::gate::{EditAction, EditAsked, Gate, GatePlace};
use crate::host::host_name;
use crate::net::parse_mac;
use crate::output::Output;
use crate::policy::{Direction, Policy, parse_need};
use crate::state_file;

const VERSION: u32 = 1;
/// In the state folder: what imports have brought that still holds.
const FILE: &str = "imported.json";
/// Two ends that differ by less are the same: times are rounded on the way.
const SLACK_S: u64 = 5;
/// More than the tables of the largest gate take.
const MOST_BYTES: u64 = 64 << 20;

/// What a router prints.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    version: u32,
    host: String,
    interface: String,
    time: Timestamp,
    items: Vec<Item>,
    /// Grants of names, and the connections that they have let pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    grants: Option<serde_json::Value>,
}

/// A quarantine or an edit, with what is left of its time. `None`: until it is released.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Item {
    #[serde(flatten)]
    what: What,
    left_s: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    who: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// What holds, without its time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum What {
    Server { server: String },
    Address { address: String, mac: Option<String> },
    Allow { server: String, direction: String, need: String },
    Deny { server: String, direction: String, need: String },
}

impl What {
    fn action(&self) -> Action {
        match self {
            What::Server { .. } | What::Address { .. } => Action::Quarantine,
            What::Allow { .. } => Action::Allow,
            What::Deny { .. } => Action::Deny,
        }
    }

    fn subject(&self) -> &str {
        match self {
            What::Address { address, .. } => address,
            What::Server { server } | What::Allow { server, .. } | What::Deny { server, .. } => server,
        }
    }

    fn describe(&self) -> String {
        match self {
            What::Server { server } => format!("quarantine of {server}"),
            What::Address { address, .. } => format!("quarantine of {address}"),
            What::Allow { server, direction, need } => format!("allow {server} {direction} {need}"),
            What::Deny { server, direction, need } => format!("deny {server} {direction} {need}"),
        }
    }
}

/// Prints the quarantines and edits of a gate.
///
/// # Errors
/// When there is no gate, or it can't be read.
pub fn export(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let gate = Gate::open(&place)?;
    let state = State {
        version: VERSION,
        host: host_name().to_owned(),
        interface: place.attached_as.clone(),
        time: wall_now(),
        items: list_items(&gate)?,
        grants: gate.export_grants()?,
    };
    let text = serde_json::to_string_pretty(&state)?;
    output.either(&state, || format!("{text}\n"))?;
    Ok(Exit::Done)
}

fn list_items(gate: &Gate) -> anyhow::Result<Vec<Item>> {
    let order = |what: What, left_s: Option<u64>| Item { what, left_s, who: None, note: None };
    let servers = gate.quarantined()?.into_iter();
    let mut items: Vec<Item> =
        servers.map(|(server, left_s)| order(What::Server { server }, left_s)).collect();
    let addresses = gate.quarantined_addresses()?.into_iter();
    items
        .extend(addresses.map(|row| order(What::Address { address: row.address, mac: row.mac }, row.left_s)));
    items.extend(gate.edits()?.into_iter().map(|edit| {
        let (server, direction, need) = (edit.server.clone(), edit.direction.to_string(), edit.need.clone());
        let what = match edit.action {
            EditAction::Allow => What::Allow { server, direction, need },
            EditAction::Deny => What::Deny { server, direction, need },
        };
        Item { what, left_s: Some(edit.left_s()), who: Some(edit.who.clone()), note: edit.note }
    }));
    // a prefix of several servers is listed for each of them
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.what.clone()));
    Ok(items)
}

/// Takes over what another router has printed. An item that this router's policy has no place for is a warning, and
/// makes the exit status 1.
///
/// # Errors
/// When the file is none of `export state`, or there is no gate.
pub fn import(interface: &str, file: &Path, output: &Output) -> anyhow::Result<Exit> {
    let state = read_state(file)?;
    let passed = wall_now().duration_since(state.time).as_secs();
    let passed_s = u64::try_from(passed).unwrap_or(0);
    let place = find_place(interface)?;
    let lock = place.lock()?;
    let gate = open_gate(&place, output)?;
    let policy = live_policy(&gate, &place.interface)?;
    let now_held = list_items(&gate)?;
    let imported = read_imported(&place);
    let (mut kept, mut changed, mut refused) = (BTreeSet::new(), Vec::new(), 0);
    let by = Importer { gate: &gate, place: &place, policy: &policy, host: &state.host, output };
    for item in &state.items {
        let left_s = item.left_s.map(|left_s| left_s.saturating_sub(passed_s));
        if left_s == Some(0) {
            continue;
        }
        let held = now_held.iter().find(|held| held.what == item.what);
        if held.is_some_and(|held| lasts_as_long(held.left_s, left_s)) {
            if imported.contains(&item.what) {
                kept.insert(item.what.clone());
            }
            continue;
        }
        match by.take(item, left_s) {
            Ok(()) => {
                kept.insert(item.what.clone());
                changed.push(item.what.describe());
            }
            Err(error) => {
                refused += 1;
                output.warn(&format!("not taken over: {}: {error:#}", item.what.describe()));
            }
        }
    }
    let mut ended = Vec::new();
    for what in imported.difference(&kept) {
        let is_asked_for = state.items.iter().any(|item| item.what == *what);
        if !is_asked_for && now_held.iter().any(|held| held.what == *what) {
            by.end(what)?;
            ended.push(what.describe());
        }
    }
    write_imported(&place, &kept, output);
    let mut warnings = Vec::new();
    let grants = match state.grants {
        Some(grants) => gate.import_grants(grants, &mut warnings)?,
        None => 0,
    };
    warnings.iter().for_each(|text| output.warn(text));
    drop(lock);
    if grants > 0 || !changed.is_empty() || !ended.is_empty() {
        save_quarantines(&gate, &place, output);
    }
    let value = json!({
        "interface": place.interface, "from": state.host, "taken_over": changed, "ended": ended, "refused": refused,
        "grants": grants,
    });
    output.either(&value, || {
        let lines = changed.iter().map(|what| format!("+ {what}\n"));
        let text: String = lines.chain(ended.iter().map(|what| format!("- {what}\n"))).collect();
        let of_names = if grants > 0 { format!(", with {grants} addresses of names") } else { String::new() };
        format!("{text}the state of {} is taken over on {}{of_names}\n", state.host, place.interface)
    })?;
    if refused > 0 {
        return Ok(Exit::Failed);
    }
    Ok(exit_by_attachment(&gate, &place, output))
}

/// Whether an order that is held need not be changed: nothing that was done here is shortened.
fn lasts_as_long(held_s: Option<u64>, asked_s: Option<u64>) -> bool {
    match (held_s, asked_s) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(held), Some(asked)) => held + SLACK_S >= asked,
    }
}

/// What an item is taken over with.
struct Importer<'i> {
    gate: &'i Gate,
    place: &'i GatePlace,
    policy: &'i Policy,
    host: &'i str,
    output: &'i Output,
}

impl Importer<'_> {
    fn take(&self, item: &Item, left_s: Option<u64>) -> anyhow::Result<()> {
        let gate = self.gate;
        match &item.what {
            What::Server { server } => {
                gate.quarantine(server, left_s)?;
                if let Ok(macs) = gate.find_machines(self.place, server) {
                    gate.note_machines(server, &macs)?;
                }
            }
            What::Address { address, mac } => {
                let Ok(address) = address.parse() else {
                    bail!(
                        "it is a prefix that a server has lost there, and this router knows nothing of that"
                    );
                };
                let mac = mac.as_deref().and_then(parse_mac);
                gate.quarantine_address(address, mac, left_s)?;
            }
            What::Allow { server, direction, need } => {
                self.take_edit(EditAction::Allow, server, direction, need, item, left_s)?;
            }
            What::Deny { server, direction, need } => {
                self.take_edit(EditAction::Deny, server, direction, need, item, left_s)?;
            }
        }
        let mark = gate.policy_mark();
        let entry = Entry::done(item.what.action())
            .about(item.what.subject())
            .detail(format_args!("{}, imported from {}", item.what.describe(), self.host))
            .note(item.note.as_deref());
        record(self.place, entry.change(mark.clone(), mark), self.output);
        Ok(())
    }

    fn take_edit(
        &self,
        action: EditAction,
        server: &str,
        direction: &str,
        need: &str,
        item: &Item,
        left_s: Option<u64>,
    ) -> anyhow::Result<()> {
        let direction = if direction == "in" { Direction::In } else { Direction::Out };
        let need = parse_need(need, direction, self.policy)
            .map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
        let seconds = left_s.context("an edit has an end")?;
        // an earlier one of the same need that ends before
        self.cancel(&item.what)?;
        let who = format!("{} on {}", item.who.as_deref().unwrap_or("somebody"), self.host);
        let asked =
            EditAsked { action, server: server.to_owned(), need, seconds, who, note: item.note.clone() };
        self.gate.add_edit(self.policy, asked)?;
        Ok(())
    }

    fn cancel(&self, what: &What) -> anyhow::Result<()> {
        let (action, server, direction, need) = match what {
            What::Allow { server, direction, need } => (EditAction::Allow, server, direction, need),
            What::Deny { server, direction, need } => (EditAction::Deny, server, direction, need),
            What::Server { .. } | What::Address { .. } => return Ok(()),
        };
        for edit in self.gate.edits()? {
            if edit.action == action
                && edit.server == *server
                && edit.direction.to_string() == *direction
                && edit.need == *need
            {
                self.gate.cancel_edit(edit.number)?;
            }
        }
        Ok(())
    }

    /// Ends what an earlier import has brought.
    fn end(&self, what: &What) -> anyhow::Result<()> {
        let action = match what {
            What::Server { server } => {
                self.gate.release(server)?;
                Action::Release
            }
            What::Address { address, .. } => {
                if let Ok(address) = address.parse::<std::net::IpAddr>() {
                    self.gate.release_addresses(address.into())?;
                }
                Action::Release
            }
            What::Allow { .. } | What::Deny { .. } => {
                self.cancel(what)?;
                what.action()
            }
        };
        let mark = self.gate.policy_mark();
        let entry = Entry::done(action).about(what.subject()).detail(format_args!(
            "{} has ended on {}",
            what.describe(),
            self.host
        ));
        record(self.place, entry.change(mark.clone(), mark), self.output);
        Ok(())
    }
}

fn read_state(file: &Path) -> anyhow::Result<State> {
    let name = file.display();
    let mut text = Vec::new();
    let read = match file == Path::new("-") {
        true => io::stdin().take(MOST_BYTES).read_to_end(&mut text),
        false => fs::File::open(file).and_then(|file| file.take(MOST_BYTES).read_to_end(&mut text)),
    };
    read.with_context(|| format!("could not read {name}"))?;
    let state: State = serde_json::from_slice(&text).with_context(|| {
        format!("{name} is no state of a gate; `portcullis export state -i IF` prints one")
    })?;
    if state.version != VERSION {
        bail!(
            "{name} has version {} of the format, and this portcullis knows {VERSION}: both routers need the same version",
            state.version
        );
    }
    Ok(state)
}

/// What earlier imports have brought. A file that can't be read says nothing: then nothing is ended.
fn read_imported(place: &GatePlace) -> BTreeSet<What> {
    let text = fs::read(place.history().join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn write_imported(place: &GatePlace, imported: &BTreeSet<What>, output: &Output) {
    let path = place.history().join(FILE);
    let text = serde_json::to_vec_pretty(imported).unwrap_or_default();
    if fs::read(&path).unwrap_or_default() == text {
        return;
    }
    if let Err(error) = state_file::replace(&path, &[&text]) {
        output.warn(&format!(
            "it holds now, but {} could not be written, so a later import does not end it: {error}",
            path.display()
        ));
    }
}
