//! Asks the loaded program itself what it would do with a packet.

use std::os::fd::AsFd;

use plain::Plain;

use super::Gate;
use super::error::GateError;
use super::system;
use crate::abi::Reason;
use crate::abi::{assumption, decision, drop_flag, question, rule_flag, verdict};

/// The program's decision about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Why. `None` for a number that this version does not know.
    pub reason: Option<Reason>,
    /// Id of the server that has the source address. 0: no server has it.
    pub server: u32,
    /// Number of the rule that permits it, an index into the compiled policy's rules. 0: no rule does.
    pub rule: u32,
    /// Number of the edit that decides, in place of a rule.
    pub edit: Option<u32>,
    /// The port by which the ledger counts it.
    pub port: u16,
    /// A drop would raise no alarm.
    pub quiet: bool,
    /// It counts as a late answer only because the memory of peers was full.
    pub presumed: bool,
    /// Low 32 bits of the generation of the policy that was asked.
    pub generation: u32,
}

/// Whether a packet passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It passes.
    Pass,
    /// It is dropped.
    Drop,
    /// It passes, because its server is in mode observe. In mode enforce it would be dropped.
    WouldDrop,
}

impl Verdict {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Drop => "drop",
            Verdict::WouldDrop => "would_drop",
        }
    }

    /// The verdict with this number. The filter drops on any other number.
    pub fn from_number(number: u8) -> Verdict {
        match u32::from(number) {
            n if n == verdict::VERDICT_PASS.0 => Verdict::Pass,
            n if n == verdict::VERDICT_WOULD_DROP.0 => Verdict::WouldDrop,
            _ => Verdict::Drop,
        }
    }
}

impl Gate {
    /// Asks what would happen to `frame`, coming from the interface `ifindex` if that is given. `opened`
    /// asks as if the peer had opened the flow that the frame belongs to. Nothing is counted or recorded.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn explain(&self, frame: &[u8], opened: bool, ifindex: Option<u32>) -> Result<Answer, GateError> {
        let question = question { assume: if opened { assumption::ASSUME_OPENED.0 } else { 0 }, zero: 0 };
        // SAFETY: a question is two integers, without padding.
        let mut data = unsafe { plain::as_bytes(&question) }.to_vec();
        data.extend_from_slice(frame);
        let run = system::test_run(self.programs.explain.as_fd(), &data, 1, ifindex)
            .map_err(|errno| GateError::Kernelside { what: "could not ask the program".to_owned(), errno })?;
        let mut decision = decision::default();
        if decision.copy_from_bytes(&run.data).is_err() {
            return Err(GateError::Other {
                what: "could not ask the program".to_owned(),
                why: format!("the answer has only {} bytes", run.data.len()),
            });
        }
        let edit = Gate::number_of_edit(decision.rule);
        Ok(Answer {
            verdict: Verdict::from_number(decision.verdict),
            reason: Reason::from_number(decision.reason),
            server: decision.server,
            rule: if edit.is_some() { 0 } else { decision.rule & rule_flag::RULE_ID_MASK.0 },
            edit,
            port: decision.port,
            quiet: u32::from(decision.flags) & drop_flag::DROP_QUIET.0 != 0,
            presumed: u32::from(decision.flags) & drop_flag::DROP_PRESUMED.0 != 0,
            generation: decision.generation,
        })
    }
}
