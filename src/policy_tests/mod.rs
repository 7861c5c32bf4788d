//! Runs the tests of a policy: each packet is judged by the programs themselves, in a gate that no NIC uses.
//!
//! `cells` cuts what a test is about into parts that the tables can't tell apart, so a few packets stand for all.
//! `names` answers servers the addresses of names, and says what a name may open.
//! `surplus` lists what the tables open beyond a test's `accept`. `packets` makes frames and asks the programs.
//! `runner` compares the answers with what the tests expect, `only` what is open with what they accept, and `outcome`
//! says it in words.

mod cells;
mod names;
mod only;
mod outcome;
mod packets;
mod runner;
mod surplus;

pub use outcome::{Decided, Expectation, Failure, FailureKind, PacketFacts, TestOutcome, TestReport};
pub use runner::{run_tests, run_tests_in};

use thiserror::Error;

use crate::gate::GateError;
use crate::policy::Policy;
use crate::policy_file::CompiledPolicy;

/// Why a policy is refused because of its tests.
#[derive(Debug, Error)]
pub enum TestsRefused {
    /// A test failed.
    #[error("{}", .0.describe_failures())]
    Failed(TestReport),
    /// They could not be run.
    #[error("the tests of the policy could not be run: {0}")]
    NotRun(#[from] GateError),
}

/// Refuses a policy of which a test fails. A policy without tests costs nothing.
///
/// # Errors
/// When a test fails, or the tests can't be run.
pub fn require_tests(compiled: &CompiledPolicy) -> Result<(), TestsRefused> {
    let CompiledPolicy { policy, tables } = compiled;
    if policy.tests.is_empty() {
        return Ok(());
    }
    let report = run_tests(policy, tables)?;
    if report.failed == 0 { Ok(()) } else { Err(TestsRefused::Failed(report)) }
}

/// As "3 tests" or "1 test".
pub fn count_tests(policy: &Policy) -> String {
    let count = policy.tests.len();
    format!("{count} test{}", if count == 1 { "" } else { "s" })
}
