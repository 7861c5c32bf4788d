//! Numbers of a gate for metrics: cheaper than `status`, which reads the whole policy.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Gate;
use super::counters::ProgramStatistics;
use super::error::GateError;
use super::link::{AttachMode, Hook};
use super::maps::TableUsage;
use super::place::GatePlace;
use crate::abi::{Reason, read_text};
use crate::abi::{drop_flag, settings_flag};
use crate::drops::ReasonCode;
use crate::policy;

/// What only changes with the policy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyFacts {
    /// Of the policy that they are of.
    pub generation: u64,
    /// Servers in it.
    pub servers: usize,
    /// Of those, in observe.
    pub observing: usize,
}

/// Drops of one server (empty: nobody's) for one reason; true: would-be ones.
pub type DropKey = (Arc<str>, ReasonCode, bool);

/// One reading.
#[derive(Clone, Debug)]
pub struct GateStatistics {
    /// How the filter is attached.
    pub mode: AttachMode,
    /// Where the tracker is.
    pub tracker: Hook,
    /// Tracking is strict.
    pub strict: bool,
    /// The policy observes.
    pub observe: bool,
    /// What changes with the policy.
    pub facts: PolicyFacts,
    /// SHA-256, hexadecimal.
    pub hash: String,
    /// The file that the policy came from.
    pub file: String,
    /// UNIX time.
    pub applied_s: u64,
    /// Packets and bytes.
    pub drops: BTreeMap<DropKey, (u64, u64)>,
    /// Packets and bytes that passed, by reason.
    pub passes: Vec<(Reason, u64, u64)>,
    /// Events inside the programs.
    pub events: ProgramStatistics,
    /// Names of servers in quarantine.
    pub quarantined: Vec<String>,
    /// How full the tables are.
    pub tables: Vec<TableUsage>,
}

impl GateStatistics {
    /// Drops are drops.
    pub fn enforcing(&self) -> bool {
        self.mode != AttachMode::No && self.facts.observing < self.facts.servers
    }
}

impl Gate {
    /// Reads the numbers; `facts` is what the last reading had, and spares reading the policy
    /// again while it is the same.
    pub fn measure(&self, place: &GatePlace, facts: &PolicyFacts) -> Result<GateStatistics, GateError> {
        let settings = self.live_settings()?.unwrap_or_default();
        let has = |flag: settings_flag| settings.flags & flag.0 != 0;
        let facts = match facts.generation == settings.generation && facts.servers > 0 {
            true => facts.clone(),
            false => self.learn_facts(settings.generation)?,
        };
        let names = self.names_by_id()?;
        let mut drops: BTreeMap<DropKey, (u64, u64)> = BTreeMap::new();
        for (key, row) in self.ledger()? {
            let server = match key.server {
                0 => "".into(),
                id => names.get(&id).cloned().unwrap_or_else(|| format!("#{id}").into()),
            };
            let would = u32::from(key.flags) & drop_flag::DROP_WOULD.0 != 0;
            let sum = drops.entry((server, ReasonCode::from(key.reason), would)).or_default();
            sum.0 = sum.0.saturating_add(row.packets);
            sum.1 = sum.1.saturating_add(row.bytes);
        }
        let counters = self.counters(false)?;
        Ok(GateStatistics {
            mode: self.find_mode(place),
            tracker: self.find_tracker(place),
            strict: has(settings_flag::SETTINGS_STRICT),
            observe: has(settings_flag::SETTINGS_OBSERVE),
            facts,
            hash: settings.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            file: read_text(&settings.file),
            applied_s: settings.applied_s,
            drops,
            passes: counters.into_iter().filter(|(reason, _, _)| !reason.drops()).collect(),
            events: self.program_statistics()?,
            quarantined: self.quarantined()?.into_iter().map(|(name, _)| name).collect(),
            tables: self.table_usage()?,
        })
    }

    fn learn_facts(&self, generation: u64) -> Result<PolicyFacts, GateError> {
        let Some(policy) = self.live_policy()? else {
            return Ok(PolicyFacts::default());
        };
        let is_observing = |server: &&policy::Server| policy.mode_of(server) == policy::Mode::Observe;
        let observing = policy.servers.iter().filter(is_observing).count();
        Ok(PolicyFacts { generation, servers: policy.servers.len(), observing })
    }
}
