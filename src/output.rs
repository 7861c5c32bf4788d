//! The output of commands: text or JSON on standard output, warnings on standard error.

use std::io::{self, IsTerminal as _, Write as _};

use anyhow::Context as _;
use serde::Serialize;

use crate::escape::escape_json;
use crate::stderr;

/// When to colour the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Color {
    /// Every value, the default first.
    pub const ALL: [Color; 3] = [Color::Auto, Color::Always, Color::Never];

    /// The word on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Color::Auto => "auto",
            Color::Always => "always",
            Color::Never => "never",
        }
    }
}

/// How a command prints.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// JSON was asked for.
    pub json: bool,
    color: Color,
}

impl Output {
    /// As the flags of the command line say.
    pub fn new(json: bool, color: Color) -> Output {
        Output { json, color }
    }

    /// Whether text on standard error is coloured.
    pub fn colours_stderr(&self) -> bool {
        self.colours(io::stderr().is_terminal())
    }

    fn colours(&self, is_terminal: bool) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org
            Color::Auto => is_terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty()),
        }
    }

    /// Whether text on standard output is coloured.
    pub fn colours_stdout(&self) -> bool {
        self.colours(io::stdout().is_terminal())
    }

    /// Prints text for people.
    ///
    /// # Errors
    /// When standard output can't be written to. A reader that went away is no error.
    pub fn text(&self, text: &str) -> anyhow::Result<()> {
        write_out(text)
    }

    /// Prints one JSON value on one line.
    ///
    /// # Errors
    /// As [`Output::text`].
    pub fn value(&self, value: &impl Serialize) -> anyhow::Result<()> {
        // what came from outside must not act on a terminal; the value stays the same
        let mut line = escape_json(serde_json::to_string(value).context("could not write JSON")?);
        line.push('\n');
        write_out(&line)
    }

    /// Prints the value as JSON if JSON was asked for, otherwise the text.
    ///
    /// # Errors
    /// As [`Output::text`].
    pub fn either(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> anyhow::Result<()> {
        if self.json { self.value(value) } else { self.text(&text()) }
    }

    /// Prints a warning on standard error.
    pub fn warn(&self, warning: &str) {
        stderr::notice(format_args!("portcullis: warning: {warning}"));
    }
}

/// A reader that went away (`| head`) is no error.
fn write_out(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("could not write to standard output"),
    }
}

/// Aligns a table: each column is as wide as its widest cell, and the last one is not padded.
pub fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_lines_do_not_end_in_spaces() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(align(&rows), "a    bb\nccc  d\n");
    }
}
