//! Nothing legitimate breaks: real servers and real clients through the gate, in both families,
//! and not one packet of theirs in the ledger, nor an alarm. Each protocol also shows that it
//! hangs on its need: without it in the policy, the same client fails.

mod changes;
mod clocks;
mod ftp;
mod leases;
mod link_services;
mod logins;
mod mail;
pub mod names;
mod pair;
mod pair_engines;
mod paths;
mod pings;
mod policy;
pub mod relay;
mod rough;
pub mod service;
pub mod site;
mod takeover;
mod web;
mod website;
