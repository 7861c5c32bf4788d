//! How a gate stands: one reading for `show status`, for the metrics and for `top`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Gate;
use super::apply::describe_differing_size;
use super::caveats::{find_interface_caveats, has_vlans};
use super::counters::ProgramStatistics;
use super::error::GateError;
use super::grants::NameStatus;
use super::handover::{HandoverCounts, HandoverStatus};
use super::link::{AttachMode, Hook};
use super::maps::{Live, TableUsage};
use super::place::GatePlace;
use super::quarantine::QuarantinedAddress;
use super::trial::Trial;
use crate::abi::{Reason, ReasonCode, drop_flag, read_text, settings};
use crate::compile::describe_flags;
use crate::drops::show_hex;
use crate::policy::{Mode, TableSizes};

/// Drops of one server (empty: no server has the source address) for one reason. True: those that mode
/// observe let pass.
pub type DropKey = (Arc<str>, ReasonCode, bool);

/// Packets and bytes of drops.
pub type DropSums = BTreeMap<DropKey, (u64, u64)>;

/// One reading. Its JSON is that of `show status -j`.
#[derive(Clone, Debug, Default, Serialize)]
pub struct GateStatus {
    /// Name of the interface today.
    pub interface: String,
    /// Its name when the gate was attached, if that was another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attached_as: Option<String>,
    /// How the filter is attached.
    pub attached: AttachMode,
    /// Whether drops are drops: the filter is attached, and not every server is in observe.
    pub enforcing: bool,
    /// Keys of `[policy]` with their values.
    #[serde(flatten, serialize_with = "serialize_settings")]
    pub settings: Vec<(&'static str, &'static str)>,
    /// Where the tracker is attached.
    pub tracker: Hook,
    /// The live policy.
    #[serde(flatten)]
    pub policy: PolicyFacts,
    /// It is on trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialStatus>,
    /// Names of servers in quarantine.
    pub quarantined: Vec<String>,
    /// Addresses in quarantine.
    pub quarantined_addresses: Vec<QuarantinedAddress>,
    /// Samples that the perf buffer lost.
    pub events_lost: u64,
    /// Events inside the programs.
    pub events: ProgramStatistics,
    /// What the gate does with names.
    pub names: NameStatus,
    /// Seconds for which flows already open are still taken over.
    pub pickup_s: u64,
    /// How flows of another router are taken over, if the policy has `handover`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover_state: Option<HandoverStatus>,
    /// How full the tables are.
    pub tables: Vec<TableUsage>,
    /// Kernel memory of all tables.
    pub bytes: u64,
    /// Warnings for the user, a sentence each.
    pub warnings: Vec<String>,
    /// Packets and bytes that were dropped, or would have been.
    #[serde(skip)]
    pub drops: DropSums,
    /// Packets and bytes that passed, by reason.
    #[serde(skip)]
    pub passes: Vec<(Reason, u64, u64)>,
}

/// A trial that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TrialStatus {
    /// Generation of the policy that is live again when the trial is over.
    pub before: u64,
    /// Seconds until then.
    pub left_s: u64,
}

impl From<Trial> for TrialStatus {
    fn from(trial: Trial) -> TrialStatus {
        TrialStatus { before: trial.before, left_s: trial.left_s() }
    }
}

/// Facts that change only with the policy. The whole policy is read for them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PolicyFacts {
    /// Counts the policies of this gate.
    pub generation: u64,
    /// SHA-256 of the policy's text, hexadecimal.
    pub policy_hash: String,
    /// The file that it came from.
    pub policy_file: String,
    /// When it was applied, UNIX time.
    pub applied_s: u64,
    /// How many servers it has.
    pub servers: usize,
    /// How many addresses and prefixes they have.
    pub addresses: u32,
    /// Names of the servers in observe.
    pub observing: Vec<String>,
    /// Whether a server may use its addresses in one VLAN only.
    #[serde(skip)]
    pub has_vlans: bool,
    /// Its names, and the resolvers whose answers count.
    #[serde(skip)]
    pub names: (usize, usize),
    /// The sizes that it asks for.
    #[serde(skip)]
    pub sizes: TableSizes,
}

impl GateStatus {
    /// The value of a key of `[policy]`. Empty: `show status` does not have the key.
    pub fn setting(&self, key: &str) -> &'static str {
        self.settings.iter().find(|(known, _)| *known == key).map_or("", |(_, value)| value)
    }

    /// Whether a tracker is needed and there is none: new flows of peers are not seen.
    pub fn lacks_tracker(&self) -> bool {
        self.setting("tracking") == "strict" && self.tracker == Hook::No
    }

    fn find_warnings(&self, gate: &Gate) -> Vec<String> {
        let mut warnings = Vec::new();
        match self.attached {
            AttachMode::Native => {}
            AttachMode::Generic => warnings.push("generic mode: slower than in the driver".to_owned()),
            AttachMode::No => warnings.push(format!(
                "the gate on {} is NOT ATTACHED: nothing is dropped; portcullis attach -i {0} -p POLICY",
                self.interface
            )),
        }
        if self.lacks_tracker() {
            warnings.push(
                "strict tracking without its tracker: new flows of peers are not seen, and the answers are \
                 dropped; run attach again"
                    .to_owned(),
            );
        }
        if self.setting("tracking") == "service" {
            warnings.push(
                "service tracking is weaker: every packet from the port of an `in` service counts as a reply"
                    .to_owned(),
            );
        }
        warnings.extend(self.handover_state.iter().flat_map(HandoverStatus::warnings));
        if self.events.ledger_full > 0 {
            warnings.push(format!(
                "the ledger, or a server's quota of it, is full: {} drops are counted by server and reason \
                 only; raise [tables] ledger",
                self.events.ledger_full
            ));
        }
        warnings
            .extend(gate.maps.differing_sizes(&self.policy.sizes).into_iter().map(describe_differing_size));
        warnings.extend(find_interface_caveats(&self.interface, self.policy.has_vlans));
        warnings
    }
}

impl Gate {
    /// Reads how the gate stands. `known` is what an earlier reading learnt of the policy, and spares
    /// reading the policy again while it is the same.
    ///
    /// # Errors
    /// When the gate has no policy yet, or the kernel refuses to read.
    pub fn status(&self, place: &GatePlace, known: &PolicyFacts) -> Result<GateStatus, GateError> {
        let settings = self.live_settings()?.ok_or_else(|| GateError::Other {
            what: format!("the gate on {} has no policy", place.interface),
            why: format!("an attach was cut short\nhelp: portcullis attach -i {} -p POLICY", place.interface),
        })?;
        let policy = self.learn_policy(&settings, known)?;
        let attached = self.find_mode(place)?;
        let events = self.program_statistics()?;
        let (drops, ledger_rows) = self.sum_ledger()?;
        let tables = self.maps.usage(&Live { slot: self.live_slot()?, ledger_rows })?;
        let counters = self.counters(false)?.into_iter();
        let names = self.name_status(policy.names.0, policy.names.1)?;
        let mut status = GateStatus {
            interface: place.interface.clone(),
            attached_as: (place.attached_as != place.interface).then(|| place.attached_as.clone()),
            attached,
            enforcing: attached != AttachMode::No && policy.observing.len() < policy.servers,
            settings: describe_flags(settings.flags),
            tracker: self.find_tracker(place)?,
            policy,
            trial: self.trial()?.map(TrialStatus::from),
            quarantined: self.quarantined()?.into_iter().map(|(name, _)| name).collect(),
            quarantined_addresses: self.quarantined_addresses()?,
            events_lost: events.samples_lost,
            events,
            names,
            pickup_s: self.pickup_left_s()?,
            handover_state: None,
            bytes: tables.iter().map(|usage| usage.bytes).sum(),
            tables,
            warnings: Vec::new(),
            drops,
            passes: counters.filter(|(reason, _, _)| !reason.drops()).collect(),
        };
        if status.setting("handover") == "conntrack" {
            let adopted = status.passes.iter().find(|(reason, ..)| *reason == Reason::Handover);
            status.handover_state = Some(self.handover_status(HandoverCounts {
                asked: status.events.handover_asked,
                refused: status.events.handover_refused,
                adopted: adopted.map_or(0, |(_, packets, _)| *packets),
            })?);
        }
        status.warnings = status.find_warnings(self);
        status.warnings.extend(self.find_handover_doubt()?);
        Ok(status)
    }

    fn learn_policy(&self, settings: &settings, known: &PolicyFacts) -> Result<PolicyFacts, GateError> {
        let hash = show_hex(&settings.hash);
        let mut facts = PolicyFacts {
            generation: settings.generation,
            policy_hash: hash,
            policy_file: read_text(&settings.file),
            applied_s: settings.applied_s,
            addresses: settings.servers,
            ..PolicyFacts::default()
        };
        // a gate that is detached and attached again counts from 1
        if (facts.generation, &facts.policy_hash) == (known.generation, &known.policy_hash) {
            return Ok(PolicyFacts {
                servers: known.servers,
                observing: known.observing.clone(),
                has_vlans: known.has_vlans,
                names: known.names,
                sizes: known.sizes.clone(),
                ..facts
            });
        }
        if let Some(policy) = self.live_policy()? {
            let observing = policy.servers.iter().filter(|server| policy.mode_of(server) == Mode::Observe);
            facts.observing = observing.map(|server| server.name.clone()).collect();
            facts.servers = policy.servers.len();
            facts.has_vlans = has_vlans(&policy);
            let names = policy.needed_names().len();
            facts.names = (names, if names == 0 { 0 } else { policy.resolvers().len() });
            facts.sizes = policy.tables;
        }
        Ok(facts)
    }

    /// Drops by server and reason, and how many rows of the ledger there are.
    fn sum_ledger(&self) -> Result<(DropSums, usize), GateError> {
        let names = self.names_by_id()?;
        self.fold_ledger(Default::default, |(drops, rows): &mut (DropSums, usize), row| {
            let server = match row.kind.server {
                0 => "".into(),
                id => names.get(&id).cloned().unwrap_or_else(|| format!("#{id}").into()),
            };
            let would = u32::from(row.kind.flags) & drop_flag::DROP_WOULD.0 != 0;
            let sum = drops.entry((server, ReasonCode::from(row.kind.reason), would)).or_default();
            sum.0 = sum.0.saturating_add(row.packets);
            sum.1 = sum.1.saturating_add(row.bytes);
            *rows += usize::from(!row.given_back);
        })
    }
}

fn serialize_settings<S: Serializer>(
    settings: &[(&'static str, &'static str)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(settings.iter().copied())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::settings_flag;

    #[test]
    fn the_json_of_a_status_has_its_keys_in_their_order() {
        let settings = describe_flags(settings_flag::SETTINGS_STRICT.0);
        let policy = PolicyFacts { generation: 3, servers: 2, ..PolicyFacts::default() };
        let status = GateStatus { attached: AttachMode::Native, settings, policy, ..GateStatus::default() };
        assert_eq!(
            serde_json::to_string(&status).unwrap(),
            "{\"interface\":\"\",\"attached\":\"native\",\"enforcing\":false,\"mode\":\"enforce\",\
             \"tracking\":\"strict\",\"handover\":\"none\",\"tracker\":\"no\",\"generation\":3,\"policy_hash\":\"\",\
             \"policy_file\":\"\",\"applied_s\":0,\"servers\":2,\"addresses\":0,\"observing\":[],\
             \"quarantined\":[],\"quarantined_addresses\":[],\"events_lost\":0,\"events\":{\"samples_sent\":0,\"samples_lost\":0,\
             \"samples_no_reader\":0,\"ledger_full\":0,\"ledger_overflow_full\":0,\"flows_lost\":0,\"handover_asked\":0,\"handover_refused\":0},\
             \"names\":{\"names\":0,\"resolvers\":0,\"grants\":0,\"most_of_server\":0,\"share\":0,\"counts\":{}},\
             \"pickup_s\":0,\"tables\":[],\"bytes\":0,\"warnings\":[]}"
        );
        assert!(status.lacks_tracker());
    }
}
