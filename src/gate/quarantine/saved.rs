//! The quarantines as they are kept over a reboot: `quarantines.json` in the gate's state folder.
//!
//! The kernel's tables are the truth while there is a gate. The file is a picture of them, with times of
//! the wall clock, and `attach` reads it when it makes a gate.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::holders::Holders;
use crate::clock::{Clock, wall_now};
use crate::gate::error::GateError;
use crate::gate::place::GatePlace;
use crate::gate::saved_file::{self, failed, read_in_time, read_rows, read_strictly, read_version};
use crate::net::{show_prefix, subtract};

const FILE: &str = "quarantines.json";
const VERSION: u32 = 1;
/// A router is seldom off for longer. Its clock is then as likely wrong: without a battery it may begin anywhere.
const MOST_TRUSTED_NS: i128 = 86_400 * NS_PER_S;
/// Steps of the time that is left, so that the file is seldom written anew.
const LEFT_STEP_S: u64 = 600;
const NS_PER_S: i128 = 1_000_000_000;

/// All quarantines of one gate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(in crate::gate) struct Saved {
    version: u32,
    pub(super) servers: Vec<SavedServer>,
    pub(super) addresses: Vec<SavedAddress>,
}

/// A server in quarantine, with the addresses that it had when this was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedServer {
    pub(super) name: String,
    pub(super) addresses: Vec<IpNet>,
    /// Addresses in these prefixes that other servers had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) except: Vec<IpNet>,
    /// Of its machines, which are cut off under addresses of no server too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) macs: Vec<String>,
    #[serde(flatten)]
    pub(super) span: Span,
}

/// An address in quarantine, or a prefix that a server in quarantine has lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedAddress {
    #[serde(deserialize_with = "read_prefix")]
    pub(super) address: IpNet,
    /// Cut off with the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mac: Option<String>,
    /// The name under which it was cut off. `None`: by its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) server: Option<String>,
    #[serde(flatten)]
    pub(super) span: Span,
}

/// From when until when, by the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::gate) struct Span {
    pub(super) since: Timestamp,
    /// `None`: until it is released.
    pub(super) until: Option<Timestamp>,
    /// What was left when this was written, rounded up. It needs no clock. `None`: as long as it was at first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) left_s: Option<u64>,
}

/// What is left of a quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::gate) enum Left {
    ForGood,
    /// Nanoseconds.
    For(u64),
    /// Nanoseconds. By the clock it was over long ago.
    InDoubt(u64),
    Over,
}

impl Left {
    pub(in crate::gate) fn is_over(self) -> bool {
        self == Left::Over
    }
}

impl SavedServer {
    /// Who had its prefixes then. Of the others nothing is known but that they are others.
    pub(super) fn holders(&self) -> Holders {
        let rows = |prefixes: &[IpNet], name: &str| {
            let name: Arc<str> = name.into();
            prefixes.iter().map(|prefix| (prefix.trunc(), Arc::clone(&name))).collect::<Vec<_>>()
        };
        Holders::new(rows(&self.addresses, &self.name).into_iter().chain(rows(&self.except, "")))
    }

    /// The addresses that it had, without those of other servers.
    fn list_addresses(&self) -> Vec<IpNet> {
        self.holders().addresses_of(&self.name)
    }
}

impl Span {
    /// Of times of CLOCK_MONOTONIC. An end of 0 is none.
    pub(in crate::gate) fn of(since_ns: u64, until_ns: u64, now: &Clock) -> Span {
        let until = (until_ns != 0).then(|| round(now.to_wall(until_ns)));
        let left_s = until.map(|_| {
            let left_s = until_ns.saturating_sub(now.mono_ns).div_ceil(NS_PER_S as u64);
            let first_s = until_ns.saturating_sub(since_ns).div_ceil(NS_PER_S as u64);
            left_s.next_multiple_of(LEFT_STEP_S).min(first_s)
        });
        Span { since: round(now.to_wall(since_ns)), until, left_s }
    }

    /// What is left at a time of the wall clock. A clock that was put back, or that a router without a battery
    /// has not set yet, makes a quarantine no longer than it was. One that is far ahead does not end it: then
    /// what was left when this was written is left still.
    pub(in crate::gate) fn find_left(self, now: Timestamp) -> Left {
        let Some(until) = self.until else {
            return Left::ForGood;
        };
        let first_ns = until.as_nanosecond() - self.since.as_nanosecond();
        let saved_ns = self.left_s.map_or(first_ns, |left_s| i128::from(left_s) * NS_PER_S).min(first_ns);
        let left_ns = until.as_nanosecond() - now.as_nanosecond();
        let passed_ns = saved_ns - left_ns;
        let unsigned = |ns: i128| u64::try_from(ns).unwrap_or(0);
        match left_ns {
            1.. => Left::For(unsigned(left_ns.min(saved_ns))),
            _ if passed_ns > MOST_TRUSTED_NS && saved_ns > 0 => Left::InDoubt(unsigned(saved_ns)),
            _ => Left::Over,
        }
    }

    /// The same times of CLOCK_MONOTONIC: since and until. `None`: it is over.
    pub(in crate::gate) fn to_mono_ns(self, now: &Clock) -> Option<(u64, u64)> {
        let since_ns = now.to_mono_ns(self.since).min(now.mono_ns);
        match self.find_left(now.wall) {
            Left::ForGood => Some((since_ns, 0)),
            Left::For(left_ns) | Left::InDoubt(left_ns) => {
                Some((since_ns, now.mono_ns.saturating_add(left_ns)))
            }
            Left::Over => None,
        }
    }
}

/// To whole seconds: the two clocks are never read at the very same moment.
fn round(time: Timestamp) -> Timestamp {
    let seconds = (time.as_nanosecond() + NS_PER_S / 2).div_euclid(NS_PER_S);
    i64::try_from(seconds).ok().and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(time)
}

impl Saved {
    /// Of quarantines.
    pub(super) fn new(servers: Vec<SavedServer>, addresses: Vec<SavedAddress>) -> Saved {
        Saved { version: VERSION, servers, addresses }
    }

    /// Whether there is nothing to keep.
    pub(super) fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.addresses.is_empty()
    }

    /// Forgets what is over.
    pub(super) fn prune(&mut self, now: Timestamp) {
        let holds = |span: &Span| !span.find_left(now).is_over();
        self.servers.retain(|server| holds(&server.span));
        self.addresses.retain(|address| holds(&address.span));
    }

    /// What should be over by the clock and is not, for people.
    pub(super) fn list_doubted(&self, now: Timestamp) -> Option<String> {
        let servers = self.servers.iter().map(|server| (server.name.clone(), server.span));
        let addresses = self.addresses.iter().map(|row| (show_prefix(&row.address), row.span));
        let doubted =
            servers.chain(addresses).filter(|(_, span)| matches!(span.find_left(now), Left::InDoubt(_)));
        let names: Vec<String> = doubted.map(|(name, _)| name).collect();
        (!names.is_empty()).then(|| {
            format!(
                "by the clock ({now}) these quarantines ended long ago: {}; the clock may be wrong, so they go on for \
                 what was left of their time",
                names.join(", ")
            )
        })
    }

    /// What is in quarantine, for people.
    pub(super) fn names(&self) -> Vec<String> {
        let servers = self.servers.iter().map(|server| server.name.clone());
        servers.chain(self.addresses.iter().map(|address| show_prefix(&address.address))).collect()
    }

    /// The server in quarantine that has an address, or a part of a prefix.
    pub(super) fn find_server_of(&self, target: &str) -> Option<String> {
        let prefix = parse_target(target)?;
        let has_part = |server: &&SavedServer| {
            let addresses = server.list_addresses();
            addresses.iter().any(|own| own.contains(&prefix) || prefix.contains(own))
        };
        self.servers.iter().find(has_part).map(|server| server.name.clone())
    }

    /// Takes a server or an address out. Returns whether it was in.
    pub(super) fn release(&mut self, target: &str) -> bool {
        let before = self.clone();
        let prefixes: Vec<IpNet> = match parse_target(target) {
            Some(prefix) => vec![prefix],
            None => {
                let named = self.servers.iter().filter(|server| server.name == target);
                named.flat_map(SavedServer::list_addresses).collect()
            }
        };
        self.servers.retain(|server| server.name != target);
        let addresses = std::mem::take(&mut self.addresses);
        for row in addresses.into_iter().filter(|row| row.server.as_deref() != Some(target)) {
            let parts = subtract(row.address, &prefixes).into_iter();
            self.addresses.extend(parts.map(|address| SavedAddress { address, ..row.clone() }));
        }
        *self != before
    }
}

/// The quarantines that wait for the next attach, as people read them. Those that are over are left out. The
/// second part says what can't be read.
pub fn list_saved_quarantines(place: &GatePlace) -> (Vec<String>, Option<String>) {
    let path = path_of(place);
    let mut bad = Vec::new();
    let saved = read_each(&path, &mut bad);
    let why = saved.as_ref().err().map(ToString::to_string).or_else(|| bad.into_iter().next());
    let mut saved = saved.unwrap_or_default();
    saved.prune(wall_now());
    let trouble = why.map(|why| {
        format!("not all of what is in quarantine is known: {} can't be read ({why})", path.display())
    });
    (saved.names(), trouble)
}

/// What the release of a quarantine has done that waits for the next attach.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SavedRelease {
    /// There was one for just this target.
    pub was: bool,
    /// Of addresses: the server with which they go back into quarantine all the same.
    pub with_server: Option<String>,
}

/// Ends a quarantine that waits for the next attach. The caller holds the lock, and there is no gate.
///
/// # Errors
/// When the file can't be read or written.
pub fn release_saved(place: &GatePlace, target: &str) -> Result<SavedRelease, GateError> {
    let _lock = place.lock_saving()?;
    let path = path_of(place);
    let mut saved = read(&path).map_err(|error| failed(&path, "read", &error))?;
    saved.prune(wall_now());
    let was = saved.release(target);
    if was {
        write(&path, &saved)?;
    }
    Ok(SavedRelease { was, with_server: saved.find_server_of(target) })
}

/// An address or a prefix. `None`: a name.
fn parse_target(target: &str) -> Option<IpNet> {
    let address = target.parse::<IpAddr>().map(|address| IpNet::from(address.to_canonical()));
    address.or_else(|_| target.parse::<IpNet>().map(|prefix| prefix.trunc())).ok()
}

/// The file of a gate.
pub(super) fn path_of(place: &GatePlace) -> PathBuf {
    place.history().join(FILE)
}

/// Reads the file. A damaged one is put aside, and `warnings` say so. Of one with some bad rows the others
/// hold, and a copy is kept. False: the file can't be read now and may be later, or could not be put aside or
/// copied. It has quarantines that would be lost if it were written over.
pub(super) fn take(path: &Path, warnings: &mut Vec<String>) -> (Saved, bool) {
    let aside = path.with_added_extension("damaged");
    let (saved, bad) = read_in_time("quarantines", path, read_each);
    let mut is_kept = true;
    if let Some(first) = bad.first() {
        let outcome = match fs::copy(path, &aside) {
            Ok(_) => format!("a copy of the file is {}", aside.display()),
            Err(error) => {
                is_kept = false;
                format!("the file could not be copied, so it stays as it is: {error}")
            }
        };
        warnings.push(format!(
            "{} of the quarantines in {} can't be read and are free now ({first}); {outcome}",
            bad.len(),
            path.display()
        ));
    }
    let error = match saved {
        Ok(saved) => return (saved, is_kept),
        Err(error) => error,
    };
    let is_damaged = error.kind() == io::ErrorKind::InvalidData;
    let moved = is_damaged.then(|| fs::rename(path, &aside));
    let outcome = match &moved {
        None => "it stays as it is; attach again when it can be read".to_owned(),
        Some(Ok(())) => format!("it is {} now", aside.display()),
        Some(Err(error)) => format!("it stays as it is, for it could not be put aside: {error}"),
    };
    warnings.push(format!(
        "what was in quarantine before is free now, because {} can't be read ({error}); {outcome}",
        path.display()
    ));
    (Saved::default(), matches!(moved, Some(Ok(()))))
}

/// The file as it is read: row by row, so that a bad one costs no other.
#[derive(Deserialize)]
struct Rows {
    version: u32,
    #[serde(default)]
    servers: Vec<serde_json::Value>,
    #[serde(default)]
    addresses: Vec<serde_json::Value>,
}

/// A prefix, or an address by itself as a person would type it.
fn read_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address.or_else(|_| text.parse()).map_err(|_| D::Error::custom(format!("`{text}` is no prefix")))
}

/// No file is no quarantine. `bad` gets a sentence for each row that can't be read.
fn read_each(path: &Path, bad: &mut Vec<String>) -> io::Result<Saved> {
    let rows = read_version(path, VERSION, |rows: &Rows| rows.version)?;
    let read = |rows: Rows| Saved::new(read_rows(rows.servers, bad), read_rows(rows.addresses, bad));
    Ok(rows.map_or_else(Saved::default, read))
}

/// As [`read_each`], where a bad row is an error.
pub(super) fn read(path: &Path) -> io::Result<Saved> {
    read_strictly(path, read_each)
}

/// Writes the file. Without quarantines there is none.
pub(super) fn write(path: &Path, saved: &Saved) -> Result<(), GateError> {
    saved_file::write(path, (!saved.is_empty()).then_some(saved))
}
