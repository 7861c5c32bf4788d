//! `portcullis apply`

use std::path::Path;

use serde_json::json;

use super::Exit;
use super::output::Output;
use super::policy_file::load;
use crate::gate::{Gate, Mode, Place, warn_of_surroundings};
use crate::policy::Change;

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = Place::of(interface)?;
    let _lock = place.lock()?;
    let gate = Gate::open(&place)?;
    let changes = gate.changes_to(&compiled.policy)?;
    let generation = gate.apply(&place, &compiled.policy, &compiled.tables)?;
    let surroundings = warn_of_surroundings(&place, &compiled.policy);
    for warning in gate.sizes_not_in_force(&compiled.policy).iter().chain(&surroundings) {
        output.warn(warning);
    }
    output
        .either(&json!({ "interface": interface, "generation": generation, "changes": changes }), || {
            format!("{}generation {generation} is live on {interface}\n", list(&changes))
        })?;
    Ok(if is_down(&gate, &place, output) { Exit::Done } else { Exit::Failed })
}

/// Whether the filter is on its interface; says so when it is not, for then nothing holds.
pub fn is_down(gate: &Gate, place: &Place, output: &Output) -> bool {
    let down = gate.find_mode(place) != Mode::No;
    if !down {
        output.warn(&format!(
            "the filter is not on {0}: NOTHING IS DROPPED\nhelp: portcullis attach -i {0} -p POLICY",
            place.interface
        ));
    }
    down
}

/// One change a line.
pub fn list(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("{change}\n")).collect()
}
