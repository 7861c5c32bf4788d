//! `portcullis detach`

use serde_json::json;

use crate::exit::Exit;
use crate::gate::{
    GateError, GatePlace, GateState, detach, detach_by_name, hint_at_orphans, is_pinned, list_gates,
};
use crate::output::Output;

pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    // no interface's name has a colon, and that of a gate left behind has two
    if interface.contains("::") {
        detach_by_name(interface)?;
        output.either(&json!({ "gate": interface, "lifted": true }), || describe_lifted(interface))?;
        return Ok(Exit::Done);
    }
    // also behind an interface that is gone
    let place = GatePlace::of_any(interface)?;
    if !is_pinned(&place) {
        GatePlace::of(interface)?;
    }
    let _lock = place.lock()?;
    // first, or the daemon could miss it
    place.note_detach_order(true);
    let lifted = detach(&place).inspect_err(|_| place.note_detach_order(false))?;
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
    for gate in list_gates()?.into_iter().filter(|gate| gate.state == GateState::Orphaned) {
        match detach_by_name(&gate.name) {
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
