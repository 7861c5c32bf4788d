//! Learn: from captures to a policy that a person can read, correct and sign.
//!
//! | part | work |
//! | --- | --- |
//! | `scope` | which addresses are servers |
//! | `watch` | reads each frame once: who opened what, and who answered |
//! | `flows` | the connections that are open in the capture |
//! | `evidence` | answered openings, by server, service and peer |
//! | `macs` | which MACs are servers', and which is the router's |
//! | `dns` | names of addresses, from DNS answers in the same traffic |
//! | `suspicion` | the alarm engine, which sees each opening as a drop |
//! | `everyday` | services that are common in a DMZ, and their names |
//! | `judge` | what is proposed, and what is not and why |
//! | `hosts` | servers with their names and all their evidence |
//! | `roles` | needs that the same servers have become roles |
//! | `wording` | needs and their evidence in words |
//! | `text` | the policy |
//! | `patch` | what a policy lacks, as a patch of its file |
//! | `advice` | which networks a capture's servers probably have, for the message that asks for them |
//!
//! Memory is bounded, whatever the size of the captures. What found no room is counted and named.

mod advice;
mod dns;
mod everyday;
mod evidence;
mod flows;
mod hosts;
mod judge;
mod macs;
mod patch;
mod roles;
mod scope;
mod suspicion;
#[cfg(test)]
mod tests;
mod text;
mod watch;
mod wording;

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::capture::{Damage, Merge};
pub use advice::suggest_servers;
pub use dns::read_answer;
pub use scope::Servers;
use watch::Watch;

/// What to learn from.
#[derive(Debug)]
pub struct Request<'a> {
    /// The captures.
    pub files: &'a [PathBuf],
    /// Which addresses are servers.
    pub servers: Servers<'a>,
    /// Only what the policy of `servers` lacks is wanted, as a patch of its file.
    pub is_increment: bool,
    /// Of an increment: needs that nothing used for so long are taken out as well.
    pub unused: Option<Duration>,
    /// Peers that are close together become prefixes.
    pub aggregate: bool,
}

/// What was learnt.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    /// The captures.
    pub files: Vec<String>,
    /// Time of the first packet, RFC 3339. `None`: there is none.
    pub from: Option<String>,
    /// Time of the last packet.
    pub to: Option<String>,
    /// Packets that were read.
    pub packets: u64,
    /// Names of the servers.
    pub servers: Vec<String>,
    /// Needs that are proposed.
    pub proposed: Vec<ProposedRecord>,
    /// What is not proposed, and why.
    pub not_proposed: Vec<RefusedRecord>,
    /// Needs of the policy that nothing used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unused: Option<Vec<String>>,
    /// What the captures can't tell.
    pub notes: Vec<String>,
    /// The policy, or the patch. Empty: nothing is to be changed.
    pub text: String,
    /// Where captures are damaged.
    #[serde(skip)]
    pub damages: Vec<Damage>,
}

/// A need that is proposed.
#[derive(Clone, Debug, Serialize)]
pub struct ProposedRecord {
    /// Names of the servers that get it.
    pub servers: Vec<String>,
    /// `in`, `out` or `quiet`.
    pub direction: &'static str,
    /// The need.
    pub need: String,
    /// Why: first, last, how often, with whom.
    pub evidence: String,
}

/// What is not proposed.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedRecord {
    /// Name of the server.
    pub server: String,
    /// `in`, `out` or `quiet`.
    pub direction: &'static str,
    /// The need that would permit it.
    pub need: String,
    /// Why it is not proposed.
    pub why: String,
    /// First, last, how often, with whom.
    pub evidence: String,
}

/// Learns from captures.
///
/// # Errors
/// When a file can't be opened, or a policy can't be made of what it shows. A damaged capture is no error.
pub fn learn(request: &Request<'_>) -> anyhow::Result<Learned> {
    learn_from(Merge::open(request.files)?, request)
}

/// Learns from captures that are open already.
///
/// # Errors
/// When a policy can't be made of what they show.
pub fn learn_from(mut merge: Merge, request: &Request<'_>) -> anyhow::Result<Learned> {
    let mut watch = Watch::new(&request.servers, request.is_increment);
    while let Some(frame) = merge.read() {
        watch.note(frame);
    }
    let seen = watch.finish();
    let learned = Learned {
        files: request.files.iter().map(|file| file.display().to_string()).collect(),
        from: seen.first_ns.map(wording::show_moment_exactly),
        to: seen.first_ns.map(|_| wording::show_moment_exactly(seen.last_ns)),
        packets: seen.packets,
        servers: Vec::new(),
        proposed: Vec::new(),
        not_proposed: Vec::new(),
        unused: None,
        notes: seen.list_notes(),
        text: String::new(),
        damages: merge.damages().to_vec(),
    };
    let outcome = judge::judge(seen, &request.servers, request.aggregate);
    match &request.servers {
        Servers::Policy(compiled) if request.is_increment => {
            patch::complete(learned, outcome, compiled, request.unused)
        }
        Servers::Policy(_) | Servers::Networks { .. } => text::complete(learned, outcome),
    }
}
