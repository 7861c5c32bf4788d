//! `portcullis detach`

use serde_json::json;

use super::Exit;
use super::output::Output;
use crate::gate::{Fate, GateError, Place, hint_at_orphans, is_pinned, lift, lift_by_name, list_gates};

pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    // no interface's name has a colon, and that of a gate left behind has two
    if interface.contains("::") {
        lift_by_name(interface)?;
        output.either(&json!({ "gate": interface, "lifted": true }), || describe_lifted(interface))?;
        return Ok(Exit::Done);
    }
    // also behind an interface that is gone
    let place = Place::of_any(interface)?;
    if !is_pinned(&place) {
        Place::of(interface)?;
    }
    let _lock = place.lock()?;
    // first, or the daemon could miss it
    place.note_order_to_lift(true);
    let lifted = lift(&place).inspect_err(|_| place.note_order_to_lift(false))?;
    output.either(&json!({ "interface": interface, "lifted": lifted }), || {
        if lifted {
            format!("the gate on {interface} is lifted: nothing is dropped any more\n")
        } else {
            format!("there was no gate on {interface}{}\n", hint_at_orphans(interface))
        }
    })?;
    Ok(Exit::Done)
}

/// `detach --orphans`
pub fn run_on_orphans(output: &Output) -> anyhow::Result<Exit> {
    let mut lifted = Vec::new();
    let mut failed = 0;
    for gate in list_gates()?.into_iter().filter(|gate| gate.state == Fate::Orphaned) {
        match lift_by_name(&gate.name) {
            Ok(gate) => lifted.push(gate.name),
            // alive again, or removed by somebody else meanwhile
            Err(GateError::NamespaceLives { .. } | GateError::NoSuchPins { .. }) => {}
            Err(error) => {
                failed += 1;
                output.warn(&error.to_string());
            }
        }
    }
    output.either(&json!({ "lifted": lifted }), || match lifted.is_empty() {
        true => "there is no orphaned gate\n".to_owned(),
        false => lifted.iter().map(|name| describe_lifted(name)).collect(),
    })?;
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn describe_lifted(name: &str) -> String {
    format!("the pins of {name}, left of a network namespace that is gone, are removed\n")
}
