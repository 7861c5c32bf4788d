//! The control protocol: how commands ask a running daemon.

mod client;
pub(super) mod server;

pub use client::*;
