//! A gate for captures: no NIC uses it, it goes by the time that it is given, and it says what it decided about each
//! frame.

use super::Gate;
use super::error::GateError;
use super::explain::{Answer, Verdict};
use super::mapped_array::{MappedArray, WritableWindow};
use super::program::{OBJECT, load_private};
use super::requirements::check_requirements;
use super::samples::Consumer;
use super::sizes::{check_ledger, possible_cpus};
use crate::abi::{Reason, drop_flag, private_run, rule_flag, state, to_mac_number};
use crate::compile::Tables;
use crate::policy::Policy;

/// The filter's decision about one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it passes.
    pub verdict: Verdict,
    /// Why. `None` for a number that this version does not know.
    pub reason: Option<Reason>,
    /// Id of the server that has the source address. 0: no server has it.
    pub server: u32,
    /// Number of the rule that permits it, or that came nearest. 0: no rule does.
    pub rule: u32,
    /// IP protocol, as the ledger counts it.
    pub protocol: u8,
    /// The port by which the ledger counts it.
    pub port: u16,
    /// A drop raises no alarm.
    pub quiet: bool,
    /// `port` is the server's own: the packet is an answer.
    pub own_port: bool,
}

/// A private gate whose clock is set.
pub struct ReplayGate {
    gate: Gate,
    run: WritableWindow<private_run>,
}

/// The words of `struct private_run`.
const NOW_NS: usize = 0;

impl ReplayGate {
    /// Loads the programs with maps of their own, of the sizes that the policy asks for, and makes `policy` their
    /// live one.
    ///
    /// # Errors
    /// When the process lacks the privilege, the kernel refuses a program or a map, or the policy does not fit.
    pub fn load(policy: &Policy, tables: &Tables) -> Result<ReplayGate, GateError> {
        check_requirements()?;
        check_ledger(&policy.tables, possible_cpus())?;
        let (maps, programs, variables) = load_private(OBJECT, &policy.tables)?;
        let gate = Gate { maps, programs };
        gate.describe_maps()?;
        gate.install(policy, tables)?;
        gate.take_answers_by_any_way()?;
        let run = MappedArray::new("variables", variables)?.map_for_writing(0, 1)?;
        Ok(ReplayGate { gate, run })
    }

    /// Its maps and programs.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// From here on it is this time, for all its programs: nanoseconds, as of CLOCK_MONOTONIC.
    pub fn set_clock(&self, now_ns: u64) {
        self.run.set_word(0, NOW_NS, now_ns);
    }

    /// Flows that were open before are taken over until this time.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_over_until(&self, until_ns: u64) -> Result<(), GateError> {
        self.gate.write_state(state::STATE_PICKUP_UNTIL_NS, until_ns)
    }

    /// Tells the programs the MAC of the NIC. Without it every frame counts as sent to this machine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_own_mac(&self, mac: [u8; 6]) -> Result<(), GateError> {
        self.gate.write_state(state::STATE_OWN_MAC, to_mac_number(mac))
    }

    /// Runs the filter on a frame from a server, with all its consequences, and returns its decision.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn filter(&self, frame: &[u8]) -> Result<Decision, GateError> {
        self.gate
            .programs
            .filter_one_way(frame)
            .map_err(|errno| GateError::Kernelside { what: "could not run the filter".to_owned(), errno })?;
        let decision = self.run.get(0).unwrap_or_default().decision;
        Ok(Decision {
            verdict: Verdict::from_number(decision.verdict),
            reason: Reason::from_number(decision.reason),
            server: decision.server,
            rule: decision.rule & rule_flag::RULE_ID_MASK.0,
            protocol: decision.protocol,
            port: decision.port,
            quiet: u32::from(decision.flags) & drop_flag::DROP_QUIET.0 != 0,
            own_port: u32::from(decision.flags) & drop_flag::DROP_OWN_PORT.0 != 0,
        })
    }

    /// Runs the tracker on a frame to a server, with all its consequences.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn track(&self, frame: &[u8]) -> Result<(), GateError> {
        let run = self.gate.programs.track_one_way(frame);
        run.map(drop)
            .map_err(|errno| GateError::Kernelside { what: "could not run the tracker".to_owned(), errno })
    }

    /// Asks what the filter would do with a frame from a server. Nothing is counted or recorded.
    ///
    /// # Errors
    /// When the kernel refuses the frame.
    pub fn explain(&self, frame: &[u8]) -> Result<Answer, GateError> {
        self.gate.explain(frame, false, None)
    }

    /// Opens its perf buffer.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn consume_samples(&self) -> Result<Consumer<'_>, GateError> {
        self.gate.consume_samples()
    }
}
