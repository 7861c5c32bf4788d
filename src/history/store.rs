//! The database. It has tables of alarms, counts and samples, each bounded by rows and by age, and the last
//! baseline. One connection writes. Each reader has its own, and sees one moment.
//!
//! A file that is not as it was written is put aside, and a new one begins: new alarms are worth more than old
//! ones.

mod aside;
#[cfg(test)]
mod damage_tests;
mod error;
#[cfg(test)]
mod load_tests;
mod open;
mod removed;
mod rows;
#[cfg(test)]
mod tests;
mod trim;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use jiff::Timestamp;
use log::warn;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

pub use self::aside::list_damaged;
pub use self::error::StoreError;
use self::error::Trouble;
use self::open::{Check, Identity, leave_log, open_or_make, open_reader};
use self::removed::{note_removed, read_removed};
use self::rows::{
    CountRow, from_json, read_alarm, read_sample_text, reported_sum, sample_sum, text_sum, to_json, to_ns,
    to_sql, verify,
};
use self::trim::{LONGEST_SPAN_S, Totals, trim, write_counts};
use super::pending::Pending;
use super::{AlarmEntry, AlarmFilter, AlarmState, Limits, MinuteCount, RemovedCounts, SampleRow};
use crate::clock::wall_now;
use crate::drops::Baseline;

const BASELINE: &str = "baseline";
/// Damages that wait to be reported. More of them say nothing new.
const MOST_NEWS: usize = 8;

/// The connection that writes.
#[derive(Debug)]
struct Writer {
    connection: Connection,
    identity: Identity,
    totals: Totals,
}

/// A history.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
    /// Of a command: it reads what is there, makes nothing and moves nothing.
    only_reads: bool,
    writer: Mutex<Option<Writer>>,
    /// The file was found whole, and is this one. A reader needs no other check then.
    is_whole: AtomicBool,
    /// Held by a reader that opens the file, and by the writer that moves it.
    moving: RwLock<()>,
    /// Why the file has to be put aside, as a reader found it.
    found_damage: Mutex<Option<String>>,
    /// Damaged files that were put aside.
    damaged: AtomicU64,
    /// Packets whose counts were removed for lack of room.
    removed: AtomicU64,
    news: Mutex<Vec<String>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// The history in a folder, for a daemon. It is opened when it is first needed.
    pub fn new(folder: &Path) -> Store {
        Store {
            path: folder.join(super::FILE),
            only_reads: false,
            writer: Mutex::new(None),
            is_whole: AtomicBool::new(false),
            moving: RwLock::new(()),
            found_damage: Mutex::new(None),
            damaged: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            news: Mutex::new(Vec::new()),
        }
    }

    /// The history in a folder, for a command that reads it while no daemon runs.
    pub fn for_reading(folder: &Path) -> Store {
        Store { only_reads: true, ..Store::new(folder) }
    }

    /// Opens the history in a folder, and makes both if they are missing. A damaged history is put aside.
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
        self.with_writer("open", |_| Ok(()))
    }

    /// The path of its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many damaged files were put aside.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Packets whose counts this process has removed for lack of room.
    pub fn removed_packets(&self) -> u64 {
        self.removed.load(Ordering::Relaxed)
    }

    /// What was found damaged since the last call, in words.
    pub fn take_news(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.news))
    }

    /// Puts the file aside if a reader has found it damaged, or if it was replaced.
    ///
    /// # Errors
    /// When no other one can be had.
    pub fn heal(&self) -> Result<(), StoreError> {
        let is_found = lock(&self.found_damage).is_some();
        let has_changed = || {
            let writer = lock(&self.writer);
            writer.as_ref().is_some_and(|writer| writer.identity.find_change(&self.path).is_some())
        };
        if is_found || has_changed() { self.try_open() } else { Ok(()) }
    }

    /// Does something with the connection that writes. A damaged file is put aside, and then it is done with
    /// the new one.
    fn with_writer<T>(
        &self,
        verb: &'static str,
        mut act: impl FnMut(&mut Writer) -> Result<T, Trouble>,
    ) -> Result<T, StoreError> {
        let mut slot = lock(&self.writer);
        let why = match self.try_with(&mut slot, &mut act) {
            Ok(done) => return Ok(done),
            Err((_, Trouble::Damage(why))) => why,
            Err((is_open, trouble)) => return Err(self.explain(if is_open { verb } else { "open" }, trouble)),
        };
        self.put_aside(&mut slot, &why)?;
        self.try_with(&mut slot, &mut act)
            .map_err(|(is_open, trouble)| self.explain(if is_open { verb } else { "open" }, trouble))
    }

    /// As [`Store::with_writer`], once. An error says whether the file was open.
    fn try_with<T>(
        &self,
        slot: &mut Option<Writer>,
        act: &mut impl FnMut(&mut Writer) -> Result<T, Trouble>,
    ) -> Result<T, (bool, Trouble)> {
        let found = lock(&self.found_damage).take();
        if let Some(why) = found {
            return Err((false, Trouble::Damage(why)));
        }
        if let Some(why) = slot.as_ref().and_then(|writer| writer.identity.find_change(&self.path)) {
            return Err((true, Trouble::Damage(why)));
        }
        if slot.is_none() {
            *slot = Some(self.open_writer().map_err(|trouble| (false, trouble))?);
        }
        let Some(writer) = slot.as_mut() else {
            return Err((false, Trouble::Refusal("it is not open".to_owned())));
        };
        let done = act(writer).and_then(|done| {
            writer.identity = Identity::of(&self.path)?;
            Ok(done)
        });
        if done.is_err() {
            // what its transaction left in memory is not to be relied on
            *slot = None;
        }
        done.map_err(|trouble| (true, trouble))
    }

    fn open_writer(&self) -> Result<Writer, Trouble> {
        let connection = open_or_make(&self.path, self.is_whole.load(Ordering::Relaxed))?;
        let totals = Totals::of(&connection)?;
        let identity = Identity::of(&self.path)?;
        self.is_whole.store(true, Ordering::Relaxed);
        Ok(Writer { connection, identity, totals })
    }

    fn put_aside(&self, slot: &mut Option<Writer>, why: &str) -> Result<(), StoreError> {
        let _moving = self.moving.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = slot.take() {
            leave_log(&writer.connection);
        }
        self.is_whole.store(false, Ordering::Relaxed);
        let aside = aside::put_aside(&self.path, wall_now()).map_err(|error| StoreError::Open {
            path: self.path.clone(),
            why: format!("it is damaged ({why}), and can't be put aside: {error}"),
            taken: false,
        })?;
        let text = format!(
            "the history {} is damaged ({why}). A new one begins, and the old one is {}",
            self.path.display(),
            aside.display()
        );
        warn!("{text}");
        self.damaged.fetch_add(1, Ordering::Relaxed);
        lock(&self.found_damage).take();
        let mut news = lock(&self.news);
        if news.len() < MOST_NEWS {
            news.push(text);
        }
        Ok(())
    }

    fn explain(&self, verb: &'static str, trouble: Trouble) -> StoreError {
        let path = self.path.clone();
        match trouble {
            Trouble::Damage(why) => StoreError::Damaged { path, why },
            Trouble::Taken => {
                StoreError::Open { path, why: "another process has it open".to_owned(), taken: true }
            }
            Trouble::Refusal(why) if verb == "open" => StoreError::Open { path, why, taken: false },
            Trouble::Refusal(why) => StoreError::Database { verb, why },
            Trouble::Passing(error) => StoreError::Passing(error),
        }
    }

    /// Reads with a connection of its own, which sees one moment.
    fn with_reader<T>(&self, read: impl FnOnce(&Connection) -> Result<T, Trouble>) -> Result<T, StoreError> {
        if !self.only_reads && !self.is_whole.load(Ordering::Relaxed) {
            self.try_open()?;
        }
        let outcome = self.begin_reading().and_then(|connection| read(&connection));
        outcome.map_err(|trouble| {
            if let Trouble::Damage(why) = &trouble
                && !self.only_reads
            {
                *lock(&self.found_damage) = Some(why.clone());
            }
            self.explain("read", trouble)
        })
    }

    fn begin_reading(&self) -> Result<Connection, Trouble> {
        let _moving = self.moving.read().unwrap_or_else(PoisonError::into_inner);
        let check = if self.only_reads { Check::Whole } else { Check::Layout };
        let connection = open_reader(&self.path, check)?;
        // The moment begins with the first read. From then on it needs no file by its name.
        connection.execute_batch("BEGIN")?;
        connection.query_row("SELECT count(*) FROM reported", [], |_| Ok(()))?;
        Ok(connection)
    }

    /// Writes all records or none, and removes records beyond the limits.
    ///
    /// # Errors
    /// When it can't be written, on a full disk for example. The records of before stay.
    pub fn write(&self, pending: &Pending, limits: &Limits, now: Timestamp) -> Result<(), StoreError> {
        let gone = self.with_writer("write", |writer| write_to(writer, pending, limits, now))?;
        let packets = gone.iter().fold(0, |sum: u64, row| sum.saturating_add(row.packets));
        self.removed.fetch_add(packets, Ordering::Relaxed);
        Ok(())
    }

    /// Begins another run of the daemon. Alarms that are open belong to the previous run, and are marked as
    /// cut off. Returns the highest id that an alarm has had; 0 without alarms.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn begin(&self) -> Result<u64, StoreError> {
        self.with_writer("write", begin_in)
    }

    /// The drops that the previous run had reported; empty if there was none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn baseline(&self) -> Result<Baseline, StoreError> {
        self.with_reader(|connection| {
            let found = connection
                .query_row("SELECT text, sum FROM reported WHERE name = ?1", [BASELINE], |row| {
                    Ok((row.get::<_, String>(0)?, row.get(1)?))
                })
                .optional()?;
            let Some((text, sum)) = found else {
                return Ok(Baseline::default());
            };
            verify(sum, reported_sum(BASELINE, &text), "reported")?;
            // of an earlier version, perhaps: drops are reported twice then, rather than never
            Ok(serde_json::from_str(&text).unwrap_or_default())
        })
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
        self.with_reader(|connection| {
            let mut statement = connection.prepare("SELECT id, text, sum FROM alarms ORDER BY id")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                each(read_alarm(row)?).map_err(Trouble::Passing)?;
            }
            Ok(())
        })
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

    /// As [`Store::counts`], but calls `each` with one count at a time. A count of a longer time is among them
    /// if any of it lies between the two.
    ///
    /// # Errors
    /// When it can't be read, and when `each` fails.
    pub fn each_count(
        &self,
        from: Timestamp,
        to: Timestamp,
        mut each: impl FnMut(MinuteCount) -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let (from, to) = (from.as_second(), to.as_second());
        self.with_reader(|connection| {
            let mut statement = connection.prepare(
                "SELECT minute, server, span, kind, packets, sum FROM counts \
                 WHERE minute > ?1 AND minute <= ?2 AND minute + span > ?3 ORDER BY minute, server, span, kind",
            )?;
            let mut rows = statement.query(params![from.saturating_sub(LONGEST_SPAN_S), to, from])?;
            while let Some(row) = rows.next()? {
                each(CountRow::read(row)?.to_count()?).map_err(Trouble::Passing)?;
            }
            Ok(())
        })
    }

    /// Counts that were removed for lack of room, if any of them lies between two times.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn removed(&self, from: Timestamp, to: Timestamp) -> Result<Vec<RemovedCounts>, StoreError> {
        let mut removed = self.with_reader(read_removed)?;
        removed.retain(|row| row.from <= to.as_second() && row.to > from.as_second());
        Ok(removed)
    }

    /// Samples from one time to another, in order, and no more than `most`.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn samples(&self, from: Timestamp, to: Timestamp, most: usize) -> Result<Vec<SampleRow>, StoreError> {
        self.with_reader(|connection| {
            let mut statement = connection.prepare(
                "SELECT time, number, server, text, sum FROM samples WHERE time BETWEEN ?1 AND ?2 \
                 ORDER BY time, number LIMIT ?3",
            )?;
            let most = i64::try_from(most).unwrap_or(i64::MAX);
            let mut rows = statement.query(params![to_ns(from), to_ns(to), most])?;
            let mut samples = Vec::new();
            while let Some(row) = rows.next()? {
                samples.push(from_json(&read_sample_text(row)?, "samples")?);
            }
            Ok(samples)
        })
    }
}

fn write_to(
    writer: &mut Writer,
    pending: &Pending,
    limits: &Limits,
    now: Timestamp,
) -> Result<Vec<RemovedCounts>, Trouble> {
    let mut totals = writer.totals;
    let writing = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for (id, (_, text)) in &pending.alarms {
        let id = to_sql(*id);
        let is_new = writing
            .prepare_cached("SELECT 1 FROM alarms WHERE id = ?1")?
            .query_row([id], |_| Ok(()))
            .optional()?
            .is_none();
        writing
            .prepare_cached("INSERT OR REPLACE INTO alarms (id, text, sum) VALUES (?1, ?2, ?3)")?
            .execute(params![id, text, text_sum(&[id], text)])?;
        totals.alarms += u64::from(is_new);
    }
    write_counts(&writing, pending, &mut totals)?;
    for sample in &pending.samples {
        let (time, server, text) = (to_ns(sample.time), to_json(&sample.server), to_json(sample));
        let number: i64 = writing
            .prepare_cached("SELECT ifnull(max(number) + 1, 0) FROM samples WHERE time = ?1")?
            .query_row([time], |row| row.get(0))?;
        writing
            .prepare_cached(
                "INSERT INTO samples (time, number, server, text, sum) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![time, number, server, text, sample_sum(time, number, &server, &text)])?;
        totals.samples += 1;
    }
    if let Some(baseline) = &pending.baseline {
        let text = to_json(baseline);
        writing
            .prepare_cached("INSERT OR REPLACE INTO reported (name, text, sum) VALUES (?1, ?2, ?3)")?
            .execute(params![BASELINE, text, reported_sum(BASELINE, &text)])?;
    }
    let oldest = now.as_second().saturating_sub(limits.age_s);
    let gone = trim(&writing, &mut totals, limits, oldest)?;
    note_removed(&writing, &gone, oldest)?;
    writing.commit()?;
    writer.totals = totals;
    Ok(gone)
}

fn begin_in(writer: &mut Writer) -> Result<u64, Trouble> {
    let writing = writer.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut last = 0;
    {
        let mut statement = writing.prepare("SELECT id, text, sum FROM alarms ORDER BY id")?;
        let mut rows = statement.query([])?;
        let mut left = Vec::new();
        while let Some(row) = rows.next()? {
            let mut entry = read_alarm(row)?;
            let id: i64 = row.get(0)?;
            last = entry.id;
            if entry.state == AlarmState::Open {
                entry.state = AlarmState::CutOff;
                left.push((id, to_json(&entry)));
            }
        }
        for (id, text) in left {
            writing
                .prepare_cached("UPDATE alarms SET text = ?2, sum = ?3 WHERE id = ?1")?
                .execute(params![id, text, text_sum(&[id], &text)])?;
        }
    }
    writing.commit()?;
    Ok(last)
}
