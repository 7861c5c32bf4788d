//! The question of a DNS message in the beginning of a frame, for people. Its name may come from anybody.

use std::fmt;

use super::datagram::read_udp_bytes;
use super::frame::read_u16;

const HEADER_BYTES: usize = 12;
const LONGEST_LABEL: usize = 63;
/// Marks a length byte, see `struct name_key` of `bpf/contract.h`.
const LENGTH_MARK: u8 = 0x80;

/// A question, as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In printable ASCII (RFC 4343, 2.1). It ends in `...` where the frame was cut off.
    pub name: String,
    /// The type by name, as `TXT` or `TYPE65400`; `None` where the frame was cut off before it.
    pub kind: Option<String>,
}

impl fmt::Display for Question {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Some(kind) => write!(out, "{} ({kind})", self.name),
            None => out.write_str(&self.name),
        }
    }
}

/// The first question of the UDP datagram in an Ethernet frame. `None`: it has none.
pub fn read_question(frame: &[u8]) -> Option<Question> {
    let message = read_udp_bytes(frame)?;
    let is_cut = frame.len() >= CAPTURED_BYTES;
    if read_u16(message, 4)? == 0 {
        return None;
    }
    let (name, end) = show_name(message.get(HEADER_BYTES..)?, is_cut)?;
    let kind = end.and_then(|end| read_u16(message, HEADER_BYTES + end)).map(name_type);
    Some(Question { name, kind })
}

/// A sample has no more of a frame.
const CAPTURED_BYTES: usize = 128;

/// A name on the wire in printable ASCII, and where it ends. `is_cut`: bytes may be missing.
fn show_name(bytes: &[u8], is_cut: bool) -> Option<(String, Option<usize>)> {
    let mut text = String::new();
    let mut at = 0;
    while let Some(length) = bytes.get(at).copied().map(usize::from) {
        if length == 0 {
            let name = if text.is_empty() { ".".to_owned() } else { text };
            return Some((name, Some(at + 1)));
        }
        if length > LONGEST_LABEL {
            return None;
        }
        if at > 0 {
            text.push('.');
        }
        let label = bytes.get(at + 1..).unwrap_or_default();
        push_label(&mut text, label.get(..length).unwrap_or(label));
        at += 1 + length;
    }
    is_cut.then(|| (text + "...", None))
}

/// A name on the wire without its root, with the marks of `struct name_key` in its length bytes. `length` is that of
/// the whole name: of a longer one the bytes are its end. `None`: they are no name.
pub fn show_wire_name(bytes: &[u8], length: usize) -> Option<String> {
    let is_cut = length > bytes.len();
    let bytes = bytes.get(..length).unwrap_or(bytes);
    // of a name that is cut, from the first border on
    let starts = if is_cut { 1..bytes.len() } else { 0..1 };
    let text = starts.into_iter().find_map(|start| show_marked(bytes.get(start..)?))?;
    Some(if is_cut { format!("...{text}") } else { text })
}

fn show_marked(mut bytes: &[u8]) -> Option<String> {
    let mut text = String::new();
    while let Some((mark, rest)) = bytes.split_first() {
        let length = usize::from(mark.checked_sub(LENGTH_MARK)?);
        if !(1..=LONGEST_LABEL).contains(&length) || length > rest.len() {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        let (label, behind) = rest.split_at(length);
        push_label(&mut text, &label.to_ascii_lowercase());
        bytes = behind;
    }
    (!text.is_empty()).then_some(text)
}

/// A label in printable ASCII.
fn push_label(text: &mut String, label: &[u8]) {
    for byte in label {
        match byte {
            b'.' | b'\\' => text.extend(['\\', char::from(*byte)]),
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => text.push_str(&format!("\\{byte:03}")),
        }
    }
}

/// The types that resolvers are asked for most often, and those that tunnels use.
fn name_type(number: u16) -> String {
    let name = match number {
        1 => "A",
        2 => "NS",
        5 => "CNAME",
        6 => "SOA",
        10 => "NULL",
        12 => "PTR",
        15 => "MX",
        16 => "TXT",
        25 => "KEY",
        28 => "AAAA",
        33 => "SRV",
        35 => "NAPTR",
        43 => "DS",
        48 => "DNSKEY",
        52 => "TLSA",
        64 => "SVCB",
        65 => "HTTPS",
        252 => "AXFR",
        255 => "ANY",
        other => return format!("TYPE{other}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::datagram::udp_frame;

    fn ask(name: &[&[u8]], kind: u16) -> Vec<u8> {
        let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name {
            message.push(label.len() as u8);
            message.extend(*label);
        }
        message.push(0);
        message.extend(kind.to_be_bytes());
        message.extend([0, 1]);
        udp_frame(53, &message)
    }

    fn show(frame: &[u8]) -> Option<String> {
        read_question(frame).map(|question| question.to_string())
    }

    #[test]
    fn a_question_is_shown_with_its_type() {
        assert_eq!(show(&ask(&[b"a", b"Evil", b"example"], 16)).as_deref(), Some("a.Evil.example (TXT)"));
        assert_eq!(show(&ask(&[], 2)).as_deref(), Some(". (NS)"));
        assert_eq!(show(&ask(&[b"x"], 65_400)).as_deref(), Some("x (TYPE65400)"));
    }

    #[test]
    fn whatever_a_label_holds_is_shown_in_printable_ascii_and_no_two_names_look_alike() {
        let hostile = show(&ask(&[b"\x1b[2J\n", b"a.b\\", b"\xc3\xbc", b" "], 1)).unwrap();
        assert_eq!(hostile, r"\027[2J\010.a\.b\\.\195\188.\032 (A)");
    }

    #[test]
    fn a_name_that_the_sample_cuts_off_says_so_and_a_message_that_ends_within_it_has_none() {
        let long = ask(&[&[b'x'; 60], &[b'y'; 60], b"example"], 1);
        let shown = show(&long[..CAPTURED_BYTES]).unwrap();
        assert!(shown.starts_with("xxx") && shown.ends_with("yyy..."), "{shown}");
        let whole = ask(&[b"evil", b"example"], 1);
        for length in 0..whole.len() - 4 {
            assert_eq!(show(&whole[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_name_that_was_answered_is_shown_in_lower_case_and_a_long_one_from_a_border_on() {
        let marked = |labels: &[&[u8]]| -> Vec<u8> {
            labels.iter().flat_map(|label| [&[label.len() as u8 | 0x80][..], label].concat()).collect()
        };
        let show = |labels: &[&[u8]], room: usize| {
            let whole = marked(labels);
            let kept = &whole[whole.len().saturating_sub(room)..];
            let mut row = kept.to_vec();
            row.resize(room, 0xaa);
            show_wire_name(&row, whole.len())
        };
        assert_eq!(show(&[b"a", b"eViL", b"example"], 96).as_deref(), Some("a.evil.example"));
        assert_eq!(show(&[b"a\x1b", b"example"], 20).as_deref(), Some(r"a\027.example"));
        let long: [&[u8]; 3] = [&[b'x'; 40], b"t", b"example"];
        assert_eq!(show(&long, 20).as_deref(), Some("...t.example"));
        assert_eq!(show_wire_name(&[], 0), None);
        assert_eq!(show_wire_name(&[0x83, b'a'], 2), None);
        assert_eq!(show_wire_name(&[3, b'a', b'b', b'c'], 4), None);
        assert_eq!(show_wire_name(&[b'a'; 96], 200), None);
    }

    #[test]
    fn what_is_no_question_has_none() {
        let mut none = ask(&[b"a"], 1);
        none[42 + 5] = 0;
        assert_eq!(show(&none), None);
        let mut pointer = ask(&[b"a"], 1);
        pointer[42 + 12] = 0xc0;
        assert_eq!(show(&pointer), None);
        assert_eq!(show(&udp_frame(53, b"")), None);
        assert_eq!(show(&[]), None);
    }
}
