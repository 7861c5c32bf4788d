//! What `doctor` prints for people.

use super::{Diagnosis, Finding};
use crate::alarm::Severity;
use crate::escape::escape;

impl Diagnosis {
    /// The whole diagnosis: the most severe finding first, and what is well last.
    pub fn describe(&self, colour: bool) -> String {
        let mut text = match (self.findings.len(), self.findings.iter().filter(|f| f.is_severe()).count()) {
            (0, _) => format!("{}: nothing found\n", self.interface),
            (1, 0) => format!("{}: 1 finding, not severe\n", self.interface),
            (1, _) => format!("{}: 1 finding, severe\n", self.interface),
            (all, 0) => format!("{}: {all} findings, none of them severe\n", self.interface),
            (all, severe) => format!("{}: {all} findings, {severe} of them severe\n", self.interface),
        };
        for finding in &self.findings {
            text.push_str(&describe_finding(finding, colour));
        }
        if !self.clear.is_empty() {
            text.push_str(&format!("\nnothing found in: {}\n", self.clear.join(", ")));
        }
        for skipped in &self.skipped {
            text.push_str(&format!("not looked at: {} ({})\n", skipped.part, escape(&skipped.why)));
        }
        text
    }
}

fn describe_finding(finding: &Finding, colour: bool) -> String {
    let severity = finding.severity();
    let word = match (colour, severity) {
        (false, _) => severity.name().to_owned(),
        (true, Severity::Critical | Severity::High) => format!("\x1b[1;31m{severity}\x1b[0m"),
        (true, Severity::Medium) => format!("\x1b[33m{severity}\x1b[0m"),
        (true, Severity::Low) => format!("\x1b[2m{severity}\x1b[0m"),
    };
    format!(
        "\n{word}: {} ({})\n  why      {}\n  remedy   {}\n",
        escape(&finding.text),
        finding.id.name(),
        finding.id.why(),
        escape(&finding.remedy)
    )
}
