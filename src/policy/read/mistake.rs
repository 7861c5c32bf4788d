//! A mistake in a piece of text, before its place in the file is known.

use std::ops::Range;

/// A mistake in a piece of text: the bytes that are wrong, a message, and a help line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub(super) span: Range<usize>,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl Mistake {
    pub(super) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub(super) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn with_hint(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// The same mistake in a longer text, which has this one at `offset`.
    pub(super) fn shifted(mut self, offset: usize) -> Self {
        self.span = self.span.start + offset..self.span.end + offset;
        self
    }
}
