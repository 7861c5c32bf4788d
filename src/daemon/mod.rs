//! The daemon behind `portcullis run`. It attaches the gate, learns of drops, raises alarms and keeps the
//! gate attached. When it stops, the gate stays.
//!
//! | part | work |
//! | --- | --- |
//! | `run` | the daemon's life: attach, run the loop, leave |
//! | `event_loop` | connects the parts. They know nothing of each other |
//! | `intake` | learns of drops from samples and ledger (`drop_source`, `ledger_cursor`) |
//! | `dispatch` | gives drops and alarms to history, sinks, clients and metrics (`drop_budget`) |
//! | `audit_teller`, `sink_watch` | tells what was done to the gate, and which sinks fail |
//! | `doctor_watch` | proves the gate once a minute, and finds the ways around it |
//! | `responder` | puts the servers of alarms into quarantine |
//! | `quarantine_writer` | saves the quarantines for the next reboot |
//! | `handling_saver` | saves acknowledgements and silences for the next daemon |
//! | `monitor` | sees how the gate is attached, and attaches it again (`announcement`) |
//! | `reload` | SIGHUP: makes the policy file the live policy |
//! | `control` | the socket on which commands ask the daemon |
//! | `metrics` | the daemon's numbers, and the page for Prometheus |
//! | `signals`, `service_manager` | the world outside |
//!
//! The alarm engine is a room of its own ([`crate::alarm`]).

mod announcement;
mod audit_teller;
pub mod control;
mod dispatch;
mod doctor_watch;
mod drop_budget;
mod drop_source;
mod early_answers;
mod event_loop;
mod handling_saver;
mod intake;
mod ledger_cursor;
mod metrics;
mod monitor;
mod name_alarms;
mod name_asker;
mod name_watch;
mod quarantine_writer;
mod reload;
mod responder;
mod run;
mod service_manager;
mod signals;
mod sink_watch;

pub(crate) use drop_source::DropSource;
pub(crate) use event_loop::{LONGEST_GATHER, ROUND};
pub(crate) use intake::HOT_ROWS_PERIOD;

pub use announcement::{describe_attachment, describe_kept_quarantines};
pub use run::{Options, run};
