//! What an alarm says for itself: what was seen, why it matters, what to type next.
//!
//! Names may come from anywhere; whoever prints these texts escapes them.

use std::borrow::Cow;
use std::net::IpAddr;

use super::{Alarm, Kind, Scope, Step};
use crate::abi::Reason;
use crate::drops::DropVerdict;
use crate::net::has_ports;
use crate::net::show_mac;

/// How many of several are named in a text.
const NAMED: usize = 3;

impl Alarm {
    /// The server, or what stands for it.
    pub fn who(&self) -> &str {
        match (&self.server, self.scope) {
            (Some(server), _) => &server.name,
            (None, Scope::Everything) => "several servers",
            (None, _) => "no known server",
        }
    }

    /// What was seen, in one sentence without a full stop: who did what, where to, how often
    /// and since when.
    pub fn seen(&self) -> String {
        let mut text = format!("{} {}", self.who(), self.deed());
        if self.while_away {
            text.push_str(", in part while no daemon listened");
        }
        let times = match self.packets {
            1 => "1 packet".to_owned(),
            packets => format!("{packets} packets"),
        };
        let fate = match self.verdict {
            DropVerdict::Drop => "dropped",
            DropVerdict::WouldDrop => "NOT dropped (mode observe)",
        };
        text.push_str(&format!("; {times} {fate} since {:.0}", self.first));
        if !self.response.is_empty() {
            text.push_str(&format!("; {}", self.response));
        }
        text
    }

    /// What it did, and where to.
    fn deed(&self) -> String {
        let service = self.sample.service();
        let to = self.to();
        match (self.scope, self.kind) {
            (Scope::Server, _) => {
                return format!("does more than can be told apart, of late {service}{to}");
            }
            (Scope::Everything, _) => {
                return format!("do more than can be told apart, of late {service}{to}");
            }
            _ => {}
        }
        match self.kind {
            Kind::Scan => format!("tried {} of {}", self.count_ports(), self.list_destinations()),
            Kind::Backdoor => {
                format!("answers on {service}, which it should not have{}", self.answered())
            }
            Kind::Callback => {
                let called = self.called.map_or_else(String::new, |address| format!(" at {address}"));
                format!("calls {service}{called} again and again")
            }
            Kind::Spread => {
                format!("tried {service} at one destination after another: {}", self.list_destinations())
            }
            Kind::Burst => format!("opens more {service} than its limit allows{to}"),
            Kind::Fetch => format!("tried to download by {service}{to}"),
            Kind::Stray => format!("sent segments that belong to no flow{to}"),
            Kind::Attempt | Kind::Spoof => self.deed_by_reason(&service, &to),
        }
    }

    fn deed_by_reason(&self, service: &str, to: &str) -> String {
        let claimed = self.name_some(self.sources.iter().map(IpAddr::to_string).collect());
        let macs = self.name_some(self.source_macs.iter().map(show_mac).collect());
        let from_mac = if macs.is_empty() { String::new() } else { format!(" by {macs}") };
        match self.reason.known() {
            Some(Reason::UnknownSource) => {
                format!("has the source address {claimed}, sent{from_mac}{to}")
            }
            Some(Reason::Spoofed) => format!(
                "is not where its address {claimed} came from{from_mac}{to}: \
                 the MAC address or the VLAN is another"
            ),
            Some(Reason::RogueRouter) => {
                format!("played router: {service}{from_mac}{to}")
            }
            Some(Reason::SourceRoute) => format!("sent source-routed packets{from_mac}{to}"),
            Some(Reason::Malformed) => {
                format!("sent packets that no stack sends{from_mac}{to}")
            }
            Some(Reason::Fragment) => {
                format!("sent fragments without a permitted beginning{to}")
            }
            Some(Reason::Ethertype) => {
                format!("sent frames that are not IP ({service}){from_mac}")
            }
            Some(Reason::Quarantined) => format!("is in quarantine and still sends {service}{to}"),
            Some(Reason::Destination) => {
                format!("tried {service}, which it may do elsewhere{to}")
            }
            Some(Reason::Protocol) => format!("sent the protocol {service}{to}"),
            Some(Reason::NewFlow) => format!("tried {service}{to}"),
            _ => format!("tried {service}{to}, dropped as {}", self.reason),
        }
    }

    /// ` to A, B, C and 9 more`, or nothing.
    fn to(&self) -> String {
        if self.destinations.is_empty() {
            return String::new();
        }
        format!(" to {}", self.list_destinations())
    }

    /// `A, B, C and 9 more`.
    fn list_destinations(&self) -> String {
        let named = self.destinations.iter().take(NAMED);
        let named: Vec<String> = named.map(IpAddr::to_string).collect();
        let rest = self.destinations.len() - named.len();
        let text = named.join(", ");
        match (rest, self.destinations.is_estimate()) {
            (0, false) => text,
            (rest, false) => format!("{text} and {rest} more"),
            (rest, true) => format!("{text} and about {rest} more"),
        }
    }

    fn answered(&self) -> String {
        let to = self.to();
        if to.is_empty() { to } else { format!(", and sent the answers{to}") }
    }

    fn count_ports(&self) -> String {
        let about = if self.ports.is_estimate() { "about " } else { "" };
        format!("{about}{} ports", self.ports.len())
    }

    fn name_some(&self, names: Vec<String>) -> String {
        match names.len().checked_sub(NAMED) {
            Some(rest @ 1..) => format!("{} and {rest} more", names[..NAMED].join(", ")),
            _ => names.join(", "),
        }
    }

    /// Why it matters, in one sentence without a full stop.
    pub fn why(&self) -> &'static str {
        match self.kind {
            Kind::Stray => {
                "idle connections end this way, but so does a channel that hides in segments \
                 of no connection"
            }
            Kind::Burst => {
                "a server that suddenly opens far more than usual is likely to send somebody \
                 else's mail, queries or flood"
            }
            Kind::Fetch => "a server that has no need to download and does so fetches an intruder's tools",
            Kind::Callback => {
                "a program that calls one place again and again waits for orders: a reverse shell"
            }
            Kind::Scan => "whoever tries port after port looks for the next victim",
            Kind::Backdoor => "something listens that no role has: a bind shell",
            Kind::Spread => {
                "one port at destination after destination is a worm that looks for its next host"
            }
            Kind::Attempt | Kind::Spoof => match self.reason.known() {
                Some(Reason::UnknownSource) => {
                    "a machine that the policy does not know, or a forged address as floods have"
                }
                Some(Reason::Spoofed) => {
                    "somebody speaks with another server's address, and gets what that one may do"
                }
                Some(Reason::RogueRouter) => {
                    "who plays router on the link reads and alters what its neighbours send"
                }
                Some(Reason::SourceRoute) => {
                    "a source route takes packets and their answers past the filters in between"
                }
                Some(Reason::Malformed | Reason::Fragment) => {
                    "what can't be understood is a way around filters, or a channel of its own"
                }
                Some(Reason::Ethertype | Reason::Protocol) => {
                    "a protocol that nobody needs here is a channel that nobody watches"
                }
                Some(Reason::Quarantined) => {
                    "what it sends in quarantine shows what runs on it, and that it still runs"
                }
                Some(Reason::Destination) => {
                    "a need that is used for another place is how a permitted port becomes a \
                     channel; or the place has moved, and the policy has not"
                }
                _ => {
                    "servers of a DMZ answer and hardly ever call: this is the first sign that \
                     one was taken over"
                }
            },
        }
    }

    /// What to type next, the most pressing first.
    pub fn next_commands(&self) -> Vec<String> {
        let interface = quote(&self.interface);
        let mut commands = Vec::new();
        let victim = self.kind == Kind::Spoof && self.reason.known() == Some(Reason::Spoofed);
        let already = self.reason.known() == Some(Reason::Quarantined);
        if let Some(server) = &self.server
            && self.kind != Kind::Stray
            && !victim
            && !already
        {
            commands.push(format!("portcullis quarantine -i {interface} {}", quote(&server.name)));
        }
        commands.extend(self.explain(&interface));
        if commands.is_empty() || self.scope != Scope::Service {
            commands.push(format!("portcullis show -i {interface} drops"));
        }
        commands
    }

    /// `explain` for the packet of the sample; `None` for what `explain` can't be asked.
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
            command.push_str(&format!(" --flags {}", name_flags(flags)));
        }
        Some(command)
    }

    /// What a change of it says, in one line: severity, kind, what was seen, why, the
    /// technique, what to type next.
    pub fn tell(&self, step: Step) -> String {
        let technique = self.technique();
        let how = match step {
            Step::Closed { folded_into: Some(id) } => format!("; goes on as #{id}"),
            _ => String::new(),
        };
        let next = match (step, self.next_commands().first()) {
            (Step::Opened | Step::Escalated { .. }, Some(command)) => format!("; next: {command}"),
            _ => String::new(),
        };
        let why = match step {
            Step::Opened | Step::Escalated { .. } => {
                format!("; {} ({} {})", self.why(), technique.id, technique.name)
            }
            _ => String::new(),
        };
        format!("{}{how}{why}{next}", self.seen())
    }
}

/// The letters that `--flags` takes.
fn name_flags(flags: u8) -> String {
    let letters = ['F', 'S', 'R', 'P', 'A', 'U'];
    let set = letters.iter().enumerate().filter(|(bit, _)| flags & (1 << bit) != 0);
    set.map(|(_, letter)| letter).collect()
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
    fn flags_are_letters() {
        assert_eq!(name_flags(0x12), "SA");
        assert_eq!(name_flags(0xc2), "S", "`explain` knows no ECN bits");
        assert_eq!(name_flags(0), "");
    }

    #[test]
    fn each_reason_says_what_was_done_and_why_it_matters() {
        let cases = [
            (Reason::UnknownSource, "has the source address 192.0.2.10", "policy does not know", "T1498"),
            (Reason::Spoofed, "is not where its address 192.0.2.10", "another server's address", "T1557"),
            (Reason::RogueRouter, "played router: tcp/445", "plays router on the link", "T1557"),
            (Reason::SourceRoute, "sent source-routed packets", "past the filters in between", "T1599"),
            (Reason::Malformed, "sent packets that no stack sends", "a way around filters", "T1095"),
            (Reason::Fragment, "sent fragments without a permitted", "a way around filters", "T1095"),
            (Reason::Ethertype, "frames that are not IP (ethernet/0x01bd)", "nobody watches", "T1095"),
            (Reason::Protocol, "sent the protocol tcp/445", "nobody watches", "T1095"),
            (Reason::Quarantined, "is in quarantine and still sends tcp/445", "it still runs", "T1071"),
            (Reason::Destination, "tried tcp/445, which it may do elsewhere", "another place", "T1071"),
            (Reason::NewFlow, "tried tcp/445 to 198.51.100.7", "hardly ever call", "T1071"),
        ];
        for (reason, deed, why, technique) in cases {
            let drop = DropEvent { reason: reason.into(), ..syn() };
            let changes = Engine::default().observe(&drop, after_ms(0));
            let [opened] = &changes[..] else { panic!("{reason}: one alarm, not {changes:?}") };
            let text = opened.alarm.tell(Step::Opened);
            assert!(text.contains(deed) && text.contains(why), "{reason}: {text}");
            assert!(
                text.contains(&format!("({technique} ")) && text.contains("; next: portcullis "),
                "{text}"
            );
            let text = opened.alarm.tell(Step::Updated);
            assert!(text.contains(deed) && !text.contains(why) && !text.contains("next:"), "{text}");
        }
    }
}
