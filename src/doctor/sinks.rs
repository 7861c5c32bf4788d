//! Whether alarms reach anybody.

use super::{Finding, FindingId};

/// How the daemon's sinks do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkFacts {
    /// No daemon runs.
    NoDaemon,
    /// A daemon runs, and does not say.
    Silent(String),
    /// What it says of each.
    Known(Vec<SinkState>),
}

/// How a sink does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkState {
    /// Its name.
    pub name: String,
    /// Why it fails; `None`: it works.
    pub error: Option<String>,
}

pub(super) fn judge(facts: &SinkFacts, interface: &str) -> Vec<Finding> {
    match facts {
        SinkFacts::NoDaemon => vec![Finding {
            id: FindingId::NoDaemon,
            about: interface.to_owned(),
            text: format!("no daemon runs on {interface}: drops raise no alarm"),
            remedy: format!(
                "systemctl enable --now portcullis@{interface}, or portcullis run -i {interface} -p POLICY"
            ),
        }],
        SinkFacts::Silent(why) => vec![Finding {
            id: FindingId::NoDaemon,
            about: interface.to_owned(),
            text: format!(
                "the daemon on {interface} does not answer: {}",
                why.lines().next().unwrap_or_default()
            ),
            remedy: format!("systemctl restart portcullis@{interface}"),
        }],
        SinkFacts::Known(sinks) => sinks.iter().filter_map(|sink| judge_one(sink, interface)).collect(),
    }
}

fn judge_one(sink: &SinkState, interface: &str) -> Option<Finding> {
    let error = sink.error.as_deref()?;
    Some(Finding {
        id: FindingId::SinkFailing,
        about: sink.name.clone(),
        text: format!("the sink {} fails: {error}", sink.name),
        remedy: format!(
            "repair it; the daemon tries again by itself, and portcullis test-alarm -i {interface} tries it at once"
        ),
    })
}
