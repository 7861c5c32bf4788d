//! `show status`.

use serde::Serialize;

use super::Gate;
use super::caveats::find_caveats;
use super::counters::ProgramStatistics;
use super::error::GateError;
use super::link::{AttachMode, Hook};
use super::maps::{Live, TableUsage};
use super::place::GatePlace;
use crate::abi::{read_text, settings_flag};

/// `show status`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub interface: String,
    /// `native`, `generic` or `no`.
    pub attached: &'static str,
    /// Drops are drops: attached, and neither the policy nor every server observes.
    pub enforcing: bool,
    /// `enforce` or `observe`.
    pub mode: &'static str,
    /// `strict` or `service`.
    pub tracking: &'static str,
    /// `tcx`, `clsact` or `no`.
    pub tracker: &'static str,
    pub generation: u64,
    /// SHA-256 of the policy's text, hexadecimal.
    pub policy_hash: String,
    pub policy_file: String,
    /// UNIX time.
    pub applied_s: u64,
    pub servers: usize,
    pub addresses: u32,
    /// Names of servers that observe.
    pub observing: Vec<String>,
    pub quarantined: Vec<String>,
    /// Samples that the perf buffer lost.
    pub events_lost: u64,
    pub events: ProgramStatistics,
    /// Seconds for which flows already open are still taken over.
    pub pickup_s: u64,
    pub tables: Vec<TableUsage>,
    /// Kernel memory of all tables.
    pub bytes: u64,
    pub warnings: Vec<String>,
}

impl Gate {
    /// Everything that `show status` tells.
    pub fn status(&self, place: &GatePlace) -> Result<Status, GateError> {
        let mode = self.find_mode(place);
        let tracker = self.find_tracker(place);
        let settings = self.live_settings()?.ok_or_else(|| GateError::Other {
            what: format!("the gate on {} has no policy", place.interface),
            why: format!(
                "putting it down was cut short\nhelp: portcullis attach -i {} -p POLICY",
                place.interface
            ),
        })?;
        let policy = self.live_policy()?;
        let has = |flag: settings_flag| settings.flags & flag.0 != 0;
        let observe = has(settings_flag::SETTINGS_OBSERVE);
        let strict = has(settings_flag::SETTINGS_STRICT);
        let observing: Vec<String> = policy
            .iter()
            .flat_map(|policy| policy.servers.iter().map(move |server| (policy, server)))
            .filter(|(policy, server)| policy.mode_of(server) == crate::policy::Mode::Observe)
            .map(|(_, server)| server.name.clone())
            .collect();
        let servers = policy.as_ref().map_or(0, |policy| policy.servers.len());
        let events = self.program_statistics()?;
        let tables = self.table_usage()?;
        let bytes = tables.iter().map(|fill| fill.bytes).sum();
        let mut warnings = Vec::new();
        if mode == AttachMode::No {
            warnings.push(format!(
                "the filter is not on {}: nothing is dropped; portcullis attach -i {0} -p POLICY",
                place.interface
            ));
        }
        if mode == AttachMode::Generic {
            warnings.push("generic mode: slower than in the driver".to_owned());
        }
        if strict && tracker == Hook::No {
            warnings.push(
                "strict tracking without its tracker: new flows of peers are not seen and their \
                 answers are dropped; run attach again"
                    .to_owned(),
            );
        }
        if !strict {
            warnings.push(
                "service tracking is weaker: whatever leaves an `in` service's port counts as a reply"
                    .to_owned(),
            );
        }
        if events.ledger_full > 0 {
            warnings.push(format!(
                "the ledger, or a server's share of it, is full: {} drops are counted by server and reason \
                 only; raise [tables] ledger",
                events.ledger_full
            ));
        }
        if let Some(policy) = &policy {
            warnings.extend(self.sizes_not_in_force(&policy.tables));
            warnings.extend(find_caveats(place, policy));
        }
        Ok(Status {
            interface: place.interface.clone(),
            attached: mode.name(),
            enforcing: mode != AttachMode::No && observing.len() < servers,
            mode: if observe { "observe" } else { "enforce" },
            tracking: if strict { "strict" } else { "service" },
            tracker: tracker.name(),
            generation: settings.generation,
            policy_hash: settings.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            policy_file: read_text(&settings.file),
            applied_s: settings.applied_s,
            servers,
            addresses: settings.servers,
            observing,
            quarantined: self.quarantined()?.into_iter().map(|(name, _)| name).collect(),
            events_lost: events.samples_lost,
            events,
            pickup_s: self.pickup_left_s()?,
            tables,
            bytes,
            warnings,
        })
    }

    pub(super) fn table_usage(&self) -> Result<Vec<TableUsage>, GateError> {
        self.maps.usage(&Live { slot: self.live_slot()?, ledger_rows: self.ledger()?.len() })
    }
}
