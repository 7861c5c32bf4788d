//! Counts of drops, summed in the ways that a page needs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::history::MinuteCount;
use crate::sink::escape;

/// What stands for a source address that no server has.
pub const NOBODY: &str = "(no server)";
/// What stands for the rest.
pub const OTHERS: &str = "(others)";
/// What stands for a destination that was not kept.
pub const UNKNOWN: &str = "(not kept)";

/// A row's server, to be read.
pub fn server_of(row: &MinuteCount) -> &str {
    row.server.as_deref().unwrap_or(NOBODY)
}

/// A row's destination, to be read.
pub fn destination_of(row: &MinuteCount) -> String {
    row.destination.map_or(UNKNOWN.to_owned(), |address| address.to_string())
}

/// Packets by something, the most first.
pub fn sum_by<K: Ord + Clone>(rows: &[MinuteCount], key: impl Fn(&MinuteCount) -> K) -> Vec<(K, u64)> {
    let mut sums: BTreeMap<K, u64> = BTreeMap::new();
    for row in rows {
        let sum = sums.entry(key(row)).or_default();
        *sum = sum.saturating_add(row.packets);
    }
    let mut sums: Vec<(K, u64)> = sums.into_iter().collect();
    sums.sort_by_key(|(_, packets)| std::cmp::Reverse(*packets));
    sums
}

/// Text for HTML and for attributes in quotes: what does something to a terminal is spelled out,
/// what does something to a browser is a reference.
pub fn html(text: &str) -> String {
    let mut safe = String::with_capacity(text.len() + 8);
    for c in escape(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            c => safe.push(c),
        }
    }
    safe
}

/// A number with its thousands apart.
pub fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        let _ = write!(text, "{digit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(
            html("<script>alert('1')</script>\u{1b}[2J&\"x\"\u{202e}"),
            "&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;\\u{1b}[2J&amp;&quot;x&quot;\\u{202e}"
        );
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!(number(0), "0");
        assert_eq!(number(999), "999");
        assert_eq!(number(1_234_567), "1\u{202f}234\u{202f}567");
    }
}
