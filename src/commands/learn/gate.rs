//! Learning from a gate: from what it has kept while its policy observes, or for a while from now on. The kernel keeps it,
//! so neither needs a daemon, and a death in between costs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::super::shared::{find_place, live_policy};
use crate::cli::LearnArgs;
use crate::clock::{show_duration, wall_now};
use crate::compile::compile;
use crate::daemon::control::find_alarms;
use crate::gate::{Gate, GatePlace};
use crate::history::{AlarmFilter, CountedOpening, EvidenceBook, KeptOpening};
use crate::learn::{Kept, Learned, Request, Servers, learn_from_gate};
use crate::output::Output;
use crate::policy_file::CompiledPolicy;
use crate::stderr;

/// How long one wait lasts, so that Ctrl-C and a gate that is detached meanwhile are noticed.
const WAIT: Duration = Duration::from_millis(200);

/// Learns from the gate on an interface. Without a policy the servers are those of the live one.
///
/// # Errors
/// When there is no gate, it sees one direction only, or it has kept nothing.
pub(super) fn learn(
    interface: &str,
    arguments: &LearnArgs,
    policy: Option<CompiledPolicy>,
    output: &Output,
) -> anyhow::Result<Learned> {
    let place = find_place(interface)?;
    let gate = Gate::open(&place)?;
    gate.require_evidence(&place)?;
    let policy = match policy {
        Some(policy) => policy,
        None => {
            let policy = live_policy(&gate, interface)?;
            let tables = compile(&policy)
                .map_err(|mistakes| super::super::shared::refuse_policy(&mistakes, output))?;
            CompiledPolicy { policy, tables }
        }
    };
    let mut kept = match (arguments.time, arguments.from) {
        (Some(time), None) => keep_for(&place, &gate, time)?,
        (time, from) => {
            if let Some(time) = time {
                wait(&place, &gate, time)?;
            }
            read_kept(&place, &gate, from.unwrap_or(Duration::MAX))?
        }
    };
    kept.alarms = read_alarms(&place, kept.from);
    let lost = gate.evidence_lost()?;
    if lost > 0 {
        kept.notes
            .push(format!("{lost} answered openings found no room in the kernel's table, and are not here"));
    }
    learn_from_gate(
        kept,
        &Request {
            files: &[],
            servers: Servers::Policy(&policy),
            is_increment: arguments.against.is_some(),
            unused: arguments.unused,
            aggregate: arguments.aggregate,
        },
    )
}

/// From what was kept until now.
fn read_kept(place: &GatePlace, gate: &Gate, time: Duration) -> anyhow::Result<Kept> {
    let book: EvidenceBook = gate.read_evidence(place)?;
    let to = wall_now();
    let Some(since) = book.since() else {
        bail!(
            "the gate on {} has kept nothing yet\nhelp: it keeps what passes while its policy says mode = \"observe\", or \
             while portcullis learn -i {} --for TIME runs",
            place.interface,
            place.interface
        );
    };
    let asked = SignedDuration::try_from(time).ok().and_then(|time| to.checked_sub(time).ok());
    let from = asked.map_or(since, |asked| asked.max(since));
    let mut notes = Vec::new();
    if let Some(asked) = asked.filter(|asked| *asked < since) {
        notes.push(format!("asked for from {asked:.0} on, but the first opening was kept at {since:.0}"));
    }
    notes.push("counts of the first day are of the whole day".to_owned());
    if !gate.observes()? {
        notes.push("the gate enforces now: what its policy drops is not among it since then".to_owned());
    }
    Ok(Kept {
        interface: place.interface.clone(),
        openings: book.list(from),
        from,
        to,
        alarms: Vec::new(),
        notes,
    })
}

/// From what passes from now on, for so long.
fn keep_for(place: &GatePlace, gate: &Gate, time: Duration) -> anyhow::Result<Kept> {
    let before: HashMap<u64, CountedOpening> =
        gate.evidence()?.into_iter().map(|opening| (opening.row, opening)).collect();
    let from = wall_now();
    wait(place, gate, time)?;
    let to = wall_now();
    let openings =
        gate.evidence()?.into_iter().filter_map(|opening| subtract(opening, &before, from)).collect();
    let mut notes = Vec::new();
    if !gate.observes()? {
        notes.push("the gate enforces: what its policy drops is not among it".to_owned());
    }
    Ok(Kept { interface: place.interface.clone(), openings, from, to, alarms: Vec::new(), notes })
}

/// What a row has counted beyond an earlier look. `None`: nothing.
fn subtract(
    opening: CountedOpening,
    before: &HashMap<u64, CountedOpening>,
    from: Timestamp,
) -> Option<KeptOpening> {
    let known = before.get(&opening.row);
    let answered = opening.answered.saturating_sub(known.map_or(0, |known| known.answered));
    let asked = opening.asked.saturating_sub(known.map_or(0, |known| known.asked));
    (answered + asked > 0).then(|| KeptOpening {
        server: opening.server,
        service: opening.service,
        peer: opening.peer,
        name: opening.name,
        answered,
        asked,
        first: opening.first.max(from),
        last: opening.last,
    })
}

/// Waits until the kernel has kept evidence for so long, or until Ctrl-C. It ends by itself, also if this command is
/// killed.
fn wait(place: &GatePlace, gate: &Gate, time: Duration) -> anyhow::Result<()> {
    let is_enough = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&is_enough);
    ctrlc::set_handler(move || asked.store(true, Ordering::SeqCst))
        .context("Ctrl-C could not be taken over: it would end the command without a policy")?;
    gate.keep_evidence(place, time.as_secs())?;
    stderr::notice(format_args!(
        "portcullis: the gate on {} keeps what passes for {}. Ctrl-C is enough of it",
        place.interface,
        show_duration(time.as_secs())
    ));
    let end = Instant::now() + time;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        if is_enough.load(Ordering::SeqCst) {
            gate.end_evidence()?;
            return Ok(());
        }
        #[expect(clippy::disallowed_methods, reason = "it waits for a time, and for nothing else")]
        std::thread::sleep(left.min(WAIT));
        if !gate.is_pinned_at(place)? {
            bail!("the gate on {} was detached meanwhile", place.interface);
        }
    }
}

/// The alarms of that time. A history that can't be read is said, for then the veto is weaker.
fn read_alarms(place: &GatePlace, from: Timestamp) -> Vec<Value> {
    let filter = AlarmFilter { from: Some(from), ..AlarmFilter::default() };
    find_alarms(place, &filter).context("the alarms of that time can't be read").unwrap_or_else(|error| {
        stderr::notice(format_args!(
            "portcullis: {error:#}\nhelp: what the alarm engine has said meanwhile does not count"
        ));
        Vec::new()
    })
}
