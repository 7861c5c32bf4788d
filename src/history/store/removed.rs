//! What the history had no room for: how many packets of which server, and of when. Their rows are gone, and whoever
//! adds up the others has to know that.

use rusqlite::{Connection, OptionalExtension as _, params};

use super::error::Trouble;
use super::rows::{CountRow, from_json, reported_sum, to_json, verify};
use crate::history::RemovedCounts;

/// The row of the table `reported` that has it.
const REMOVED: &str = "removed";
/// Servers that are listed. The others are added up.
const MOST_SERVERS: usize = 64;

/// What was removed since the history began, apart from what is too old.
pub(super) fn read_removed(connection: &Connection) -> Result<Vec<RemovedCounts>, Trouble> {
    let found = connection
        .prepare_cached("SELECT text, sum FROM reported WHERE name = ?1")?
        .query_row([REMOVED], |row| Ok((row.get::<_, String>(0)?, row.get(1)?)))
        .optional()?;
    let Some((text, sum)) = found else { return Ok(Vec::new()) };
    verify(sum, reported_sum(REMOVED, &text), "reported")?;
    from_json(&text, "reported")
}

/// Adds what has just been removed, and forgets what is older than `oldest`.
pub(super) fn note_removed(
    connection: &Connection,
    removed: &[RemovedCounts],
    oldest: i64,
) -> Result<(), Trouble> {
    if removed.is_empty() {
        return Ok(());
    }
    let mut all = read_removed(connection)?;
    all.retain(|known| known.to > oldest);
    removed.iter().for_each(|fresh| add(&mut all, fresh.clone()));
    let text = to_json(&all);
    connection
        .prepare_cached("INSERT OR REPLACE INTO reported (name, text, sum) VALUES (?1, ?2, ?3)")?
        .execute(params![REMOVED, text, reported_sum(REMOVED, &text)])?;
    Ok(())
}

/// Adds a row that is going to be removed.
pub(super) fn add_row(all: &mut Vec<RemovedCounts>, row: &CountRow) -> Result<(), Trouble> {
    let server = from_json(&row.server, "counts")?;
    let (from, to) = (row.minute, row.minute.saturating_add(row.span_s));
    add(all, RemovedCounts { server, from, to, packets: row.packets });
    Ok(())
}

fn add(all: &mut Vec<RemovedCounts>, fresh: RemovedCounts) {
    let is_full = all.len() >= MOST_SERVERS;
    let same = all.iter().position(|known| known.server == fresh.server);
    let server = if same.is_none() && is_full { None } else { fresh.server.clone() };
    match all.iter_mut().find(|known| known.server == server) {
        Some(known) => {
            (known.from, known.to) = (known.from.min(fresh.from), known.to.max(fresh.to));
            known.packets = known.packets.saturating_add(fresh.packets);
        }
        None => all.push(RemovedCounts { server, ..fresh }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_added_up_by_server_and_beyond_the_most_servers_together() {
        let mut all = Vec::new();
        for number in 0..200_u32 {
            let server = Some(format!("s{}", number % 100));
            let from = i64::from(number) * 60;
            add(&mut all, RemovedCounts { server, from, to: from + 60, packets: 3 });
        }
        assert_eq!(all.len(), MOST_SERVERS + 1);
        assert_eq!(all.iter().map(|row| row.packets).sum::<u64>(), 600);
        assert_eq!((all[0].from, all[0].to, all[0].packets), (0, 6_060, 6));
        assert_eq!(all.last().map(|row| (&row.server, row.packets)), Some((&None, 36 * 6)));
    }
}
