//! `portcullis quarantine` and `portcullis release`: cut off a server or one of its addresses, and end that.

use std::fmt::Display;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::bail;
use serde_json::{Value, json};

use super::shared::{exit_by_attachment, find_place, open_gate, record, record_refusal, save_quarantines};
use crate::audit::{Action, Entry};
use crate::clock::show_duration;
use crate::exit::Exit;
use crate::gate::{Gate, GateError, GatePlace, Released, SavedRelease, Sender, Target, release_saved};
use crate::net::{show_mac, show_prefix};
use crate::output::Output;

/// Cuts off a server or an address but for its management, for a time or until it is released. `address_only`
/// leaves the MAC of the address alone.
///
/// # Errors
/// When there is no gate, or its policy has no such server or address.
pub fn run(
    interface: &str,
    target: &str,
    time: Option<Duration>,
    address_only: bool,
    output: &Output,
) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Quarantine, why).about(target);
    record_refusal(interface, refused, output, || cut_off(interface, target, time, address_only, output))
}

fn cut_off(
    interface: &str,
    target: &str,
    time: Option<Duration>,
    address_only: bool,
    output: &Output,
) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = open_gate(&place, output)?;
    let seconds = time.map(|time| time.as_secs());
    let until = match seconds {
        Some(seconds) => format!("for {}", show_duration(seconds)),
        None => "until it is released".to_owned(),
    };
    let (value, text) = match gate.find_target(target)? {
        Target::Server(name) if address_only => {
            bail!("{name} is a server, and --address-only goes with an address")
        }
        Target::Prefix(prefix) => bail!(
            "`{prefix}` is a prefix, and a quarantine is for a server or for one address\n\
             help: name the server that has it; `portcullis show -i {interface} servers` lists them"
        ),
        Target::Server(name) => {
            gate.quarantine(&name, seconds)?;
            let found = gate.find_machines(&place, &name);
            let macs = match found.and_then(|macs| gate.note_machines(&name, &macs).map(|()| macs)) {
                Ok(macs) => macs.iter().map(show_mac).collect(),
                Err(error) => {
                    output.warn(&format!("{name} is in quarantine, but its MACs are not noted: {error}"));
                    Vec::new()
                }
            };
            let value = json!({ "server": name, "quarantined": true, "seconds": seconds, "macs": macs });
            let mut text = format!("{name} is in quarantine {until}: only its management gets an answer\n");
            if !macs.is_empty() {
                let (plural, are) = if macs.len() == 1 { ("", "is") } else { ("s", "are") };
                text.push_str(&format!(
                    "its MAC{plural} {} {are} cut off with it under addresses that no server has\n",
                    macs.join(", ")
                ));
            }
            (value, text)
        }
        Target::Address(address, _) => {
            let sender = match address_only {
                true => None,
                false => find_sender(&gate, &place, address, output),
            };
            let server =
                gate.quarantine_address(address, sender.as_ref().map(|sender| sender.mac), seconds)?;
            let others = match &sender {
                Some(sender) => gate.select_addresses(&server, &sender.others)?,
                None => Vec::new(),
            };
            let value = json!({
                "server": server, "address": address, "quarantined": true, "seconds": seconds,
                "mac": sender.as_ref().map(|sender| show_mac(&sender.mac)), "others": others,
            });
            let mut text = format!(
                "{address} ({server}) is in quarantine {until}: only its management gets an answer\n"
            );
            if !address_only {
                text.push_str(&describe_sender(&server, sender.as_ref(), &others));
            }
            (value, text)
        }
    };
    let mark = gate.policy_mark();
    let entry = Entry::done(Action::Quarantine).about(target).detail(&until).change(mark.clone(), mark);
    record(&place, entry, output);
    drop(lock);
    save_quarantines(&gate, &place, output);
    output.either(&value, || format!("{text}next: portcullis release -i {interface} {target}\n"))?;
    Ok(exit_by_attachment(&gate, &place, output))
}

/// The machine of an address. One that can't be found keeps nobody from being cut off.
fn find_sender(gate: &Gate, place: &GatePlace, address: IpAddr, output: &Output) -> Option<Sender> {
    gate.find_sender(place, address).unwrap_or_else(|error| {
        output.warn(&error.to_string());
        None
    })
}

fn describe_sender(server: &str, sender: Option<&Sender>, others: &[IpAddr]) -> String {
    let Some(sender) = sender else {
        return format!(
            "its MAC is not known here, so the machine can go on under another address of {server}, \
             if there is one\n"
        );
    };
    let mut text = format!(
        "its MAC {} is cut off with it, whatever address of {server} it takes",
        show_mac(&sender.mac)
    );
    if !others.is_empty() {
        let others: Vec<String> = others.iter().map(IpAddr::to_string).collect();
        text.push_str(&format!(
            ". It has {} now.\nIf these are other machines behind a router, release it and use --address-only",
            others.join(", ")
        ));
    }
    text.push('\n');
    text
}

/// Ends a quarantine. Without a gate it ends one that waits for the next attach.
///
/// # Errors
/// As [`run`].
pub fn release(interface: &str, target: &str, output: &Output) -> anyhow::Result<Exit> {
    let refused = |why: &dyn Display| Entry::refused(Action::Release, why).about(target);
    record_refusal(interface, refused, output, || end_quarantine(interface, target, output))
}

fn end_quarantine(interface: &str, target: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = find_place(interface)?;
    let interface = place.interface.as_str();
    let lock = place.lock()?;
    let gate = match open_gate(&place, output) {
        Ok(gate) => gate,
        Err(error @ GateError::NotAttached { .. }) => {
            let SavedRelease { was, with_server } = release_saved(&place, target)?;
            match (was, &with_server) {
                (false, None) => return Err(error.into()),
                (false, Some(server)) => bail!(
                    "{target} waits with its server for the next attach\n\
                     help: portcullis release -i {interface} {server} releases all of {server}"
                ),
                (true, _) => {}
            }
            let detail = "there is no gate: the next attach does not put it back into quarantine";
            record(&place, Entry::done(Action::Release).about(target).detail(detail), output);
            let value = json!({ "target": target, "quarantined": with_server.is_some(), "released": true });
            output.either(&value, || match &with_server {
                None => format!("{target} is released: the next attach does not put it back into quarantine\n"),
                Some(server) => format!(
                    "{target} is released, but the next attach puts {server} as a whole back into quarantine\n\
                     next: portcullis release -i {interface} {server}\n"
                ),
            })?;
            return Ok(Exit::Done);
        }
        Err(error) => return Err(error.into()),
    };
    let word = target;
    let target = gate.find_target(target)?;
    let released = match &target {
        Target::Server(name) => gate.release(name)?,
        Target::Address(address, _) => gate.release_addresses((*address).into())?,
        Target::Prefix(prefix) => gate.release_addresses(*prefix)?,
    };
    if released.was {
        let mark = gate.policy_mark();
        record(&place, Entry::done(Action::Release).about(word).change(mark.clone(), mark), output);
    }
    drop(lock);
    // also when there was none: a release that was cut short may not have come to this
    save_quarantines(&gate, &place, output);
    if let (false, Some(server)) = (released.was, &released.with_server) {
        bail!(
            "it is in quarantine with its server\n\
             help: portcullis release -i {interface} {server} releases all of {server}"
        );
    }
    output.either(&to_json(&target, &released), || describe_release(interface, &target, &released))?;
    Ok(Exit::Done)
}

fn to_json(target: &Target, released: &Released) -> Value {
    let (server, address) = match target {
        Target::Server(name) => (Some(name), None),
        Target::Address(address, server) => (server.as_ref(), Some(address.to_string())),
        Target::Prefix(prefix) => (None, Some(show_prefix(prefix))),
    };
    let mut value = json!({
        "server": server,
        "quarantined": released.with_server.is_some(),
        "released": released.was,
        "addresses": released.addresses,
        "remaining": released.remaining,
    });
    if let Some(address) = address {
        value["address"] = json!(address);
    }
    value
}

fn describe_release(interface: &str, target: &Target, released: &Released) -> String {
    let who = match target {
        Target::Server(name) => name.clone(),
        Target::Address(address, Some(server)) => format!("{address} ({server})"),
        Target::Address(address, None) => address.to_string(),
        Target::Prefix(prefix) => show_prefix(prefix),
    };
    let mut text = match (&released.with_server, released.was) {
        (Some(server), _) => format!(
            "{who} is released, but {server} as a whole is still in quarantine\n\
             next: portcullis release -i {interface} {server}\n"
        ),
        (None, true) => format!("{who} is released: its policy holds again\n"),
        (None, false) => format!("{who} was not in quarantine\n"),
    };
    if !released.addresses.is_empty() {
        text.push_str(&format!("addresses that were cut off: {}\n", released.addresses.join(", ")));
    }
    for row in &released.remaining {
        text.push_str(&format!(
            "{} stays in quarantine: it was {who}'s when {who} was cut off\n\
             next: portcullis release -i {interface} {}\n",
            row.describe(),
            row.address
        ));
    }
    text
}
