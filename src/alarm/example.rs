//! Alarms for the tests of every part that reads alarms.

use super::{Change, Engine};
use crate::drops::example::{after_ms, syn};
use crate::drops::{DropEvent, ServerRef};

/// The first alarm of a drop.
pub(crate) fn opened_with(drop: &DropEvent) -> Change {
    Engine::default().observe(drop, after_ms(0)).remove(0)
}

/// The first alarm of a server with this name, by a TCP SYN to port 445.
pub(crate) fn opened_by(name: &str) -> Change {
    opened_with(&DropEvent { server: Some(ServerRef { id: 1, name: name.into() }), ..syn() })
}
