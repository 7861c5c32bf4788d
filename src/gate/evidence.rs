//! Evidence for `learn`: who opened what and was answered, as the programs keep it while the policy observes or
//! somebody learns. It moves to a file in the folder of the history each minute. The kernel's rows count on as long as the
//! gate lives, so nothing is lost when a daemon or a machine dies in between.

use std::path::PathBuf;

use super::error::GateError;
use super::saved_file::{failed, read_version, write};
use super::{Gate, GatePlace, fault};
use crate::abi::{edit_direction, evidence, evidence_key, from_address, settings_flag, state, statistic};
use crate::clock::{Clock, NS_PER_S, now_ns};
use crate::history::{CountedOpening, EvidenceBook, OpenedService};
use crate::policy::Direction;

const FILE: &str = "evidence.json";

fn path_of(place: &GatePlace) -> PathBuf {
    place.history().join(FILE)
}

impl Gate {
    /// Keeps evidence for this long from now on, whatever the mode. Returns when it ends, by CLOCK_MONOTONIC in
    /// nanoseconds. One that lasts longer anyway is not cut short.
    ///
    /// # Errors
    /// When the kernel refuses, or the gate sees one direction only.
    pub fn keep_evidence(&self, place: &GatePlace, seconds: u64) -> Result<u64, GateError> {
        self.require_evidence(place)?;
        let before = self.read_state(state::STATE_EVIDENCE_UNTIL_NS)?;
        let until = before.max(now_ns() + seconds * NS_PER_S);
        fault::point();
        self.write_state(state::STATE_EVIDENCE_UNTIL_NS, until)?;
        Ok(until)
    }

    /// Keeps evidence no longer, unless the policy observes.
    ///
    /// # Errors
    /// When the kernel refuses to write.
    pub fn end_evidence(&self) -> Result<(), GateError> {
        fault::point();
        self.write_state(state::STATE_EVIDENCE_UNTIL_NS, 0)
    }

    /// Refuses a gate that can't know what is answered.
    ///
    /// # Errors
    /// As it says.
    pub fn require_evidence(&self, place: &GatePlace) -> Result<(), GateError> {
        let flags = self.live_settings()?.map_or(0, |settings| settings.flags);
        if flags & settings_flag::SETTINGS_TRACKED.0 != 0 {
            return Ok(());
        }
        Err(GateError::Other {
            what: format!("the gate on {} does not see what goes to the servers", place.interface),
            why: "its tracking is \"service\", so nobody knows what was answered\nhelp: set tracking = \"strict\", or \
                  learn from captures"
                .to_owned(),
        })
    }

    /// Whether the policy observes, so that evidence is kept all the time.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn observes(&self) -> Result<bool, GateError> {
        let flags = self.live_settings()?.map_or(0, |settings| settings.flags);
        Ok(flags & settings_flag::SETTINGS_OBSERVE.0 != 0)
    }

    /// Whether any evidence was kept since the gate was attached.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn has_evidence(&self) -> Result<bool, GateError> {
        use libbpf_rs::MapCore as _;
        Ok(self.maps.evidence.handle().keys().next().is_some())
    }

    /// Answered openings for which there was no room at all.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn evidence_lost(&self) -> Result<u64, GateError> {
        let lost = statistic::STATISTIC_EVIDENCE_LOST.0;
        Ok(self.maps.statistics.get_per_cpu(&lost)?.iter().sum())
    }

    /// What the programs have counted since the gate was attached.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn evidence(&self) -> Result<Vec<CountedOpening>, GateError> {
        let names = self.names_by_id()?;
        let lookups = self.lookups()?;
        let clock = Clock::now();
        let mut rows = Vec::new();
        self.maps.evidence.visit(|key, row| {
            let Some(server) = names.get(&key.server) else { return };
            let opening = to_opening(key, row, &clock);
            let name = opening.peer.and_then(|peer| lookups.find(key.server, peer));
            let name = name.map(|found| found.name.to_string());
            rows.push(CountedOpening { server: server.to_string(), name, ..opening });
        })?;
        Ok(rows)
    }

    /// The file of this gate, with what the kernel has beyond it. A damaged file is put aside when the daemon next
    /// writes it; until then it is an error.
    ///
    /// # Errors
    /// When either can't be read.
    pub fn read_evidence(&self, place: &GatePlace) -> Result<EvidenceBook, GateError> {
        let path = path_of(place);
        let read = read_version(&path, EvidenceBook::VERSION, |book: &EvidenceBook| book.version);
        let mut book = read.map_err(|error| failed(&path, "read", &error))?.unwrap_or_default();
        book.merge(self.evidence()?);
        Ok(book)
    }

    /// Adds to the file what the kernel has beyond it.
    ///
    /// # Errors
    /// When the kernel refuses to read, or the disk to write.
    pub fn save_evidence(&self, place: &GatePlace) -> Result<(), GateError> {
        let _lock = place.lock_saving()?;
        if !self.is_pinned_at(place)? || !self.has_evidence()? {
            return Ok(());
        }
        let path = path_of(place);
        let read = read_version(&path, EvidenceBook::VERSION, |book: &EvidenceBook| book.version);
        let mut book = match read {
            Ok(book) => book.unwrap_or_default(),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let aside = path.with_added_extension("damaged");
                log::warn!("{} is damaged ({error}), and is {} now", path.display(), aside.display());
                std::fs::rename(&path, &aside).map_err(|error| failed(&path, "put aside", &error))?;
                EvidenceBook::default()
            }
            Err(error) => return Err(failed(&path, "read", &error)),
        };
        let counted = self.evidence()?;
        let live = counted.iter().map(|opening| opening.row).collect();
        if !book.merge(counted) {
            return Ok(());
        }
        book.trim(Clock::now().wall, &live);
        write(&path, Some(&book))
    }
}

/// Server and name are left out.
fn to_opening(key: &evidence_key, row: &evidence, clock: &Clock) -> CountedOpening {
    let direction = match key.direction {
        direction if u32::from(direction) == edit_direction::EDIT_IN.0 => Some(Direction::In),
        direction if u32::from(direction) == edit_direction::EDIT_OUT.0 => Some(Direction::Out),
        _ => None,
    };
    CountedOpening {
        server: String::new(),
        service: direction.map(|direction| OpenedService {
            direction,
            protocol: key.protocol,
            port: key.port,
        }),
        peer: from_address(&key.peer),
        name: None,
        answered: row.answered,
        asked: row.asked,
        first: clock.to_wall(row.first_ns),
        last: clock.to_wall(row.last_ns),
        row: u64::from(row.nonce) << 32 ^ row.first_ns,
    }
}
