//! The data that `top` shows, without a terminal.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::alarms;
use crate::gate::{GateStatus, QuarantinedAddress};

/// For so many readings the servers keep their places after a key.
const HELD: u32 = 5;
/// Readings in a sparkline.
const HISTORY: usize = 60;

/// The question before an action.
pub(super) struct Confirmation {
    pub text: String,
    pub action: Action,
}

/// An action of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Quarantine(String),
    Release(String),
    /// Of an alarm, with a note.
    Ack(u64, Option<String>),
    /// A server, with a note.
    Silence(String, String),
}

/// The pane that keys act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Servers,
    Alarms,
}

/// A line that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typing {
    /// The filter of both lists.
    Filter,
    /// The note of an acknowledgement.
    AckNote(u64, String),
    /// The note of a silence.
    SilenceNote(String, String),
}

/// What is in front of the lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overlay {
    Help,
    /// The whole alarm that is selected.
    Alarm,
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
    /// The order of the servers on the screen. It stays while somebody moves in it.
    order: Vec<Arc<str>>,
    /// Readings for which the order stays.
    held: u32,
    selected_alarm: Option<u64>,
    /// Where the selected alarm stood, for when it closes.
    alarm_place: usize,
    pub pane: Pane,
    pub filter: String,
    pub typing: Option<Typing>,
    pub overlay: Option<Overlay>,
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
            order: Vec::new(),
            held: 0,
            selected_alarm: None,
            alarm_place: 0,
            pane: Pane::Servers,
            filter: String::new(),
            typing: None,
            overlay: None,
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
        if let Some(alarms) = &mut self.alarms {
            alarms::sort(alarms);
        }
        self.status = Some(status);
        self.held = self.held.saturating_sub(1);
        if self.held == 0 {
            self.order = self.sorted().into_iter().map(|line| line.name).collect();
        }
        self.keep_alarm();
        let is_known = self.selected.as_ref().is_some_and(|name| self.known.contains_key(name));
        if !is_known {
            self.selected = self.lines().first().map(|line| line.name.clone());
        }
    }

    /// The servers that the filter leaves. The fastest is first, but nothing moves under a cursor that moved lately.
    pub(super) fn lines(&self) -> Vec<ServerLine> {
        let mut lines = self.sorted();
        if self.held > 0 {
            let place = |line: &ServerLine| self.order.iter().position(|name| *name == line.name);
            lines.sort_by_key(|line| place(line).unwrap_or(usize::MAX));
        }
        let word = self.filter.to_lowercase();
        lines.retain(|line| word.is_empty() || line.name.to_lowercase().contains(&word));
        lines
    }

    /// The alarms that the filter leaves, in their order.
    pub(super) fn shown_alarms(&self) -> Vec<&Value> {
        let alarms = self.alarms.as_deref().unwrap_or_default();
        alarms.iter().filter(|alarm| alarms::has_word(alarm, &self.filter)).collect()
    }

    /// The alarm that is selected.
    pub(super) fn selected_alarm(&self) -> Option<(usize, &Value)> {
        let shown = self.shown_alarms();
        let place = shown.iter().position(|alarm| alarm["id"].as_u64() == self.selected_alarm)?;
        shown.get(place).map(|alarm| (place, *alarm))
    }

    /// The selection follows its alarm. When that closes, the one at its place is selected.
    fn keep_alarm(&mut self) {
        if let Some((place, _)) = self.selected_alarm() {
            self.alarm_place = place;
            return;
        }
        let shown = self.shown_alarms();
        let place = self.alarm_place.min(shown.len().saturating_sub(1));
        self.selected_alarm = shown.get(place).and_then(|alarm| alarm["id"].as_u64());
        if self.overlay == Some(Overlay::Alarm) {
            self.overlay = None;
            self.message = "the alarm that you read is closed".to_owned();
        }
    }

    /// The servers, the fastest first.
    fn sorted(&self) -> Vec<ServerLine> {
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

    /// Goes by another filter.
    pub(super) fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.keep_alarm();
    }

    /// The other pane gets the keys.
    pub(super) fn switch_pane(&mut self) {
        self.pane = match self.pane {
            Pane::Servers => Pane::Alarms,
            Pane::Alarms => Pane::Servers,
        };
    }

    /// The server that keys act on: the selected one, or that of the selected alarm.
    fn acting_server(&self) -> Option<String> {
        match self.pane {
            Pane::Servers => self.selected.as_deref().map(str::to_owned),
            Pane::Alarms => {
                let (_, alarm) = self.selected_alarm()?;
                Some(alarm["server"].as_str().unwrap_or_default().to_owned())
            }
        }
    }

    /// Asks for the note of an acknowledgement of the selected alarm.
    pub(super) fn begin_ack(&mut self) {
        match self.selected_alarm().and_then(|(_, alarm)| alarm["id"].as_u64()) {
            Some(id) => self.typing = Some(Typing::AckNote(id, String::new())),
            None => self.message = "no alarm is selected".to_owned(),
        }
    }

    /// Asks why the server is to be silenced.
    pub(super) fn begin_silence(&mut self) {
        match self.acting_server().filter(|server| !server.is_empty()) {
            Some(server) => self.typing = Some(Typing::SilenceNote(server, String::new())),
            None => self.message = "that is no server".to_owned(),
        }
    }

    /// Moves the selection of the pane.
    pub(super) fn select(&mut self, by: isize) {
        if self.pane == Pane::Alarms {
            let shown = self.shown_alarms();
            let place = self.selected_alarm().map_or(self.alarm_place, |(place, _)| place);
            let place = place.saturating_add_signed(by).min(shown.len().saturating_sub(1));
            let id = shown.get(place).and_then(|alarm| alarm["id"].as_u64());
            (self.alarm_place, self.selected_alarm) = (place, id);
            return;
        }
        if self.held == 0 {
            self.order = self.sorted().into_iter().map(|line| line.name).collect();
        }
        self.held = HELD;
        let lines = self.lines();
        let at = self.selected(&lines).unwrap_or(0);
        let at = at.saturating_add_signed(by).min(lines.len().saturating_sub(1));
        self.selected = lines.get(at).map(|line| line.name.clone());
    }

    /// Asks about the selected server.
    pub(super) fn ask(&mut self, question: impl FnOnce(&str) -> Confirmation) {
        match self.acting_server().as_deref() {
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
        let before: Vec<Arc<str>> = model.lines().into_iter().map(|line| line.name).collect();
        model.update(reading(&[("web1", Reason::NewFlow, 910), ("dns1", Reason::NoFlow, 55)]), None, second);
        let held: Vec<Arc<str>> = model.lines().into_iter().map(|line| line.name).collect();
        assert_eq!(held, before, "nothing moves under a cursor that moved lately");
        for _ in 0..HELD {
            model.update(
                reading(&[("web1", Reason::NewFlow, 910), ("dns1", Reason::NoFlow, 5)]),
                None,
                second,
            );
        }
        model.update(reading(&[("web1", Reason::NewFlow, 910), ("dns1", Reason::NoFlow, 105)]), None, second);
        let lines = model.lines();
        assert_eq!((&*lines[0].name, lines[0].rate), ("dns1", 100.0));
        assert_eq!(lines[0].reasons, ["no_flow"]);
        assert_eq!(lines[model.selected(&lines).unwrap()].name, selected);
        assert!(lines.iter().any(|line| &*line.name == "mx1" && line.quarantined));
        assert!(lines.iter().any(|line| &*line.name == "farm" && line.cut_off == 1 && !line.quarantined));
    }

    fn alarm(id: u64, severity: &str) -> Value {
        serde_json::json!({ "id": id, "severity": severity, "server": "web1", "kind": "scan", "seen": "x" })
    }

    #[test]
    fn the_selection_follows_its_alarm_and_stays_at_its_place_when_that_closes() {
        let mut model = Model::new("dmz0");
        let second = Duration::from_secs(1);
        let update = |model: &mut Model, alarms: &[(u64, &str)]| {
            let alarms = alarms.iter().map(|(id, severity)| alarm(*id, severity)).collect();
            model.update(reading(&[]), Some(alarms), second);
        };
        update(&mut model, &[(1, "low"), (2, "high"), (3, "medium")]);
        model.switch_pane();
        model.select(1);
        let selected =
            |model: &Model| model.selected_alarm().map(|(place, alarm)| (place, alarm["id"].as_u64()));
        assert_eq!(selected(&model), Some((1, Some(3))));
        update(&mut model, &[(1, "low"), (2, "high"), (3, "medium"), (4, "critical")]);
        assert_eq!(selected(&model), Some((2, Some(3))), "a more severe one came above it");
        model.overlay = Some(Overlay::Alarm);
        update(&mut model, &[(1, "low"), (2, "high"), (4, "critical")]);
        assert_eq!(selected(&model), Some((2, Some(1))));
        assert_eq!(model.overlay, None, "nobody reads another alarm than they think");
        model.set_filter("nobody".to_owned());
        assert_eq!(selected(&model), None);
        model.begin_ack();
        assert_eq!((model.typing.clone(), &*model.message), (None, "no alarm is selected"));
        model.set_filter(String::new());
        model.begin_ack();
        assert_eq!(model.typing, Some(Typing::AckNote(1, String::new())));
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
