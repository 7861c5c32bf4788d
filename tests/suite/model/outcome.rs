//! The outcome of one frame.

use portcullis::abi::Reason;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    /// Mode observe: counted as a drop, and passed.
    WouldDrop,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub reason: Reason,
    /// No alarm is raised about this drop, for somebody said so.
    pub quiet: bool,
    /// The name of the server that has the source address.
    pub server: Option<String>,
    /// Port and protocol as the ledger keys them.
    pub port: u16,
    pub protocol: u8,
    /// The memory of peers was full.
    pub presumed: bool,
    /// Lines of the needs that may be named as deciding.
    pub needs: Vec<u32>,
}
