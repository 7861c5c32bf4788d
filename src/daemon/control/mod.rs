//! The control protocol: how commands speak to a running daemon, over its Unix socket.

mod answers;
mod client;
mod followers;
mod order_desk;
mod protocol;
mod reload_desk;
mod server;

pub use client::{ask_daemon, collect_report, find_alarms, find_open_alarms, follow_daemon, no_daemon};
pub(super) use followers::Followers;
pub(super) use order_desk::{Handled, PendingOrder};
pub use protocol::{AlarmOrder, Request, VERSION};
pub(super) use reload_desk::ReloadOrder;
pub(super) use server::ControlServer;
