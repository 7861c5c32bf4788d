//! Escapes texts that came from the network or a policy, for terminals and logs.

use std::borrow::Cow;
use std::fmt::Write as _;

/// Characters that act on a terminal or deceive a reader: control characters (C0 and C1), and characters
/// that reverse the direction of a text, are invisible or break a line.
pub(crate) fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00ad}' | '\u{061c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text with every active character as `\u{..}`. Every backslash is doubled, so that a text that looks
/// escaped differs from one that was.
pub fn escape(text: &str) -> Cow<'_, str> {
    if is_printable_ascii(text) && !text.contains('\\') {
        return Cow::Borrowed(text); // nearly always, and a line is several hundred bytes
    }
    if !text.chars().any(|c| c == '\\' || is_active(c)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c == '\\' {
            escaped.push_str("\\\\");
        } else if is_active(c) {
            escaped.extend(c.escape_unicode());
        } else {
            escaped.push(c);
        }
    }
    Cow::Owned(escaped)
}

/// JSON that is safe to print. Serializers leave DEL, C1 control characters and the like as they are. The
/// value stays the same.
pub(crate) fn escape_json(json: String) -> String {
    if is_printable_ascii(&json) || !json.chars().any(is_active) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    let mut units = [0; 2];
    for c in json.chars() {
        if is_active(c) {
            for unit in c.encode_utf16(&mut units) {
                // writing to a String can't fail
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Checks byte by byte: no such character is active.
fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_acts_on_a_terminal() {
        let hostile = "web\u{1b}[2J\r\n\u{9b}31m\u{202e}\u{7f}\u{2028}1";
        let escaped = escape(hostile);
        assert!(!escaped.chars().any(is_active));
        assert!(escaped.starts_with("web\\u{1b}[2J\\u{d}\\u{a}\\u{9b}31m"));
    }

    #[test]
    fn a_text_that_looks_escaped_differs_from_one_that_was() {
        assert_eq!(escape("\\u{1b}"), "\\\\u{1b}");
        assert!(matches!(escape("plain ü 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn printable_ascii_has_no_active_character() {
        for byte in 0..=0x7f_u8 {
            let text = char::from(byte).to_string();
            assert_eq!(is_printable_ascii(&text), !text.chars().any(is_active), "{byte:#x}");
        }
        assert!(!is_printable_ascii("\u{9b}") && !is_printable_ascii("\u{202e}"));
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = "a\u{7f}\u{9b}\u{202e}\u{e0041}\u{1b}z";
        let json = escape_json(serde_json::to_string(value).unwrap());
        assert!(!json.chars().any(is_active));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }
}
