//! A mail as text: what happened in the first line, and what to type. The crate lettre encodes the headers, so no
//! name can begin a header of its own.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::SystemTime;

use jiff::Timestamp;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::{Address, Message};

use crate::alarm::{Alarm, Change};
use crate::audit::Event as AuditEvent;
use crate::clock::wall_now;
use crate::escape::escape;
use crate::host::host_name;

/// Folded alarms that a mail lists. The others are counted.
const MAX_LISTED: usize = 50;
/// The longest subject, characters.
const MAX_SUBJECT: usize = 200;

/// Alarms that had no mail of their own, because there were too many.
#[derive(Clone, Debug, Default)]
pub(super) struct Folded {
    lines: Vec<String>,
    pub(super) count: u64,
    /// What was done to the gate since the last mail, the latest last.
    audit: VecDeque<String>,
    /// How many more there were before.
    audit_left_out: u64,
}

impl Folded {
    pub(super) fn add(&mut self, change: &Change) {
        self.count += 1;
        if self.lines.len() < MAX_LISTED {
            self.lines.push(format!("{:.0} {}", change.time, describe_briefly(change)));
        }
    }

    pub(super) fn add_audit(&mut self, event: &AuditEvent) {
        if self.audit.len() >= MAX_LISTED {
            self.audit.pop_front();
            self.audit_left_out += 1;
        }
        self.audit.push_back(format!("{:.0} {}", event.time, event.describe()));
    }

    /// Whoever reads of an alarm may want to know what was done just before.
    fn write_audit(&self, text: &mut String) {
        if self.audit.is_empty() {
            return;
        }
        let _ = writeln!(text, "\ndone to the gate since the last mail:");
        if self.audit_left_out > 0 {
            let _ =
                writeln!(text, "  {} events that `portcullis show audit` lists, then", self.audit_left_out);
        }
        for line in &self.audit {
            let _ = writeln!(text, "  {line}");
        }
    }

    fn write(&self, text: &mut String) {
        for line in &self.lines {
            let _ = writeln!(text, "  {line}");
        }
        let more = self.count.saturating_sub(self.lines.len() as u64);
        if more > 0 {
            let _ = writeln!(text, "  and {more} more: portcullis alarms lists them");
        }
    }
}

/// The id of a change's mail, the same for each attempt, so that a mail that was sent twice shows.
pub(super) fn identify(change: &Change) -> String {
    make_id(&change.alarm, change.step.name(), change.time)
}

/// The mail of a change. Those about one alarm refer to the same id, so programs show them together.
pub(super) fn render(
    change: &Change,
    folded: &Folded,
    from: &Address,
    to: &[Address],
) -> anyhow::Result<Vec<u8>> {
    let alarm = &change.alarm;
    let subject = describe_briefly(change);
    let builder = address(&subject, &alarm.interface, from, to)?
        .message_id(Some(identify(change)))
        .references(make_id(alarm, "alarm", alarm.first));
    let mut text = format!("{}\n\n", escape(&alarm.seen()));
    let mut add = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:10}{}", escape(value));
    };
    add("gate", &format!("{} on {}", alarm.interface, host_name()));
    add("alarm", &format!("#{}, {} at {:.0}", alarm.id, change.step.name(), change.time));
    add("severity", &format!("{}, kind {}", alarm.severity(), alarm.kind()));
    add("why", alarm.why());
    let technique = alarm.technique();
    add("technique", &format!("{} {}", technique.id, technique.name));
    if !change.news.is_empty() {
        add("news", &change.news);
    }
    text.push_str("\nnext:\n");
    for command in alarm.next_commands() {
        let _ = writeln!(text, "  {}", escape(&command));
    }
    if folded.count > 0 {
        let _ = writeln!(text, "\nbefore this one, without a mail of their own:");
        folded.write(&mut text);
    }
    folded.write_audit(&mut text);
    Ok(builder.body(text)?.formatted())
}

/// A mail about alarms that had none of their own.
pub(super) fn render_folded(
    folded: &Folded,
    interface: &str,
    from: &Address,
    to: &[Address],
) -> anyhow::Result<Vec<u8>> {
    let subject = format!("{} more alarms", folded.count);
    let mut text = format!("{} alarms had no mail of their own, because there were so many:\n", folded.count);
    folded.write(&mut text);
    folded.write_audit(&mut text);
    let _ = writeln!(text, "\nnext:\n  portcullis alarms -i {}", escape(interface));
    let id = format!("<portcullis.{}.summary@{}>", wall_now().as_nanosecond(), domain(host_name()));
    Ok(address(&subject, interface, from, to)?.message_id(Some(id)).body(text)?.formatted())
}

fn describe_briefly(change: &Change) -> String {
    let alarm = &change.alarm;
    let text = format!(
        "#{} {}: {} {}: {}",
        alarm.id,
        change.step.name(),
        alarm.severity(),
        alarm.kind(),
        alarm.seen()
    );
    escape(&text).into_owned()
}

fn address(subject: &str, interface: &str, from: &Address, to: &[Address]) -> anyhow::Result<MessageBuilder> {
    let subject = format!("[portcullis] {} {} {subject}", escape(host_name()), escape(interface));
    let subject: String = subject.chars().take(MAX_SUBJECT).collect();
    let mut builder = Message::builder()
        .from(Mailbox::new(None, from.clone()))
        .date(SystemTime::from(wall_now()))
        .subject(subject)
        // no out-of-office answers
        .raw_header(header("Auto-Submitted", "auto-generated")?);
    for recipient in to {
        builder = builder.to(Mailbox::new(None, recipient.clone()));
    }
    Ok(builder)
}

fn header(name: &str, value: &str) -> anyhow::Result<HeaderValue> {
    let name = HeaderName::new_from_ascii(name.to_owned())?;
    Ok(HeaderValue::new(name, value.to_owned()))
}

fn make_id(alarm: &Alarm, step: &str, time: Timestamp) -> String {
    let interface: String = alarm.interface.chars().filter(char::is_ascii_alphanumeric).collect();
    let time = time.as_nanosecond();
    format!("<portcullis.{interface}.{}.{step}.{time}@{}>", alarm.id, domain(host_name()))
}

/// A host's name as mail servers take it.
pub(super) fn domain(host: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let name: String = host.chars().filter(plain).take(255).collect();
    let name = name.trim_matches(['.', '-']);
    if name.is_empty() { "localhost".to_owned() } else { name.to_owned() }
}
