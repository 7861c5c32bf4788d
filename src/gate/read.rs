//! What the live maps say.

use std::net::IpAddr;

use libbpf_rs::MapFlags;
use nix::errno::Errno;
use serde::Serialize;

use super::Gate;
use super::attach::{AttachMode, Hook, now_ns};
use super::caveats::find_caveats;
use super::error::GateError;
use super::maps::{Live, TableUsage};
use super::place::GatePlace;
use super::typed_map::TypedMap;
use crate::abi::{REASONS, Reason};
use crate::abi::{
    counter, flow, flow_key, half_open, ledger_key, ledger_row, quarantine, quota_key, settings,
    settings_flag, state, statistic,
};
use crate::abi::{from_address, read_text};
use crate::drops::{Ledger, LedgerEntry, LedgerKey};
use crate::policy::{Change, Policy, diff, parse};

/// How often a snapshot is tried again when a swap comes in between.
const SNAPSHOT_TRIES: usize = 8;

/// Events inside the programs, summed over all CPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProgramStatistics {
    pub samples_sent: u64,
    /// The perf buffer was full.
    pub samples_lost: u64,
    /// No daemon was there to read.
    pub samples_unheard: u64,
    /// Drops counted by server and reason only, for want of room in the ledger.
    pub ledger_full: u64,
    /// Drops that only the counters have.
    pub ledger_rest_full: u64,
    /// Flows that could not be recorded.
    pub flows_lost: u64,
}

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

/// Tables of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowTable {
    Established,
    HalfOpen,
    Datagrams,
    Icmp,
}

/// One flow that a peer opened.
#[derive(Clone, Debug, Serialize)]
pub struct FlowRow {
    pub table: FlowTable,
    pub server: Option<IpAddr>,
    pub server_port: u16,
    pub peer: Option<IpAddr>,
    pub peer_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Since its last packet (half-open: its SYN), at most a second off.
    pub idle_s: u64,
}

impl Gate {
    /// Settings of the live policy; `None` before the first.
    pub fn live_settings(&self) -> Result<Option<settings>, GateError> {
        let active = self.read_state(state::STATE_ACTIVE)?;
        match u32::try_from(active).unwrap_or(0).checked_sub(1) {
            Some(slot) => self.maps.policies.get(&slot),
            None => Ok(None),
        }
    }

    /// The live policy's text and the file it came from.
    pub fn live_source(&self) -> Result<Option<(String, String)>, GateError> {
        for _ in 0..SNAPSHOT_TRIES {
            let Some(settings) = self.live_settings()? else {
                return Ok(None);
            };
            let text = self.read_source(&settings);
            // A swap in between may have taken the slot: then this is no snapshot.
            let still = self.live_settings()?;
            if still.is_some_and(|still| still.generation == settings.generation) {
                return text.map(|text| Some((text, read_text(&settings.file))));
            }
        }
        Err(GateError::Other {
            what: "could not read the live policy".to_owned(),
            why: "it is swapped faster than it can be read; try again".to_owned(),
        })
    }

    fn read_source(&self, settings: &settings) -> Result<String, GateError> {
        let active = self.read_state(state::STATE_ACTIVE)?;
        let slot = u32::try_from(active).unwrap_or(0).saturating_sub(1);
        let chunks = self.maps.sources.open_inner(slot)?;
        let length = settings.source_bytes as usize;
        let mut text = Vec::with_capacity(length);
        let mut index = 0;
        while text.len() < length {
            let chunk = chunks.get(&index)?.ok_or_else(|| GateError::Other {
                what: "could not read the live policy".to_owned(),
                why: "its text is cut short".to_owned(),
            })?;
            text.extend_from_slice(&chunk.0);
            index += 1;
        }
        text.truncate(length);
        String::from_utf8(text).map_err(|error| GateError::Other {
            what: "could not read the live policy".to_owned(),
            why: error.to_string(),
        })
    }

    /// The live policy, parsed from its text in the kernel.
    pub fn live_policy(&self) -> Result<Option<Policy>, GateError> {
        let Some((text, file)) = self.live_source()? else {
            return Ok(None);
        };
        read_live(&text, &file).map(Some)
    }

    /// How the live policy differs from one; nothing when there is none.
    pub fn changes_to(&self, policy: &Policy) -> Result<Vec<Change>, GateError> {
        let Some((text, file)) = self.live_source()? else {
            return Ok(Vec::new());
        };
        // What says the same needs no second reading: log rotation asks for the policy anew.
        if text == policy.text {
            return Ok(Vec::new());
        }
        Ok(diff(&read_live(&text, &file)?, policy))
    }

    /// Seconds that the live pickup goes on.
    fn pickup_left_s(&self) -> Result<u64, GateError> {
        let until = self.read_state(state::STATE_PICKUP_UNTIL_NS)?;
        // rounded up: 0 says that it is over
        Ok(until.saturating_sub(now_ns()).div_ceil(1_000_000_000))
    }

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
        let events = self.statistic()?;
        let tables = self.fills()?;
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
            warnings.extend(self.sizes_not_in_force(policy));
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

    /// Events inside the programs.
    pub fn statistic(&self) -> Result<ProgramStatistics, GateError> {
        let sum = |index: statistic| -> Result<u64, GateError> {
            Ok(self.maps.statistics.get_per_cpu(&index.0)?.iter().sum())
        };
        Ok(ProgramStatistics {
            samples_sent: sum(statistic::STATISTIC_SAMPLES_SENT)?,
            samples_lost: sum(statistic::STATISTIC_SAMPLES_LOST)?,
            samples_unheard: sum(statistic::STATISTIC_SAMPLES_NO_READER)?,
            ledger_full: sum(statistic::STATISTIC_LEDGER_FULL)?,
            ledger_rest_full: sum(statistic::STATISTIC_LEDGER_OVERFLOW_FULL)?,
            flows_lost: sum(statistic::STATISTIC_FLOW_LOST)?,
        })
    }

    /// Packets and bytes by reason; `would` picks the would-be drops of observe.
    pub fn counters(&self, would: bool) -> Result<Vec<(Reason, u64, u64)>, GateError> {
        let offset = if would { crate::abi::reason::REASON_COUNT.0 } else { 0 };
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

    /// How many packets were dropped, or would have been, of any reason.
    pub fn count_dropped(&self) -> Result<u64, GateError> {
        let mut dropped = 0;
        for would in [false, true] {
            let counters = self.counters(would)?;
            let drops = counters.iter().filter(|(reason, ..)| would || reason.drops());
            dropped += drops.map(|(_, packets, _)| packets).sum::<u64>();
        }
        Ok(dropped)
    }

    /// Every row of the ledger, those counted without port among them.
    pub fn ledger(&self) -> Result<Vec<(ledger_key, ledger_row)>, GateError> {
        let mut rows = Vec::new();
        self.visit_ledger(|row| rows.push((row.kind, *row)))?;
        Ok(rows)
    }

    /// Both parts of the ledger, for [`Reconciler`](crate::drops::Reconciler) and `show drops`.
    pub fn ledger_snapshot(&self) -> Result<Ledger, GateError> {
        let mut ledger = Ledger::new();
        self.visit_ledger(|row| {
            ledger.push((LedgerKey::new(&row.kind, row.overflow != 0), LedgerEntry::from(row)));
        })?;
        Ok(ledger)
    }

    fn visit_ledger(&self, mut look: impl FnMut(&ledger_row)) -> Result<(), GateError> {
        let given =
            self.maps.ledger_quotas.get(&quota_key::QUOTA_ROWS_ISSUED.0)?.map_or(0, |given| given.rows);
        let given = usize::try_from(given).unwrap_or(usize::MAX);
        self.maps.ledger_rows.visit_first(given, |_, row| {
            // one that was given back has counted nothing
            if row.packets > 0 {
                look(row);
            }
        })
    }

    /// What the ledger has of one kind of drop; `None` where it has no row of its own.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn ledger_row(&self, key: &LedgerKey) -> Result<Option<LedgerEntry>, GateError> {
        let Some(number) = self.maps.ledger.get(&key.to_raw())? else {
            return Ok(None);
        };
        Ok(self.maps.ledger_rows.get(&number)?.map(|row| LedgerEntry::from(&row)))
    }

    /// Servers in quarantine, with the seconds left; `None` is until released.
    pub fn quarantined(&self) -> Result<Vec<(String, Option<u64>)>, GateError> {
        let names = self.names_by_id()?;
        let now = now_ns();
        let mut rows: Vec<_> = self
            .maps
            .quarantines
            .entries()?
            .into_iter()
            .filter(|(_, row)| row.until_ns == 0 || row.until_ns > now)
            .map(|(id, row)| {
                let name = names.get(&id).map_or_else(|| format!("#{id}"), |name| name.to_string());
                let left = (row.until_ns != 0).then(|| (row.until_ns - now).div_ceil(1_000_000_000));
                (name, left)
            })
            .collect();
        rows.sort();
        Ok(rows)
    }

    /// Cuts a server off but for its management. The caller holds the lock.
    pub fn quarantine(&self, name: &str, seconds: Option<u64>) -> Result<(), GateError> {
        let policy = self.live_policy()?;
        let live: Vec<&str> =
            policy.iter().flat_map(|p| &p.servers).map(|server| server.name.as_str()).collect();
        // a name of an earlier policy has an id, and no addresses
        if !live.contains(&name) {
            return Err(GateError::no_server(name, live.into_iter()));
        }
        let id = self.find_server_id(name)?;
        let since_ns = now_ns();
        let row = quarantine {
            since_ns,
            until_ns: seconds.map_or(0, |seconds| since_ns + seconds * 1_000_000_000),
        };
        // The hint first: without it the filter does not look.
        self.write_state(state::STATE_QUARANTINES, 1)?;
        // before and after: what was known is forgotten even if this is cut short in between
        self.outdate_verdict_cache()?;
        self.maps.quarantines.put(&id, &row, MapFlags::ANY).map_err(|error| match error {
            // as large as the table of servers
            GateError::Kernelside { errno: Errno::E2BIG | Errno::ENOSPC, .. } => GateError::TableFull {
                table: "servers",
                size: self.maps.quarantines.capacity(),
                wanted: self.maps.quarantines.capacity() as usize + 1,
            },
            error => error,
        })?;
        self.outdate_verdict_cache()
    }

    /// Ends a quarantine; returns whether there was one. The caller holds the lock.
    pub fn release(&self, name: &str) -> Result<bool, GateError> {
        let id = self.find_server_id(name)?;
        self.outdate_verdict_cache()?;
        let removed = self.maps.quarantines.remove(&id)?;
        let now = now_ns();
        for (id, row) in self.maps.quarantines.entries()? {
            if row.until_ns != 0 && row.until_ns <= now {
                self.maps.quarantines.remove(&id)?;
            }
        }
        if self.maps.quarantines.entries()?.is_empty() {
            self.write_state(state::STATE_QUARANTINES, 0)?;
        }
        // also when there was none: a release that was cut short may have ended it
        self.outdate_verdict_cache()?;
        Ok(removed)
    }

    /// All flows that peers opened and that the tables hold.
    pub fn flows(&self) -> Result<Vec<FlowRow>, GateError> {
        let now = now_ns();
        let idle = |since_ns: u64| now.saturating_sub(since_ns) / 1_000_000_000;
        let row = |table: FlowTable, key: &flow_key, since_ns: u64| FlowRow {
            table,
            server: from_address(&key.server),
            server_port: u16::from_be(key.server_port_be),
            peer: from_address(&key.peer),
            peer_port: u16::from_be(key.peer_port_be),
            protocol: key.protocol,
            idle_s: idle(since_ns),
        };
        let mut rows = Vec::new();
        let flows: [(FlowTable, &TypedMap<flow_key, flow>); 3] = [
            (FlowTable::Established, &self.maps.established),
            (FlowTable::Datagrams, &self.maps.datagrams),
            (FlowTable::Icmp, &self.maps.icmp_queries),
        ];
        for (table, map) in flows {
            rows.extend(map.entries()?.iter().map(|(key, flow)| row(table, key, flow.last_ns)));
        }
        rows.extend(
            self.maps
                .half_open
                .entries()?
                .iter()
                .map(|(key, half): &(flow_key, half_open)| row(FlowTable::HalfOpen, key, half.opened_ns)),
        );
        Ok(rows)
    }

    pub(super) fn fills(&self) -> Result<Vec<TableUsage>, GateError> {
        let active = u32::try_from(self.read_state(state::STATE_ACTIVE)?).unwrap_or(0);
        self.maps.usage(&Live { slot: active.checked_sub(1), ledger_rows: self.ledger()?.len() })
    }
}

fn read_live(text: &str, file: &str) -> Result<Policy, GateError> {
    parse(text, file).map_err(|diagnostics| GateError::Other {
        what: "this version does not understand the live policy".to_owned(),
        why: diagnostics.to_string(),
    })
}

/// The errno of a failed test run, for callers outside.
pub(super) fn as_error(what: &str) -> impl Fn(Errno) -> GateError + '_ {
    move |errno| GateError::Kernelside { what: what.to_owned(), errno }
}
