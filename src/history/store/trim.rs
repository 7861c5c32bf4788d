//! Keeps the tables within their bounds. The largest server gives way first: its counts are folded into coarser
//! ones, whose sums stay exact. So one noisy server costs no other its records.

use std::collections::BTreeMap;

use log::warn;
use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::Trouble;
use super::removed;
use super::rows::{CountRow, from_sql, read_alarm, to_sql, verify};
use crate::history::pending::{Pending, SHARE_PER_MINUTE};
use crate::history::{Limits, RemovedCounts, SPAN_MINUTE_S};

/// Rows that one write removes at most for their age. The next write removes more.
const MAX_PRUNED: i64 = 20_000;
/// Rows that are looked at to fold some.
const MAX_FOLDED: i64 = 20_000;
/// Rounds in one write, and servers in a round.
const MAX_ROUNDS: usize = 16;
const MAX_SERVERS: usize = 64;
/// Counts are folded into an hour, then into a day, then into thirty.
const SPANS_S: [i64; 3] = [3_600, 86_400, LONGEST_SPAN_S];
/// The longest time that a row of counts stands for.
pub(super) const LONGEST_SPAN_S: i64 = 30 * 86_400;

/// How many rows the tables have. To count them is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub alarms: u64,
    pub counts: u64,
    pub samples: u64,
}

impl Totals {
    pub(super) fn of(connection: &Connection) -> Result<Totals, Trouble> {
        let count = |table: &str| -> Result<u64, Trouble> {
            let text = format!("SELECT count(*) FROM {table}");
            Ok(from_sql(connection.query_row(&text, [], |row| row.get(0))?))
        };
        Ok(Totals { alarms: count("alarms")?, counts: count("counts")?, samples: count("samples")? })
    }
}

/// Adds packets to the row of the same kind. `true` if there was none.
fn add_count(connection: &Connection, row: &CountRow) -> Result<bool, Trouble> {
    let before = connection
        .prepare_cached(
            "SELECT packets, sum FROM counts WHERE minute = ?1 AND server = ?2 AND span = ?3 AND kind = ?4",
        )?
        .query_row(params![row.minute, row.server, row.span_s, row.kind], |found| {
            Ok((found.get::<_, i64>(0)?, found.get::<_, i64>(1)?))
        })
        .optional()?;
    let mut row = row.clone();
    if let Some((packets, sum)) = before {
        let found = CountRow { packets: from_sql(packets), ..row.clone() };
        verify(sum, found.sum(), "counts")?;
        row.packets = row.packets.saturating_add(found.packets);
    }
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO counts (minute, server, span, kind, packets, sum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?
        .execute(params![row.minute, row.server, row.span_s, row.kind, to_sql(row.packets), row.sum()])?;
    Ok(before.is_none())
}

/// Adds counts. A server that has had its share of rows in a minute gets further kinds folded by reason.
pub(super) fn write_counts(
    writing: &Connection,
    pending: &Pending,
    totals: &mut Totals,
) -> Result<(), Trouble> {
    let mut group = (i64::MIN, String::new());
    let mut rows_of_group = 0;
    let mut known = writing.prepare_cached(
        "SELECT 1 FROM counts WHERE minute = ?1 AND server = ?2 AND span = ?3 AND kind = ?4",
    )?;
    // sorted by minute, then by server
    for count in pending.counts.rows() {
        let mut row = CountRow::of(&count);
        if count.span_s == SPAN_MINUTE_S && !count.folded {
            if (row.minute, &row.server) != (group.0, &group.1) {
                rows_of_group = count_rows(writing, row.minute, &row.server)?;
                group = (row.minute, row.server.clone());
            }
            if rows_of_group >= SHARE_PER_MINUTE
                && !known.exists(params![row.minute, row.server, row.span_s, row.kind])?
            {
                row = row.fold(SPAN_MINUTE_S)?;
            }
        }
        let is_new = add_count(writing, &row)?;
        totals.counts += u64::from(is_new);
        rows_of_group += u64::from(is_new);
    }
    Ok(())
}

/// Removes what is too old or too much. Returns the counts that had no room.
pub(super) fn trim(
    connection: &Connection,
    totals: &mut Totals,
    limits: &Limits,
    oldest: i64,
) -> Result<Vec<RemovedCounts>, Trouble> {
    trim_alarms(connection, totals, limits.alarms, oldest)?;
    let removed = connection
        .prepare_cached(
            "DELETE FROM counts WHERE (minute, server, span, kind) IN (SELECT minute, server, span, kind \
             FROM counts WHERE minute < ?1 AND minute + span <= ?1 ORDER BY minute LIMIT ?2)",
        )?
        .execute(params![oldest, MAX_PRUNED])?;
    totals.counts = totals.counts.saturating_sub(removed as u64);
    let removed = connection
        .prepare_cached(
            "DELETE FROM samples WHERE (time, number) IN (SELECT time, number FROM samples WHERE time < ?1 \
             ORDER BY time LIMIT ?2)",
        )?
        .execute(params![oldest.saturating_mul(1_000_000_000), MAX_PRUNED])?;
    totals.samples = totals.samples.saturating_sub(removed as u64);
    let mut gone = Vec::new();
    trim_counts(connection, totals, limits.counts, &mut gone)?;
    trim_samples(connection, totals, limits.samples)?;
    Ok(gone)
}

/// Removes the oldest alarms.
fn trim_alarms(connection: &Connection, totals: &mut Totals, most: u64, oldest: i64) -> Result<(), Trouble> {
    let mut first = connection.prepare_cached("SELECT id, text, sum FROM alarms ORDER BY id LIMIT 1")?;
    for _ in 0..MAX_PRUNED {
        let mut rows = first.query([])?;
        let Some(row) = rows.next()? else { break };
        let id: i64 = row.get(0)?;
        if totals.alarms <= most && read_alarm(row)?.changed.as_second() >= oldest {
            break;
        }
        drop(rows);
        connection.prepare_cached("DELETE FROM alarms WHERE id = ?1")?.execute([id])?;
        totals.alarms = totals.alarms.saturating_sub(1);
    }
    Ok(())
}

/// Some room beyond the bound, so that not every write has to make some.
fn target(most: u64) -> u64 {
    most - most / 20
}

/// The servers with the most rows in a table, the largest first. None has fewer than half as many as the first.
fn find_largest(connection: &Connection, table: &str) -> Result<Vec<(String, u64)>, Trouble> {
    let text = format!(
        "SELECT server, count(*) FROM {table} GROUP BY server ORDER BY 2 DESC, 1 LIMIT {MAX_SERVERS}"
    );
    let mut statement = connection.prepare_cached(&text)?;
    let mut rows = statement.query([])?;
    let mut servers: Vec<(String, u64)> = Vec::new();
    while let Some(row) = rows.next()? {
        let server = (row.get(0)?, from_sql(row.get(1)?));
        if servers.first().is_some_and(|first| server.1 * 2 < first.1) {
            break;
        }
        servers.push(server);
    }
    Ok(servers)
}

fn trim_samples(connection: &Connection, totals: &mut Totals, most: u64) -> Result<(), Trouble> {
    if totals.samples <= most {
        return Ok(());
    }
    for _ in 0..MAX_ROUNDS {
        for (server, rows) in find_largest(connection, "samples")? {
            let surplus = totals.samples.saturating_sub(target(most));
            if surplus == 0 {
                return Ok(());
            }
            let removed = connection.execute(
                "DELETE FROM samples WHERE (time, number) IN (SELECT time, number FROM samples \
                 WHERE server = ?1 ORDER BY time, number LIMIT ?2)",
                params![server, to_sql(surplus.min(rows / 2 + 1))],
            )?;
            totals.samples = totals.samples.saturating_sub(removed as u64);
        }
    }
    Ok(())
}

fn trim_counts(
    connection: &Connection,
    totals: &mut Totals,
    most: u64,
    gone: &mut Vec<RemovedCounts>,
) -> Result<(), Trouble> {
    if totals.counts <= most {
        return Ok(());
    }
    for _ in 0..MAX_ROUNDS {
        for (server, rows) in find_largest(connection, "counts")? {
            let surplus = totals.counts.saturating_sub(target(most));
            if surplus == 0 {
                return Ok(());
            }
            let freed = free_counts(connection, &server, surplus.min(rows / 2 + 1), gone)?;
            totals.counts = totals.counts.saturating_sub(freed);
        }
    }
    Ok(())
}

/// Frees rows of a server. Returns how many. `gone` gets those that could not be folded.
fn free_counts(
    connection: &Connection,
    server: &str,
    wanted: u64,
    gone: &mut Vec<RemovedCounts>,
) -> Result<u64, Trouble> {
    for span_s in SPANS_S {
        let freed = fold_server(connection, server, span_s, wanted)?;
        if freed > 0 {
            return Ok(freed);
        }
    }
    // Nothing of it can be folded any more. That takes a thousand servers and reasons.
    let mut statement = connection.prepare_cached(
        "SELECT minute, server, span, kind, packets, sum FROM counts WHERE server = ?1 ORDER BY minute LIMIT ?2",
    )?;
    let mut found = Vec::new();
    let mut rows = statement.query(params![server, to_sql(wanted)])?;
    while let Some(row) = rows.next()? {
        found.push(CountRow::read(row)?);
    }
    drop(rows);
    for row in &found {
        remove_row(connection, row)?;
        removed::add_row(gone, row)?;
    }
    warn!("the history has no room for the oldest {} counts of {server}", found.len());
    Ok(found.len() as u64)
}

fn remove_row(connection: &Connection, row: &CountRow) -> Result<(), Trouble> {
    connection
        .prepare_cached("DELETE FROM counts WHERE minute = ?1 AND server = ?2 AND span = ?3 AND kind = ?4")?
        .execute(params![row.minute, row.server, row.span_s, row.kind])?;
    Ok(())
}

/// Folds the oldest rows of a server into rows of a longer time, until enough are gone. Returns how many are.
fn fold_server(connection: &Connection, server: &str, span_s: i64, wanted: u64) -> Result<u64, Trouble> {
    let mut statement = connection.prepare_cached(
        "SELECT minute, server, span, kind, packets, sum FROM counts WHERE server = ?1 AND span < ?2 \
         ORDER BY minute LIMIT ?3",
    )?;
    let mut by_time: BTreeMap<i64, Vec<CountRow>> = BTreeMap::new();
    let mut rows = statement.query(params![server, span_s, MAX_FOLDED])?;
    while let Some(row) = rows.next()? {
        let row = CountRow::read(row)?;
        by_time.entry(row.minute.div_euclid(span_s)).or_default().push(row);
    }
    drop(rows);
    let mut freed = 0;
    for rows in by_time.values() {
        let mut folded: BTreeMap<String, CountRow> = BTreeMap::new();
        for row in rows {
            let rest = row.fold(span_s)?;
            folded
                .entry(rest.kind.clone())
                .and_modify(|sum| sum.packets = sum.packets.saturating_add(rest.packets))
                .or_insert(rest);
        }
        // without a gain, the finer rows stay
        if folded.len() >= rows.len() {
            continue;
        }
        for row in rows {
            remove_row(connection, row)?;
        }
        let mut added = 0;
        for row in folded.values() {
            added += u64::from(add_count(connection, row)?);
        }
        freed += (rows.len() as u64).saturating_sub(added);
        if freed >= wanted {
            break;
        }
    }
    Ok(freed)
}

/// How many rows a server has in a minute.
fn count_rows(connection: &Connection, minute: i64, server: &str) -> Result<u64, Trouble> {
    let mut statement = connection
        .prepare_cached("SELECT count(*) FROM counts WHERE minute = ?1 AND server = ?2 AND span = ?3")?;
    Ok(from_sql(statement.query_row(params![minute, server, SPAN_MINUTE_S], |row| row.get(0))?))
}
