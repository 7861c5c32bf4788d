//! Changes of alarms as syslog messages (RFC 5424) with structured data, over the local socket, UDP, TCP or
//! TLS.

mod transport;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::audit;
use super::fields::{describe, fields, level};
use super::{Event, Matter, Sink, Site};
use crate::alarm::Change;
use crate::audit::Event as AuditEvent;
use crate::escape::escape;
use crate::host::host_name;
use crate::policy::{Alarms, SyslogTarget};
use transport::Transport;

/// Facility `daemon`.
const FACILITY: u8 = 3;
/// 32473 is the enterprise number that is reserved for documentation, so it is no other vendor's.
const STRUCTURE: &str = "portcullis@32473";
/// The longest message in a datagram, bytes. Longer ones may be cut by a receiver (RFC 5424, 6.1).
const MAX_DATAGRAM: usize = 2048;
/// The longest message in a stream that receivers accept, bytes.
const MAX_STREAMED: usize = 8192;

/// Between two looks whether the server has closed the connection.
const LOOK: Duration = Duration::from_secs(1);

/// The server of the policy's key `syslog`.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    let target = alarms.syslog.as_ref()?;
    Some(Box::new(Syslog::new(target, alarms.tls_ca.as_deref())))
}

/// A syslog server.
pub struct Syslog {
    name: String,
    transport: Transport,
    limit: usize,
}

impl Syslog {
    /// Connects when the first message comes. `ca` is a file of certificates for TLS; `None`: the system's.
    pub fn new(target: &SyslogTarget, ca: Option<&str>) -> Syslog {
        let limit = match target {
            SyslogTarget::Unix(_) | SyslogTarget::Udp(_) => MAX_DATAGRAM,
            SyslogTarget::Tcp(_) | SyslogTarget::Tls(_) => MAX_STREAMED,
        };
        Syslog { name: format!("syslog {target}"), transport: Transport::new(target, ca), limit }
    }
}

impl Sink for Syslog {
    fn name(&self) -> &str {
        &self.name
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let text = match &event.matter {
            Matter::Alarm(change) => render(change, host_name()),
            Matter::Audit(event) => render_audit(event, host_name()),
            Matter::Drop(_) | Matter::OpenAlarms(_) => return Ok(()),
        };
        self.transport.send(cut(&text, self.limit).as_bytes())
    }

    fn tick_interval(&self) -> Option<Duration> {
        self.transport.has_unsettled().then_some(LOOK)
    }

    fn tick(&mut self) -> anyhow::Result<()> {
        self.transport.settle(Instant::now())
    }

    fn finish(&mut self) {
        // A peer that closed the connection gets once more what it may not have read.
        let _ = self.transport.settle(Instant::now());
    }

    fn take_lost(&mut self) -> u64 {
        self.transport.take_lost()
    }
}

/// Renders the message of an alarm.
fn render(change: &Change, host: &str) -> String {
    let kind = change.alarm.kind().to_string();
    render_message(host, level(change), change.time, &kind, &fields(change), &describe(change))
}

/// Renders the message of an audit event.
fn render_audit(event: &AuditEvent, host: &str) -> String {
    let (level, fields) = (audit::level(event), audit::fields(event));
    render_message(host, level, event.time, "audit", &fields, &event.describe())
}

/// There is no BOM before the text, because receivers would show it.
fn render_message(
    host: &str,
    level: u8,
    time: Timestamp,
    kind: &str,
    pairs: &[(&'static str, String)],
    text: &str,
) -> String {
    let priority = FACILITY * 8 + level;
    let time = time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ");
    let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let process = std::process::id();
    let pairs: String =
        pairs.iter().map(|(name, value)| format!(" {name}=\"{}\"", escape_value(value))).collect();
    format!("<{priority}>1 {time} {host} portcullis {process} {kind} [{STRUCTURE}{pairs}] {text}")
}

/// A value ends with a quotation mark. [`escape`] has left no control character.
fn escape_value(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for letter in escape_once(value).chars() {
        if matches!(letter, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// The fields are escaped already. This is for the day when one is not.
fn escape_once(value: &str) -> std::borrow::Cow<'_, str> {
    if value.chars().any(crate::escape::is_active) { escape(value) } else { value.into() }
}

/// At most `limit` bytes, cut between letters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Step;
    use crate::alarm::example::opened_by;

    #[test]
    fn a_message_has_header_structured_data_and_text() {
        let text = render(&opened_by("web1"), "gate.example\n");
        let pid = std::process::id();
        let (head, rest) = text.split_once(" [").unwrap();
        assert_eq!(
            head.split_once('>').unwrap().1,
            format!("1 2026-11-22T15:00:00.000000Z gate.example portcullis {pid} attempt")
        );
        let (data, message) = rest.split_once("] ").unwrap();
        assert!(data.starts_with("portcullis@32473 alarm=\"1\" step=\"opened\" kind=\"attempt\""));
        assert!(data.contains("server=\"web1\"") && data.contains("destination=\"198.51.100.7\""));
        assert!(message.starts_with("alarm #1 opened: "), "{message}");
    }

    #[test]
    fn the_level_follows_the_severity_and_an_end_is_a_notice() {
        let mut change = opened_by("web1");
        let priority = |change: &Change| {
            let text = render(change, "");
            text.strip_prefix('<').unwrap().split_once('>').unwrap().0.parse::<u8>().unwrap()
        };
        change.alarm.parts[0].severity = crate::alarm::Severity::Critical;
        assert_eq!(priority(&change), 25);
        change.alarm.parts[0].severity = crate::alarm::Severity::Low;
        assert_eq!(priority(&change), 29);
        change.alarm.parts[0].severity = crate::alarm::Severity::Critical;
        change.step = Step::Closed { folded_into: None };
        assert_eq!(priority(&change), 29);
    }

    #[test]
    fn what_was_done_is_a_notice_and_what_was_refused_a_warning() {
        let mut event = crate::audit::example::quarantine_by("w\"]\n<0>1");
        let message = render_audit(&event, "gate");
        let head = "<29>1 2026-11-22T15:00:00.000000Z gate portcullis ";
        assert!(message.starts_with(head), "{message}");
        assert!(
            message.contains(" audit [portcullis@32473 audit=\"7\" action=\"quarantine\" result=\"done\""),
            "{message}"
        );
        assert!(message.contains("note=\"w\\\"\\]\\\\u{a}<0>1\""), "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
        event.result = crate::audit::Outcome::Refused;
        assert!(render_audit(&event, "gate").starts_with("<28>1 "));
    }

    #[test]
    fn a_hostile_name_ends_neither_its_value_nor_the_line() {
        let text = render(&opened_by("w\"] x=\"1\n<0>1 - - - - - - \\ \u{1b}[2J"), "a b\nc");
        assert!(!text.contains(char::is_control), "{text:?}");
        assert!(text.contains(r#"server="w\"\] x=\"1\\u{a}<0>1 - - - - - - \\\\ \\u{1b}[2J""#), "{text}");
        assert!(text.contains("Z abc portcullis "), "a host name has no spaces");
    }

    #[test]
    fn a_message_is_cut_between_letters() {
        assert_eq!(cut("aä€", 5), "aä");
        assert_eq!(cut("aä€", 6), "aä€");
        assert_eq!(cut("", 6), "");
    }
}
