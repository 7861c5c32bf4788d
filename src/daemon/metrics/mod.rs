//! The numbers of a running daemon, and the page that shows them to Prometheus.

mod exposition;
mod server;
pub(super) mod snapshot;

pub(super) use server::serve;
