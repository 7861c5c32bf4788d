//! The data that `top` shows, without a terminal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::gate::{GateStatus, QuarantinedAddress};

/// Readings in a sparkline.
const HISTORY: usize = 60;

/// The question before an action.
pub(super) struct Confirmation {
    pub text: String,
    pub action: Action,
}

/// An action of a key on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quarantine(String),
    Release(String),
}

/// One line of the table of servers. Its drops include the packets that passed because of observe.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerLine {
    /// Empty: no server has the source address.
    pub name: Arc<str>,
    pub total: u64,
    /// Packets a second at the last reading.
    pub rate: f64,
    /// Rates, the latest last.
    pub rates: VecDeque<u64>,
    /// The reasons of the last drops, the most frequent first.
    pub reasons: Vec<String>,
    pub quarantined: bool,
    /// Addresses of it in quarantine.
    pub cut_off: usize,
}

/// One server over several readings.
#[derive(Clone, Debug, Default)]
struct Known {
    by_reason: BTreeMap<String, u64>,
    rates: VecDeque<u64>,
    total: u64,
    rate: f64,
    reasons: Vec<String>,
}

/// Everything on the screen.
pub(super) struct Model {
    pub interface: String,
    pub status: Option<GateStatus>,
    /// `None`: no daemon runs.
    pub alarms: Option<Vec<Value>>,
    known: BTreeMap<Arc<str>, Known>,
    selected: Option<Arc<str>>,
    pub question: Option<Confirmation>,
    pub message: String,
    has_first: bool,
}

impl Model {
    pub(super) fn new(interface: &str) -> Model {
        Model {
            interface: interface.to_owned(),
            status: None,
            alarms: None,
            known: BTreeMap::new(),
            selected: None,
            question: None,
            message: String::new(),
            has_first: false,
        }
    }

    /// Takes a new reading, and how long the one before is ago.
    pub(super) fn update(&mut self, status: GateStatus, alarms: Option<Vec<Value>>, passed: Duration) {
        let mut sums: BTreeMap<Arc<str>, BTreeMap<String, u64>> = BTreeMap::new();
        for ((server, reason, _), (packets, _)) in &status.drops {
            *sums.entry(server.clone()).or_default().entry(reason.to_string()).or_default() += packets;
        }
        let of_addresses = status.quarantined_addresses.iter().filter_map(|row| row.server.as_ref());
        for server in status.quarantined.iter().chain(of_addresses) {
            sums.entry(server.as_str().into()).or_default();
        }
        self.known.retain(|name, _| sums.contains_key(name));
        for (name, by_reason) in sums {
            let known = self.known.entry(name).or_default();
            let total = by_reason.values().sum::<u64>();
            // The first reading alone says nothing of the last second.
            let fresh = if self.has_first { total.saturating_sub(known.total) } else { 0 };
            known.rate = fresh as f64 / passed.as_secs_f64().max(0.1);
            known.rates.push_back(known.rate.round() as u64);
            if known.rates.len() > HISTORY {
                known.rates.pop_front();
            }
            let mut risen: Vec<(u64, &String)> = by_reason
                .iter()
                .map(|(reason, now)| {
                    (now - known.by_reason.get(reason).copied().unwrap_or(0).min(*now), reason)
                })
                .filter(|(risen, _)| *risen > 0)
                .collect();
            risen.sort_by_key(|(risen, _)| std::cmp::Reverse(*risen));
            if !risen.is_empty() {
                known.reasons = risen.into_iter().map(|(_, reason)| reason.clone()).collect();
            }
            (known.total, known.by_reason) = (total, by_reason);
        }
        self.has_first = true;
        self.alarms = alarms;
        self.status = Some(status);
        let is_known = self.selected.as_ref().is_some_and(|name| self.known.contains_key(name));
        if !is_known {
            self.selected = self.lines().first().map(|line| line.name.clone());
        }
    }

    /// The servers, the fastest first.
    pub(super) fn lines(&self) -> Vec<ServerLine> {
        let status = self.status.as_ref();
        let quarantined = status.map_or(&[][..], |now| &now.quarantined);
        let addresses = status.map_or(&[][..], |now| &now.quarantined_addresses);
        let is_of = |row: &&QuarantinedAddress, name: &str| row.server.as_deref() == Some(name);
        let mut lines: Vec<ServerLine> = self
            .known
            .iter()
            .map(|(name, known)| ServerLine {
                name: name.clone(),
                total: known.total,
                rate: known.rate,
                rates: known.rates.clone(),
                reasons: known.reasons.clone(),
                quarantined: quarantined.iter().any(|other| **other == **name),
                cut_off: addresses.iter().filter(|row| is_of(row, name)).count(),
            })
            .collect();
        let recent = |line: &ServerLine| line.rates.iter().sum::<u64>();
        lines.sort_by(|a, b| {
            let by_rate = b.rate.total_cmp(&a.rate);
            by_rate.then(recent(b).cmp(&recent(a))).then(b.total.cmp(&a.total)).then(a.name.cmp(&b.name))
        });
        lines
    }

    /// Index of the selected line.
    pub(super) fn selected(&self, lines: &[ServerLine]) -> Option<usize> {
        let selected = self.selected.as_ref()?;
        lines.iter().position(|line| line.name == *selected)
    }

    /// Moves the selection.
    pub(super) fn select(&mut self, by: isize) {
        let lines = self.lines();
        let at = self.selected(&lines).unwrap_or(0);
        let at = at.saturating_add_signed(by).min(lines.len().saturating_sub(1));
        self.selected = lines.get(at).map(|line| line.name.clone());
    }

    /// Asks about the selected server.
    pub(super) fn ask(&mut self, question: impl FnOnce(&str) -> Confirmation) {
        match self.selected.as_deref() {
            Some("") => self.message = "that is no server: no server has these source addresses".to_owned(),
            Some(server) => self.question = Some(question(server)),
            None => self.message = "no server is selected".to_owned(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::gate::{AttachMode, Hook, PolicyFacts};

    /// A reading in which these servers had so many drops.
    pub(in crate::commands::top) fn reading(drops: &[(&str, Reason, u64)]) -> GateStatus {
        let key = |name: &str, reason: Reason| (Arc::from(name), reason.into(), false);
        GateStatus {
            attached: AttachMode::Native,
            enforcing: true,
            settings: vec![("mode", "enforce"), ("tracking", "strict")],
            tracker: Hook::Tcx,
            policy: PolicyFacts {
                generation: 3,
                policy_hash: "ab".repeat(32),
                policy_file: "dmz.toml".to_owned(),
                servers: 2,
                ..PolicyFacts::default()
            },
            drops: drops.iter().map(|(name, reason, count)| (key(name, *reason), (*count, 0))).collect(),
            quarantined: vec!["mx1".to_owned()],
            quarantined_addresses: vec![QuarantinedAddress {
                address: "192.0.2.130".to_owned(),
                server: Some("farm".to_owned()),
                ..QuarantinedAddress::default()
            }],
            ..GateStatus::default()
        }
    }

    #[test]
    fn the_fastest_server_is_first_and_the_selection_stays_with_its_server() {
        let mut model = Model::new("dmz0");
        let second = Duration::from_secs(1);
        model.update(reading(&[("web1", Reason::NewFlow, 900), ("dns1", Reason::NoFlow, 5)]), None, second);
        assert!(model.lines().iter().all(|line| line.rate == 0.0), "the past is no rate");
        model.select(1);
        let selected = model.lines()[model.selected(&model.lines()).unwrap()].name.clone();
        model.update(reading(&[("web1", Reason::NewFlow, 910), ("dns1", Reason::NoFlow, 105)]), None, second);
        let lines = model.lines();
        assert_eq!((&*lines[0].name, lines[0].rate), ("dns1", 100.0));
        assert_eq!(lines[0].reasons, ["no_flow"]);
        assert_eq!(lines[model.selected(&lines).unwrap()].name, selected);
        assert!(lines.iter().any(|line| &*line.name == "mx1" && line.quarantined));
        assert!(lines.iter().any(|line| &*line.name == "farm" && line.cut_off == 1 && !line.quarantined));
    }

    #[test]
    fn a_ledger_that_began_anew_is_no_negative_rate() {
        let mut model = Model::new("dmz0");
        let second = Duration::from_secs(1);
        model.update(reading(&[("web1", Reason::NewFlow, 900)]), None, second);
        model.update(reading(&[("web1", Reason::NewFlow, 3)]), None, second);
        assert_eq!(model.lines().iter().find(|line| &*line.name == "web1").unwrap().rate, 0.0);
    }

    #[test]
    fn nobody_can_be_cut_off_whom_no_policy_knows() {
        let mut model = Model::new("dmz0");
        model.update(reading(&[("", Reason::UnknownSource, 9)]), None, Duration::from_secs(1));
        while !model.lines()[model.selected(&model.lines()).unwrap()].name.is_empty() {
            model.select(-1);
        }
        model.ask(|server| Confirmation {
            text: server.to_owned(),
            action: Action::Release(server.to_owned()),
        });
        assert!(model.question.is_none());
        assert!(model.message.contains("no server"));
    }
}
