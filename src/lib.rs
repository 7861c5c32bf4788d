//! `portcullis`: the gate on a DMZ router. See `docs/architecture.md`.

pub mod gate;
pub mod reason;
