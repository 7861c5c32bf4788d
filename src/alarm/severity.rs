//! How severe an alarm is.

use std::fmt;

use serde::{Serialize, Serializer};

/// How severe an alarm is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Look at it when there is time.
    Low,
    /// Find out what it is.
    Medium,
    /// The server is probably taken over.
    High,
    /// The server is taken over, and dangerous to others.
    Critical,
}

/// Every severity, the least severe first.
pub const SEVERITIES: [Severity; 4] = [Severity::Low, Severity::Medium, Severity::High, Severity::Critical];

impl Severity {
    /// The word that users read.
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Low => "low",
            Severity::Medium => "medium",
            Severity::High => "high",
            Severity::Critical => "critical",
        }
    }

    /// The severity below this one. Nothing is below low.
    pub const fn lower(self) -> Severity {
        match self {
            Severity::Low | Severity::Medium => Severity::Low,
            Severity::High => Severity::Medium,
            Severity::Critical => Severity::High,
        }
    }

    /// The severity with this name.
    pub fn from_name(name: &str) -> Option<Severity> {
        SEVERITIES.iter().copied().find(|severity| severity.name() == name)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Severity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_have_the_words_that_the_policy_and_the_sinks_use() {
        assert_eq!(SEVERITIES.map(Severity::name), ["low", "medium", "high", "critical"]);
        assert!(SEVERITIES.is_sorted_by(|a, b| a < b));
        for severity in SEVERITIES {
            assert_eq!(Severity::from_name(severity.name()), Some(severity));
        }
        assert_eq!(Severity::from_name("severe"), None);
    }
}
