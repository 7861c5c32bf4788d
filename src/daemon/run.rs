//! The daemon's life: it attaches the gate, runs its event loop, and leaves the gate attached.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::announcement::{describe_attachment, describe_kept_quarantines};
use super::event_loop::{Daemon, Start};
use super::metrics::serve;
use super::metrics::snapshot::Snapshot;
use super::service_manager::ServiceManager;
use super::signals::Signals;
use crate::audit::{Action, Entry, Event};
use crate::gate::{
    Attachment, FallBack, Gate, GateError, GatePlace, confirm_policy, detach, list_saved_quarantines,
    look_up_new_names, read_mark, refuse_during_trial, refuse_unconfirmed,
};
use crate::history::{HistoryWriter, Limits};
use crate::memory::return_memory;
use crate::policy::Policy;
use crate::policy_file::CompiledPolicy;
use crate::stderr::{notice, spawn_writer};

/// How the daemon is to run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'o> {
    /// The policy file, which SIGHUP reads again.
    pub policy_file: &'o Path,
    /// Go on under the last confirmed policy if this one is refused.
    pub fall_back: bool,
    /// Detach the gate at the end.
    pub detach_on_exit: bool,
    /// Look for ways around the gate once a minute.
    pub watch: bool,
    /// Where to serve metrics.
    pub metrics: Option<SocketAddr>,
    /// Colour the alarms on standard error.
    pub colour: bool,
}

/// A gate that was attached, the policy that is live, and why it is not the one that was asked for.
struct Begun {
    gate: Gate,
    attachment: Attachment,
    compiled: CompiledPolicy,
    refusal: Option<Refusal>,
    /// Audit events that no file has.
    unkept: Vec<Event>,
}

/// A policy that was refused when the daemon began.
struct Refusal {
    text: String,
    /// When its trial began, which nobody has confirmed.
    unconfirmed_since: Option<Timestamp>,
}

/// Attaches the gate and runs until a signal or `detach` ends it.
///
/// # Errors
/// When the gate can't be attached, another daemon runs, or the gate can't be read any more.
pub fn run(
    interface: &str,
    wanted: anyhow::Result<CompiledPolicy>,
    options: &Options<'_>,
) -> anyhow::Result<()> {
    let place = GatePlace::of(interface)?;
    if let Some(note) = &place.note {
        notice!("portcullis: note: {note}");
    }
    let interface = place.interface.as_str();
    let _daemon = place.lock_daemon()?;
    let wanted = wanted.map(|mut wanted| {
        for warning in look_up_new_names(&place, &mut wanted.tables) {
            notice!("portcullis: warning: {warning}");
        }
        wanted
    });
    let signals = Signals::install()?;
    spawn_writer();
    let service_manager = ServiceManager::from_env();
    // The history opens while the gate is attached, which waits for no disk.
    let start_history = |policy: &Policy| {
        HistoryWriter::start(&place.history(), Limits::of_days(policy.response.history_days))
    };
    let early = wanted.as_ref().ok().map(|wanted| start_history(&wanted.policy));
    let Begun { gate, attachment, compiled, refusal, unkept } = attach(&place, wanted, options)?;
    let policy = &compiled.policy;
    let history = early.unwrap_or_else(|| start_history(policy));
    for warning in &attachment.warnings {
        notice!("portcullis: warning: {warning}");
    }
    for quarantine in attachment.quarantines.iter().chain(&attachment.edits) {
        notice!("portcullis: as before: {quarantine}");
    }
    if let Some(grants) = attachment.describe_grants() {
        notice!("portcullis: as before: {grants}");
    }
    // On standard error, where people look whether it came up. It is no alarm, so no sink has it.
    notice!("portcullis: {}", describe_attachment(interface, &attachment, policy));

    let snapshot = Arc::new(Snapshot::default());
    let start = Start {
        place: &place,
        gate: &gate,
        policy,
        attachment: &attachment,
        policy_file: options.policy_file,
        colour: options.colour,
        doctor: options.watch,
        snapshot: &snapshot,
    };
    let mut daemon = Daemon::start(&start, history, signals, service_manager)?;
    daemon.tell_unkept(unkept);
    if let Some(refusal) = &refusal {
        daemon.report_refused_policy(&refusal.text, refusal.unconfirmed_since);
    }
    if let Some(address) = options.metrics {
        serve(address, &place, snapshot)?;
    }
    // The kernel has the policy now. A policy of thousands of servers takes more memory than the rest.
    drop(compiled);
    return_memory();
    let outcome = daemon.watch();
    daemon.stop(options.detach_on_exit);
    outcome?;
    if daemon.monitor().is_detached() {
        return Ok(());
    }
    if options.detach_on_exit {
        let place = daemon.monitor().place();
        let interface = place.interface.as_str();
        let _lock = place.lock()?;
        if gate.is_pinned_at(place)? {
            if let Err(error) = gate.save_quarantines(place) {
                notice!("portcullis: warning: the quarantines end with the gate: {error}");
            }
            refuse_during_trial(place)?;
            if let Err(error) = gate.settle_trial(place) {
                notice!("portcullis: warning: the trial is over, but not tidied up: {error}");
            }
            let before = gate.policy_mark();
            detach(place)?;
            // its sinks have ended: the next daemon tells it
            if let Some(warning) = place.record(Entry::done(Action::Detach).change(before, None)) {
                notice!("portcullis: warning: {warning}");
            }
        }
        notice!("portcullis: detached from {interface}: nothing is dropped any more");
        let (kept, trouble) = list_saved_quarantines(place);
        if let Some(trouble) = trouble {
            notice!("portcullis: warning: {trouble}");
        }
        if let Some(text) = describe_kept_quarantines(interface, &kept) {
            notice!("portcullis: {text}");
        }
    } else {
        notice!("portcullis: the daemon has stopped; {}", daemon.monitor().describe_rest());
    }
    Ok(())
}

/// Attaches the gate with the policy that is wanted, or as the last confirmed one says.
fn attach(
    place: &GatePlace,
    wanted: anyhow::Result<CompiledPolicy>,
    options: &Options<'_>,
) -> anyhow::Result<Begun> {
    let _lock = place.lock()?;
    let before = read_mark(place);
    let keep = |entry: Entry| {
        let unkept = place.try_record(entry).err()?;
        notice!("portcullis: warning: {unkept}");
        Some(*unkept.event)
    };
    if let Err(error) = refuse_during_trial(place) {
        // The daemon watches the gate as it is: whoever tries a policy may have restarted it for that.
        let kept = Gate::fall_back(place)?;
        notice!(
            "portcullis: {error}\nportcullis: {}; {} is not read before the next reload",
            kept.describe(place),
            options.policy_file.display()
        );
        return Ok(Begun::kept(kept, None, None));
    }
    let attached = wanted.and_then(|compiled| {
        let CompiledPolicy { policy, tables } = &compiled;
        refuse_unconfirmed(place, policy)?;
        let (gate, mut attachment) = match options.fall_back {
            true => Gate::attach_or_rebuild(place, policy, tables)?,
            false => Gate::attach(place, policy, tables)?,
        };
        attachment.warnings.extend(confirm_policy(place, policy));
        let entry = attachment.to_entry(&gate, before.clone(), options.policy_file);
        let unkept = keep(entry).into_iter().collect();
        Ok(Begun { gate, attachment, compiled, refusal: None, unkept })
    });
    let refusal = match attached {
        Err(refusal) if options.fall_back || GateError::is_unconfirmed(&refusal) => refusal,
        Err(refusal) => {
            let entry = Entry::refused(Action::Attach, &format_args!("{refusal:#}"));
            keep(entry.file(options.policy_file).change(before.clone(), before));
            return Err(refusal);
        }
        Ok(begun) => return Ok(begun),
    };
    notice!("portcullis: {refusal:#}");
    let file = options.policy_file.display();
    let kept = Gate::fall_back(place).inspect_err(|failed| {
        keep(
            Entry::refused(Action::FallBack, &format_args!("{refusal:#}"))
                .file(options.policy_file)
                .detail(failed),
        );
    })?;
    let unkept = keep(kept.to_entry(place, &format_args!("{refusal:#}"), options.policy_file, before));
    let reason = format!("{refusal:#}");
    let text = format!(
        "{file} was refused ({}): {}. Repair it and reload",
        reason.lines().next().unwrap_or_default(),
        kept.describe(place)
    );
    let refusal = Refusal { text, unconfirmed_since: GateError::unconfirmed_since(&refusal) };
    Ok(Begun::kept(kept, Some(refusal), unkept))
}

impl Begun {
    fn kept(kept: FallBack, refusal: Option<Refusal>, unkept: Option<Event>) -> Begun {
        Begun {
            gate: kept.gate,
            attachment: kept.attachment,
            compiled: kept.compiled,
            refusal,
            unkept: unkept.into_iter().collect(),
        }
    }
}
