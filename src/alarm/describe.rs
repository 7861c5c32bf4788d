//! The words of an alarm: what was seen, and why it matters.
//!
//! Names may come from anywhere. Every sink escapes these texts before it prints them.

use std::hash::Hash;
use std::net::IpAddr;

use super::meaning::{Meaning, UNKNOWN, meaning_of, name_channel};
use super::next_steps::QUARANTINE;
use super::{Alarm, Change, Distinct, Likely, Part, Scope, Step, Technique};
use crate::abi::Reason;
use crate::drops::DropVerdict;
use crate::net::{TCP, show_mac};

/// How many of several are named in a text.
const NAMED: usize = 3;
/// Machines of a prefix are named in full, as far as that can be read.
const NAMED_MACHINES: usize = 8;

impl Alarm {
    /// The name of the server, or words that stand for it.
    pub fn subject(&self) -> &str {
        if let Some(answers) = &self.lead().answers {
            return &answers.subject;
        }
        match &self.server {
            Some(server) => &server.name,
            None if self.is_for_all => "several servers",
            None if self.lead().scope == Scope::Gate => "the gate",
            None => "an unknown host",
        }
    }

    /// What was seen, without a full stop: who did what, where to, how often and since when.
    pub fn seen(&self) -> String {
        let lead = self.lead();
        if let Some((_, detail)) = &lead.trouble {
            return format!("{detail}, since {:.0}", self.first);
        }
        let machines = match self.has_machines {
            true => list_some(" at ", &self.sources, NAMED_MACHINES, |ip| ip.to_string()),
            false => String::new(),
        };
        let mut text = format!(
            "{}{machines} {}{}{}",
            self.subject(),
            lead.describe_action(),
            lead.describe_lookup(),
            self.name_others()
        );
        let thing = if lead.answers.is_some() { "answer" } else { "packet" };
        let packets = match self.packets {
            1 => format!("1 {thing}"),
            packets => format!("{packets} {thing}s"),
        };
        let verdict = match lead.verdict {
            _ if lead.answers.is_some() => "",
            Some(DropVerdict::WouldDrop) => " NOT dropped in mode observe",
            Some(DropVerdict::Drop) | None => " dropped",
        };
        let while_away = if self.while_away { ", in part while no daemon ran" } else { "" };
        text.push_str(&format!(" ({packets}{verdict} since {:.0}{while_away})", self.first));
        if let Some(before) = self.follows {
            text.push_str(&format!(". It follows #{before}"));
        }
        if !self.response.is_empty() {
            text.push_str(&format!(". {}", self.response));
        }
        text
    }

    /// What people have said of it, without a full stop; empty: nothing.
    pub fn handled(&self) -> String {
        let note = |note: &str| if note.is_empty() { String::new() } else { format!(": {note}") };
        let mut texts = Vec::new();
        if let Some(ack) = &self.acknowledged {
            let said = note(ack.note.as_deref().unwrap_or_default());
            texts.push(format!("Acknowledged by {} at {:.0}{said}", ack.by, ack.at));
        }
        if let Some(silenced) = &self.silenced {
            let targets = silenced.targets.join(", ");
            let said = note(&silenced.note);
            texts.push(format!("Silenced ({targets}) by {} until {:.0}{said}", silenced.by, silenced.until));
        }
        texts.join(". ")
    }

    /// The other parts by kind and service.
    fn name_others(&self) -> String {
        let others: Vec<String> = self.parts.iter().skip(1).take(NAMED).map(name_part).collect();
        match self.parts.len().saturating_sub(1 + NAMED) {
            _ if others.is_empty() => String::new(),
            0 => format!(", also: {}", others.join(", ")),
            rest => format!(", also: {} and {rest} more", others.join(", ")),
        }
    }

    /// Why it matters, without a full stop.
    pub fn why(&self) -> &'static str {
        self.lead().why()
    }

    /// The technique that it is most probably a sign of.
    pub fn technique(&self) -> Technique {
        self.lead().technique()
    }
}

impl Change {
    /// What a sink says of it, in one line: what was seen, what is new, why it matters, the technique, what to
    /// type next.
    pub fn message(&self) -> String {
        let alarm = &self.alarm;
        let mut text = alarm.seen();
        if let Some(sample) = alarm.sample().filter(|sample| sample.presumed) {
            text.push_str(match sample.reason.known() {
                Some(Reason::Fragment) => ", presumed to be fragments that have overtaken their first one",
                _ => ", presumed to be late answers: too many peers asked to remember them all",
            });
        }
        if !self.news.is_empty() {
            text.push_str(&format!(". New: {}", self.news));
        }
        let handled = alarm.handled();
        if !handled.is_empty() {
            text.push_str(&format!(". {handled}"));
        }
        match self.step {
            Step::Opened | Step::Escalated { .. } => {
                let technique = alarm.technique();
                text.push_str(&format!(". {} ({} {})", alarm.why(), technique.id, technique.name));
                let next = alarm.next_commands();
                if let Some(command) = next.first() {
                    text.push_str(&format!(". Next: {command}"));
                }
                match next.iter().filter(|command| command.starts_with(QUARANTINE)).count() {
                    0 | 1 => {}
                    2 => text.push_str(" (and 1 more machine)"),
                    machines => text.push_str(&format!(" (and {} more machines)", machines - 1)),
                }
            }
            Step::Closed { folded_into: Some(id) } => text.push_str(&format!(". It goes on as #{id}")),
            Step::Closed { folded_into: None } | Step::Updated => {}
        }
        text
    }
}

impl Part {
    /// What was done, and where to.
    pub(super) fn describe_action(&self) -> String {
        match (self.scope, self.likely) {
            (Scope::Rest, _) => self.fill("did more than alarms have room for, most recently {service}{to}"),
            (_, Likely::TimeServer) => {
                self.fill("asks a time server that the policy does not know: {service}{to}")
            }
            (_, Likely::Resolver) => {
                self.fill("asks a resolver that the policy does not know: {service}{to}")
            }
            (_, Likely::MailQueue) => self.fill("sends mail past its smart host: {service}{to}"),
            (_, Likely::Unknown) => self.fill(self.kind.action().unwrap_or(self.meaning().action)),
        }
    }

    /// What its server has looked up before it sent the last sample, behind a comma; empty where nothing is known.
    fn describe_lookup(&self) -> String {
        let found =
            self.sample.as_ref().and_then(|sample| sample.looked_up.as_ref().map(|name| (name, sample.time)));
        let Some((looked_up, time)) = found else {
            return String::new();
        };
        let which = if self.destinations.len() > 1 { "the last one " } else { "" };
        format!(", {which}{}", looked_up.describe(time))
    }

    /// Why it matters, without a full stop.
    pub fn why(&self) -> &'static str {
        if let Some((trouble, _)) = &self.trouble {
            return trouble.why();
        }
        match self.likely {
            Likely::TimeServer => {
                "These are the packets of a time client at its usual pace, so the policy probably lacks a need"
            }
            Likely::Resolver => {
                "These are single plain questions at a usual pace, so the policy probably lacks a need"
            }
            Likely::MailQueue => "A mail queue that lost its smart host looks like this, and so does spam",
            Likely::Unknown => self.kind.why().unwrap_or(self.meaning().why),
        }
    }

    /// The technique that it is most probably a sign of.
    pub fn technique(&self) -> Technique {
        let by_reason = || self.meaning().technique;
        let technique = self.kind.technique().or_else(by_reason);
        technique.unwrap_or_else(|| name_channel(self.kind, self.sample.as_deref()))
    }

    /// What its last drop means.
    fn meaning(&self) -> Meaning {
        self.reason.and_then(|reason| reason.known()).and_then(meaning_of).unwrap_or(UNKNOWN)
    }

    /// A text of the tables of kinds and reasons with its placeholders filled in. `{to}`, `{from}`, `{mac}`
    /// and `{contacted}` begin with a space, and are empty where nothing is known.
    fn fill(&self, template: &str) -> String {
        let mut text = String::new();
        for piece in template.split('{') {
            let Some((placeholder, rest)) = piece.split_once('}') else {
                text.push_str(piece);
                continue;
            };
            match placeholder {
                "service" => text.push_str(&self.last_service()),
                "to" => text.push_str(&list(" to ", &self.destinations, IpAddr::to_string)),
                "from" => text.push_str(&list(" from ", &self.destinations, IpAddr::to_string)),
                "destinations" => text.push_str(&list("", &self.destinations, IpAddr::to_string)),
                "sources" => text.push_str(&list("", &self.sources, IpAddr::to_string)),
                "mac" => text.push_str(&list(" from MAC ", &self.source_macs, show_mac)),
                "contacted" => text.extend(self.contacted.map(|address| format!(" at {address}"))),
                "question" => text.push_str(&self.describe_question()),
                "way" => text.push_str(self.answers.as_ref().map_or("", |answers| &answers.interface)),
                "asked" => {
                    let servers = self.answers.as_ref().map_or("", |answers| &answers.servers);
                    if !servers.is_empty() {
                        text.push_str(&format!(" to {servers}"));
                    }
                }
                "reason" => text.extend(self.reason.map(|reason| reason.to_string())),
                "services" => {
                    let about = if self.services.is_estimate() { "about " } else { "" };
                    text.push_str(&format!("{about}{} services", self.services.len()));
                }
                unknown => debug_assert!(false, "{{{unknown}}} is no placeholder"),
            }
            text.push_str(rest);
        }
        text
    }

    /// What its last sample asks a resolver for.
    fn describe_question(&self) -> String {
        match self.sample.as_ref().and_then(|sample| sample.question()) {
            Some(question) => question.to_string(),
            None if self.sample.as_ref().is_some_and(|sample| sample.protocol == TCP) => {
                "something over TCP".to_owned()
            }
            None => "something".to_owned(),
        }
    }

    fn last_service(&self) -> String {
        self.sample.as_ref().map_or_else(|| "any".to_owned(), |sample| sample.service())
    }
}

/// A part in a few words: kind and service, or kind and number of services.
pub(super) fn name_part(part: &Part) -> String {
    let kind = part.kind;
    match part.scope {
        Scope::Gate => match &part.trouble {
            Some((trouble, _)) => trouble.name().replace('_', " "),
            None => kind.to_string(),
        },
        Scope::Answers => match &part.answers {
            Some(answers) => format!("{kind} of {}", answers.subject),
            None => kind.to_string(),
        },
        Scope::Ports => part.fill("scan of {services}{to}"),
        Scope::Rest => format!("{kind} and others"),
        Scope::Service | Scope::Reason => format!("{kind} {}{}", part.last_service(), part.fill("{to}")),
    }
}

/// The lead, and `A, B, C and 9 more`; an empty text for nothing.
pub(super) fn list<T: PartialEq + Copy + Hash>(
    lead: &str,
    things: &Distinct<T>,
    show: impl Fn(&T) -> String,
) -> String {
    list_some(lead, things, NAMED, show)
}

fn list_some<T: PartialEq + Copy + Hash>(
    lead: &str,
    things: &Distinct<T>,
    most: usize,
    show: impl Fn(&T) -> String,
) -> String {
    let named: Vec<String> = things.iter().take(most).map(show).collect();
    let text = named.join(", ");
    match (named.len(), things.len().saturating_sub(named.len()), things.is_estimate()) {
        (0, ..) => String::new(),
        (_, 0, false) => format!("{lead}{text}"),
        (_, rest, false) => format!("{lead}{text} and {rest} more"),
        (_, rest, true) => format!("{lead}{text} and about {rest} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::Reason;
    use crate::alarm::likely::tests::{datagram, question};
    use crate::alarm::{Engine, Severity};
    use crate::drops::example::{after_ms, syn};
    use crate::drops::{DropEvent, LookedUp};

    #[test]
    fn an_alarm_says_what_its_destination_was_looked_up_as() {
        let at = after_ms(0).wall;
        let looked_up = Some(LookedUp { name: r"x\027.evil.example".into(), at });
        let drop = DropEvent { time: after_ms(2_000).wall, looked_up, ..syn() };
        let mut engine = Engine::default();
        let opened = engine.observe(&drop, after_ms(2_000)).remove(0);
        let text = opened.message();
        assert!(
            text.contains(r"tried tcp/445 to 198.51.100.7, looked up as x\027.evil.example 2 s before ("),
            "{text}"
        );
        let json = serde_json::to_value(&opened).unwrap();
        for value in [&json["looked_up"], &json["parts"][0]["looked_up"]] {
            assert_eq!(value["name"], r"x\027.evil.example");
            assert_eq!(value["at"], at.to_string());
        }
        let other = DropEvent { destination: Some([198, 51, 100, 8].into()), ..drop };
        engine.observe(&other, after_ms(3_000));
        let text = engine.open_alarms()[0].seen();
        assert!(text.contains("198.51.100.7, 198.51.100.8, the last one looked up as x"), "{text}");
    }

    #[test]
    fn an_alarm_about_a_question_has_the_name_that_was_asked_for_and_the_line_that_would_permit_it() {
        let ask = |name: &str| DropEvent {
            reason: Reason::Question.into(),
            ..datagram(53, &question(name, 16, false))
        };
        let open = |drop: &DropEvent| Engine::default().observe(drop, after_ms(0)).remove(0);
        let opened = open(&ask("aGVs.t.evil.example"));
        let text = opened.message();
        assert!(
            text.contains("web1 asked 198.51.100.7 for aGVs.t.evil.example (TXT), outside the names")
                && text.contains("(T1071.004 DNS)")
                && text.contains("portcullis quarantine"),
            "{text}"
        );
        let json = serde_json::to_value(&opened).unwrap();
        assert_eq!(json["question"], "aGVs.t.evil.example (TXT)");
        assert_eq!(json["parts"][0]["question"], "aGVs.t.evil.example (TXT)");
        let hostile = open(&ask("\u{1b}[2J.evil.example")).message();
        assert!(hostile.contains(r"\027[2J.evil.example"), "{hostile}");
        // without a sample nobody knows the name
        let mut unknown = ask("evil.example");
        unknown.frame.clear();
        assert!(open(&unknown).message().contains("asked 198.51.100.7 for something, outside"));
        let over_tcp = DropEvent { protocol: TCP, ..unknown };
        assert!(open(&over_tcp).message().contains("for something over TCP, outside"));
        let observed = DropEvent { verdict: DropVerdict::WouldDrop, ..ask("evil.example") };
        let opened = open(&observed);
        assert_eq!(opened.alarm.severity(), Severity::Low);
        assert!(opened.alarm.next_commands()[0].contains("give a need its name"), "{opened:?}");
    }

    #[test]
    fn each_reason_says_what_was_done_and_why_it_matters() {
        let cases = [
            (
                Reason::UnknownSource,
                "used the source address 192.0.2.10 from MAC 02:00:00:00:00:10",
                "policy does not know",
                "T1498",
            ),
            (
                Reason::Spoofed,
                "was impersonated from MAC 02:00:00:00:00:10 to 198.51.100.7: its address 192.0.2.10",
                "another server's address",
                "T1557",
            ),
            (Reason::RogueRouter, "acted as a router: tcp/445", "A false router on the link", "T1557"),
            (Reason::SourceRoute, "sent source-routed packets", "around the filters in between", "T1599"),
            (Reason::Malformed, "sent malformed packets", "gets around filters", "T1095"),
            (Reason::Fragment, "sent fragments without a permitted", "gets around filters", "T1095"),
            (Reason::NoFlow, "segments that belong to no flow", "Idle connections end this way", "T1095"),
            (Reason::Elsewhere, "to another host of its link", "A switch floods such frames", "T1095"),
            (Reason::Ethertype, "frames that are not IP (ethernet/0x01bd)", "nobody watches", "T1095"),
            (Reason::Protocol, "sent the protocol tcp/445", "nobody watches", "T1095"),
            (
                Reason::Quarantined,
                "still sends tcp/445 to 198.51.100.7 from quarantine",
                "it still runs",
                "T1071",
            ),
            (
                Reason::Destination,
                "tried tcp/445 to 198.51.100.7, which its roles permit only elsewhere",
                "another place",
                "T1071",
            ),
            (Reason::NewFlow, "tried tcp/445 to 198.51.100.7", "rarely open connections", "T1071"),
        ];
        for (reason, action, why, technique) in cases {
            let drop = DropEvent { reason: reason.into(), ..syn() };
            let changes = Engine::default().observe(&drop, after_ms(0));
            let [opened] = &changes[..] else { panic!("{reason}: one alarm, not {changes:?}") };
            let text = opened.message();
            assert!(text.contains(action) && text.contains(why), "{reason}: {text}");
            assert!(
                text.contains(&format!("({technique} ")) && text.contains(". Next: portcullis "),
                "{text}"
            );
            let text = Change { step: Step::Updated, ..opened.clone() }.message();
            assert!(text.contains(action) && !text.contains(why) && !text.contains("Next:"), "{text}");
        }
    }
}
