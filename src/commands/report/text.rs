//! Texts of the page: what maud escapes, and what it does not know of.

use jiff::Timestamp;
use maud::{PreEscaped, Render};

use crate::sink::escape;

/// A text that came from anywhere. Maud escapes every text for HTML by itself. Before that, characters that
/// act on a terminal are spelled out, because people also print the page.
pub(super) struct ForeignText<'t>(pub(super) &'t str);

impl Render for ForeignText<'_> {
    fn render_to(&self, buffer: &mut String) {
        for (index, piece) in escape(self.0).split('\'').enumerate() {
            if index > 0 {
                // maud leaves it, for its own attributes stand in quotation marks
                PreEscaped("&#39;").render_to(buffer);
            }
            piece.render_to(buffer);
        }
    }
}

/// A number with a thin space between its thousands.
pub(super) fn group_digits(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// A time to the second, UTC.
pub(super) fn show_second(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A UNIX time to the minute, UTC.
pub(super) fn show_minute(unix_s: i64) -> String {
    let time = Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH);
    time.strftime("%Y-%m-%d %H:%M").to_string()
}

/// At most `most` characters of a text.
pub(super) fn shorten(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(
            ForeignText("<script>alert('1')</script>\u{1b}[2J&\"x\"\u{202e}").render().into_string(),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\\u{1b}[2J&amp;&quot;x&quot;\\u{202e}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(group_digits(0), "0");
        assert_eq!(group_digits(999), "999");
        assert_eq!(group_digits(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
