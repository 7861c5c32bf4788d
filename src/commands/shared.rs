//! Steps that several commands share.

use std::fmt::Display;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context as _;

use crate::audit::Entry;
use crate::compile::compile;
use crate::exit::Exit;
use crate::gate::{AttachMode, Gate, GateError, GatePlace, read_mark};
use crate::memory::return_memory;
use crate::output::Output;
use crate::policy::{Diagnostics, Policy};
use crate::policy_file::{CompiledPolicy, read_and_compile, read_regular_policy};
use crate::policy_tests::{TestsRefused, require_tests};
use crate::stderr;

/// Reads and compiles a policy file. A bad one ends the command.
pub(super) fn load_policy(path: &Path, output: &Output) -> anyhow::Result<CompiledPolicy> {
    read_and_compile(path)?.map_err(|diagnostics| refuse_policy(&diagnostics, output))
}

/// As [`load_policy`], of a policy that is to become live: one of which a test fails ends the command too.
pub(super) fn load_tested_policy(path: &Path, output: &Output) -> anyhow::Result<CompiledPolicy> {
    let compiled = load_policy(path, output)?;
    pass_tests(compiled, output).map_err(|error| anyhow::anyhow!("{error:#}\nNothing was changed."))
}

/// Refuses a policy of which a test fails.
pub(super) fn pass_tests(compiled: CompiledPolicy, output: &Output) -> anyhow::Result<CompiledPolicy> {
    match require_tests(&compiled) {
        Ok(()) => Ok(compiled),
        Err(refused) => {
            if let (TestsRefused::Failed(report), true) = (&refused, output.json) {
                output.value(report)?;
            }
            Err(refused.into())
        }
    }
}

/// As [`load_tested_policy`], of a regular file, for a command that goes on if it is refused.
pub(super) fn load_policy_file(path: &Path, output: &Output) -> anyhow::Result<CompiledPolicy> {
    let refuse = |diagnostics: Diagnostics| match show_mistakes(&diagnostics, output) {
        Ok(()) => anyhow::anyhow!("{}: {}", path.display(), count_mistakes(&diagnostics)),
        Err(error) => error,
    };
    let policy = read_regular_policy(path)?.map_err(refuse)?;
    // Reading needs as much memory for a moment as compiling does.
    return_memory();
    let tables = compile(&policy).map_err(refuse)?;
    pass_tests(CompiledPolicy { policy, tables }, output)
}

/// Prints everything that is wrong with a policy, and makes the error that ends the command.
pub(super) fn refuse_policy(diagnostics: &Diagnostics, output: &Output) -> anyhow::Error {
    match show_mistakes(diagnostics, output) {
        Ok(()) => anyhow::anyhow!("{}. Nothing was changed.", count_mistakes(diagnostics)),
        Err(error) => error,
    }
}

/// Prints everything that is wrong with a policy.
pub(super) fn show_mistakes(diagnostics: &Diagnostics, output: &Output) -> anyhow::Result<()> {
    if output.json {
        return output.value(diagnostics);
    }
    stderr::notice(diagnostics);
    Ok(())
}

/// As "2 errors in the policy".
pub(super) fn count_mistakes(diagnostics: &Diagnostics) -> String {
    let count = diagnostics.len();
    format!("{count} error{} in the policy", if count == 1 { "" } else { "s" })
}

/// This command has recorded what it did: a later failure, such as a full disk behind its output, is no refusal.
static IS_DONE: AtomicBool = AtomicBool::new(false);

/// Records what a command did, before it gives the lock back. One that could not be kept is a warning: what was
/// done holds all the same.
pub(super) fn record(place: &GatePlace, entry: Entry, output: &Output) {
    if !entry.is_refusal() {
        IS_DONE.store(true, Ordering::Relaxed);
    }
    if let Some(warning) = place.record(entry) {
        output.warn(&warning);
    }
}

/// Does what a command is there for, and records it if that is refused.
pub(super) fn record_refusal<T>(
    interface: &str,
    entry: impl FnOnce(&dyn Display) -> Entry,
    output: &Output,
    act: impl FnOnce() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    act().inspect_err(|error| {
        if !IS_DONE.load(Ordering::Relaxed)
            && let Ok(place) = find_any_gate(interface)
        {
            let live = read_mark(&place);
            record(&place, entry(error).change(live.clone(), live), output);
        }
    })
}

/// The place of the gate on an interface. The user reads it when a name has changed its meaning.
pub(super) fn find_place(interface: &str) -> anyhow::Result<GatePlace> {
    tell_note(GatePlace::of(interface)?)
}

/// As [`find_place`], also for an interface that is gone.
pub(super) fn find_any_place(interface: &str) -> anyhow::Result<GatePlace> {
    tell_note(GatePlace::of_any(interface)?)
}

/// As [`find_any_place`], also of a gate of another network namespace.
pub(super) fn find_any_audited(name: &str) -> anyhow::Result<GatePlace> {
    tell_note(find_any_gate(name)?)
}

/// As [`GatePlace::of_any`], also of a gate of another network namespace by its name. No interface's name has two
/// colons.
fn find_any_gate(name: &str) -> Result<GatePlace, GateError> {
    match GatePlace::of_gate(name).filter(|_| name.contains("::")) {
        Some(place) => Ok(place),
        None => GatePlace::of_any(name),
    }
}

fn tell_note(place: GatePlace) -> anyhow::Result<GatePlace> {
    if let Some(note) = &place.note {
        stderr::notice(format_args!("portcullis: note: {note}"));
    }
    Ok(place)
}

/// The gate at a place. The caller holds the lock. The end of a trial that nobody has noticed comes first, so that
/// its audit event comes before that of the command. A command that cuts somebody off does not fail with it.
pub(super) fn open_gate(place: &GatePlace, output: &Output) -> Result<Gate, GateError> {
    let gate = Gate::open(place)?;
    if let Err(error) = gate.settle_trial(place) {
        output.warn(&format!(
            "the trial is over and the policy before is live, but not all of the trial is tidied up: {error}"
        ));
    }
    Ok(gate)
}

/// The policy that is live on an interface.
pub(super) fn live_policy(gate: &Gate, interface: &str) -> anyhow::Result<Policy> {
    gate.live_policy()?.with_context(|| no_policy(interface))
}

/// The error for a gate whose attaching was cut short.
pub(super) fn no_policy(interface: &str) -> String {
    format!("the gate on {interface} has no policy yet\nhelp: portcullis apply -i {interface} POLICY")
}

/// Keeps the quarantines for the next reboot. They hold without that too, so it is no failure.
pub(super) fn save_quarantines(gate: &Gate, place: &GatePlace, output: &Output) {
    if let Err(error) = gate.save_quarantines(place) {
        output.warn(&format!(
            "what was done holds now, but it is not saved, so it is lost at the next reboot: {error}"
        ));
    }
}

/// The exit status of a command that changed the gate's tables. They have no effect while the filter
/// is off its interface, so that is a failure, and the user reads why.
pub(super) fn exit_by_attachment(gate: &Gate, place: &GatePlace, output: &Output) -> Exit {
    match gate.find_mode(place) {
        Ok(AttachMode::Native | AttachMode::Generic) => return Exit::Done,
        Ok(AttachMode::No) => {}
        Err(error) => {
            output.warn(&format!("it was done, but {error}"));
            return Exit::Failed;
        }
    }
    output.warn(&format!(
        "the gate on {0} is NOT ATTACHED: nothing is dropped\nhelp: portcullis attach -i {0} -p POLICY",
        place.interface
    ));
    Exit::Failed
}

/// Writes a file that is not there yet.
pub(super) fn write_new(path: &Path, text: &str) -> anyhow::Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(0o640).open(path);
    let write = || -> io::Result<()> {
        let mut file = file?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().with_context(|| format!("could not write {}", path.display()))
}
