//! The texts of an alarm: what was seen, why it matters, what to type next.
//!
//! Names may come from anywhere. Every sink escapes these texts before it prints them.

use std::borrow::Cow;
use std::hash::Hash;
use std::net::IpAddr;

use super::meaning::{Meaning, UNKNOWN, meaning_of, name_channel};
use super::{Alarm, Distinct, Kind, Scope, Step, Technique};
use crate::abi::Reason;
use crate::drops::DropVerdict;
use crate::net::tcp_flags::show_flags;
use crate::net::{has_ports, show_mac};

/// How many of several are named in a text.
const NAMED: usize = 3;

impl Alarm {
    /// The name of the server, or words that stand for it.
    pub fn subject(&self) -> &str {
        match (&self.server, self.scope) {
            (Some(server), _) => &server.name,
            (None, Scope::Everything) => "several servers",
            (None, _) => "an unknown host",
        }
    }

    /// What was seen, without a full stop: who did what, where to, how often and since when.
    pub fn seen(&self) -> String {
        let packets = match self.packets {
            1 => "1 packet".to_owned(),
            packets => format!("{packets} packets"),
        };
        let verdict = match self.verdict {
            DropVerdict::Drop => "dropped",
            DropVerdict::WouldDrop => "NOT dropped in mode observe",
        };
        let while_away = if self.while_away { ", in part while no daemon ran" } else { "" };
        let mut text = format!(
            "{} {} ({packets} {verdict} since {:.0}{while_away})",
            self.subject(),
            self.describe_action(),
            self.first
        );
        if !self.response.is_empty() {
            text.push_str(&format!(". {}", self.response));
        }
        text
    }

    /// What the server did, and where to.
    fn describe_action(&self) -> String {
        match self.scope {
            Scope::Server | Scope::Everything => {
                self.fill("did more than alarms have room for, most recently {service}{to}")
            }
            _ => self.fill(self.kind.action().unwrap_or(self.meaning().action)),
        }
    }

    /// What its last drop means.
    fn meaning(&self) -> Meaning {
        self.reason.known().and_then(meaning_of).unwrap_or(UNKNOWN)
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
                "service" => text.push_str(&self.sample.service()),
                "to" => text.push_str(&list(" to ", &self.destinations, IpAddr::to_string)),
                "from" => text.push_str(&list(" from ", &self.destinations, IpAddr::to_string)),
                "destinations" => text.push_str(&list("", &self.destinations, IpAddr::to_string)),
                "sources" => text.push_str(&list("", &self.sources, IpAddr::to_string)),
                "mac" => text.push_str(&list(" from MAC ", &self.source_macs, show_mac)),
                "contacted" => text.extend(self.contacted.map(|address| format!(" at {address}"))),
                "reason" => text.push_str(&self.reason.to_string()),
                "ports" => {
                    let about = if self.ports.is_estimate() { "about " } else { "" };
                    text.push_str(&format!("{about}{} ports", self.ports.len()));
                }
                unknown => debug_assert!(false, "{{{unknown}}} is no placeholder"),
            }
            text.push_str(rest);
        }
        text
    }

    /// Why it matters, without a full stop.
    pub fn why(&self) -> &'static str {
        self.kind.why().unwrap_or(self.meaning().why)
    }

    /// The technique that it is most probably a sign of.
    pub fn technique(&self) -> Technique {
        let by_reason = || self.meaning().technique;
        let technique = self.kind.technique().or_else(by_reason);
        technique.unwrap_or_else(|| name_channel(self.kind, &self.sample))
    }

    /// What to type next, the most urgent first.
    pub fn next_commands(&self) -> Vec<String> {
        let interface = quote(&self.interface);
        let mut commands = Vec::new();
        // The server is the victim of a forged address, or it is in quarantine already.
        let is_pointless = matches!(self.reason.known(), Some(Reason::Spoofed | Reason::Quarantined));
        if let Some(server) = &self.server
            && self.kind != Kind::Stray
            && !is_pointless
        {
            commands.push(format!("portcullis quarantine -i {interface} {}", quote(&server.name)));
        }
        commands.extend(self.explain(&interface));
        if commands.is_empty() || self.scope != Scope::Service {
            commands.push(format!("portcullis show -i {interface} drops"));
        }
        commands
    }

    /// `explain` for the packet of the sample; `None` for a packet that `explain` can't be asked about.
    fn explain(&self, interface: &str) -> Option<String> {
        let drop = &self.sample;
        let (from, to) = (drop.source?, drop.destination?);
        if drop.any_protocol || matches!(drop.reason.known(), Some(Reason::Malformed)) {
            return None;
        }
        let mut command = format!("portcullis explain -i {interface} --from {from} --to {to} ");
        if !has_ports(drop.protocol) {
            command.push_str(&drop.service());
            return Some(command);
        }
        let port = drop.destination_port.filter(|_| drop.own_port);
        let port = port.unwrap_or(if drop.own_port { 0 } else { drop.port });
        command.push_str(&format!("{}/{port}", drop.protocol_name()));
        if drop.own_port {
            command.push_str(&format!(" --sport {}", drop.port));
        }
        if drop.own_port
            && let Some(flags) = drop.tcp_flags
        {
            command.push_str(&format!(" --flags {}", show_flags(flags)));
        }
        Some(command)
    }

    /// What a sink says of a change of it, in one line: what was seen, why it matters, the technique, what
    /// to type next.
    pub fn message(&self, step: Step) -> String {
        let mut text = self.seen();
        if self.sample.presumed {
            text.push_str(match self.sample.reason.known() {
                Some(Reason::Fragment) => ", presumed to be fragments that have overtaken their first one",
                _ => ", presumed to be late answers: too many peers asked to remember them all",
            });
        }
        match step {
            Step::Opened | Step::Escalated { .. } => {
                let technique = self.technique();
                text.push_str(&format!(". {} ({} {})", self.why(), technique.id, technique.name));
                if let Some(command) = self.next_commands().first() {
                    text.push_str(&format!(". Next: {command}"));
                }
            }
            Step::Closed { folded_into: Some(id) } => text.push_str(&format!(". It goes on as #{id}")),
            Step::Closed { folded_into: None } | Step::Updated => {}
        }
        text
    }
}

/// The lead, and `A, B, C and 9 more`; an empty text for nothing.
fn list<T: PartialEq + Copy + Hash>(lead: &str, things: &Distinct<T>, show: impl Fn(&T) -> String) -> String {
    let named: Vec<String> = things.iter().take(NAMED).map(show).collect();
    let text = named.join(", ");
    match (named.len(), things.len() - named.len(), things.is_estimate()) {
        (0, ..) => String::new(),
        (_, 0, false) => format!("{lead}{text}"),
        (_, rest, false) => format!("{lead}{text} and {rest} more"),
        (_, rest, true) => format!("{lead}{text} and about {rest} more"),
    }
}

/// A word that a shell takes as one, whatever is in it: people paste these commands.
fn quote(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._:@%+,/-".contains(c);
    if !word.is_empty() && word.chars().all(plain) && !word.starts_with('-') {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Engine;
    use crate::drops::DropEvent;
    use crate::drops::example::{after_ms, syn};

    #[test]
    fn a_name_is_one_word_to_the_shell() {
        assert_eq!(quote("web-1.dmz"), "web-1.dmz");
        assert_eq!(quote("#7"), "'#7'");
        assert_eq!(quote("a'; reboot"), r"'a'\''; reboot'");
        assert_eq!(quote("-rf"), "'-rf'");
        assert_eq!(quote(""), "''");
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
            let text = opened.alarm.message(Step::Opened);
            assert!(text.contains(action) && text.contains(why), "{reason}: {text}");
            assert!(
                text.contains(&format!("({technique} ")) && text.contains(". Next: portcullis "),
                "{text}"
            );
            let text = opened.alarm.message(Step::Updated);
            assert!(text.contains(action) && !text.contains(why) && !text.contains("Next:"), "{text}");
        }
    }
}
