//! What was seen of answers that opened nothing: reports that become alarms about a name or a resolver. No drop
//! leads to them, and no server has a part in them.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::Kind;

/// Names and resolvers with an open alarm of their own, for each kind. The rest share one.
pub(super) const MAX_ABOUT: usize = 16;
/// What is said of a report's servers and addresses: so many of each, and how many more.
const NAMED: usize = 3;

/// Who a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum About {
    /// A name of the policy, by its id.
    Name(u32),
    /// A resolver.
    Resolver(IpAddr),
}

/// Answers of one kind about one name or resolver, since the report before.
#[derive(Clone, Debug, PartialEq)]
pub struct AnswerReport {
    /// Who it is about.
    pub about: About,
    /// The same in words.
    pub subject: Arc<str>,
    /// How many answers there were.
    pub answers: u64,
    /// In whose name they came.
    pub resolvers: Vec<IpAddr>,
    /// Of a rebinding: what the name points to.
    pub addresses: Vec<IpAddr>,
    /// The servers that were answered, each once.
    pub servers: Vec<Arc<str>>,
    /// The interface by which the last one came.
    pub interface: Arc<str>,
    /// Of the first one.
    pub first: Timestamp,
    /// Of the last one.
    pub last: Timestamp,
    /// Some came while no daemon ran.
    pub while_away: bool,
}

impl AnswerReport {
    /// The kind of its alarm.
    pub fn kind(&self) -> Kind {
        match self.about {
            About::Name(_) => Kind::Rebinding,
            About::Resolver(_) => Kind::ForgedAnswer,
        }
    }
}

/// What a part of an alarm says of answers, beside its counts and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answers {
    /// The name or the resolver.
    pub subject: Arc<str>,
    /// The interface by which the last one came.
    pub interface: Arc<str>,
    /// The servers of the last report, in words.
    pub servers: Arc<str>,
}

impl Answers {
    /// Of a report. `is_rest`: it shares its alarm with others.
    pub(super) fn of(report: &AnswerReport, is_rest: bool) -> Answers {
        let subject = match (is_rest, report.about) {
            (false, _) => Arc::clone(&report.subject),
            (true, About::Name(_)) => "another name".into(),
            (true, About::Resolver(_)) => "another resolver".into(),
        };
        let named: Vec<&str> = report.servers.iter().take(NAMED).map(|server| &**server).collect();
        let servers = match report.servers.len().saturating_sub(NAMED) {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        };
        Answers { subject, interface: Arc::clone(&report.interface), servers: servers.into() }
    }
}
