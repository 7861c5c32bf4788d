//! Mistakes in a policy as they are shown: the position, the line itself, a caret, and a help line.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::model::Location;

/// The longest piece of a source line that is shown, in characters. A generated policy may have thousands of
/// addresses in one line.
const EXCERPT: usize = 120;

/// Characters to the left of the caret, where a line is too long to be shown whole.
const LEAD: usize = 40;

/// How many mistakes are shown of a file that has more.
pub const MAX_DIAGNOSTICS: usize = 200;

/// The longest message or help, in characters. Both may quote the file.
const MAX_MESSAGE: usize = 480;

/// Bytes between two entries of [`Source::continuations`].
const BLOCK: usize = 128;

/// One mistake in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file as the user named it.
    pub file: String,
    /// Line, counted from 1.
    pub line: u32,
    /// Column in characters, counted from 1.
    pub column: u32,
    /// The mistake, in one line.
    pub message: String,
    /// The line itself, or the part around the mistake if the line is very long.
    pub source: String,
    /// White space and carets that go beneath [`Diagnostic::source`].
    #[serde(skip)]
    pub marker: String,
    /// The remedy: text to write instead, or a thing to do.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, source, marker, help } = self;
        write!(out, "{file}:{line}:{column}: {message}\n    {source}\n    {marker}")?;
        match help {
            Some(help) => write!(out, "\n    help: {help}"),
            None => Ok(()),
        }
    }
}

/// All mistakes in a policy, sorted by position; at least one. After [`MAX_DIAGNOSTICS`] mistakes there is
/// one more diagnostic, which says that there are more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Renders findings with the lines of their source. No findings at all still make one diagnostic.
    pub(crate) fn gather(findings: Vec<Finding>, source: &Source<'_>) -> Self {
        let mut findings = findings;
        if findings.is_empty() {
            findings.push(Finding::new(0..0, "this can't be read"));
        }
        findings.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        findings.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        if findings.len() > MAX_DIAGNOSTICS {
            findings.truncate(MAX_DIAGNOSTICS);
            findings.extend(findings.last().map(Finding::more_behind));
        }
        Self { list: findings.into_iter().map(|finding| source.render(finding)).collect() }
    }

    /// The mistakes of the same file, sorted together.
    pub(crate) fn merge(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self.list.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
        self
    }

    /// The mistakes of this file, and then those of another.
    pub(crate) fn append(mut self, other: Self) -> Self {
        self.list.extend(other.list);
        self
    }

    /// The mistakes in the order of the file.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.list.iter()
    }

    /// How many mistakes there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(out)?;
            }
            write!(out, "{diagnostic}")?;
        }
        Ok(())
    }
}

/// A mistake before it is rendered. It has a span of bytes instead of a line and a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) origin: FindingOrigin,
}

/// The evidence that a finding follows from. A syntax error elsewhere may explain it, and then only the error is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FindingOrigin {
    /// The file isn't TOML here.
    Syntax,
    /// The text of the span alone.
    Text,
    /// Nothing in `table` is called `name`. Perhaps its definition is what could not be read.
    Undefined { table: &'static str, name: String },
    /// A key that the table at this span should have had.
    Absent,
}

impl Finding {
    pub(crate) fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), help: None, origin: FindingOrigin::Text }
    }

    /// The note behind the last finding that is shown.
    pub(crate) fn more_behind(last: &Finding) -> Self {
        Self::new(last.span.clone(), "there are more mistakes than are shown")
            .with_help("fix these first, then check the file again")
            .with_origin(FindingOrigin::Syntax)
    }

    pub(crate) fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(crate) fn with_hint(mut self, help: Option<String>) -> Self {
        self.help = help;
        self
    }

    pub(crate) fn with_origin(mut self, origin: FindingOrigin) -> Self {
        self.origin = origin;
        self
    }
}

/// A policy's text with an index of its lines and characters. Finding a position costs no walk over the file,
/// however long its lines are.
pub(crate) struct Source<'t> {
    file: &'t str,
    text: &'t str,
    line_starts: Vec<usize>,
    /// UTF-8 continuation bytes before each block; empty for ASCII text.
    continuations: Vec<usize>,
    /// The line found last. The next position is mostly in the same line.
    last_line: Cell<usize>,
}

impl<'t> Source<'t> {
    pub(crate) fn new(file: &'t str, text: &'t str) -> Self {
        let bytes = text.as_bytes();
        let breaks = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let line_starts = std::iter::once(0).chain(breaks).collect();
        let mut continuations = Vec::new();
        if !text.is_ascii() {
            let mut seen = 0;
            for block in bytes.chunks(BLOCK) {
                continuations.push(seen);
                seen += count_continuations(block);
            }
            continuations.push(seen);
        }
        Self { file, text, line_starts, continuations, last_line: Cell::new(0) }
    }

    /// The line that holds a byte, from 0.
    fn find_line(&self, at: usize) -> usize {
        let line = self.last_line.get();
        if let Some([start, end]) = self.line_starts.get(line..line + 2)
            && (*start..*end).contains(&at)
        {
            return line;
        }
        let line = self.line_starts.partition_point(|start| *start <= at).saturating_sub(1);
        self.last_line.set(line);
        line
    }

    /// Characters from the start of the file to a byte.
    fn count_characters(&self, at: usize) -> usize {
        let at = at.min(self.text.len());
        let Some(before) = self.continuations.get(at / BLOCK) else {
            return at;
        };
        let block = self.text.as_bytes().get(at / BLOCK * BLOCK..at).unwrap_or_default();
        at - before - count_continuations(block)
    }

    pub(crate) fn place(&self, span: &Range<usize>) -> Location {
        let line = self.find_line(span.start.min(self.text.len()));
        let line_start = self.line_starts.get(line).copied().unwrap_or(0);
        let column = self.count_characters(span.start) - self.count_characters(line_start) + 1;
        Location {
            line: u32::try_from(line + 1).unwrap_or(u32::MAX),
            column: u32::try_from(column).unwrap_or(u32::MAX),
            start: span.start,
            end: span.end,
        }
    }

    /// The text of a line without its end, by the index of the line from 0.
    fn line_text(&self, line: usize) -> &'t str {
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let end = self.line_starts.get(line + 1).copied().unwrap_or(self.text.len());
        self.text.get(start..end).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }

    /// Renders findings in the order of their places.
    pub(crate) fn render_all(&self, mut findings: Vec<Finding>) -> Vec<Diagnostic> {
        findings.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        findings.into_iter().map(|finding| self.render(finding)).collect()
    }

    fn render(&self, finding: Finding) -> Diagnostic {
        let place = self.place(&finding.span);
        let line = self.find_line(place.start.min(self.text.len()));
        let width =
            self.count_characters(finding.span.end).saturating_sub(self.count_characters(finding.span.start));
        let (source, marker) = excerpt(self.line_text(line), place.column as usize - 1, width);
        Diagnostic {
            file: self.file.chars().map(printable).collect(),
            line: place.line,
            column: place.column,
            message: shorten(&finding.message),
            source,
            marker,
            help: finding.help.as_deref().map(shorten),
        }
    }
}

fn count_continuations(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte & 0xc0 == 0x80).count()
}

/// Replaces control characters. A policy file may come from anywhere, and must not steer the terminal.
fn printable(character: char) -> char {
    if character.is_control() && character != '\t' { '\u{fffd}' } else { character }
}

/// A message without control characters. Of a very long one only the beginning and the end are kept.
fn shorten(message: &str) -> String {
    let length = message.chars().count();
    if length <= MAX_MESSAGE {
        return message.chars().map(printable).collect();
    }
    let half = MAX_MESSAGE / 2;
    let start = message.chars().take(half);
    let end = message.chars().skip(length - half);
    start.chain(" ... ".chars()).chain(end).map(printable).collect()
}

/// The part of a line around a column (from 0), and the marker that goes beneath it. The marker repeats the
/// tabs of the line, so that the caret stays below its text whatever their width.
fn excerpt(line: &str, column: usize, width: usize) -> (String, String) {
    let length = line.chars().count();
    let skip = if length > EXCERPT { column.saturating_sub(LEAD) } else { 0 };
    let mut source: String = line.chars().skip(skip).take(EXCERPT).map(printable).collect();
    let mut marker: String = source
        .chars()
        .take(column - skip.min(column))
        .map(|character| if character == '\t' { '\t' } else { ' ' })
        .collect();
    let shown = length.saturating_sub(column).min(EXCERPT.saturating_sub(column - skip.min(column)));
    marker.extend(std::iter::repeat_n('^', width.min(shown).max(1)));
    if skip > 0 {
        source.insert_str(0, "... ");
        marker.insert_str(0, "    ");
    }
    if length > skip + EXCERPT {
        source.push_str(" ...");
    }
    (source, marker)
}
