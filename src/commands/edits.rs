//! `portcullis allow` and `portcullis deny`: change what one server may do, for a time.

use std::fmt::Display;
use std::iter;
use std::time::Duration;

use anyhow::{Context as _, bail};
use ipnet::IpNet;
use serde_json::{Value, json};

use super::shared::{
    exit_by_attachment, find_place, live_policy, open_gate, record, record_refusal, save_quarantines,
};
use crate::audit::{Action, Entry, Who};
use crate::cli::EditArgs;
use crate::clock::{Clock, show_duration};
use crate::exit::Exit;
use crate::gate::{Edit, EditAction, EditAsked, Gate, GateError, cancel_saved_edit};
use crate::output::{Output, align};
use crate::policy::{Direction, Mode, Need, Policy, parse_need};
use crate::stderr;

/// Makes an edit, or cancels one.
///
/// # Errors
/// When there is no gate, its policy has no such server, or the need can't be one of an edit.
pub fn run(action: EditAction, asked: &EditArgs, output: &Output) -> anyhow::Result<Exit> {
    if let Some(number) = asked.cancel {
        let interface = &asked.interface.name;
        let refused = |why: &dyn Display| {
            Entry::refused(action_of(action), why).detail(format_args!("cancel edit {number}"))
        };
        return record_refusal(interface, refused, output, || cancel(interface, number, output));
    }
    let Some(time) = asked.time else {
        stderr::notice(format_args!(
            "portcullis: an edit needs an end: add --for, as in --for 10m\n\
             help: what is to stay belongs in the policy file"
        ));
        return Ok(Exit::Trouble);
    };
    if asked.force && action == EditAction::Allow {
        bail!("--force goes with `deny`: an `allow` cuts nobody off");
    }
    record_refusal(
        &asked.interface.name,
        |why| {
            let asked_for =
                [&[asked.direction.clone().unwrap_or_default()], asked.need.as_slice()].concat().join(" ");
            Entry::refused(action_of(action), why)
                .about(asked.server.as_deref().unwrap_or_default())
                .detail(asked_for)
                .note(asked.note.as_deref())
        },
        output,
        || change(action, asked, time, output),
    )
}

const fn action_of(action: EditAction) -> Action {
    match action {
        EditAction::Allow => Action::Allow,
        EditAction::Deny => Action::Deny,
    }
}

fn change(action: EditAction, asked: &EditArgs, time: Duration, output: &Output) -> anyhow::Result<Exit> {
    let direction = match asked.direction.as_deref() {
        Some("in") => Direction::In,
        _ => Direction::Out,
    };
    let place = find_place(&asked.interface.name)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = open_gate(&place, output)?;
    let policy = live_policy(&gate, interface)?;
    let before = gate.policy_before_trial()?;
    let need = read_need(&asked.need.join(" "), direction, &policy)?;
    let server = asked.server.clone().unwrap_or_default();
    if action == EditAction::Deny
        && !asked.force
        && let peers = need.resolve_peers(&policy.sets)
        && let Some(managed) =
            iter::once(&policy).chain(&before).find_map(|policy| find_management(&need, &peers, policy))
    {
        bail!(
            "this denies what the management needs (`{managed}`): it may cut you off yourself, and nothing was \
             changed\n\
             help: with --force it is done; it ends by itself after {}",
            show_duration(time.as_secs())
        );
    }
    let edit = gate.add_edit(
        &policy,
        EditAsked {
            action,
            server,
            need,
            seconds: time.as_secs(),
            who: Who::of_this_process().describe(),
            note: asked.note.clone(),
        },
    )?;
    let mark = gate.policy_mark();
    let detail = format!(
        "edit {}: {} {} for {}",
        edit.number,
        edit.direction,
        edit.need,
        show_duration(time.as_secs())
    );
    let entry = Entry::done(action_of(action)).about(&edit.server).detail(detail).note(edit.note.as_deref());
    record(&place, entry.change(mark.clone(), mark), output);
    drop(lock);
    save_quarantines(&gate, &place, output);
    for warning in find_doubts(&gate, &policy, &edit)? {
        output.warn(&warning);
    }
    output.either(&describe_json(&edit), || {
        format!(
            "{}\nnext: portcullis allow -i {interface} --cancel {} ends it before\n",
            describe_edit(&edit),
            edit.number
        )
    })?;
    Ok(exit_by_attachment(&gate, &place, output))
}

fn cancel(interface: &str, number: u32, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let lock = place.lock()?;
    let missing = || {
        format!(
            "there is no edit {number} on {0}; it may have ended\nhelp: portcullis show -i {0} edits",
            place.interface
        )
    };
    let gate = match open_gate(&place, output) {
        Ok(gate) => gate,
        Err(error @ GateError::NotAttached { .. }) => {
            if !cancel_saved_edit(&place, number)? {
                return Err(anyhow::Error::from(error).context(format!("there is no edit {number}")));
            }
            let detail = format!(
                "cancelled edit {number}: there is no gate, and the next attach does not bring it back"
            );
            record(&place, Entry::done(Action::Allow).detail(detail), output);
            output.either(&json!({ "number": number, "cancelled": true }), || {
                format!("edit {number} does not come back with the next attach\n")
            })?;
            return Ok(Exit::Done);
        }
        Err(error) => return Err(error.into()),
    };
    let edit = gate.cancel_edit(number)?.with_context(missing)?;
    let mark = gate.policy_mark();
    let entry = Entry::done(action_of(edit.action))
        .about(&edit.server)
        .detail(format!("cancelled edit {number}: {edit}"));
    record(&place, entry.change(mark.clone(), mark), output);
    drop(lock);
    save_quarantines(&gate, &place, output);
    let mut value = describe_json(&edit);
    value["cancelled"] = true.into();
    output.either(&value, || format!("edit {number} is over: {edit}\n"))?;
    Ok(exit_by_attachment(&gate, &place, output))
}

/// Reads the need of an edit. It has no tokens and no table of source ports.
fn read_need(text: &str, direction: Direction, policy: &Policy) -> anyhow::Result<Need> {
    let need = parse_need(text, direction, policy).map_err(|diagnostics| anyhow::anyhow!("{diagnostics}"))?;
    let clause = match &need {
        Need { limit: Some(_), .. } => "limit",
        Need { sport: Some(_), .. } => "sport",
        _ => return Ok(need),
    };
    bail!("an edit can't have a `{clause}`: `{text}`\nhelp: leave it out, or change the policy file")
}

/// The need of the management that a denial of these peers would touch.
fn find_management<'p>(denied: &Need, peers: &[IpNet], policy: &'p Policy) -> Option<&'p Need> {
    policy.settings.management.iter().find(|need| {
        let managed = need.resolve_peers(&policy.sets);
        let meets =
            managed.iter().any(|one| peers.iter().any(|other| one.contains(other) || other.contains(one)));
        need.direction == denied.direction
            && need.protocol == denied.protocol
            && need.ports.start() <= denied.ports.end()
            && denied.ports.start() <= need.ports.end()
            && (peers.is_empty() || managed.is_empty() || meets)
    })
}

/// Sentences about an edit that has no effect now, or another one than was meant.
fn find_doubts(gate: &Gate, policy: &Policy, edit: &Edit) -> anyhow::Result<Vec<String>> {
    let mut doubts = Vec::new();
    let server = &edit.server;
    let observes = policy.find_server(server).is_some_and(|server| policy.mode_of(server) == Mode::Observe);
    if edit.action == EditAction::Deny && observes {
        doubts.push(format!("{server} is in mode observe: what is denied is counted, and passes"));
    }
    if edit.action == EditAction::Allow && gate.quarantined()?.iter().any(|(name, _)| name == server) {
        doubts.push(format!("{server} is in quarantine, where no `allow` counts"));
    }
    let edits = gate.edits()?;
    let denial = edits.iter().find(|other| {
        edit.action == EditAction::Allow
            && other.action == EditAction::Deny
            && other.server == *server
            && (other.direction, &other.need) == (edit.direction, &edit.need)
    });
    if let Some(denial) = denial {
        doubts.push(format!("edit {} denies the same, and goes first", denial.number));
    }
    Ok(doubts)
}

/// Prints the edits that hold.
pub(super) fn show_edits(gate: &Gate, output: &Output) -> anyhow::Result<()> {
    let edits = gate.edits()?;
    let values: Vec<Value> = edits.iter().map(describe_json).collect();
    output.either(&values, || {
        if edits.is_empty() {
            return "there is no edit: the policy alone decides\n".to_owned();
        }
        let clock = Clock::now();
        let heads = ["N", "WHAT", "SERVER", "NEED", "LEFT", "SINCE", "WHO", "NOTE"];
        let mut rows = vec![heads.map(str::to_owned).to_vec()];
        rows.extend(edits.iter().map(|edit| {
            vec![
                edit.number.to_string(),
                edit.action.name().to_owned(),
                edit.server.clone(),
                format!("{} {}", edit.direction, edit.need),
                show_duration(edit.left_s()),
                format!("{:.0}", clock.to_wall(edit.since_ns)),
                edit.who.clone(),
                edit.note.clone().unwrap_or_default(),
            ]
        }));
        align(&rows)
    })
}

/// An edit as `-j` has it.
pub(super) fn describe_json(edit: &Edit) -> Value {
    let clock = Clock::now();
    json!({
        "number": edit.number,
        "action": edit.action,
        "server": edit.server,
        "direction": edit.direction,
        "need": edit.need,
        "peers": edit.peers,
        "since": clock.to_wall(edit.since_ns),
        "until": clock.to_wall(edit.until_ns),
        "left_s": edit.left_s(),
        "who": edit.who,
        "note": edit.note,
    })
}

/// As `edit 7: allow web1 out tcp/443 for 9m30s more, by root: the note`.
pub(super) fn describe_edit(edit: &Edit) -> String {
    let note = edit.note.as_ref().map_or(String::new(), |note| format!(": {note}"));
    format!("edit {}: {edit} for {} more, by {}{note}", edit.number, show_duration(edit.left_s()), edit.who)
}

/// The edits that a policy leaves as they are.
pub(super) fn list_kept(edits: &[Edit]) -> String {
    edits.iter().map(|edit| format!("= {}\n", describe_edit(edit))).collect()
}
