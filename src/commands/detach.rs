//! `portcullis detach`

use serde_json::json;

use super::Exit;
use super::output::Output;
use crate::gate::{Place, lift};

pub fn run(interface: &str, output: &Output) -> anyhow::Result<Exit> {
    let place = Place::of(interface)?;
    let _lock = place.lock()?;
    let lifted = lift(&place)?;
    output.either(&json!({ "interface": interface, "lifted": lifted }), || {
        if lifted {
            format!("the gate on {interface} is lifted: nothing is dropped any more\n")
        } else {
            format!("there was no gate on {interface}\n")
        }
    })?;
    Ok(Exit::Done)
}
