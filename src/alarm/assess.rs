//! What one drop means, with what the detector found: kind and severity.

use std::net::IpAddr;

use super::detector::{Finding, Scan};
use super::likely::is_mail;
use super::meaning::{Meaning, is_dangerous, rate};
use super::{Kind, Likely, Severity};
use crate::abi::Reason;
use crate::drops::{DropEvent, DropVerdict};

/// What a drop means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assessment {
    pub kind: Kind,
    pub severity: Severity,
    /// What it probably is, other than an intrusion.
    pub likely: Likely,
    /// Of a callback.
    pub contacted: Option<IpAddr>,
    /// The service is one that intruders use: to move on, to be controlled, to fetch tools.
    pub is_dangerous: bool,
    /// Whether it is part of a scan, unless it is more than that.
    pub scan: Scan,
}

/// What a drop means. An attempt that turned out to be part of something has that kind.
pub(super) fn assess(drop: &DropEvent, meaning: &Meaning, finding: Finding) -> Assessment {
    // A role has the port, so this is mail that goes past its smart host: a queue, or spam.
    let is_queue = is_mail(drop) && drop.reason.known() == Some(Reason::Destination);
    let likely = if is_queue { Likely::MailQueue } else { finding.likely };
    let found = match finding {
        _ if is_queue => None,
        Finding { spread: true, .. } => Some(Kind::Spread),
        Finding { callback: Some(_), .. } => Some(Kind::Callback),
        _ => None,
    };
    let kind = found.map_or(meaning.kind, |found| found.max(meaning.kind));
    let mut severity = rate(kind, drop);
    if is_queue && finding.spread || finding.is_odd && kind == Kind::Attempt {
        severity = severity.max(Severity::High);
    }
    if drop.verdict == DropVerdict::WouldDrop {
        severity = severity.lower();
    }
    Assessment {
        kind,
        severity,
        likely,
        contacted: finding.callback.filter(|_| kind == Kind::Callback),
        is_dangerous: kind > Kind::Attempt && kind != Kind::Burst || meaning.by_service && is_dangerous(drop),
        scan: if likely == Likely::Unknown { finding.scan } else { Scan::No },
    }
}
