//! `doctor`: proves the gate, and finds the ways around it. One file for each thing that is looked at. Each has
//! a pure function from facts to findings. The facts come from `gate`, the policy, and files.
//!
//! | part | looks at |
//! | --- | --- |
//! | `attachment` | how the gate is attached |
//! | `packets` | a packet that must pass and packets that must not, asked of the loaded programs |
//! | `bypass` | bonds, bridges, macvlans and VLANs by which packets go past the NIC |
//! | `subnet` | other NICs in the DMZ, and where the servers are |
//! | `tags` | VLAN tags that the gate can't see |
//! | `resolvers` | answers that can be forged |
//! | `programs` | programs of others in the way of packets |
//! | `tables` | the room that is left |
//! | `clock` | the clock |
//! | `sinks` | whether alarms reach anybody |
//! | `units` | what attaches the gate at boot |

mod attachment;
mod bypass;
mod clock;
mod finding;
mod packets;
mod programs;
mod resolvers;
mod sinks;
mod subnet;
mod tables;
mod tags;
mod text;
mod units;

use std::fmt::Display;
use std::path::Path;

use serde::Serialize;

use crate::gate::{
    Gate, GatePlace, PolicyFacts, find_resolver_facts, find_server_routes, find_tag_facts,
    list_other_programs, look_around,
};

pub use finding::{FINDINGS, Finding, FindingId};
pub use sinks::{SinkFacts, SinkState};

/// The parts, as `doctor` names them, in the order in which they look.
pub const PARTS: [&str; 11] = [
    "attachment",
    "packets",
    "bypass",
    "subnet",
    "tags",
    "resolvers",
    "programs",
    "tables",
    "clock",
    "sinks",
    "units",
];

/// What `doctor` has found. Its JSON is that of `doctor -j`.
#[derive(Clone, Debug, Serialize)]
pub struct Diagnosis {
    /// The interface.
    pub interface: String,
    /// One of the findings is severe.
    pub severe: bool,
    /// What is wrong, the most severe first.
    pub findings: Vec<Finding>,
    /// The parts that looked and found nothing.
    pub clear: Vec<&'static str>,
    /// The parts that could not look, and why.
    pub skipped: Vec<Skipped>,
}

/// A part that could not look.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub part: &'static str,
    /// Why, in words.
    pub why: String,
}

/// Gathers what the parts say.
struct Examination {
    findings: Vec<Finding>,
    clear: Vec<&'static str>,
    skipped: Vec<Skipped>,
}

impl Examination {
    fn note(&mut self, part: &'static str, found: Vec<Finding>) {
        if found.is_empty() && !self.skipped.iter().any(|skipped| skipped.part == part) {
            self.clear.push(part);
        }
        self.findings.extend(found);
    }

    fn skip(&mut self, part: &'static str, why: &dyn Display) {
        self.skipped.push(Skipped { part, why: why.to_string().replace('\n', "; ") });
    }
}

/// Looks at everything. `gate` is `None` where there is none. `root` is `/`, unless a test has another one.
pub fn examine(place: &GatePlace, gate: Option<&Gate>, sinks: &SinkFacts, root: &Path) -> Diagnosis {
    let mut all = Examination { findings: Vec::new(), clear: Vec::new(), skipped: Vec::new() };
    let interface = place.interface.as_str();
    let policy = gate.and_then(|gate| match gate.live_policy() {
        Ok(policy) => policy,
        Err(error) => {
            all.skip("packets", &error);
            None
        }
    });
    match gate {
        None => all.note("attachment", attachment::judge_missing(interface)),
        Some(gate) => match gate.status(place, &PolicyFacts::default()) {
            Ok(status) => {
                all.note("attachment", attachment::judge(&status));
                all.note("tables", tables::judge(&status.tables, interface));
            }
            Err(error) => {
                all.skip("attachment", &error);
                all.skip("tables", &error);
            }
        },
    }
    if let (Some(gate), Some(policy)) = (gate, &policy) {
        match packets::gather(gate, place, policy) {
            Ok(asked) => all.note("packets", packets::judge(&asked, interface)),
            Err(error) => all.skip("packets", &error),
        }
    }
    match look_around(place) {
        Ok(around) => {
            all.note("bypass", bypass::judge(&around));
            all.note("programs", programs::judge(&list_other_programs(&around)));
            let routes = policy.as_ref().map(find_server_routes).unwrap_or_default();
            all.note("subnet", subnet::judge(&around, &routes));
            if let Some(policy) = &policy {
                let facts = find_resolver_facts(policy, &around);
                all.note("resolvers", facts.map(|facts| resolvers::judge(&facts)).unwrap_or_default());
            }
        }
        Err(error) => {
            for part in ["bypass", "programs", "subnet", "resolvers"] {
                all.skip(part, &error);
            }
        }
    }
    if let Some(policy) = &policy {
        all.note("tags", tags::judge(find_tag_facts(place, policy), interface));
    }
    all.note("clock", clock::judge(&clock::gather(gate)));
    all.note("sinks", sinks::judge(sinks, interface));
    match units::gather(root, &place.attached_as) {
        Ok(units) => all.note("units", units::judge(&units, &place.attached_as)),
        Err(why) => all.skip("units", &why),
    }
    all.finish(interface)
}

impl Examination {
    fn finish(mut self, interface: &str) -> Diagnosis {
        self.findings.sort_by(|a, b| b.severity().cmp(&a.severity()).then(a.id.cmp(&b.id)));
        let place_of = |part: &str| PARTS.iter().position(|known| *known == part);
        self.clear.sort_by_key(|part| place_of(part));
        for part in PARTS {
            let is_known = self.clear.contains(&part)
                || self.skipped.iter().any(|skipped| skipped.part == part)
                || self.findings.iter().any(|finding| finding.part() == part);
            if !is_known {
                self.skip(part, &"there is no policy to ask");
            }
        }
        Diagnosis {
            interface: interface.to_owned(),
            severe: self.findings.iter().any(Finding::is_severe),
            findings: self.findings,
            clear: self.clear,
            skipped: self.skipped,
        }
    }
}

#[cfg(test)]
mod tests;
