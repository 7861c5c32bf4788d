//! The database. It has tables of alarms, counts and samples, each pruned by rows and by age, and the last
//! baseline.

mod error;
mod open;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use redb::{
    Database, Durability, Key, ReadableDatabase as _, ReadableTable, ReadableTableMetadata as _, Table,
    TableDefinition, Value,
};

pub use self::error::StoreError;
use self::error::failed;
use self::open::open_database;
use super::pending::Pending;
use super::{AlarmEntry, AlarmFilter, AlarmState, Limits, MinuteCount, SampleRow};
use crate::drops::Baseline;

/// JSON, by id.
const ALARMS: TableDefinition<'_, u64, &str> = TableDefinition::new("alarms");
/// Packets, by minute and kind. The kind is JSON, so that no name can be mistaken for two.
const COUNTS: TableDefinition<'_, (i64, &str), u64> = TableDefinition::new("counts");
/// JSON, by time in nanoseconds and a number that separates samples of one time.
const SAMPLES: TableDefinition<'_, (i64, u32), &str> = TableDefinition::new("samples");

/// The baseline of the last checkpoint, JSON.
const REPORTED: TableDefinition<'_, &str, &str> = TableDefinition::new("reported");
const BASELINE: &str = "baseline";

/// Rows that one write removes at most. The next write removes more.
const MAX_PRUNED: u64 = 20_000;

/// A kind of drops as the table of counts has it in its key.
type CountKey = (Option<String>, String, String, String, bool, bool, Option<std::net::IpAddr>);

/// An opened history.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// `None` after a failure, because redb refuses to go on with a database that it could not write.
    database: Mutex<Option<Arc<Database>>>,
}

impl Store {
    /// The history in a folder. It is opened when it is first needed.
    pub fn new(folder: &Path) -> Store {
        Store { path: folder.join(super::FILE), database: Mutex::new(None) }
    }

    /// Opens the history in a folder, and makes both if they are missing. A damaged history is moved aside,
    /// because new alarms are worth more than old ones.
    ///
    /// # Errors
    /// When the folder can't be made, or another process has the history open.
    pub fn open(folder: &Path) -> Result<Store, StoreError> {
        let store = Store::new(folder);
        store.try_open()?;
        Ok(store)
    }

    /// Opens it if it is not open yet.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn try_open(&self) -> Result<(), StoreError> {
        self.database().map(drop)
    }

    /// The path of its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn database(&self) -> Result<Arc<Database>, StoreError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(database) = &*slot {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(open_database(&self.path)?);
        *slot = Some(Arc::clone(&database));
        Ok(database)
    }

    fn forget_database(&self) {
        *self.database.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Writes all records or none, and removes records beyond the limits.
    ///
    /// # Errors
    /// When it can't be written, on a full disk for example. The records of before stay.
    pub fn write(&self, pending: &Pending, limits: &Limits, now: Timestamp) -> Result<(), StoreError> {
        let database = self.database()?;
        let written = write_to(&database, pending, limits, now);
        if written.is_err() {
            // the file's lock must be released before the file is opened again
            drop(database);
            self.forget_database();
        }
        written
    }

    /// Begins another run of the daemon. Alarms that are open belong to the previous run, and are marked as
    /// cut off. Returns the highest id that an alarm has had; 0 without alarms.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn begin(&self) -> Result<u64, StoreError> {
        let database = self.database()?;
        let begun = begin_in(&database);
        if begun.is_err() {
            drop(database);
            self.forget_database();
        }
        begun
    }

    /// The drops that the previous run had reported; empty if there was none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn baseline(&self) -> Result<Baseline, StoreError> {
        let database = self.database()?;
        let reading = database.begin_read().map_err(failed("read"))?;
        let Some(table) = found(reading.open_table(REPORTED))? else {
            return Ok(Baseline::default());
        };
        let text = table.get(BASELINE).map_err(failed("read"))?;
        Ok(text.and_then(|text| serde_json::from_str(text.value()).ok()).unwrap_or_default())
    }

    /// Alarms that pass a filter, the oldest first.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn alarms(&self, filter: &AlarmFilter) -> Result<Vec<AlarmEntry>, StoreError> {
        let mut alarms = Vec::new();
        self.each_alarm(|entry| {
            if filter.matches(&entry) {
                alarms.push(entry);
            }
            Ok(())
        })?;
        Ok(alarms)
    }

    /// Calls `each` with every alarm, the oldest first. Ten thousand at once would take much memory.
    ///
    /// # Errors
    /// When it can't be read, and when `each` fails.
    pub fn each_alarm(&self, mut each: impl FnMut(AlarmEntry) -> io::Result<()>) -> Result<(), StoreError> {
        let database = self.database()?;
        let read = failed("read");
        let reading = database.begin_read().map_err(failed("read"))?;
        let Some(table) = found(reading.open_table(ALARMS))? else {
            return Ok(());
        };
        for row in table.iter().map_err(&read)? {
            let (_, value) = row.map_err(&read)?;
            if let Ok(entry) = serde_json::from_str(value.value()) {
                each(entry)?;
            }
        }
        Ok(())
    }

    /// Counts of drops from one time to another, in order.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn counts(&self, from: Timestamp, to: Timestamp) -> Result<Vec<MinuteCount>, StoreError> {
        let mut rows = Vec::new();
        self.each_count(from, to, |row| {
            rows.push(row);
            Ok(())
        })?;
        Ok(rows)
    }

    /// As [`Store::counts`], but calls `each` with one count at a time.
    ///
    /// # Errors
    /// When it can't be read, and when `each` fails.
    pub fn each_count(
        &self,
        from: Timestamp,
        to: Timestamp,
        mut each: impl FnMut(MinuteCount) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let database = self.database()?;
        let read = failed("read");
        let reading = database.begin_read().map_err(failed("read"))?;
        let Some(table) = found(reading.open_table(COUNTS))? else {
            return Ok(());
        };
        let first = from.as_second().div_euclid(60) * 60;
        for row in table.range((first, "")..(to.as_second().saturating_add(1), "")).map_err(&read)? {
            let (key, packets) = row.map_err(&read)?;
            let (minute, kind) = key.value();
            if let Some(row) = read_count(minute, kind, packets.value()) {
                each(row)?;
            }
        }
        Ok(())
    }

    /// Samples from one time to another, in order, and no more than `most`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn samples(&self, from: Timestamp, to: Timestamp, most: usize) -> Result<Vec<SampleRow>, StoreError> {
        let database = self.database()?;
        let read = failed("read");
        let reading = database.begin_read().map_err(failed("read"))?;
        let Some(table) = found(reading.open_table(SAMPLES))? else {
            return Ok(Vec::new());
        };
        let mut rows = Vec::new();
        for row in table.range((to_ns(from), 0)..=(to_ns(to), u32::MAX)).map_err(&read)?.take(most) {
            let (_, value) = row.map_err(&read)?;
            rows.extend(serde_json::from_str::<SampleRow>(value.value()).ok());
        }
        Ok(rows)
    }
}

/// `None` for a table that has not been written yet.
fn found<T>(table: Result<T, redb::TableError>) -> Result<Option<T>, StoreError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(failed("read")(error)),
    }
}

fn write_to(
    database: &Database,
    pending: &Pending,
    limits: &Limits,
    now: Timestamp,
) -> Result<(), StoreError> {
    let write = failed("write");
    let mut writing = database.begin_write().map_err(failed("write"))?;
    writing.set_durability(Durability::Immediate).map_err(failed("write"))?;
    let oldest = now.as_second().saturating_sub(limits.age_s);
    {
        let mut table = writing.open_table(ALARMS).map_err(failed("write"))?;
        for (id, (_, text)) in &pending.alarms {
            table.insert(id, &**text).map_err(&write)?;
        }
        prune(&mut table, limits.alarms, |_, value| {
            let entry = serde_json::from_str::<AlarmEntry>(value).ok();
            entry.is_none_or(|entry| entry.changed.as_second() < oldest)
        })?;
    }
    {
        let mut table = writing.open_table(COUNTS).map_err(failed("write"))?;
        for row in pending.counts.rows() {
            let kind: CountKey = (
                row.server,
                row.service,
                row.reason,
                row.verdict,
                row.quiet,
                row.while_away,
                row.destination,
            );
            let kind = to_json(&kind);
            let before = table.get((row.minute, &*kind)).map_err(&write)?.map_or(0, |count| count.value());
            table.insert((row.minute, &*kind), before.saturating_add(row.packets)).map_err(&write)?;
        }
        prune(&mut table, limits.counts, |(minute, _), _| minute < oldest)?;
    }
    {
        let mut table = writing.open_table(SAMPLES).map_err(failed("write"))?;
        for sample in &pending.samples {
            let time = to_ns(sample.time);
            let mut number = 0;
            while table.get((time, number)).map_err(&write)?.is_some() {
                number += 1;
            }
            table.insert((time, number), &*to_json(sample)).map_err(&write)?;
        }
        let oldest_ns = oldest.saturating_mul(1_000_000_000);
        prune(&mut table, limits.samples, |(time, _), _| time < oldest_ns)?;
    }
    if let Some(baseline) = &pending.baseline {
        let mut table = writing.open_table(REPORTED).map_err(failed("write"))?;
        table.insert(BASELINE, &*to_json(baseline)).map_err(&write)?;
    }
    writing.commit().map_err(failed("write"))
}

/// Removes rows from the front while there are too many, or while `is_old` says so of the first.
fn prune<K: Key + 'static, V: Value + 'static>(
    table: &mut Table<'_, K, V>,
    most: u64,
    is_old: impl Fn(K::SelfType<'_>, V::SelfType<'_>) -> bool,
) -> Result<(), StoreError> {
    let mut surplus = table.len().map_err(failed("write"))?.saturating_sub(most);
    for _ in 0..MAX_PRUNED {
        if surplus == 0 {
            let first = table.first().map_err(failed("write"))?;
            if !first.is_some_and(|(key, value)| is_old(key.value(), value.value())) {
                return Ok(());
            }
        }
        if table.pop_first().map_err(failed("write"))?.is_none() {
            return Ok(());
        }
        surplus = surplus.saturating_sub(1);
    }
    Ok(())
}

fn begin_in(database: &Database) -> Result<u64, StoreError> {
    let write = failed("write");
    let writing = database.begin_write().map_err(failed("write"))?;
    let mut last = 0;
    {
        let mut table = writing.open_table(ALARMS).map_err(failed("write"))?;
        let mut left = Vec::new();
        for row in table.iter().map_err(&write)? {
            let (id, value) = row.map_err(&write)?;
            last = id.value();
            let Ok(mut entry) = serde_json::from_str::<AlarmEntry>(value.value()) else {
                continue;
            };
            if entry.state == AlarmState::Open {
                entry.state = AlarmState::CutOff;
                left.push((last, to_json(&entry)));
            }
        }
        for (id, text) in left {
            table.insert(id, &*text).map_err(&write)?;
        }
    }
    writing.commit().map_err(failed("write"))?;
    Ok(last)
}

fn read_count(minute: i64, kind: &str, packets: u64) -> Option<MinuteCount> {
    let (server, service, reason, verdict, quiet, while_away, destination): CountKey =
        serde_json::from_str(kind).ok()?;
    Some(MinuteCount { minute, server, service, reason, verdict, quiet, while_away, destination, packets })
}

fn to_json(value: &impl serde::Serialize) -> String {
    // texts, numbers and lists can't fail
    serde_json::to_string(value).unwrap_or_default()
}

fn to_ns(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}
