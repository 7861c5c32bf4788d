//! What is counted: every verdict by reason, every drop by its kind.

use std::collections::BTreeMap;

use portcullis::abi::Reason;

use super::outcome::{Outcome, Verdict};

/// A kind of drop.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LedgerKey {
    pub server: Option<String>,
    pub protocol: u8,
    pub port: u16,
    pub reason: Reason,
    pub quiet: bool,
    pub would: bool,
    pub own_port: bool,
    pub presumed: bool,
}

/// Packets and bytes.
pub type Sum = (u64, u64);

#[derive(Default)]
pub struct Books {
    pub ledger: BTreeMap<LedgerKey, Sum>,
    pub counters: BTreeMap<(Reason, bool), Sum>,
}

impl Books {
    /// Counts one packet by its verdict. `own_port`: its port is the server's own.
    pub fn count(&mut self, outcome: &Outcome, own_port: bool, bytes: u64) {
        let would = outcome.verdict == Verdict::WouldDrop;
        add(self.counters.entry((outcome.reason, would)).or_default(), bytes);
        if outcome.verdict == Verdict::Pass {
            return;
        }
        let key = LedgerKey {
            server: outcome.server.clone(),
            protocol: outcome.protocol,
            port: outcome.port,
            reason: outcome.reason,
            quiet: outcome.quiet,
            would,
            own_port,
            presumed: outcome.presumed,
        };
        add(self.ledger.entry(key).or_default(), bytes);
    }
}

fn add(sum: &mut Sum, bytes: u64) {
    sum.0 += 1;
    sum.1 += bytes;
}
