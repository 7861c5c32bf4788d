//! How the gate is attached.

use super::{Finding, FindingId};
use crate::gate::{AttachMode, GateStatus};

/// There is no gate at all.
pub(super) fn judge_missing(interface: &str) -> Vec<Finding> {
    vec![Finding {
        id: FindingId::Detached,
        about: interface.to_owned(),
        text: format!("there is no gate on {interface}: nothing is dropped"),
        remedy: format!("portcullis attach -i {interface} -p POLICY"),
    }]
}

pub(super) fn judge(status: &GateStatus) -> Vec<Finding> {
    let interface = status.interface.as_str();
    let finding =
        |id, text: String, remedy: String| Finding { id, about: interface.to_owned(), text, remedy };
    let mut found = Vec::new();
    match status.attached {
        AttachMode::Native => {}
        AttachMode::Generic => found.push(finding(
            FindingId::GenericMode,
            format!("the gate on {interface} runs in generic mode: the driver takes no XDP program as it is set now"),
            "`dmesg | tail` may say why; many drivers want a smaller MTU, or LRO off (ethtool -K IF lro off)".to_owned(),
        )),
        AttachMode::No => found.push(finding(
            FindingId::Detached,
            format!("the filter of the gate is not on {interface}: nothing is dropped"),
            format!("portcullis attach -i {interface} -p POLICY"),
        )),
    }
    if status.lacks_tracker() {
        found.push(finding(
            FindingId::TrackerMissing,
            format!("the tracker is not on {interface}, and tracking is strict"),
            format!("portcullis attach -i {interface} -p POLICY"),
        ));
    }
    let servers = status.policy.servers;
    if servers > 0 && status.policy.observing.len() == servers {
        found.push(finding(
            FindingId::Observing,
            format!("every server of {interface} is in mode observe"),
            "apply a policy with mode = \"enforce\" when the alarms say nothing new any more".to_owned(),
        ));
    }
    found
}
