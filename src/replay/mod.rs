//! Replay: runs captures through the programs of a policy, in tables of their own, by the time of the capture.
//!
//! | part | work |
//! | --- | --- |
//! | `servers` | which server has an address |
//! | `direction`, `copies` | whether a frame came from a server or went to one, and which frames are seen twice |
//! | `conversations` | which connections began in the capture, and which were refused |
//! | `lane` | one policy: each frame through filter or tracker |
//! | `counts` | drops by server, service, reason and destination |
//! | `alarms` | the daemon's rounds, by the time of the capture |
//! | `difference` | what two policies decide otherwise |
//! | `record`, `text` | what is printed |

mod alarms;
mod conversations;
mod copies;
mod counts;
mod difference;
mod direction;
mod lane;
mod record;
mod servers;
mod text;

use std::path::PathBuf;

use crate::capture::Merge;
use crate::gate::{GateError, ReplayGate};
use crate::policy_file::CompiledPolicy;
use difference::Differences;
use lane::Lane;
pub use record::{Comparison, DamageRecord, Replay};

/// What to replay.
#[derive(Debug)]
pub struct Request<'a> {
    /// The captures.
    pub files: &'a [PathBuf],
    /// The MAC of the NIC at which they were taken, if it is known.
    pub own_mac: Option<[u8; 6]>,
}

/// Replays captures under one policy.
///
/// # Errors
/// When a file can't be opened, or the kernel refuses the programs. A damaged capture is no error.
pub fn replay(compiled: &CompiledPolicy, request: &Request<'_>) -> anyhow::Result<Replay> {
    let mut merge = Merge::open(request.files)?;
    let gate = load(compiled, request)?;
    let mut lane = Lane::new(compiled, &gate, request.own_mac)?;
    while let Some(frame) = merge.read() {
        lane.judge(frame)?;
    }
    lane.finish()?;
    Ok(Replay::of(&lane, request.files, merge.damages()))
}

/// Replays captures under two policies, and compares what these decide.
///
/// # Errors
/// As [`replay`].
pub fn compare(
    first: &CompiledPolicy,
    second: &CompiledPolicy,
    request: &Request<'_>,
) -> anyhow::Result<Comparison> {
    let mut merge = Merge::open(request.files)?;
    let gates = [load(first, request)?, load(second, request)?];
    let [one, other] = &gates;
    let mut lanes = [Lane::new(first, one, request.own_mac)?, Lane::new(second, other, request.own_mac)?];
    let mut differences = Differences::default();
    let mut copy = crate::capture::Frame::default();
    while let Some(frame) = merge.read() {
        // a lane may fill in the MAC that its policy asks for
        copy.clone_from(frame);
        let [one, other] = &mut lanes;
        let judgements = [one.judge(frame)?, other.judge(&mut copy)?];
        differences.note(frame, judgements);
    }
    for lane in &mut lanes {
        lane.finish()?;
    }
    let [one, other] = &lanes;
    Ok(Comparison::of([one, other], &differences, request.files, merge.damages()))
}

fn load(compiled: &CompiledPolicy, request: &Request<'_>) -> Result<ReplayGate, GateError> {
    let gate = ReplayGate::load(&compiled.policy, &compiled.tables)?;
    if let Some(mac) = request.own_mac {
        gate.set_own_mac(mac)?;
    }
    Ok(gate)
}
