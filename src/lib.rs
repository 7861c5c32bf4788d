//! `portcullis`: the gate on a DMZ router. See `docs/architecture.md`.

pub mod compile;
pub mod gate;
pub mod policy;
pub mod reason;
