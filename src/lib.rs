//! `portcullis`: the gate on a DMZ router. See `docs/architecture.md`.

#![cfg_attr(
    test,
    allow(
        clippy::disallowed_methods,
        clippy::string_slice,
        reason = "a unit test writes files, waits and starts threads as it likes, and may fail by a panic"
    )
)]

pub mod abi;
pub mod alarm;
pub mod audit;
pub mod capture;
pub mod cli;
pub mod clock;
pub mod commands;
pub mod compile;
pub mod daemon;
pub mod doctor;
pub mod drops;
mod escape;
pub mod exit;
mod fault;
pub mod gate;
pub mod history;
pub mod host;
pub mod learn;
pub mod memory;
pub mod net;
pub mod nft;
pub mod output;
pub mod policy;
pub mod policy_file;
pub mod policy_tests;
pub mod replay;
pub mod resolve;
pub mod sink;
mod state_file;
pub mod state_folder;
pub mod stderr;

/// Test cases by chance; the suite has its own copy of the module, and uses all of it.
#[cfg(test)]
#[path = "../tests/suite/support/chance.rs"]
#[expect(dead_code, reason = "the suite uses what the unit tests do not")]
mod chance;
