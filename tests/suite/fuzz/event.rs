//! What happens to a gate, one thing after the other, and the text that a corpus keeps of it.

use std::fmt::{self, Write as _};

/// One thing that happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A frame from the DMZ.
    From(Vec<u8>),
    /// A frame on its way to the DMZ.
    To(Vec<u8>),
    /// Time goes by: so many seconds, and [`JUMP_PART_NS`].
    Wait(u64),
    /// Another policy goes live.
    Swap(String),
    /// A server is cut off, for so many seconds or until it is released.
    Quarantine(String, Option<u32>),
    Release(String),
    /// Flows are taken over for so many seconds from now on.
    Pickup(u32),
    /// The router's NIC has this MAC.
    OwnMac([u8; 6]),
}

/// A policy, and what happens while it is live and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sequence {
    pub policy: String,
    pub events: Vec<Event>,
}

/// Added to each wait: timeouts are whole seconds, so that no entry comes to be as old as its
/// timeout to the millisecond, where the two clocks could differ by a tick.
pub const JUMP_PART_NS: u64 = 370_000_000;

const POLICY: &str = "policy";
const LINE: &str = "| ";

impl fmt::Display for Sequence {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_policy(out, &self.policy)?;
        for event in &self.events {
            writeln!(out, "{event}")?;
        }
        Ok(())
    }
}

fn write_policy(out: &mut fmt::Formatter<'_>, policy: &str) -> fmt::Result {
    out.write_str(POLICY)?;
    for line in policy.lines() {
        write!(out, "\n{LINE}{line}")?;
    }
    out.write_char('\n')
}

impl fmt::Display for Event {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::From(frame) => write!(out, "from {}", to_hex(frame)),
            Event::To(frame) => write!(out, "to {}", to_hex(frame)),
            Event::Wait(seconds) => write!(out, "wait {seconds}"),
            Event::Swap(policy) => {
                out.write_str(POLICY)?;
                policy.lines().try_for_each(|line| write!(out, "\n{LINE}{line}"))
            }
            Event::Quarantine(server, None) => write!(out, "quarantine {server}"),
            Event::Quarantine(server, Some(seconds)) => write!(out, "quarantine {server} {seconds}"),
            Event::Release(server) => write!(out, "release {server}"),
            Event::Pickup(seconds) => write!(out, "pickup {seconds}"),
            Event::OwnMac(mac) => write!(out, "own {}", to_hex(mac)),
        }
    }
}

/// Reads what `Display` has written. Lines that begin with `#` are for people.
pub fn read_sequence(text: &str) -> Result<Sequence, String> {
    let mut policy = None;
    let mut events = Vec::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).peekable();
    while let Some(line) = lines.next() {
        if line == POLICY {
            let mut text = String::new();
            while let Some(line) = lines.next_if(|line| line.starts_with(LINE.trim_end())) {
                text.push_str(line.strip_prefix(LINE).unwrap_or_default());
                text.push('\n');
            }
            match policy {
                None => policy = Some(text),
                Some(_) => events.push(Event::Swap(text)),
            }
        } else {
            events.push(read_event(line).ok_or_else(|| format!("`{line}` is no event"))?);
        }
    }
    Ok(Sequence { policy: policy.ok_or("no policy")?, events })
}

fn read_event(line: &str) -> Option<Event> {
    let words: Vec<&str> = line.split_whitespace().collect();
    Some(match *words.as_slice() {
        ["from", hex] => Event::From(from_hex(hex)?),
        ["to", hex] => Event::To(from_hex(hex)?),
        ["wait", seconds] => Event::Wait(seconds.parse().ok()?),
        ["quarantine", server] => Event::Quarantine(server.to_owned(), None),
        ["quarantine", server, seconds] => Event::Quarantine(server.to_owned(), Some(seconds.parse().ok()?)),
        ["release", server] => Event::Release(server.to_owned()),
        ["pickup", seconds] => Event::Pickup(seconds.parse().ok()?),
        ["own", mac] => Event::OwnMac(from_hex(mac)?.try_into().ok()?),
        _ => return None,
    })
}

pub fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_read_back_as_it_was_written() {
        let policy = "[policy]\n\n[servers.web]\naddresses = [\"192.0.2.1\"]\n".to_owned();
        let events = vec![
            Event::From(vec![0, 1, 0xfe]),
            Event::To(vec![0x80]),
            Event::Wait(30),
            Event::Swap("a = 1\n".to_owned()),
            Event::Quarantine("web".to_owned(), Some(60)),
            Event::Quarantine("web".to_owned(), None),
            Event::Release("web".to_owned()),
            Event::Pickup(120),
            Event::OwnMac([2, 0, 0, 0, 0, 1]),
        ];
        let sequence = Sequence { policy, events };
        assert_eq!(read_sequence(&sequence.to_string()), Ok(sequence));
        assert!(read_sequence("policy\nfrom 0").is_err());
        assert!(read_sequence("wait 3").is_err());
    }
}
