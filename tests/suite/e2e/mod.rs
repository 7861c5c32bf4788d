//! Real packets between network namespaces, through a gate that the program put down. Each test
//! shows its cause: what passes, is dropped, and passes again; a counter that moved by exactly
//! what was sent; and a tap at the far end that saw none of it.
//!
//! Needs root. `PORTCULLIS_SWAPS` says how many policies the swap test puts into force.

mod command;
mod commands;
mod console;
mod daemon;
mod flows;
mod history;
mod kills;
mod ledger;
mod metrics;
mod modes;
mod policies;
mod refusals;
mod service;
mod services;
mod socket;
mod swaps;
mod tap;
mod traffic;
mod world;
