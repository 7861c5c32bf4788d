//! Syntax errors of a policy file.
//!
//! The TOML parser recovers from most of them. After some it loses the rest of the file: an array that is
//! never closed swallows everything that follows. These errors are repaired in a copy of the file, so that
//! the text after them is checked as well, and all mistakes of a file are reported at once.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

use crate::policy::diagnostic::{Finding, FindingOrigin, MAX_DIAGNOSTICS};

/// The most repairs in one file. Each costs a parse, and a file of garbage could need any number.
const MAX_REPAIRS: usize = 32;

/// A repaired copy of the file, and the syntax errors of the original.
pub(super) struct RepairedCopy {
    pub(super) text: String,
    pub(super) findings: Vec<Finding>,
    insertions: Insertions,
    /// Whether there were more errors than `findings` has.
    more: bool,
}

/// Insertions into the copy: offset in the original and length, sorted by offset.
#[derive(Default)]
struct Insertions(Vec<(usize, usize)>);

impl Insertions {
    /// The offset in the original of a byte of the copy.
    fn locate(&self, at: usize) -> usize {
        let mut shift = 0;
        for (offset, length) in &self.0 {
            if at <= offset + shift {
                break;
            }
            if at < offset + shift + length {
                return *offset;
            }
            shift += length;
        }
        at - shift
    }

    fn add(&mut self, offset: usize, length: usize) {
        let index = self.0.partition_point(|(known, _)| *known <= offset);
        self.0.insert(index, (offset, length));
    }
}

/// Text to be inserted at a byte, and the mistake that it repairs.
struct Repair {
    at: usize,
    text: &'static str,
    finding: Finding,
}

impl RepairedCopy {
    pub(super) fn new(original: &str) -> Self {
        let mut copy = Self {
            text: original.to_owned(),
            findings: Vec::new(),
            insertions: Insertions::default(),
            more: false,
        };
        for _ in 0..MAX_REPAIRS {
            let (table, errors) = DeTable::parse_recoverable(&copy.text);
            // With that many errors the file is garbage, and every further error costs time.
            if errors.len() > MAX_DIAGNOSTICS {
                break;
            }
            let Some(repair) = find_repair(&copy.text, table.get_ref(), &errors) else {
                break;
            };
            copy.findings.push(copy.relocate(repair.finding));
            let offset = copy.insertions.locate(repair.at);
            copy.text.insert_str(repair.at, repair.text);
            copy.insertions.add(offset, repair.text.len());
        }
        let (_, mut errors) = DeTable::parse_recoverable(&copy.text);
        if errors.len() > MAX_DIAGNOSTICS {
            errors.sort_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
            errors.truncate(MAX_DIAGNOSTICS);
            copy.more = true;
        }
        let rest: Vec<Finding> = describe_errors(&copy.text, &errors);
        let rest: Vec<Finding> = rest.into_iter().map(|finding| copy.relocate(finding)).collect();
        copy.findings.extend(rest);
        copy
    }

    /// Moves a finding from the copy to the original.
    pub(super) fn relocate(&self, finding: Finding) -> Finding {
        let start = self.insertions.locate(finding.span.start);
        let end = self.insertions.locate(finding.span.end).max(start);
        Finding { span: start..end, ..finding }
    }

    /// Leaves out the findings that a syntax error explains, and adds the syntax errors.
    pub(super) fn join(mut self, original: &str, mut semantic: Vec<Finding>) -> Vec<Finding> {
        let mut all: Vec<Finding> = Vec::new();
        if semantic.len() > MAX_DIAGNOSTICS {
            semantic.sort_by_key(|finding| finding.span.start);
            semantic.truncate(MAX_DIAGNOSTICS);
            self.more = true;
        }
        for finding in semantic {
            let finding = self.relocate(finding);
            if !self.findings.iter().any(|error| explains(error, &finding, original)) {
                all.push(finding);
            }
        }
        all.extend(thin_out(self.findings, original));
        if self.more {
            let last = all.iter().max_by_key(|finding| finding.span.start);
            let note = last.map(Finding::more_behind);
            all.extend(note);
        }
        all
    }
}

/// Leaves out the syntax errors that only follow from another one. Those are later errors in the same line,
/// except for missing commas, and errors in the rest of a list whose beginning could not be read.
fn thin_out(mut errors: Vec<Finding>, text: &str) -> Vec<Finding> {
    errors.sort_by_key(|error| error.span.start);
    let mut kept: Vec<Finding> = Vec::new();
    let mut last = None;
    for error in errors {
        let start = error.span.start;
        let between = last.and_then(|last| text.get(last..start)).unwrap_or_default();
        let stands_alone = error.message.starts_with("missing comma");
        let follows = match between.split_once('\n') {
            None => last.is_some() && !stands_alone,
            Some((_, lines)) => lines.lines().all(is_remnant) && is_remnant(line_around(text, start)),
        };
        last = Some(start);
        if !follows {
            kept.push(error);
        }
    }
    kept
}

/// Whether a line may be part of a list: nothing in it says otherwise.
fn is_remnant(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with(['"', '\'', ']', '#'])
}

/// Whether a syntax error is the cause of a finding.
fn explains(error: &Finding, finding: &Finding, text: &str) -> bool {
    match &finding.origin {
        FindingOrigin::Syntax => false,
        FindingOrigin::Text => error.span.start <= finding.span.end && finding.span.start <= error.span.end,
        FindingOrigin::Undefined { table, name } => {
            let line = line_around(text, error.span.start);
            line.contains(name.as_str()) && (line.contains(table) || !line.trim_start().starts_with('['))
        }
        FindingOrigin::Absent => {
            (finding.span.start..find_body_end(text, finding.span.end)).contains(&error.span.start)
        }
    }
}

/// The end of the body of a table, whose header ends at `from`.
fn find_body_end(text: &str, from: usize) -> usize {
    let rest = text.get(from..).unwrap_or_default();
    let mut at = from;
    for (index, line) in rest.split_inclusive('\n').enumerate() {
        if index > 0 && line.starts_with('[') {
            return at;
        }
        at += line.len();
    }
    at + 1
}

fn line_start(text: &str, at: usize) -> usize {
    text.get(..at).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn line_around(text: &str, at: usize) -> &str {
    let rest = text.get(line_start(text, at)..).unwrap_or_default();
    rest.lines().next().unwrap_or_default()
}

/// The repair of the first error that needs one.
fn find_repair(text: &str, table: &DeTable<'_>, errors: &[toml::de::Error]) -> Option<Repair> {
    let mut errors: Vec<(usize, &str)> =
        errors.iter().filter_map(|error| Some((error.span()?.start, error.message()))).collect();
    errors.sort_unstable();
    errors.into_iter().find_map(|(at, message)| {
        if message.starts_with("unclosed table") {
            return Some(Repair {
                at,
                text: "]",
                finding: complain(at..at, "this header has no closing `]`"),
            });
        }
        if message.starts_with("unclosed array table") {
            return Some(Repair {
                at,
                text: "]]",
                finding: complain(at..at, "this header has no closing `]]`"),
            });
        }
        if message.starts_with("key with no value") {
            return Some(repair_key(text, at));
        }
        repair_array(text, table, at)
    })
}

/// The repair of a line that starts with a key and goes on without `=`.
fn repair_key(text: &str, at: usize) -> Repair {
    let line = line_start(text, at);
    let before = text.get(line..at).unwrap_or_default();
    let key = before.trim();
    let start = line + before.len() - before.trim_start().len();
    let rest = text.get(at..).unwrap_or_default();
    let after = rest.lines().next().unwrap_or_default().trim();
    if after.starts_with(']') {
        let finding = complain(start..start, "this header has no opening `[`");
        return Repair { at: start, text: "[", finding };
    }
    let insert = match after {
        // A header behind a stray key. The key is repaired next.
        header if header.starts_with('[') && looks_like_statement(header) => "\n",
        value if value.is_empty() || value.starts_with('#') => " = \"\"",
        _ => "=",
    };
    let message = format!("`{key}` has no value: expected `=` after it");
    Repair { at, text: insert, finding: complain(start..start + key.len(), message) }
}

/// The repair of an array that has swallowed the next key or header: it ends before that.
fn repair_array(text: &str, table: &DeTable<'_>, at: usize) -> Option<Repair> {
    let array = find_array(table, at)?;
    let first_line = text.get(array.start..array.end)?.find('\n')? + 1 + array.start;
    let mut start = first_line;
    for line in text.get(first_line..array.end)?.split_inclusive('\n') {
        if looks_like_statement(line) {
            let finding = complain(array.start..array.start + 1, "this array has no closing `]`");
            return Some(Repair { at: start, text: "]\n", finding });
        }
        start += line.len();
    }
    None
}

/// The span of the outermost array that holds a byte.
fn find_array(table: &DeTable<'_>, at: usize) -> Option<Range<usize>> {
    table.iter().find_map(|(_, value)| match value.get_ref() {
        DeValue::Array(_) => (value.span().start..=value.span().end).contains(&at).then(|| value.span()),
        DeValue::Table(inner) => find_array(inner, at),
        _ => None,
    })
}

/// Whether a line is a header or starts with `key =`, as no element of an array does.
fn looks_like_statement(line: &str) -> bool {
    let line = line.trim();
    if let Some(header) = line.strip_prefix('[') {
        return header.contains(']')
            && header.starts_with(|first: char| first.is_ascii_alphabetic() || first == '[');
    }
    let key = line.split('=').next().unwrap_or_default().trim_end();
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    line.contains('=') && !key.is_empty() && key.chars().all(plain)
}

fn complain(span: Range<usize>, message: impl Into<String>) -> Finding {
    Finding::new(span, message).with_origin(FindingOrigin::Syntax)
}

/// The parser's errors in the words of this program.
fn describe_errors(text: &str, errors: &[toml::de::Error]) -> Vec<Finding> {
    let spans: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or(text.len()..text.len()), error.message()))
        .collect();
    let second_headers: Vec<usize> = spans
        .iter()
        .filter(|(span, message)| *message == "duplicate key" && is_header(line_around(text, span.start)))
        .map(|(span, _)| span.start)
        .collect();
    let repeats_header = |at: usize| {
        second_headers.iter().any(|header| (header + 1..find_body_end(text, *header)).contains(&at))
    };
    spans
        .into_iter()
        // All keys of a table that is defined twice may be there twice. The error at its header is enough.
        .filter(|(span, message)| *message != "duplicate key" || !repeats_header(span.start))
        .map(|(span, message)| describe_error(text, span, message))
        .collect()
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn describe_error(text: &str, span: Range<usize>, message: &str) -> Finding {
    let quoted = text.get(span.clone()).unwrap_or_default();
    if message == "duplicate key" {
        let first = find_first(text, span.start, quoted);
        return complain(span, format!("`{}` is defined twice", quoted.trim_matches('"')))
            .with_hint(first.map(|line| format!("the first definition is in line {line}")));
    }
    if message.starts_with("string values must be quoted") {
        return match quoted {
            "" => complain(span, "a value is missing here"),
            _ => complain(span, "text must be in quotes").with_help(format!("write \"{quoted}\"")),
        };
    }
    complain(span, message.to_owned())
}

/// The line, from 1, of the first definition of a key or table that is defined twice.
fn find_first(text: &str, second: usize, key: &str) -> Option<usize> {
    let second_line = line_around(text, second);
    let before = text.get(..line_start(text, second))?;
    if is_header(second_line) {
        let wanted = strip_comment(second_line);
        return before.lines().position(|line| strip_comment(line) == wanted).map(|index| index + 1);
    }
    let lines: Vec<&str> = before.lines().collect();
    let body = lines.iter().rposition(|line| is_header(line)).unwrap_or(0);
    let defines = |line: &&str| {
        line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    lines.get(body..)?.iter().position(defines).map(|index| body + index + 1)
}

fn strip_comment(line: &str) -> String {
    line.split('#').next().unwrap_or_default().split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> Vec<(usize, String)> {
        let mut findings = RepairedCopy::new(text).findings;
        findings.sort_by_key(|finding| finding.span.start);
        findings.into_iter().map(|finding| (finding.span.start, finding.message)).collect()
    }

    #[test]
    fn an_unclosed_array_does_not_swallow_what_follows() {
        let text = "a = [\"x\"\nb = [\"y\"]\n[c]\nd = e\n";
        let copy = RepairedCopy::new(text);
        let (table, _) = DeTable::parse_recoverable(&copy.text);
        assert!(table.get_ref().contains_key("b") && table.get_ref().contains_key("c"));
        assert_eq!(
            messages(text),
            [(4, "this array has no closing `]`".into()), (27, "text must be in quotes".into())]
        );
    }

    #[test]
    fn an_unclosed_array_ends_before_the_next_header() {
        assert_eq!(messages("a = [\"x\",\n[b]\nc = 1\n"), [(4, "this array has no closing `]`".into())]);
    }

    #[test]
    fn an_unclosed_header_keeps_its_keys() {
        let copy = RepairedCopy::new("[servers.web\nmode = 1\n");
        assert_eq!(copy.text, "[servers.web]\nmode = 1\n");
        assert_eq!(messages("[servers.web\nmode = 1\n"), [(12, "this header has no closing `]`".into())]);
    }

    #[test]
    fn a_key_without_a_value_does_not_end_the_file() {
        let text = "a\nb [1]\nc = 3\n";
        let copy = RepairedCopy::new(text);
        assert_eq!(copy.text, "a = \"\"\nb =[1]\nc = 3\n");
        assert_eq!(
            messages(text),
            [
                (0, "`a` has no value: expected `=` after it".into()),
                (2, "`b` has no value: expected `=` after it".into())
            ]
        );
    }

    #[test]
    fn a_table_that_stands_twice_is_reported_once_with_the_line_of_the_first() {
        let text = "[a]\nx = 1\n[a]\nx = 2\n[b]\n";
        let findings = RepairedCopy::new(text).findings;
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert_eq!(findings[0].message, "`a` is defined twice");
        assert_eq!(findings[0].help.as_deref(), Some("the first definition is in line 1"));
    }

    #[test]
    fn each_key_that_stands_twice_is_reported() {
        let text = "[t]\na = 1\na = 2\nb = 1\nb = 2\n[u]\n";
        let found: Vec<String> = messages(text).into_iter().map(|(_, message)| message).collect();
        assert_eq!(found, ["`a` is defined twice", "`b` is defined twice"]);
    }

    #[test]
    fn a_key_that_stands_twice_names_the_line_of_the_first() {
        let findings = RepairedCopy::new("[a]\nx = 1\ny = 1\n\nx = 2\n").findings;
        assert_eq!(findings[0].help.as_deref(), Some("the first definition is in line 2"));
    }

    #[test]
    fn positions_in_the_copy_lead_back_to_the_original() {
        let mut insertions = Insertions::default();
        insertions.add(4, 2);
        insertions.add(10, 1);
        assert_eq!([3, 4, 5, 6, 7, 12, 13, 14].map(|at| insertions.locate(at)), [3, 4, 4, 4, 5, 10, 10, 11]);
    }
}
