//! `portcullis`: the gate on a DMZ router. See `docs/architecture.md`.

pub mod alarm;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod compile;
pub mod drops;
pub mod frame;
pub mod gate;
pub mod history;
pub mod policy;
pub mod reason;
pub mod sample;
pub mod sink;
pub mod voice;

/// Test cases by chance; the suite has its own copy of the module, and uses all of it.
#[cfg(test)]
#[path = "../tests/suite/fuzz/chance.rs"]
#[allow(dead_code)]
mod chance;
