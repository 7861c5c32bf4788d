//! One line on standard error for each change of an alarm and each audit event. Drops are not shown, because there are too many.

use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context as _;

use super::fields::describe;
use super::{Event, Matter, Sink, Site};
use crate::alarm::{Change, Severity, Step};
use crate::escape::escape;
use crate::host::host_name;
use crate::policy::Alarms;
use crate::stderr;

/// How long the reader may take for a line.
const PATIENCE: Duration = Duration::from_secs(10);

const RESET: &str = "\x1b[0m";

/// Every policy has it.
pub(super) fn from_policy(_: &Alarms, site: Site<'_>) -> Option<Box<dyn Sink>> {
    Some(Box::new(Stderr::new(site.colour)))
}

/// Standard error.
#[derive(Debug)]
pub(super) struct Stderr {
    colour: bool,
}

impl Stderr {
    /// With colours or without.
    pub(super) fn new(colour: bool) -> Stderr {
        Stderr { colour }
    }
}

impl Sink for Stderr {
    fn name(&self) -> &str {
        "stderr"
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let mut line = match &event.matter {
            Matter::Alarm(change) => render_line(change, self.colour),
            Matter::Audit(event) => event.render_line(),
            Matter::Drop(_) | Matter::OpenAlarms(_) => return Ok(()),
        };
        line.push('\n');
        match stderr::write_out(line.as_bytes(), Some(PATIENCE)) {
            Ok(()) => Ok(()),
            Err(ErrorKind::TimedOut) => anyhow::bail!("nothing reads standard error"),
            Err(kind) => Err(std::io::Error::from(kind)).context("cannot write to standard error"),
        }
    }
}

/// The line of a change, without its end: time, host and interface, step, severity and kind, and the alarm's
/// message.
pub fn render_line(change: &Change, colour: bool) -> String {
    let (time, text) = (change.time, describe(change));
    let (host, interface) = (escape(host_name()), escape(&change.alarm.interface));
    let text = format!("{time:.0} {host} {interface} {text}");
    if !colour {
        return text;
    }
    let paint = match (change.step, change.alarm.severity()) {
        (Step::Closed { .. }, _) => "\x1b[2m",
        (_, Severity::Critical) => "\x1b[1;31m",
        (_, Severity::High) => "\x1b[31m",
        (_, Severity::Medium) => "\x1b[33m",
        (_, Severity::Low) => "\x1b[36m",
    };
    // The head ends at the second colon that a space follows: `TIME HOST IF alarm #1 opened: low stray:`.
    let end = text.match_indices(": ").nth(1).map_or(text.len(), |(at, _)| at + 1);
    let (head, rest) = text.split_at(end);
    format!("{paint}{head}{RESET}{rest}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::example::opened_by;
    use crate::drops::DropVerdict;

    #[test]
    fn a_line_says_who_did_what_and_what_to_do() {
        assert_eq!(
            render_line(&opened_by("web1"), false),
            "2026-11-22T15:00:00Z gate.example dmz0 alarm #1 opened: critical attempt: web1 tried tcp/445 to \
             198.51.100.7 (1 packet dropped since 2026-11-22T15:00:00Z). Servers in a DMZ answer and \
             rarely open connections, so this is an early sign of a takeover (T1071 Application Layer \
             Protocol). Next: portcullis quarantine -i dmz0 web1"
        );
    }

    #[test]
    fn a_hostile_name_stays_on_its_line_and_out_of_the_terminal() {
        let line = render_line(&opened_by("web\u{1b}]0;x\u{7}\n\u{9b}1"), false);
        assert!(!line.contains(char::is_control), "{line:?}");
        assert!(line.contains("web\\u{1b}]0;x\\u{7}\\u{a}\\u{9b}1"));
    }

    #[test]
    fn colour_appears_only_when_asked_for_and_follows_the_severity() {
        let change = opened_by("web1");
        assert!(!render_line(&change, false).contains('\x1b'));
        assert!(render_line(&change, true).starts_with("\x1b[1;31m"));
        assert_eq!(render_line(&change, true).matches('\x1b').count(), 2);
    }

    #[test]
    fn a_packet_that_passed_is_not_called_dropped() {
        let mut change = opened_by("web1");
        change.alarm.parts[0].verdict = Some(DropVerdict::WouldDrop);
        assert!(render_line(&change, false).contains("(1 packet NOT dropped in mode observe since "));
    }
}
