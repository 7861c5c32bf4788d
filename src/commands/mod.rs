//! One short file for each command. A command reads, asks or changes the gate, and prints.

pub mod alarms;
pub mod apply;
pub mod attach;
pub mod check;
pub mod confirm;
pub mod detach;
pub mod diff;
pub mod edits;
pub mod explain;
pub mod export;
pub mod init;
pub mod learn;
pub mod manuals;
pub mod needs;
pub mod pickup;
pub mod quarantine;
pub mod reload;
pub mod replay;
pub mod report;
pub mod rollback;
pub mod run;
mod shared;
pub mod show;
pub mod state;
pub mod takeover;
pub mod test;
pub mod top;
