//! The words of a need.

use std::ops::Range;

/// A word of a need, and the bytes it stands in.
#[derive(Clone)]
pub(super) struct Word<'t> {
    pub(super) text: &'t str,
    pub(super) span: Range<usize>,
}

/// Splits at white space and around commas. A comma is a word of its own.
pub(super) fn split_words(text: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    for (at, letter) in text.char_indices().chain([(text.len(), ' ')]) {
        if !letter.is_whitespace() && letter != ',' {
            start.get_or_insert(at);
            continue;
        }
        if let Some(start) = start.take()
            && let Some(word) = text.get(start..at)
        {
            words.push(Word { text: word, span: start..at });
        }
        if letter == ',' {
            words.push(Word { text: ",", span: at..at + 1 });
        }
    }
    words
}
