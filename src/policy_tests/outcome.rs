//! The outcome of tests, for people and for tools.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use crate::abi::Reason;
use crate::gate::Verdict;
use crate::net::{Selector, name_icmp_type, name_protocol};
use crate::policy::Policy;

/// So many failures are shown in full where a policy is refused.
const SHOWN: usize = 10;

/// The outcome of all tests of a policy.
#[derive(Clone, Debug, Serialize)]
pub struct TestReport {
    /// The file as the user named it.
    pub file: String,
    /// Tests that passed.
    pub passed: usize,
    /// Tests that failed.
    pub failed: usize,
    /// Packets that the programs judged.
    pub packets: u64,
    /// Each test, in the order of the file.
    pub tests: Vec<TestOutcome>,
}

/// The outcome of one test.
#[derive(Clone, Debug, Serialize)]
pub struct TestOutcome {
    /// `FILE:LINE` of the test.
    pub source: String,
    /// The test in one line.
    pub test: String,
    /// Whether all went as expected.
    pub passed: bool,
    /// Packets that the programs judged.
    pub packets: u64,
    /// What did not go as expected.
    pub failures: Vec<Failure>,
    /// What holds only as long as no name opens it, a sentence each.
    pub notes: Vec<String>,
}

/// The part of a test that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// A need of `accept`.
    Accept,
    /// A need of `deny`.
    Deny,
    /// `only`: something else is open.
    Only,
}

impl FailureKind {
    const fn key(self) -> &'static str {
        match self {
            FailureKind::Accept => "accept",
            FailureKind::Deny => "deny",
            FailureKind::Only => "only",
        }
    }
}

/// A verdict that a test expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Expectation {
    /// Pass or drop.
    pub verdict: Verdict,
    /// For this reason alone.
    pub reason: Option<Reason>,
}

/// One packet that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketFacts {
    /// Who opens.
    pub from: IpAddr,
    /// On whom.
    pub to: IpAddr,
    /// As `tcp/80`.
    pub service: String,
    /// The port that it comes from.
    pub sport: Option<u16>,
}

/// What decided about a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Decided {
    /// `FILE:LINE`.
    pub source: String,
    /// The need that permits it, or the nearest one. `None`: no need is near, and the line is that of the server.
    pub need: Option<String>,
    /// The role that has this need.
    pub role: Option<String>,
}

/// Something that did not go as a test expects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// The server or address that the test is about.
    pub subject: String,
    /// Which part of the test.
    pub kind: FailureKind,
    /// The need of the test; with `only`, the need that would permit what is open.
    pub need: String,
    /// `FILE:LINE:COLUMN` of that part.
    pub source: String,
    /// A packet that was judged otherwise. `None`: there is no such packet.
    pub packet: Option<PacketFacts>,
    /// What the test expects.
    pub expected: Expectation,
    /// What the programs say. `None`: there is no such packet.
    pub verdict: Option<Verdict>,
    /// Why they say it.
    pub reason: Option<Reason>,
    /// The line of the policy that decides.
    pub decided: Option<Decided>,
    /// So many more packets of this need were judged otherwise; with `only`, so many more needs would be open.
    pub more: usize,
    /// A sentence about the test itself.
    pub note: Option<String>,
}

impl PacketFacts {
    pub(super) fn service_of(protocol: u8, port: u16) -> String {
        let name = name_protocol(protocol);
        match Selector::of(protocol) {
            Selector::Port => format!("{name}/{port}"),
            Selector::Type => format!("{name}/{}", name_icmp_type(protocol, port)),
            Selector::None => name.into_owned(),
        }
    }
}

impl TestReport {
    pub(super) fn new(policy: &Policy, tests: Vec<TestOutcome>) -> TestReport {
        let failed = tests.iter().filter(|test| !test.passed).count();
        TestReport {
            file: policy.file.clone(),
            passed: tests.len() - failed,
            failed,
            packets: tests.iter().map(|test| test.packets).sum(),
            tests,
        }
    }

    /// Failures and a last line, for people.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for outcome in &self.tests {
            text.extend(outcome.failures.iter().map(|failure| format!("{}\n", failure.describe())));
            text.extend(outcome.notes.iter().map(|note| format!("{note}\n")));
        }
        text + &self.sum_up() + "\n"
    }

    /// As [`TestReport::describe`], no longer than a screen or two, for an error.
    pub fn describe_failures(&self) -> String {
        let failures =
            self.tests.iter().flat_map(|outcome| outcome.failures.iter().map(|failure| failure.describe()));
        let mut text = self.sum_up();
        let mut left = 0;
        for (number, failure) in failures.enumerate() {
            match number < SHOWN {
                true => text.push_str(&format!("\n{}", failure.trim_end())),
                false => left += 1,
            }
        }
        if left > 0 {
            text.push_str(&format!("\n{left} more: portcullis test {}", self.file));
        }
        text
    }

    fn sum_up(&self) -> String {
        let all = self.tests.len();
        let s = if all == 1 { "" } else { "s" };
        match self.failed {
            0 => format!("{}: {all} test{s} passed, {} packets", self.file, self.packets),
            failed => format!("{}: {failed} of {all} test{s} failed", self.file),
        }
    }
}

impl Failure {
    /// A block of lines.
    fn describe(&self) -> String {
        let mut text = String::new();
        // writing to a string can't fail
        let _ = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "{}: the test of {} failed", self.source, self.subject)?;
        match self.kind {
            FailureKind::Only => writeln!(text, "  open     {}, which `accept` does not have", self.need)?,
            FailureKind::Accept | FailureKind::Deny => {
                writeln!(text, "  {:8} {}", self.kind.key(), self.need)?;
            }
        }
        if let Some(PacketFacts { from, to, service, sport }) = &self.packet {
            let sport = sport.map_or_else(String::new, |port| format!(" sport {port}"));
            writeln!(text, "  packet   {from} to {to}, {service}{sport}")?;
        }
        let say = |verdict: Verdict, reason: Option<Reason>| match reason {
            Some(reason) => format!("{}: {reason}", verdict.name()),
            None => verdict.name().to_owned(),
        };
        writeln!(text, "  expected {}", say(self.expected.verdict, self.expected.reason))?;
        if let Some(verdict) = self.verdict {
            writeln!(text, "  got      {}", say(verdict, self.reason))?;
        }
        if let Some(Decided { source, need, role }) = &self.decided {
            let role = role.as_ref().map_or_else(String::new, |role| format!(" of {role}"));
            let need = need.as_ref().map_or_else(String::new, |need| format!("  {need}{role}"));
            writeln!(text, "  decided  {source}{need}")?;
        }
        if let Some(reason) = self.reason {
            writeln!(text, "  why      {}", reason.sentence())?;
        }
        if let Some(note) = &self.note {
            writeln!(text, "  note     {note}")?;
        }
        match (self.more, self.kind) {
            (0, _) => Ok(()),
            (more, FailureKind::Only) => writeln!(text, "  and      {more} more by the same need"),
            (more, FailureKind::Accept | FailureKind::Deny) => {
                writeln!(text, "  and      {more} more packet{}", if more == 1 { "" } else { "s" })
            }
        }
    }
}
