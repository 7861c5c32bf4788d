//! Evidence for `learn`, as it outlives gates: who opened what and was answered, by day. It is a file of its own beside
//! the database, because `learn` reads it while a daemon has the database open.
//!
//! A row remembers what the kernel had counted when it was last read. So it can be read as often as one likes, and after
//! any death, and each opening is counted once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::policy::Direction;

/// Days for which it is kept.
const DAYS: i64 = 90;
const DAY_S: i64 = 86_400;
/// Rows that gates of the past have left, in all and of one server.
const MAX_ROWS: usize = 65_536;
const MAX_ROWS_BY_SERVER: usize = 8_192;

/// What one side opens on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OpenedService {
    /// `in` or `out`.
    pub direction: Direction,
    /// Number of the protocol.
    pub protocol: u8,
    /// The port that was opened, or the type of an ICMP request.
    pub port: u16,
}

/// A row of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedOpening {
    /// Name of the server.
    pub server: String,
    /// `None`: services that found no room.
    pub service: Option<OpenedService>,
    /// `None`: peers that found no room.
    pub peer: Option<IpAddr>,
    /// What the peer was looked up as.
    pub name: Option<String>,
    /// Openings that were answered, since the row began.
    pub answered: u64,
    /// Datagrams that expect no answer.
    pub asked: u64,
    /// When the row began.
    pub first: Timestamp,
    /// The last opening.
    pub last: Timestamp,
    /// Tells the row from one of another gate.
    pub row: u64,
}

/// What was seen in a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptOpening {
    /// Name of the server.
    pub server: String,
    /// `None`: services that found no room.
    pub service: Option<OpenedService>,
    /// `None`: peers that found no room.
    pub peer: Option<IpAddr>,
    /// What the peer was looked up as.
    pub name: Option<String>,
    /// Openings that were answered.
    pub answered: u64,
    /// Datagrams that expect no answer.
    pub asked: u64,
    /// The first of all, which may be before that time.
    pub first: Timestamp,
    /// The last one.
    pub last: Timestamp,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Key {
    server: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<OpenedService>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peer: Option<IpAddr>,
}

/// What the kernel's row had counted when it was last read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    row: u64,
    answered: u64,
    asked: u64,
}

/// A day with what was answered and asked on it, by the time of the last opening.
type Day = (i64, u64, u64);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Row {
    #[serde(flatten)]
    key: Key,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    first: Timestamp,
    last: Timestamp,
    days: Vec<Day>,
    mark: Mark,
}

/// The file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceBook {
    /// Of the file's form.
    pub version: u32,
    /// Since when evidence was kept.
    since: Option<Timestamp>,
    rows: Vec<Row>,
}

impl Default for EvidenceBook {
    fn default() -> EvidenceBook {
        EvidenceBook { version: EvidenceBook::VERSION, since: None, rows: Vec::new() }
    }
}

impl EvidenceBook {
    /// The form that this portcullis writes.
    pub const VERSION: u32 = 1;

    /// Since when evidence was kept. `None`: there is none.
    pub fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// Adds what the kernel has counted since it was last read. Whether that is anything.
    pub fn merge(&mut self, counted: Vec<CountedOpening>) -> bool {
        let mut index: BTreeMap<Key, usize> =
            self.rows.iter().enumerate().map(|(place, row)| (row.key.clone(), place)).collect();
        let mut is_changed = false;
        for opening in counted {
            let key = Key { server: opening.server, service: opening.service, peer: opening.peer };
            let mark = Mark { row: opening.row, answered: opening.answered, asked: opening.asked };
            self.since = Some(self.since.map_or(opening.first, |since| since.min(opening.first)));
            let place = *index.entry(key.clone()).or_insert_with(|| {
                self.rows.push(Row {
                    key,
                    name: None,
                    first: opening.first,
                    last: opening.last,
                    days: Vec::new(),
                    mark: Mark { answered: 0, asked: 0, ..mark },
                });
                self.rows.len() - 1
            });
            let Some(row) = self.rows.get_mut(place) else { continue };
            let before =
                if row.mark.row == mark.row { row.mark } else { Mark { answered: 0, asked: 0, ..mark } };
            let added =
                (mark.answered.saturating_sub(before.answered), mark.asked.saturating_sub(before.asked));
            // a name that was pushed out of the kernel's memory stays
            if opening.name.is_some() && row.name != opening.name {
                row.name = opening.name;
                is_changed = true;
            }
            if added == (0, 0) && row.mark == mark {
                continue;
            }
            is_changed = true;
            row.mark = mark;
            row.first = row.first.min(opening.first);
            row.last = row.last.max(opening.last);
            add_day(&mut row.days, (day_of(opening.last), added.0, added.1));
        }
        is_changed
    }

    /// What was seen from a time on, by days.
    pub fn list(&self, from: Timestamp) -> Vec<KeptOpening> {
        let first_day = day_of(from);
        let in_time = |row: &&Row| row.last >= from;
        let rows = self.rows.iter().filter(in_time).filter_map(|row| {
            let days = row.days.iter().filter(|(day, _, _)| *day >= first_day);
            let (answered, asked) = days.fold((0, 0), |sum: (u64, u64), (_, answered, asked)| {
                (sum.0.saturating_add(*answered), sum.1.saturating_add(*asked))
            });
            (answered + asked > 0).then(|| KeptOpening {
                server: row.key.server.clone(),
                service: row.key.service,
                peer: row.key.peer,
                name: row.name.clone(),
                answered,
                asked,
                first: row.first,
                last: row.last,
            })
        });
        rows.collect()
    }

    /// Removes what is too old. Beyond the bounds, peers that were seen least recently become those without a row. `live`:
    /// rows that the kernel has. It would count them anew.
    pub fn trim(&mut self, now: Timestamp, live: &BTreeSet<u64>) {
        let oldest = day_of(now).saturating_sub(DAYS);
        for row in &mut self.rows {
            row.days.retain(|(day, _, _)| *day >= oldest);
        }
        self.rows.retain(|row| !row.days.is_empty() || live.contains(&row.mark.row));
        if let Some(first) = self.rows.iter().map(|row| row.first).min() {
            self.since = Some(self.since.map_or(first, |since| since.max(first.min(now))));
        }
        let mut sizes: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.rows {
            *sizes.entry(row.key.server.clone()).or_default() += 1;
        }
        let crowded: BTreeSet<String> = match self.rows.len() > MAX_ROWS {
            // the largest gives way first
            true => sizes
                .iter()
                .max_by_key(|(_, rows)| **rows)
                .map(|(server, _)| server.clone())
                .into_iter()
                .collect(),
            false => sizes
                .iter()
                .filter(|(_, rows)| **rows > MAX_ROWS_BY_SERVER)
                .map(|(server, _)| server.clone())
                .collect(),
        };
        for server in crowded {
            let wanted = sizes.get(&server).map_or(0, |rows| rows / 2);
            self.fold(&server, wanted, live);
        }
    }

    /// Folds so many peers of a server, those that were seen least recently.
    fn fold(&mut self, server: &str, wanted: usize, live: &BTreeSet<u64>) {
        let mut candidates: Vec<(Timestamp, usize)> = self
            .rows
            .iter()
            .enumerate()
            .filter(|(_, row)| row.key.server == server && row.key.peer.is_some())
            .filter(|(_, row)| !live.contains(&row.mark.row))
            .map(|(place, row)| (row.last, place))
            .collect();
        candidates.sort_unstable();
        let folded: BTreeSet<usize> = candidates.into_iter().take(wanted).map(|(_, place)| place).collect();
        let (gone, mut kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.rows)
            .into_iter()
            .enumerate()
            .partition(|(place, _)| folded.contains(place));
        for (_, row) in gone {
            let key = Key { peer: None, ..row.key.clone() };
            let known = kept.iter_mut().find(|(_, other)| other.key == key);
            match known {
                Some((_, other)) => {
                    other.first = other.first.min(row.first);
                    other.last = other.last.max(row.last);
                    row.days.iter().for_each(|day| add_day(&mut other.days, *day));
                }
                None => {
                    let mark = Mark { row: 0, answered: 0, asked: 0 };
                    kept.push((usize::MAX, Row { key, name: None, mark, ..row }));
                }
            }
        }
        self.rows = kept.into_iter().map(|(_, row)| row).collect();
    }
}

fn add_day(days: &mut Vec<Day>, (day, answered, asked): Day) {
    match days.iter_mut().find(|(known, _, _)| *known == day) {
        Some(known) => {
            known.1 = known.1.saturating_add(answered);
            known.2 = known.2.saturating_add(asked);
        }
        None => {
            days.push((day, answered, asked));
            days.sort_unstable();
        }
    }
}

fn day_of(time: Timestamp) -> i64 {
    time.as_second().div_euclid(DAY_S)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn opening(answered: u64, last: &str) -> CountedOpening {
        CountedOpening {
            server: "web1".to_owned(),
            service: Some(OpenedService { direction: Direction::Out, protocol: 6, port: 443 }),
            peer: "198.51.100.80".parse().ok(),
            name: None,
            answered,
            asked: 0,
            first: at("2026-11-20T10:00:00Z"),
            last: at(last),
            row: 7,
        }
    }

    fn count(book: &EvidenceBook, from: &str) -> u64 {
        book.list(at(from)).iter().map(|opening| opening.answered).sum()
    }

    #[test]
    fn what_is_read_twice_is_counted_once() {
        let mut book = EvidenceBook::default();
        assert!(book.merge(vec![opening(3, "2026-11-20T11:00:00Z")]));
        assert!(!book.merge(vec![opening(3, "2026-11-20T11:00:00Z")]));
        assert!(book.merge(vec![opening(5, "2026-11-21T11:00:00Z")]));
        assert_eq!(count(&book, "2026-11-19T00:00:00Z"), 5);
        assert_eq!(count(&book, "2026-11-21T01:00:00Z"), 2, "by days");
        assert_eq!(count(&book, "2026-11-22T00:00:00Z"), 0);
        assert_eq!(book.since(), Some(at("2026-11-20T10:00:00Z")));
    }

    #[test]
    fn a_row_of_another_gate_counts_from_nothing() {
        let mut book = EvidenceBook::default();
        book.merge(vec![opening(3, "2026-11-20T11:00:00Z")]);
        book.merge(vec![CountedOpening { row: 8, ..opening(2, "2026-11-20T12:00:00Z") }]);
        assert_eq!(count(&book, "2026-11-20T00:00:00Z"), 5);
    }

    #[test]
    fn a_name_that_the_kernel_has_forgotten_stays() {
        let mut book = EvidenceBook::default();
        let name = Some("deb.vendor.example".to_owned());
        book.merge(vec![CountedOpening { name: name.clone(), ..opening(1, "2026-11-20T11:00:00Z") }]);
        book.merge(vec![opening(2, "2026-11-20T12:00:00Z")]);
        assert_eq!(book.list(at("2026-11-20T00:00:00Z"))[0].name, name);
    }

    #[test]
    fn the_file_is_read_as_it_was_written() {
        let mut book = EvidenceBook::default();
        book.merge(vec![opening(3, "2026-11-20T11:00:00Z")]);
        book.merge(vec![CountedOpening { service: None, peer: None, ..opening(9, "2026-11-20T11:00:00Z") }]);
        let text = serde_json::to_string(&book).unwrap();
        assert_eq!(serde_json::from_str::<EvidenceBook>(&text).unwrap(), book);
    }

    #[test]
    fn a_crowded_server_loses_peers_and_no_count_and_what_is_old_goes() {
        let mut book = EvidenceBook::default();
        let peers = MAX_ROWS_BY_SERVER as u32 + 1;
        let rows = (0..peers).map(|number| CountedOpening {
            peer: Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into()),
            ..opening(2, "2026-11-20T11:00:00Z")
        });
        book.merge(rows.collect());
        let live = BTreeSet::from([opening(0, "2026-11-20T11:00:00Z").row]);
        book.trim(at("2026-11-21T00:00:00Z"), &live);
        assert_eq!(book.rows.len() as u32, peers, "the kernel has them, and would count them anew");
        book.trim(at("2026-11-21T00:00:00Z"), &BTreeSet::new());
        assert!(book.rows.len() <= MAX_ROWS_BY_SERVER, "{}", book.rows.len());
        assert_eq!(count(&book, "2026-11-20T00:00:00Z"), 2 * u64::from(peers));
        book.trim(at("2027-11-21T00:00:00Z"), &BTreeSet::new());
        assert_eq!(book.rows, []);
    }
}
