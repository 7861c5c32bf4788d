//! Rows of the tables, and the checksums in them.

use std::net::IpAddr;

use jiff::Timestamp;
use rusqlite::{Connection, Row};

use super::error::Trouble;
use crate::history::pending::ANY;
use crate::history::{AlarmEntry, MinuteCount};

/// What counts of one minute, server and span differ in: service, reason, verdict, quiet, while away,
/// destination, folded.
pub(super) type CountKind = (String, String, String, bool, bool, Option<IpAddr>, bool);

/// A row of the table of counts. Its server and its kind are JSON, so that no name can be mistaken for two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CountRow {
    pub minute: i64,
    pub server: String,
    pub span_s: i64,
    pub kind: String,
    pub packets: u64,
}

impl CountRow {
    pub(super) fn of(count: &MinuteCount) -> CountRow {
        let kind: CountKind = (
            count.service.clone(),
            count.reason.clone(),
            count.verdict.clone(),
            count.quiet,
            count.while_away,
            count.destination,
            count.folded,
        );
        CountRow {
            minute: count.minute,
            server: to_json(&count.server),
            span_s: count.span_s,
            kind: to_json(&kind),
            packets: count.packets,
        }
    }

    /// Reads the columns minute, server, span, kind, packets, sum.
    pub(super) fn read(row: &Row<'_>) -> Result<CountRow, Trouble> {
        let count = CountRow {
            minute: row.get(0)?,
            server: row.get(1)?,
            span_s: row.get(2)?,
            kind: row.get(3)?,
            packets: from_sql(row.get(4)?),
        };
        verify(row.get(5)?, count.sum(), "counts")?;
        Ok(count)
    }

    pub(super) fn sum(&self) -> i64 {
        checksum(&[
            &self.minute.to_le_bytes(),
            self.server.as_bytes(),
            &self.span_s.to_le_bytes(),
            self.kind.as_bytes(),
            &self.packets.to_le_bytes(),
        ])
    }

    pub(super) fn to_count(&self) -> Result<MinuteCount, Trouble> {
        let (service, reason, verdict, quiet, while_away, destination, folded): CountKind =
            from_json(&self.kind, "counts")?;
        Ok(MinuteCount {
            minute: self.minute,
            server: from_json(&self.server, "counts")?,
            service,
            reason,
            verdict,
            quiet,
            while_away,
            destination,
            packets: self.packets,
            folded,
            span_s: self.span_s,
        })
    }

    /// The row that this one is folded into: by server and reason, in a longer time.
    pub(super) fn fold(&self, span_s: i64) -> Result<CountRow, Trouble> {
        let (_, reason, verdict, quiet, while_away, _, _): CountKind = from_json(&self.kind, "counts")?;
        let kind: CountKind = (ANY.to_owned(), reason, verdict, quiet, while_away, None, true);
        Ok(CountRow {
            minute: self.minute.div_euclid(span_s) * span_s,
            server: self.server.clone(),
            span_s,
            kind: to_json(&kind),
            packets: self.packets,
        })
    }
}

/// Reads an alarm of the columns id, text, sum.
pub(super) fn read_alarm(row: &Row<'_>) -> Result<AlarmEntry, Trouble> {
    let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
    verify(row.get(2)?, text_sum(&[id], &text), "alarms")?;
    from_json(&text, "alarms")
}

/// The checksum of a row that is some numbers and a text.
pub(super) fn text_sum(numbers: &[i64], text: &str) -> i64 {
    let numbers: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    checksum(&[&numbers, text.as_bytes()])
}

/// FNV-1a: it finds accidents. Nobody but root writes the file.
fn checksum(parts: &[&[u8]]) -> i64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    for part in parts {
        for byte in part.len().to_le_bytes().iter().chain(*part) {
            sum = (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    i64::from_le_bytes(sum.to_le_bytes())
}

pub(super) fn verify(written: i64, found: i64, table: &str) -> Result<(), Trouble> {
    if written == found {
        return Ok(());
    }
    Err(Trouble::Damage(format!("a row of its table {table} has the wrong checksum")))
}

/// Reads every row once.
pub(super) fn verify_rows(connection: &Connection) -> Result<(), Trouble> {
    let mut statement = connection.prepare("SELECT id, text, sum FROM alarms")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (id, text): (i64, String) = (row.get(0)?, row.get(1)?);
        verify(row.get(2)?, text_sum(&[id], &text), "alarms")?;
    }
    let mut statement = connection.prepare("SELECT minute, server, span, kind, packets, sum FROM counts")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        CountRow::read(row)?;
    }
    let mut statement = connection.prepare("SELECT time, number, server, text, sum FROM samples")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        read_sample_text(row)?;
    }
    let mut statement = connection.prepare("SELECT name, text, sum FROM reported")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, text): (String, String) = (row.get(0)?, row.get(1)?);
        verify(row.get(2)?, reported_sum(&name, &text), "reported")?;
    }
    Ok(())
}

/// Reads a sample's text of the columns time, number, server, text, sum.
pub(super) fn read_sample_text(row: &Row<'_>) -> Result<String, Trouble> {
    let (time, number): (i64, i64) = (row.get(0)?, row.get(1)?);
    let (server, text): (String, String) = (row.get(2)?, row.get(3)?);
    verify(row.get(4)?, sample_sum(time, number, &server, &text), "samples")?;
    Ok(text)
}

pub(super) fn sample_sum(time: i64, number: i64, server: &str, text: &str) -> i64 {
    checksum(&[&time.to_le_bytes(), &number.to_le_bytes(), server.as_bytes(), text.as_bytes()])
}

pub(super) fn reported_sum(name: &str, text: &str) -> i64 {
    checksum(&[name.as_bytes(), text.as_bytes()])
}

pub(super) fn to_json(value: &impl serde::Serialize) -> String {
    // texts, numbers and lists can't fail
    serde_json::to_string(value).unwrap_or_default()
}

pub(super) fn from_json<T: serde::de::DeserializeOwned>(text: &str, table: &str) -> Result<T, Trouble> {
    serde_json::from_str(text)
        .map_err(|error| Trouble::Damage(format!("a row of its table {table} can't be understood: {error}")))
}

pub(super) fn to_ns(time: Timestamp) -> i64 {
    i64::try_from(time.as_nanosecond()).unwrap_or(if time < Timestamp::UNIX_EPOCH {
        i64::MIN
    } else {
        i64::MAX
    })
}

/// SQLite's numbers have a sign.
pub(super) fn to_sql(number: u64) -> i64 {
    i64::from_le_bytes(number.to_le_bytes())
}

pub(super) fn from_sql(number: i64) -> u64 {
    u64::from_le_bytes(number.to_le_bytes())
}
