//! Lines in the Common Event Format (version 0), which many SIEMs read.

use std::fmt::{Display, Write as _};
use std::net::IpAddr;

use jiff::Timestamp;

use super::audit::is_notable;
use super::fields::signature;
use super::lines::Lines;
use super::{Event, Matter, Sink, Site};
use crate::alarm::{Change, Severity};
use crate::audit::{Event as AuditEvent, Outcome};
use crate::drops::{DropEvent, DropVerdict};
use crate::escape::escape;
use crate::host::host_name;
use crate::net::show_mac;
use crate::policy::Alarms;

/// The signature of a drop: `drop/` and the number of the reason.
const DROP_CLASS: &str = "drop";

/// The file of the policy's key `cef`.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    let path = alarms.cef.as_deref()?;
    Some(Box::new(Lines::new("cef", path, alarms, render)))
}

/// The line of an event, without its end: a drop or a change of an alarm.
fn render(event: &Event) -> anyhow::Result<String> {
    Ok(match &event.matter {
        Matter::Drop(drop) => render_drop(drop),
        Matter::Alarm(change) => render_alarm(change),
        Matter::Audit(event) => render_audit(event),
        Matter::OpenAlarms(_) => String::new(),
    })
}

/// A line that is being written.
struct CefLine(String);

impl CefLine {
    fn new(class: &str, name: &str, severity: u8) -> CefLine {
        let (class, name) = (escape_header(class), escape_header(name));
        let version = env!("CARGO_PKG_VERSION");
        CefLine(format!("CEF:0|portcullis|portcullis|{version}|{class}|{name}|{severity}|"))
    }

    fn add(&mut self, key: &str, value: impl Display) {
        if !self.0.ends_with('|') {
            self.0.push(' ');
        }
        let value = escape_value(&value.to_string());
        // writing to a String can't fail
        let _ = write!(self.0, "{key}={value}");
    }

    fn add_some(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(key, value);
        }
    }

    fn add_labelled(&mut self, key: &str, label: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.add(key, value);
            self.add(&format!("{key}Label"), label);
        }
    }

    /// CEF has other keys for IPv6.
    fn add_address(&mut self, v4: &str, v6: &str, label: &str, address: Option<IpAddr>) {
        match address {
            Some(IpAddr::V4(address)) => self.add(v4, address),
            Some(IpAddr::V6(address)) => self.add_labelled(v6, label, Some(address)),
            None => {}
        }
    }

    fn add_gate(&mut self, interface: &str) {
        self.add("dvchost", host_name());
        self.add("deviceInboundInterface", interface);
    }

    fn add_packet(&mut self, drop: &DropEvent) {
        self.add_address("src", "c6a2", "Source IPv6 Address", drop.source);
        self.add_address("dst", "c6a3", "Destination IPv6 Address", drop.destination);
        self.add_some("spt", drop.source_port);
        self.add_some("dpt", drop.destination_port);
        self.add_some("dhost", drop.looked_up.as_ref());
        self.add("proto", drop.protocol_name());
        self.add_some("smac", drop.source_mac.map(|mac| show_mac(&mac)));
        self.add_some("dmac", drop.destination_mac.map(|mac| show_mac(&mac)));
    }
}

/// The line of a drop, without its end.
fn render_drop(drop: &DropEvent) -> String {
    let class = format!("{DROP_CLASS}/{}", drop.reason.number());
    let mut line = CefLine::new(&class, &format!("portcullis drop: {}", drop.reason), 3);
    line.add("rt", millis(drop.time));
    line.add("start", millis(drop.since));
    line.add("end", millis(drop.time));
    line.add("act", act(drop.verdict));
    line.add("cnt", drop.drops);
    line.add("reason", drop.reason);
    line.add_gate(&drop.interface);
    line.add_packet(drop);
    line.add_labelled("cs1", "server", drop.server_name());
    line.add_labelled("cs2", "service", Some(drop.service()));
    line.0
}

/// The line of a change of an alarm, without its end. Its packet is the alarm's sample.
fn render_alarm(change: &Change) -> String {
    let alarm = &change.alarm;
    let kind = alarm.kind();
    let class = kind.signature_id().to_string();
    let mut line = CefLine::new(&class, &signature(kind), severity(alarm.severity()));
    line.add("rt", millis(change.time));
    line.add("start", millis(alarm.first));
    line.add("end", millis(alarm.last));
    line.add_some("act", alarm.verdict().map(act));
    line.add("cnt", alarm.packets);
    line.add("cat", kind.category());
    line.add("externalId", alarm.id);
    line.add_some("reason", alarm.reason());
    line.add_gate(&alarm.interface);
    if let Some(sample) = alarm.sample() {
        line.add_packet(sample);
    }
    line.add_labelled("cs1", "server", alarm.server.as_ref().map(|server| &server.name));
    line.add_labelled("cs2", "service", Some(alarm.service()));
    line.add_labelled("cs3", "step", Some(change.step.name()));
    line.add_labelled("cs4", "technique", Some(alarm.technique().id));
    line.add_labelled("cs5", "next", alarm.next_commands().first());
    line.add_labelled("cs6", "mode", alarm.mode());
    line.add_labelled("cn1", "parts", Some(alarm.parts.len()));
    line.add("msg", change.message());
    line.0
}

/// The class of an audit event begins with `audit/`. Users and processes have the keys of the source.
fn render_audit(event: &AuditEvent) -> String {
    let action = event.action.name();
    let severity = if is_notable(event) { 5 } else { 3 };
    let mut line = CefLine::new(&format!("audit/{action}"), &format!("portcullis audit: {action}"), severity);
    let who = &event.who;
    line.add("rt", millis(event.time));
    line.add("act", action);
    line.add(
        "outcome",
        match event.result {
            Outcome::Done => "success",
            Outcome::Refused => "failure",
        },
    );
    line.add("externalId", event.seq);
    line.add_some("reason", event.why.as_ref());
    line.add("dvchost", &event.host);
    line.add("deviceInboundInterface", &event.interface);
    line.add_some("suser", who.sudo_user.as_ref().or(who.login.as_ref()));
    line.add("suid", who.login_uid.unwrap_or(who.uid));
    line.add("spid", who.pid);
    line.add("sproc", &who.command);
    line.add_address("src", "c6a2", "Source IPv6 Address", who.ssh_client);
    line.add_some("fname", event.file.as_ref());
    line.add_labelled("cs1", "subject", event.subject.as_ref());
    line.add_labelled("cs2", "note", event.note.as_ref());
    line.add_labelled("cs3", "hash", event.after.as_ref().map(|mark| &mark.hash));
    line.add_labelled("cs4", "hashBefore", event.before.as_ref().map(|mark| &mark.hash));
    line.add_labelled("cn1", "generation", event.after.as_ref().map(|mark| mark.generation));
    line.add_labelled("cn2", "generationBefore", event.before.as_ref().map(|mark| mark.generation));
    line.add("msg", event.describe());
    line.0
}

fn act(verdict: DropVerdict) -> &'static str {
    match verdict {
        DropVerdict::Drop => "blocked",
        DropVerdict::WouldDrop => "allowed",
    }
}

/// 0 to 10.
fn severity(severity: Severity) -> u8 {
    match severity {
        Severity::Low => 3,
        Severity::Medium => 5,
        Severity::High => 8,
        Severity::Critical => 10,
    }
}

fn millis(time: Timestamp) -> i64 {
    time.as_millisecond()
}

/// In the header a bar ends a field. [`escape`] leaves no line end.
fn escape_header(text: &str) -> String {
    escape(text).replace('\\', "\\\\").replace('|', "\\|")
}

/// After the header an equals sign ends a key.
fn escape_value(text: &str) -> String {
    escape(text).replace('\\', "\\\\").replace('=', "\\=")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::alarm::example::{opened_by, opened_with};
    use crate::audit::example::quarantine_by;
    use crate::drops::ServerRef;
    use crate::drops::example::syn;

    /// Reads a line as a SIEM does: seven fields, then keys and values.
    fn read(line: &str) -> (Vec<String>, HashMap<String, String>) {
        assert!(!line.contains(char::is_control), "{line:?}");
        let mut head = vec![String::new()];
        let mut letters = line.chars();
        while head.len() < 8 {
            match letters.next().expect("seven bars") {
                '\\' => head.last_mut().unwrap().extend(letters.next()),
                '|' => head.push(String::new()),
                letter => head.last_mut().unwrap().push(letter),
            }
        }
        head.pop();
        // a key is the word before an equals sign that is not escaped
        let mut pairs: Vec<(String, String)> = Vec::new();
        let mut text = String::new();
        while let Some(letter) = letters.next() {
            match letter {
                '\\' => text.extend(letters.next()),
                '=' => {
                    let (value, key) = text.rsplit_once(' ').unwrap_or(("", &text));
                    if let Some(last) = pairs.last_mut() {
                        last.1 = value.to_owned();
                    }
                    pairs.push((key.to_owned(), String::new()));
                    text.clear();
                }
                letter => text.push(letter),
            }
        }
        pairs.last_mut().unwrap().1 = text;
        let count = pairs.len();
        let pairs: HashMap<String, String> = pairs.into_iter().collect();
        assert_eq!(pairs.len(), count, "a key stands twice");
        (head, pairs)
    }

    #[test]
    fn a_drop_has_the_keys_of_the_dictionary() {
        let (head, pairs) = read(&render_drop(&syn()));
        assert_eq!(head[..3], ["CEF:0", "portcullis", "portcullis"]);
        assert_eq!(head[4..], ["drop/47", "portcullis drop: new_flow", "3"]);
        for (key, value) in [
            ("rt", "1795359600000"),
            ("act", "blocked"),
            ("src", "192.0.2.10"),
            ("spt", "40000"),
            ("dst", "198.51.100.7"),
            ("dpt", "445"),
            ("proto", "tcp"),
            ("smac", "02:00:00:00:00:10"),
            ("dvchost", "gate.example"),
            ("deviceInboundInterface", "dmz0"),
            ("cnt", "1"),
            ("cs1", "web1"),
            ("cs1Label", "server"),
        ] {
            assert_eq!(pairs[key], value, "{key}");
        }
    }

    #[test]
    fn ipv6_addresses_have_keys_of_their_own() {
        let mut drop = syn();
        drop.source = Some("2001:db8:1::10".parse().unwrap());
        drop.destination = Some("2001:db8::7".parse().unwrap());
        let (_, pairs) = read(&render_drop(&drop));
        assert!(!pairs.contains_key("src") && !pairs.contains_key("dst"));
        assert_eq!((&*pairs["c6a2"], &*pairs["c6a2Label"]), ("2001:db8:1::10", "Source IPv6 Address"));
        assert_eq!(pairs["c6a3"], "2001:db8::7");
    }

    #[test]
    fn an_alarm_says_what_was_seen_and_what_to_type() {
        let change = opened_by("web1");
        let (head, pairs) = read(&render_alarm(&change));
        assert_eq!(head[4], "1");
        assert_eq!((&*pairs["externalId"], &*pairs["cs3"]), ("1", "opened"));
        assert!(pairs["msg"].starts_with("web1 tried tcp/445 to 198.51.100.7"));
        assert_eq!(pairs["cs5"], "portcullis quarantine -i dmz0 web1");
    }

    #[test]
    fn what_was_done_has_a_class_of_its_own_and_its_user() {
        let name = "w|\n x=y suser=root";
        let (head, pairs) = read(&render_audit(&quarantine_by(name)));
        assert_eq!(head[4..], ["audit/quarantine", "portcullis audit: quarantine", "3"]);
        for (key, value) in [
            ("act", "quarantine"),
            ("outcome", "success"),
            ("suser", r"w|\u{a} x=y suser=root"),
            ("suid", "1000"),
            ("src", "203.0.113.7"),
            ("cn1", "3"),
            ("cs1Label", "subject"),
            ("externalId", "7"),
        ] {
            assert_eq!(pairs[key], value, "{key}");
        }
    }

    #[test]
    fn a_hostile_name_adds_no_field_and_no_line() {
        let mut drop = syn();
        let name = "w\n\rCEF:0|x|y|1|2|z|10|act=allowed \u{1b}[2J \\=| src=203.0.113.9";
        drop.server = Some(ServerRef { id: 1, name: name.into() });
        drop.interface = "a|b=c".into();
        let (_, pairs) = read(&render_drop(&drop));
        assert_eq!((&*pairs["act"], &*pairs["src"]), ("blocked", "192.0.2.10"));
        assert_eq!(pairs["deviceInboundInterface"], "a|b=c");
        assert_eq!(pairs["cs1"], r"w\u{a}\u{d}CEF:0|x|y|1|2|z|10|act=allowed \u{1b}[2J \\=| src=203.0.113.9");
        let change = opened_with(&drop);
        let (_, pairs) = read(&render_alarm(&change));
        assert_eq!((&*pairs["act"], &*pairs["src"]), ("blocked", "192.0.2.10"));
    }
}
