//! `portcullis`: the gate on a DMZ router. See `docs/architecture.md`.

pub mod cli;
pub mod commands;
pub mod compile;
pub mod frame;
pub mod gate;
pub mod policy;
pub mod reason;
