//! `portcullis show`: prints the live state of a gate.

mod audit;
mod names;

use std::path::PathBuf;

use anyhow::Context as _;
use jiff::Timestamp;

use super::alarms::{describe_open, describe_silences, find_silences};
use super::edits::show_edits;
use super::needs;
use super::shared::{find_place, live_policy, no_policy};
use crate::abi::Reason;
use crate::cli::Subject;
use crate::clock::{Clock, show_duration};
use crate::daemon::control::find_open_alarms;
use crate::drops::{Context, DropVerdict, LedgerRow, LookedUp, WholeLedger, add_whole};
use crate::escape::escape;
use crate::exit::Exit;
use crate::gate::{
    Edit, EditAction, FlowTable, Gate, GatePlace, GateState, GateStatus, HandoverStatus, PolicyFacts,
    QuarantinedAddress, list_gates,
};
use crate::history::list_damaged;
use crate::net::name_protocol;
use crate::output::{Output, align};
use crate::policy::{Detail, Direction, describe, summarize};

/// Prints one subject. The command line asks for an interface where the subject needs one.
///
/// # Errors
/// When there is no gate, and for `alarms` when no daemon runs.
pub fn run(
    interface: Option<&str>,
    subject: Subject,
    since: Option<Timestamp>,
    output: &Output,
) -> anyhow::Result<Exit> {
    anyhow::ensure!(since.is_none() || subject == Subject::Audit, "--since goes with `show audit` alone");
    let find = || -> anyhow::Result<GatePlace> {
        find_place(interface.context("no interface was named\nhelp: add -i IF")?)
    };
    let open = || -> anyhow::Result<(GatePlace, Gate)> {
        let place = find()?;
        let gate = Gate::open(&place)?;
        Ok((place, gate))
    };
    match subject {
        Subject::Status => show_status(&open()?, output)?,
        Subject::Policy => show_policy(&open()?, output)?,
        Subject::Servers => show_servers(&open()?, output)?,
        Subject::Flows => show_flows(&open()?, output)?,
        Subject::Drops => show_drops(&open()?, output)?,
        Subject::Alarms => show_alarms(&find()?, output)?,
        Subject::Audit => audit::show(interface, since, output)?,
        Subject::Edits => show_edits(&open()?.1, output)?,
        Subject::Names => names::show(&open()?, output)?,
        Subject::Needs => needs::show(&open()?, output)?,
        Subject::Gates => show_gates(output)?,
    }
    Ok(Exit::Done)
}

/// Prints the gates of every network namespace.
fn show_gates(output: &Output) -> anyhow::Result<()> {
    let gates = list_gates()?;
    output.either(&gates, || {
        if gates.is_empty() {
            return "there is no gate in any network namespace\n".to_owned();
        }
        let mut rows = vec![["GATE", "INTERFACE", "NAMESPACE", "STATE"].map(str::to_owned).to_vec()];
        rows.extend(gates.iter().map(|gate| {
            vec![
                gate.name.clone(),
                gate.interface.clone(),
                gate.namespace.map_or("initial".to_owned(), |inode| inode.to_string()),
                gate.state.describe().to_owned(),
            ]
        }));
        align(&rows)
    })?;
    if gates.iter().any(|gate| gate.state == GateState::Orphaned) {
        output.warn("some gates are orphaned\nhelp: portcullis detach --orphans removes them");
    }
    Ok(())
}

fn show_status((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let mut status = gate.status(place, &PolicyFacts::default())?;
    status.warnings.extend(gate.describe_outdated_links(place));
    status.warnings.extend(gate.list_name_troubles()?);
    status.warnings.extend(describe_damaged(&list_damaged(&place.history())));
    output.either(&status, || describe_status(&status))
}

/// Says which damaged histories were put aside.
fn describe_damaged(files: &[PathBuf]) -> Option<String> {
    let names: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "the history was damaged, and was put aside: {}\n\
             help: look into it with `sqlite3 FILE .recover`, then remove it",
            names.join(", ")
        )
    })
}

/// Prints the policy's text as it was applied, so that it can be applied again.
fn show_policy((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let (text, file) = gate.live_source()?.with_context(|| no_policy(&place.interface))?;
    output.either(&serde_json::json!({ "file": file, "policy": text }), || text.clone())
}

fn show_servers((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let policy = live_policy(gate, &place.interface)?;
    let quarantined = gate.quarantined()?;
    let addresses = gate.quarantined_addresses()?;
    if output.json {
        let mut value = serde_json::to_value(summarize(&policy))?;
        value["quarantined"] = serde_json::to_value(&quarantined)?;
        value["quarantined_addresses"] = serde_json::to_value(&addresses)?;
        return output.value(&value);
    }
    let mut text = describe(&policy, Detail::Full);
    let named = quarantined.iter().map(|(server, left_s)| (server.clone(), left_s));
    let single = addresses.iter().map(|row| (row.describe(), &row.left_s));
    for (server, left_s) in named.chain(single) {
        let until = left_s.map_or(String::new(), |seconds| format!(", {} more", show_duration(seconds)));
        text.push_str(&format!("\n{server} is in quarantine{until}\n"));
    }
    output.text(&text)
}

fn show_flows((_, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let mut flows = gate.flows()?;
    flows.sort_by_key(|flow| (flow.server, flow.server_port, flow.peer, flow.peer_port));
    output.either(&flows, || {
        let heads = ["SERVER", "PORT", "PEER", "PORT", "PROTOCOL", "STATE", "IDLE"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(flows.iter().map(|flow| {
            let address = |ip: Option<std::net::IpAddr>| ip.map_or("?".to_owned(), |ip| ip.to_string());
            let state = match flow.table {
                FlowTable::Established => "established",
                FlowTable::HalfOpen => "half-open",
                FlowTable::Datagrams | FlowTable::Icmp => "",
            };
            vec![
                address(flow.server),
                flow.server_port.to_string(),
                address(flow.peer),
                flow.peer_port.to_string(),
                name_protocol(flow.protocol).into_owned(),
                state.to_owned(),
                format!("{} s", flow.idle_s),
            ]
        }));
        align(&rows)
    })
}

fn show_drops((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let names = gate.names_by_id()?;
    let context =
        Context { interface: place.attached_as.as_str().into(), clock: Clock::now(), names: &names };
    let ledger = gate.fold_ledger(WholeLedger::new, add_whole)?;
    let mut rows: Vec<LedgerRow> =
        ledger.iter().map(|(key, entry)| LedgerRow::new(*key, entry, &context)).collect();
    rows.sort_by_key(|row| (std::cmp::Reverse(row.last), row.key));
    // of what an edit denies now
    let edits = gate.edits()?;
    let deciding: Vec<Option<u32>> = rows.iter().map(|row| find_denial(row, &edits)).collect();
    let lookups = gate.lookups()?;
    let find_lookup = |row: &LedgerRow| {
        row.last_destination.filter(|_| !row.own_port()).and_then(|to| lookups.find(row.key.server, to))
    };
    let mut value = serde_json::to_value(&rows)?;
    for ((value, row), edit) in value.as_array_mut().into_iter().flatten().zip(&rows).zip(&deciding) {
        if let Some(edit) = edit {
            value["edit"] = (*edit).into();
        }
        if let Some(looked_up) = find_lookup(row) {
            value["looked_up"] = serde_json::to_value(looked_up)?;
        }
    }
    output.either(&value, || {
        if rows.is_empty() {
            return "nothing was dropped\n".to_owned();
        }
        let heads = ["LAST", "SERVER", "ADDRESS", "WHAT", "LAST DESTINATION", "REASON", "PACKETS", "BYTES"];
        let mut table = vec![heads.map(str::to_owned).to_vec()];
        table
            .extend(rows.iter().zip(&deciding).map(|(row, edit)| describe_row(row, *edit, find_lookup(row))));
        align(&table)
    })
}

/// The edit that denies what a row counts. `None` for another reason, and when that edit has ended.
fn find_denial(row: &LedgerRow, edits: &[Edit]) -> Option<u32> {
    if row.reason() != Reason::Denied.into() {
        return None;
    }
    let direction = if row.own_port() { Direction::In } else { Direction::Out };
    let (server, peer) = (row.server.as_deref()?, row.last_destination?);
    let denies = |edit: &&Edit| {
        edit.action == EditAction::Deny
            && edit.covers(server, direction, row.key.protocol, row.key.port)
            && edit.has_peer(peer)
    };
    edits.iter().filter(denies).max_by_key(|edit| edit.until_ns).map(|edit| edit.number)
}

fn describe_row(row: &LedgerRow, edit: Option<u32>, looked_up: Option<&LookedUp>) -> Vec<String> {
    let address = |ip: Option<std::net::IpAddr>| ip.map_or("-".to_owned(), |ip| ip.to_string());
    let mut reason = row.reason().to_string();
    if row.verdict() == DropVerdict::WouldDrop {
        reason.push_str(" (would drop)");
    }
    if let Some(edit) = edit {
        reason.push_str(&format!(" (edit {edit})"));
    }
    if row.presumed() {
        reason.push_str(" (presumed)");
    }
    if row.quiet() {
        reason.push_str(" (quiet)");
    }
    vec![
        format!("{:.0}", row.last),
        row.server.as_deref().unwrap_or("-").to_owned(),
        address(row.last_source),
        row.service(),
        match looked_up {
            Some(name) => format!("{} ({})", address(row.last_destination), escape(&name.name)),
            None => address(row.last_destination),
        },
        reason,
        row.packets.to_string(),
        row.bytes.to_string(),
    ]
}

fn show_alarms(place: &GatePlace, output: &Output) -> anyhow::Result<()> {
    let alarms = find_open_alarms(place)?;
    if output.json {
        return output.value(&alarms);
    }
    if alarms.is_empty() {
        output.text("no alarm is open\n")?;
    }
    for alarm in &alarms {
        // the history has no such line
        let line = alarm["line"].as_str().map_or_else(|| describe_open(alarm), str::to_owned);
        output.text(&format!("{}\n", line.trim_end()))?;
    }
    output.text(&describe_silences(&find_silences(place)))
}

fn describe_status(status: &GateStatus) -> String {
    let yes_no = |yes: bool| if yes { "yes" } else { "NO" };
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |key: &str, value: String| rows.push(vec![key.to_owned(), value]);
    row(
        "interface",
        match &status.attached_as {
            Some(name) => format!("{} (attached as {name})", status.interface),
            None => status.interface.clone(),
        },
    );
    row("attached", status.attached.name().to_owned());
    for (key, value) in &status.settings {
        match *key {
            "mode" => row("enforcing", format!("{} (mode {value})", yes_no(status.enforcing))),
            "tracking" => row("tracking", format!("{value} (tracker: {})", status.tracker.name())),
            key => row(key, (*value).to_owned()),
        }
    }
    let policy = &status.policy;
    row("policy", format!("{} (generation {})", policy.policy_file, policy.generation));
    if let Some(trial) = &status.trial {
        let left = show_duration(trial.left_s);
        row("on trial", format!("for {left} more, then generation {} is live again", trial.before));
    }
    row("policy hash", policy.policy_hash.clone());
    row("servers", format!("{} ({} addresses and prefixes)", policy.servers, policy.addresses));
    if status.names.names > 0 {
        let names = &status.names;
        row(
            "names",
            format!("{} (resolvers: {}, open grants: {})", names.names, names.resolvers, names.grants),
        );
    }
    if !policy.observing.is_empty() {
        row("observing", policy.observing.join(", "));
    }
    let mut quarantined = status.quarantined.clone();
    quarantined.extend(status.quarantined_addresses.iter().map(QuarantinedAddress::describe));
    if !quarantined.is_empty() {
        row("in quarantine", quarantined.join(", "));
    }
    if let Some(handover) = &status.handover_state {
        let HandoverStatus { active, tcp_loose, asked, adopted, refused, takeover_s } = handover;
        let active = if *active { "" } else { "NOT ACTIVE, " };
        let loose = tcp_loose.map_or_else(|| "unknown".to_owned(), |loose| loose.to_string());
        row(
            "taken over",
            format!("{active}{adopted} of {asked} asked for, {refused} refused (tcp_loose: {loose})"),
        );
        if *takeover_s > 0 {
            row("takeover", format!("{takeover_s} s more"));
        }
    }
    if status.pickup_s > 0 {
        row("pickup", format!("{} s more", status.pickup_s));
    }
    row("events lost", status.events_lost.to_string());
    row("memory", mebibytes(status.bytes));
    let mut text = align(&rows);
    let heads = ["TABLE", "ENTRIES", "SIZE", "MEMORY"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(status.tables.iter().map(|usage| {
        let entries = usage.entries.map_or_else(|| "–".to_owned(), |entries| entries.to_string());
        vec![usage.table.to_owned(), entries, usage.size.to_string(), mebibytes(usage.bytes)]
    }));
    text.push('\n');
    text.push_str(&align(&table));
    for warning in &status.warnings {
        text.push_str(&format!("warning: {warning}\n"));
    }
    text
}
