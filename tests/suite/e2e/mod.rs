//! Real packets between network namespaces, through a gate that the program attached. Each test
//! shows its cause: what passes, is dropped, and passes again; a counter that moved by exactly
//! what was sent; and a tap at the far end that saw none of it.
//!
//! Needs root. `PORTCULLIS_SWAPS` says how many policies the swap test applies, and `PORTCULLIS_LOOKUPS` how many names
//! the clients of `names` look up.

mod adopt;
mod alarm_work;
pub mod audit;
pub mod calm;
pub mod command;
mod commands;
pub mod console;
mod daemon;
mod doctor;
mod edits;
pub mod elsewhere;
pub mod evasion;
mod fallbacks;
mod first_hour;
mod flood;
mod flows;
mod forgeries;
mod hairpins;
pub mod handover;
pub mod history;
pub mod hub;
mod incidents;
mod json;
pub(crate) mod kills;
mod late_answers;
mod ledger;
pub mod legitimate;
mod limits;
mod metrics;
mod modes;
mod name_alarms;
mod name_changes;
pub mod name_console;
mod name_lookups;
pub mod name_resolvers;
mod name_saved;
mod names;
pub mod namespace;
mod need_uses;
mod nics;
mod night;
mod outsiders;
mod pickups;
pub mod policies;
mod policy_tests;
mod quarantine_forgeries;
mod quarantined_answers;
pub mod quarantines;
mod questions;
mod refusals;
mod renames;
mod replays;
pub mod resolver;
mod seams;
mod service;
mod services;
mod sets;
mod silence;
mod sinks;
pub mod socket;
mod strangers;
mod swaps;
pub mod tap;
pub mod testbed;
mod texts;
pub mod traffic;
pub mod trials;
