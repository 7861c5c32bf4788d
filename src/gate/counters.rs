//! Counters of the programs, for each CPU: packets by reason, and events inside the programs.

use serde::Serialize;

use super::Gate;
use super::error::GateError;
use crate::abi::{self, REASONS, Reason, counter, statistic};

/// Events inside the programs, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramStatistics {
    /// Samples that the programs put into the perf buffer.
    pub samples_sent: u64,
    /// Samples that found it full.
    pub samples_lost: u64,
    /// Samples for which no daemon was there to read.
    pub samples_no_reader: u64,
    /// Drops that are counted by server and reason only, because the ledger or a quota was full.
    pub ledger_full: u64,
    /// Drops that only the counters have.
    pub ledger_overflow_full: u64,
    /// Flows that could not be recorded.
    pub flows_lost: u64,
    /// Flows that conntrack was asked for.
    pub handover_asked: u64,
    /// Flows that it was not asked for, because too many were asked in vain.
    pub handover_refused: u64,
}

impl Gate {
    /// Events inside the programs.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn program_statistics(&self) -> Result<ProgramStatistics, GateError> {
        let sum = |index: statistic| -> Result<u64, GateError> {
            Ok(self.maps.statistics.get_per_cpu(&index.0)?.iter().sum())
        };
        Ok(ProgramStatistics {
            samples_sent: sum(statistic::STATISTIC_SAMPLES_SENT)?,
            samples_lost: sum(statistic::STATISTIC_SAMPLES_LOST)?,
            samples_no_reader: sum(statistic::STATISTIC_SAMPLES_NO_READER)?,
            ledger_full: sum(statistic::STATISTIC_LEDGER_FULL)?,
            ledger_overflow_full: sum(statistic::STATISTIC_LEDGER_OVERFLOW_FULL)?,
            flows_lost: sum(statistic::STATISTIC_FLOW_LOST)?,
            handover_asked: sum(statistic::STATISTIC_HANDOVER_ASKED)?,
            handover_refused: sum(statistic::STATISTIC_HANDOVER_REFUSED)?,
        })
    }

    /// Packets and bytes by reason. `would`: those of the drops that mode observe let pass.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn counters(&self, would: bool) -> Result<Vec<(Reason, u64, u64)>, GateError> {
        let offset = if would { abi::reason::REASON_COUNT.0 } else { 0 };
        REASONS
            .iter()
            .map(|&reason| {
                let values = self.maps.counters.get_per_cpu(&(u32::from(reason.number()) + offset))?;
                let total = values.iter().fold(counter::default(), |total, value| counter {
                    packets: total.packets + value.packets,
                    bytes: total.bytes + value.bytes,
                });
                Ok((reason, total.packets, total.bytes))
            })
            .collect()
    }

    /// How many packets were dropped, or would have been, for any reason.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn count_dropped(&self) -> Result<u64, GateError> {
        let mut dropped = 0;
        for would in [false, true] {
            let counters = self.counters(would)?;
            let drops = counters.iter().filter(|(reason, ..)| would || reason.drops());
            dropped += drops.map(|(_, packets, _)| packets).sum::<u64>();
        }
        Ok(dropped)
    }
}
