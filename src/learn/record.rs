//! What was learnt, as data. Its JSON is what `learn -j` prints.

use serde::Serialize;

use crate::capture::Damage;

/// What was learnt.
#[derive(Clone, Debug, Serialize)]
pub struct Learned {
    /// The captures, or the interface whose gate has kept it.
    pub files: Vec<String>,
    /// Answered openings that a gate has kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub openings: Option<u64>,
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
