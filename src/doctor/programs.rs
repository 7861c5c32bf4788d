//! Programs of others in the way of packets.

use super::{Finding, FindingId};
use crate::gate::OtherProgram;

pub(super) fn judge(others: &[OtherProgram]) -> Vec<Finding> {
    others.iter().map(judge_one).collect()
}

fn judge_one(other: &OtherProgram) -> Finding {
    let OtherProgram { interface, hook, name } = other;
    match *hook {
        "xdp" => Finding {
            id: FindingId::OtherXdp,
            about: interface.clone(),
            text: format!("the XDP program `{name}` of somebody else is on {interface}, before the gate"),
            remedy: format!(
                "find out whose it is (bpftool net), and take it off: ip link set {interface} xdp off"
            ),
        },
        hook => Finding {
            id: FindingId::OtherTc,
            about: format!("{interface} {hook}"),
            text: format!(
                "a TC program or filter of somebody else (`{name}`) is at the {hook} of {interface}"
            ),
            remedy: format!("find out whose it is: tc filter show dev {interface} {hook}; bpftool net"),
        },
    }
}
