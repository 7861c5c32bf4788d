//! `portcullis apply`

use std::path::Path;

use serde_json::json;

use crate::exit::Exit;
use crate::gate::{AttachMode, Gate, GatePlace, find_caveats};
use crate::output::Output;
use crate::policy::list_changes;
use crate::policy_file::load;

pub fn run(interface: &str, policy: &Path, output: &Output) -> anyhow::Result<Exit> {
    let compiled = load(policy, output)?;
    let place = GatePlace::of(interface)?;
    let _lock = place.lock()?;
    let gate = Gate::open(&place)?;
    let changes = gate.changes_to(&compiled.policy)?;
    let generation = gate.apply(&place, &compiled.policy, &compiled.tables)?;
    let surroundings = find_caveats(&place, &compiled.policy);
    for warning in gate.sizes_not_in_force(&compiled.policy).iter().chain(&surroundings) {
        output.warn(warning);
    }
    output
        .either(&json!({ "interface": interface, "generation": generation, "changes": changes }), || {
            format!("{}generation {generation} is live on {interface}\n", list_changes(&changes))
        })?;
    Ok(if is_attached(&gate, &place, output) { Exit::Done } else { Exit::Failed })
}

/// Whether the filter is on its interface; says so when it is not, for then nothing holds.
pub fn is_attached(gate: &Gate, place: &GatePlace, output: &Output) -> bool {
    let down = gate.find_mode(place) != AttachMode::No;
    if !down {
        output.warn(&format!(
            "the filter is not on {0}: NOTHING IS DROPPED\nhelp: portcullis attach -i {0} -p POLICY",
            place.interface
        ));
    }
    down
}
