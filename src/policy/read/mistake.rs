//! A mistake in a piece of text, before its place in the file is known.

use std::ops::Range;

/// What is wrong with a piece of text: the bytes of the text that are, and what was probably meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    pub span: Range<usize>,
    pub message: String,
    pub help: Option<String>,
}

impl Mistake {
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None }
    }

    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub fn with_hint(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    /// The same mistake in a text that has this one at `offset`.
    pub fn shifted(mut self, offset: usize) -> Self {
        self.span = self.span.start + offset..self.span.end + offset;
        self
    }
}
