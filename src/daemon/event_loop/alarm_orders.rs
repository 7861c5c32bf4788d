//! What people say about alarms: acknowledged, silenced.

use super::Daemon;
use crate::alarm::{Acknowledgement, Alarm, Change, NewSilence, Silence, Step, Target};
use crate::audit::{Action, Entry, Who};
use crate::clock::{Clock, show_duration};
use crate::daemon::control::{AlarmOrder, Handled, PendingOrder};

impl Daemon<'_> {
    /// Carries out the orders that wait. Each is answered once it is saved.
    pub(super) fn answer_orders(&mut self) {
        while let Some(pending) = self.control.as_ref().and_then(|control| control.orders().take()) {
            let PendingOrder { order, who, answer } = pending;
            let outcome = self.apply_order(order, &who);
            match self.handling.take_unsaved() {
                Some(text) => self.handling_saver.save_and_answer(text, answer, outcome),
                None => drop(answer.send(outcome)),
            }
        }
        if let Some(text) = self.handling.take_unsaved() {
            self.handling_saver.save(text);
        }
    }

    /// Ends the silences whose time is over, and tells of the alarms that are heard again.
    pub(super) fn end_silences(&mut self) {
        if self.handling.end_silences(Clock::now()) {
            self.tell_silences();
        }
    }

    /// Tells of the alarms that a silence has begun or ceased to cover.
    fn tell_silences(&mut self) {
        for id in self.handling.find_changed(&self.engine.open_alarms()) {
            self.tell(id, String::new());
        }
    }

    /// An update of an open alarm because of what somebody has said.
    fn tell(&mut self, id: u64, news: String) {
        if let Some(alarm) = self.engine.open_alarm(id) {
            let change =
                Change { time: Clock::now().wall, step: Step::Updated, news, is_muted: false, alarm };
            self.publish([change]);
        }
    }

    fn apply_order(&mut self, order: AlarmOrder, who: &Who) -> Handled {
        let (action, subject, outcome) = match order {
            AlarmOrder::Ack { id, note } => (Action::Ack, format!("#{id}"), self.acknowledge(id, note, who)),
            AlarmOrder::Unack { id } => (Action::Unack, format!("#{id}"), self.unacknowledge(id, who)),
            AlarmOrder::Silence { target, for_s, note, force } => {
                let subject = target.clone();
                (Action::Silence, subject, self.silence((target, for_s, note), force, who))
            }
            AlarmOrder::Unsilence { target } => {
                let outcome = self.unsilence(&target);
                (Action::Unsilence, target, outcome)
            }
            AlarmOrder::ListSilences => {
                let silences: Vec<_> = self.handling.silences().iter().map(Silence::to_record).collect();
                return Ok(serde_json::json!({ "silences": silences }));
            }
        };
        match outcome {
            Ok(Done { value, detail, note }) => {
                let entry = Entry::done(action).about(subject).note(note.as_deref()).by(who.clone());
                self.note_audit_unchanged(if detail.is_empty() { entry } else { entry.detail(detail) });
                Ok(value)
            }
            Err(why) => {
                let entry = Entry::refused(action, &why).about(subject).by(who.clone());
                self.note_audit_unchanged(entry);
                Err(why.replace("-i IF", &format!("-i {}", self.monitor.place().interface)))
            }
        }
    }

    fn acknowledge(&mut self, id: u64, note: Option<String>, who: &Who) -> Result<Done, String> {
        let alarm = self.find_open(id)?;
        let by = name_person(who);
        let ack = Acknowledgement { by: by.clone(), at: Clock::now().wall, note: note.clone() };
        self.handling.acknowledge(&alarm, ack);
        let said = note.as_deref().map_or(String::new(), |note| format!(": {note}"));
        self.tell(id, format!("acknowledged by {by}{said}"));
        let what = describe_briefly(&alarm);
        Ok(Done {
            value: serde_json::json!({
                "alarm": id,
                "text": format!(
                    "alarm #{id} ({what}) is acknowledged: it calls again if it becomes more than it is now"
                ),
            }),
            detail: what,
            note,
        })
    }

    fn unacknowledge(&mut self, id: u64, who: &Who) -> Result<Done, String> {
        let alarm = self.find_open(id)?;
        if !self.handling.unacknowledge(id) {
            return Err(format!(
                "nobody has acknowledged alarm #{id}\nhelp: `portcullis alarms -i IF` shows who did"
            ));
        }
        self.tell(id, format!("no longer acknowledged, says {}", name_person(who)));
        Ok(Done {
            value: serde_json::json!({ "alarm": id, "text": format!("alarm #{id} is no longer acknowledged") }),
            detail: describe_briefly(&alarm),
            note: None,
        })
    }

    fn silence(
        &mut self,
        (word, for_s, note): (String, u64, String),
        force: bool,
        who: &Who,
    ) -> Result<Done, String> {
        let is_server = |name: &str| self.servers.iter().any(|known| known == name);
        let target = Target::parse(&word, is_server)?;
        let new = NewSilence { target, for_s, note: note.clone(), by: name_person(who), force };
        let silence = self.handling.silence(new, &self.engine.open_alarms(), Clock::now())?;
        self.tell_silences();
        let (until, severity) = (silence.until, silence.severity);
        let what = match silence.target {
            Target::Server(_) => "alarms of the server",
            Target::Kind(_) => "alarms of the kind",
            Target::Service(_) => "alarms about the service",
        };
        Ok(Done {
            value: serde_json::json!({
                "silence": silence.to_record(),
                "text": format!(
                    "{what} {word} call nobody until {until:.0}, as long as they are {severity} at most"
                ),
            }),
            detail: format!("for {}, up to {severity}", show_duration(for_s)),
            note: Some(note),
        })
    }

    fn unsilence(&mut self, word: &str) -> Result<Done, String> {
        let Some(silence) = self.handling.unsilence(word) else {
            let known: Vec<String> =
                self.handling.silences().iter().map(|silence| silence.target.to_string()).collect();
            return Err(match known.is_empty() {
                true => "nothing is silenced".to_owned(),
                false => format!("{word} is not silenced\nhelp: silenced are {}", known.join(", ")),
            });
        };
        self.tell_silences();
        Ok(Done {
            value: serde_json::json!({
                "silence": silence.to_record(),
                "text": format!("{word} is no longer silenced"),
            }),
            detail: String::new(),
            note: None,
        })
    }

    fn find_open(&self, id: u64) -> Result<Alarm, String> {
        self.engine.open_alarm(id).ok_or_else(|| {
            format!(
                "alarm #{id} is not open\nhelp: `portcullis alarms -i IF --open` lists the alarms that are"
            )
        })
    }

    /// The open alarms as people are shown them.
    pub(super) fn stamped_alarms(&self) -> Vec<Alarm> {
        let mut open = self.engine.open_alarms();
        open.iter_mut().for_each(|alarm| self.handling.stamp(alarm));
        open
    }
}

/// What an order has done.
struct Done {
    /// The answer.
    value: serde_json::Value,
    /// More about it, for the audit.
    detail: String,
    note: Option<String>,
}

/// The person behind an order, without process and parents.
fn name_person(who: &Who) -> String {
    let full = who.describe();
    full.split(" (process").next().unwrap_or(&full).to_owned()
}

fn describe_briefly(alarm: &Alarm) -> String {
    format!("{} {} of {}", alarm.severity(), alarm.kind(), alarm.subject())
}
