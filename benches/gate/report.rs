//! The results of a run: series with one number a round, and tables made of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::statistics::Spread;

/// As wide as the documents are.
const COLUMNS: usize = 120;

/// A field of a table.
#[derive(Clone, Debug)]
pub enum Cell {
    /// A factor.
    Ratio(Spread),
    /// Nanoseconds.
    Ns(Spread),
    Text(String),
    Nothing,
}

impl Cell {
    fn render(&self) -> String {
        match self {
            Cell::Ratio(spread) => {
                format!("{:.2} ({:.2} to {:.2})", spread.median, spread.low, spread.high)
            }
            Cell::Ns(spread) => format!("{:+.0} ({:+.0} to {:+.0})", spread.median, spread.low, spread.high),
            Cell::Text(text) => text.clone(),
            Cell::Nothing => "–".to_owned(),
        }
    }
}

/// One table.
pub struct Section {
    /// One word, for `--only` and for the plots.
    pub key: &'static str,
    pub title: String,
    /// What the reader needs to understand the table.
    pub note: String,
    pub columns: Vec<&'static str>,
    pub lines: Vec<Vec<Cell>>,
}

/// A bound: `left` divided by `right` is to be at most `limit`.
pub struct Target {
    pub title: String,
    /// Series of the report.
    pub left: String,
    pub right: String,
    pub limit: f64,
}

/// All results of a run.
#[derive(Default)]
pub struct Report {
    pub sections: Vec<Section>,
    /// One number a round, by `SECTION/NAME`.
    series: BTreeMap<String, Vec<f64>>,
    /// Targets that groups add to those of `targets.rs`.
    pub targets: Vec<Target>,
    /// Machine, kernel, compiler, time.
    pub facts: Vec<String>,
}

impl Report {
    pub fn record(&mut self, key: impl Into<String>, values: Vec<f64>) {
        self.series.insert(key.into(), values);
    }

    pub fn series(&self, key: &str) -> Option<&[f64]> {
        self.series.get(key).map(Vec::as_slice)
    }

    /// Records a series and adds the target that it stays below `most`, in the unit of the series.
    pub fn hold(&mut self, title: impl Into<String>, key: String, values: Vec<f64>, most: f64) {
        let bound = format!("{key}/most");
        self.record(bound.clone(), vec![most; values.len()]);
        self.record(key.clone(), values);
        self.targets.push(Target { title: title.into(), left: key, right: bound, limit: 1.0 });
    }

    /// The tables, for a terminal.
    pub fn print_text(&self) -> String {
        let mut text = self.facts.join("\n");
        text.push('\n');
        for section in &self.sections {
            let _ = writeln!(text, "\n{}\n{}\n", section.title, wrap(&section.note));
            let rows = section.rows();
            let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            let widths: Vec<usize> = (0..section.columns.len()).map(width).collect();
            for row in &rows {
                let fields: Vec<String> = row
                    .iter()
                    .zip(&widths)
                    .map(|(field, width)| format!("{field}{}", " ".repeat(width - field.chars().count())))
                    .collect();
                let _ = writeln!(text, "  {}", fields.join("  ").trim_end());
            }
        }
        text
    }

    /// The tables, as Markdown.
    pub fn print_markdown(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            let _ = writeln!(text, "### {}\n\n{}\n", section.title, wrap(&section.note));
            for (number, row) in section.rows().iter().enumerate() {
                let _ = writeln!(text, "| {} |", row.join(" | "));
                if number == 0 {
                    let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
                }
            }
            text.push('\n');
        }
        text
    }
}

impl Section {
    fn rows(&self) -> Vec<Vec<String>> {
        let head = self.columns.iter().map(|column| (*column).to_owned()).collect();
        let lines = self.lines.iter().map(|line| line.iter().map(Cell::render).collect());
        std::iter::once(head).chain(lines).collect()
    }
}

/// Breaks a paragraph into lines of at most [`COLUMNS`] characters.
fn wrap(paragraph: &str) -> String {
    let mut text = String::new();
    let mut column = 0;
    for word in paragraph.split_whitespace() {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > COLUMNS {
            text.push('\n');
            column = 0;
        } else if column > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += length;
    }
    text
}
