//! `portcullis detach`

use serde_json::json;

use super::Exit;
use super::output::Output;
use crate::gate::{Place, is_pinned, lift};

pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
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
            format!("there was no gate on {interface}\n")
        }
    })?;
    Ok(Exit::Done)
}
