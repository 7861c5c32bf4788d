//! Records that wait to be written. Everything in here is bounded, however long the disk is full.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{AlarmState, MinuteCount, SPAN_MINUTE_S, SampleRow};
use crate::alarm::{Alarm, Change};
use crate::drops::{Baseline, DropEvent, DropVerdict, ReasonCode, name_service, show_hex};

/// Rows of one server in a minute. Beyond that, its drops are counted by reason alone, so that one server can't
/// take the room of all others.
pub(super) const SHARE_PER_MINUTE: u64 = 256;
/// The service of counts that are folded.
pub(super) const ANY: &str = "any";
/// Counts that have a destination and a service. Beyond that, drops are counted by server and reason.
const MAX_COUNTS: usize = 4096;
/// Counts by the minute. Beyond that, they are counted by the hour.
const MAX_FOLDED_COUNTS: usize = 2 * MAX_COUNTS;
/// Counts that have a server. Beyond that, drops are counted by reason, of which there are few.
const MAX_HOURLY_COUNTS: usize = 3 * MAX_COUNTS;
const SPAN_HOUR_S: i64 = 3_600;
/// Alarms that wait: more than can be open.
const MAX_ALARMS: usize = 8192;
/// Samples that wait.
const MAX_SAMPLES: usize = 512;
/// Samples of one server in a minute. The first ones show what happens, and later ones repeat it.
const MAX_SAMPLES_PER_MINUTE: u32 = 16;

/// The drops that are counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct CountKey {
    minute: i64,
    server: Option<Arc<str>>,
    protocol: u8,
    port: u16,
    any: bool,
    reason: ReasonCode,
    verdict: DropVerdict,
    quiet: bool,
    while_away: bool,
    destination: Option<IpAddr>,
    folded: bool,
    span_s: i64,
}

/// Counts of drops by kind and minute. Beyond its bounds the counts become coarser. Their sum stays exact.
#[derive(Debug, Default)]
pub struct MinuteCounts {
    counts: HashMap<CountKey, u64>,
    /// Counts with a destination and a service, by minute and server.
    shares: HashMap<(i64, Option<Arc<str>>), u64>,
}

impl MinuteCounts {
    /// Notes a drop.
    pub fn add(&mut self, drop: &DropEvent) {
        if drop.drops == 0 {
            return;
        }
        let key = CountKey {
            minute: drop.time.as_second().div_euclid(60) * 60,
            server: drop.server.as_ref().map(|server| server.name.clone()),
            protocol: drop.protocol,
            port: drop.port,
            any: drop.any_protocol,
            reason: drop.reason,
            verdict: drop.verdict,
            quiet: drop.quiet,
            while_away: drop.while_away,
            destination: drop.destination,
            folded: false,
            span_s: SPAN_MINUTE_S,
        };
        self.count(key, drop.drops);
    }

    fn count(&mut self, mut key: CountKey, packets: u64) {
        if !self.counts.contains_key(&key) {
            let share = self.shares.get(&(key.minute, key.server.clone())).copied().unwrap_or(0);
            if !key.folded && (share >= SHARE_PER_MINUTE || self.counts.len() >= MAX_COUNTS) {
                key = CountKey { protocol: 0, port: 0, any: true, destination: None, folded: true, ..key };
            }
            if self.counts.len() >= MAX_FOLDED_COUNTS && !self.counts.contains_key(&key) {
                let minute = key.minute.div_euclid(SPAN_HOUR_S) * SPAN_HOUR_S;
                key = CountKey { minute, span_s: SPAN_HOUR_S, ..key };
            }
            if self.counts.len() >= MAX_HOURLY_COUNTS && !self.counts.contains_key(&key) {
                key = CountKey { server: None, ..key };
            }
            if !key.folded {
                *self.shares.entry((key.minute, key.server.clone())).or_default() += 1;
            }
        }
        let count = self.counts.entry(key).or_default();
        *count = count.saturating_add(packets);
    }

    fn merge(&mut self, other: MinuteCounts) {
        #[expect(clippy::iter_over_hash_type, reason = "the sums do not depend on the order")]
        for (key, packets) in other.counts {
            self.count(key, packets);
        }
    }

    /// The counts, sorted by minute, then by server.
    pub fn rows(&self) -> Vec<MinuteCount> {
        let mut rows: Vec<MinuteCount> = self
            .counts
            .iter()
            .map(|(key, packets)| MinuteCount {
                minute: key.minute,
                server: key.server.as_deref().map(str::to_owned),
                service: match key.folded {
                    true => ANY.to_owned(),
                    false => name_service(key.reason, key.protocol, key.port, key.any),
                },
                reason: key.reason.to_string(),
                verdict: key.verdict.name().to_owned(),
                quiet: key.quiet,
                while_away: key.while_away,
                destination: key.destination,
                packets: *packets,
                folded: key.folded,
                span_s: key.span_s,
            })
            .collect();
        rows.sort();
        rows
    }
}

/// The text of an [`AlarmEntry`](super::AlarmEntry). It is rendered at once, because a text takes a tenth of
/// the memory of a tree of JSON values.
#[derive(Serialize)]
struct AlarmLine<'a> {
    id: u64,
    state: AlarmState,
    changed: Timestamp,
    alarm: &'a Alarm,
}

/// Records that wait to be written.
#[derive(Debug, Default)]
pub struct Pending {
    /// Counts that `baseline` accounts for. Both are written together or not at all. After a kill the next
    /// daemon counts from there, so that each drop is in the history once.
    pub(super) counts: MinuteCounts,
    pub(super) baseline: Option<Baseline>,
    /// Counts since the last checkpoint. A kill loses them, and the ledger still has them.
    uncovered: MinuteCounts,
    pub(super) alarms: BTreeMap<u64, (AlarmState, String)>,
    pub(super) samples: VecDeque<SampleRow>,
    /// Samples of this minute, by server's id.
    sampled: HashMap<u32, u32>,
    minute: i64,
    /// Alarms and samples that had no room.
    pub(super) lost: u64,
}

impl Pending {
    /// Notes a drop.
    pub fn add_drop(&mut self, drop: &DropEvent) {
        self.uncovered.add(drop);
        if drop.frame.is_empty() || drop.quiet {
            return;
        }
        let minute = drop.time.as_second().div_euclid(60);
        if minute != self.minute {
            self.minute = minute;
            self.sampled.clear();
        }
        let sampled = self.sampled.entry(drop.server_id()).or_default();
        if *sampled >= MAX_SAMPLES_PER_MINUTE {
            return;
        }
        *sampled += 1;
        self.push_sample(SampleRow {
            time: drop.time,
            server: drop.server_name().map(str::to_owned),
            source: drop.source,
            destination: drop.destination,
            service: drop.service(),
            reason: drop.reason.to_string(),
            verdict: drop.verdict.name().to_owned(),
            length: drop.length,
            frame: show_hex(&drop.frame),
        });
    }

    /// Notes an alarm as it is after a change.
    pub fn add_alarm(&mut self, change: &Change) {
        let state = AlarmState::after(change.step);
        let line = AlarmLine { id: change.alarm.id, state, changed: change.time, alarm: &change.alarm };
        if let Ok(text) = serde_json::to_string(&line) {
            self.push_alarm(change.alarm.id, state, text);
        }
    }

    /// Notes a checkpoint: `baseline` accounts for every drop that was added until now.
    pub fn checkpoint(&mut self, baseline: Baseline) {
        let uncovered = std::mem::take(&mut self.uncovered);
        self.counts.merge(uncovered);
        self.baseline = Some(baseline);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.counts.counts.is_empty()
            && self.baseline.is_none()
            && self.alarms.is_empty()
            && self.samples.is_empty()
    }

    /// Adds later records.
    pub(super) fn merge(&mut self, later: Pending) {
        self.counts.merge(later.counts);
        self.uncovered.merge(later.uncovered);
        if later.baseline.is_some() {
            self.baseline = later.baseline;
        }
        self.lost = self.lost.saturating_add(later.lost);
        for (id, (state, text)) in later.alarms {
            self.push_alarm(id, state, text);
        }
        for sample in later.samples {
            self.push_sample(sample);
        }
    }

    /// Takes everything that may be written. The counts since the last checkpoint stay, and so does the number
    /// of samples in this minute.
    pub(super) fn take(&mut self) -> Pending {
        let fresh = Pending {
            sampled: std::mem::take(&mut self.sampled),
            uncovered: std::mem::take(&mut self.uncovered),
            minute: self.minute,
            ..Pending::default()
        };
        std::mem::replace(self, fresh)
    }

    fn push_alarm(&mut self, id: u64, state: AlarmState, text: String) {
        if self.alarms.len() >= MAX_ALARMS && !self.alarms.contains_key(&id) {
            self.alarms.pop_first();
            self.lost += 1;
        }
        self.alarms.insert(id, (state, text));
    }

    /// The first samples show how it began, so they are worth more than the last.
    fn push_sample(&mut self, sample: SampleRow) {
        if self.samples.len() >= MAX_SAMPLES {
            self.lost += 1;
            return;
        }
        self.samples.push_back(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::ServerRef;
    use crate::drops::example::{after_ms, syn};

    fn sum(counts: &MinuteCounts) -> u64 {
        counts.counts.values().sum()
    }

    #[test]
    fn a_flood_of_destinations_is_folded_and_its_sum_stays_exact() {
        let mut pending = Pending::default();
        let mut drop = syn();
        for number in 0..100_000_u32 {
            drop.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into());
            drop.port = number as u16;
            drop.server = Some(ServerRef { id: number, name: format!("server{number}").into() });
            drop.drops = 3;
            drop.frame = vec![0; 64];
            pending.add_drop(&drop);
        }
        pending.checkpoint(Baseline::default());
        assert_eq!(sum(&pending.counts), 300_000);
        assert!(pending.counts.counts.len() <= MAX_HOURLY_COUNTS + 1, "{}", pending.counts.counts.len());
        assert_eq!(pending.samples.len(), MAX_SAMPLES);
        let rows = pending.counts.rows();
        assert_eq!(rows.iter().map(|row| row.packets).sum::<u64>(), 300_000);
        assert!(rows.iter().any(|row| row.service == "any" && row.server.is_none()));
    }

    #[test]
    fn a_noisy_server_leaves_the_others_their_services_and_destinations() {
        let mut pending = Pending::default();
        let mut drop = syn();
        let mut add = |id: u32, number: u32| {
            drop.server = Some(ServerRef { id, name: format!("server{id}").into() });
            drop.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into());
            pending.add_drop(&drop);
        };
        (0..20_000).for_each(|number| add(1, number));
        (0..50).for_each(|number| add(2, number));
        pending.checkpoint(Baseline::default());
        let rows = pending.counts.rows();
        let of = |name: &str| -> Vec<MinuteCount> {
            rows.iter().filter(|row| row.server.as_deref() == Some(name)).cloned().collect()
        };
        let (noisy, quiet) = (of("server1"), of("server2"));
        assert_eq!(noisy.len() as u64, SHARE_PER_MINUTE + 1);
        assert_eq!(noisy.iter().map(|row| row.packets).sum::<u64>(), 20_000);
        let folded: Vec<u64> = noisy.iter().filter(|row| row.folded).map(|row| row.packets).collect();
        assert_eq!(folded, [20_000 - SHARE_PER_MINUTE]);
        assert_eq!(quiet.len(), 50);
        assert!(quiet.iter().all(|row| !row.folded && row.destination.is_some()));
    }

    #[test]
    fn records_that_a_full_disk_refused_are_added_to_later_ones() {
        let mut first = Pending::default();
        first.add_drop(&syn());
        first.checkpoint(Baseline::default());
        let mut later = Pending::default();
        later.add_drop(&syn());
        later.checkpoint(Baseline::default());
        let mut engine = Engine::default();
        let opened = engine.observe(&syn(), after_ms(0)).remove(0);
        first.add_alarm(&opened);
        let closed = engine.tick(after_ms(10_000_000)).remove(0);
        later.add_alarm(&closed);
        first.merge(later);
        assert_eq!(first.counts.rows()[0].packets, 2);
        assert_eq!(first.alarms.len(), 1);
        assert_eq!(first.alarms[&1].0, AlarmState::Closed, "the later state counts");
    }

    #[test]
    fn a_sample_whose_drops_were_reported_is_kept_and_not_counted() {
        let mut pending = Pending::default();
        let mut drop = syn();
        drop.drops = 0;
        drop.frame = vec![0xab, 0xcd];
        pending.add_drop(&drop);
        pending.checkpoint(Baseline::default());
        assert!(pending.counts.rows().is_empty());
        assert_eq!(pending.samples[0].frame, "abcd");
    }

    #[test]
    fn one_server_has_no_more_than_its_share_of_samples_in_a_minute() {
        let mut pending = Pending::default();
        let mut drop = syn();
        drop.frame = vec![1];
        for _ in 0..100 {
            pending.add_drop(&drop);
        }
        assert_eq!(pending.samples.len(), MAX_SAMPLES_PER_MINUTE as usize);
        let written = pending.take();
        pending.add_drop(&drop);
        assert!(pending.samples.is_empty(), "writing begins no new minute");
        assert_eq!(written.samples.len(), MAX_SAMPLES_PER_MINUTE as usize);
        drop.time = after_ms(60_000).wall;
        pending.add_drop(&drop);
        assert_eq!(pending.samples.len(), 1);
    }

    #[test]
    fn counts_that_no_baseline_accounts_for_stay_behind() {
        let mut pending = Pending::default();
        pending.add_drop(&syn());
        assert!(pending.take().is_empty());
        pending.checkpoint(Baseline::default());
        pending.add_drop(&syn());
        let written = pending.take();
        assert_eq!(written.counts.rows()[0].packets, 1);
        assert!(written.baseline.is_some());
        pending.checkpoint(Baseline::default());
        assert_eq!(pending.take().counts.rows()[0].packets, 1);
    }
}
