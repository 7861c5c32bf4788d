//! Reload: SIGHUP makes the daemon read its policy file again. A bad file changes nothing. Log rotation
//! sends SIGHUP as well, so the same file again must cost little.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use crate::abi::read_text;
use crate::compile::{Tables, compile};
use crate::gate::{Gate, GateError, GatePlace, confirm_policy, list_carried, list_ended, refuse_unconfirmed};
use crate::memory::return_memory;
use crate::policy::{Diagnostics, Policy, list_changes};
use crate::policy_file::{CompiledPolicy, read_regular_policy};
use crate::policy_tests::require_tests;
use crate::resolve::{Lookup, PATIENCE, look_up};
use crate::stderr::notice;

/// The first line of a refusal. The mistakes follow it.
pub(super) const BAD_POLICY: &str = "the policy is bad";

/// How long a reload waits for another command that is changing the gate.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// How long a reload waits for the file and its set files.
const READ_PATIENCE: Duration = Duration::from_secs(10);

/// How long a reload waits for the policy's tests, once the file is read.
const TEST_PATIENCE: Duration = Duration::from_secs(60);

/// What was read. The tables are there if tests had to be run, which takes them.
#[derive(Debug)]
pub(super) struct ReadFile {
    policy: Policy,
    tables: Option<Tables>,
    /// What the router itself was answered for the names of the policy.
    seeds: Vec<Lookup>,
}

type ReadPolicy = anyhow::Result<Result<ReadFile, Diagnostics>>;

/// The policy file, and the reload that was asked for.
#[derive(Debug)]
pub(super) struct Reload {
    policy_file: PathBuf,
    asked: Option<Asked>,
    /// A thread reads, because the file may lie on a file system that hangs. There is one at most: of a file
    /// that hangs for ever, one thread is left.
    reading: Option<Reading>,
    /// The policy that waits for the lock, and since when.
    read: Option<(ReadFile, Instant)>,
    /// The text whose tests have passed last: the same file again need not be tested again.
    tested: Option<TextHash>,
}

type TextHash = [u8; 32];

/// SIGHUP that was not obeyed yet.
#[derive(Clone, Copy, Debug)]
struct Asked {
    first: Instant,
    last: Instant,
}

#[derive(Debug)]
struct Reading {
    answer: Receiver<ReadPolicy>,
    since: Instant,
    /// Set once the file is read.
    is_testing: Arc<AtomicBool>,
}

/// A policy that is live now.
#[derive(Debug)]
pub(super) struct Reloaded {
    pub policy: Policy,
    pub generation: u64,
    /// The changes, for people.
    pub text: String,
}

/// What a reload must not do, for nobody sits there who could say so.
#[derive(Debug)]
pub(super) struct Guard {
    /// Generation of the live policy when it last was the one of the daemon's file.
    pub(super) own_generation: u64,
    /// Somebody said so: `reload --force`.
    pub(super) force: bool,
}

impl Guard {
    /// Somebody has made a policy of another file the live one since. A reload, perhaps that of log rotation, must
    /// not undo that.
    fn refuse_other_file(&self, gate: &Gate, place: &GatePlace, policy: &Policy) -> anyhow::Result<()> {
        let Some(live) = gate.live_settings()?.filter(|live| live.generation != self.own_generation) else {
            return Ok(());
        };
        let file = read_text(&live.file);
        if self.force
            || is_same_file(&file, &policy.file)
            || gate.live_source()?.is_none_or(|(text, _)| text == policy.text)
        {
            return Ok(());
        }
        bail!(
            "the live policy is that of {file}, which somebody has applied since, and not that of {}\n\
             help: portcullis reload -i {} --force makes {1} live all the same",
            policy.file,
            place.interface,
        );
    }

    /// As `apply` does.
    fn refuse_lost_management(
        &self,
        gate: &Gate,
        place: &GatePlace,
        policy: &Policy,
        tables: &Tables,
    ) -> anyhow::Result<()> {
        let lost = gate.find_cut_off(policy, tables, None)?;
        let Some(first) = lost.first().filter(|_| !self.force) else { return Ok(()) };
        let more = match lost.len() - 1 {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        bail!(
            "the policy would cut off an open flow of the management: {first}{more}\n\
             help: portcullis apply -i {0} --confirm 60s {1} tries it, and portcullis reload -i {0} --force makes \
             it live",
            place.interface,
            policy.file
        );
    }
}

/// Two names of one file, as they were typed.
fn is_same_file(one: &str, other: &str) -> bool {
    let resolve = |file: &str| std::fs::canonicalize(file).ok();
    one == other || resolve(one).is_some_and(|path| Some(path) == resolve(other))
}

impl Reload {
    /// Of a policy file.
    pub(super) fn new(policy_file: &Path) -> Reload {
        Reload { policy_file: policy_file.to_owned(), asked: None, reading: None, read: None, tested: None }
    }

    /// The policy file.
    pub(super) fn policy_file(&self) -> &Path {
        &self.policy_file
    }

    /// Notes that SIGHUP came. The file may be another one since an earlier SIGHUP, so it is read again.
    pub(super) fn ask(&mut self, now: Instant) {
        let first = self.asked.map_or(now, |asked| asked.first);
        self.asked = Some(Asked { first, last: now });
        self.read = None;
    }

    /// The policy of the file and the lock, once both are there. `None` if no reload was asked for, or while the
    /// file is being read or another command has the lock: the next call goes on. So nothing here waits.
    pub(super) fn take_turn<L>(
        &mut self,
        now: Instant,
        try_lock: impl FnOnce() -> Result<L, GateError>,
    ) -> Option<anyhow::Result<(L, ReadFile)>> {
        let asked = self.asked?;
        let turn = match self.read.take() {
            Some((file, since)) => Some(Ok((file, since))),
            None => self.poll_file(now, asked).map(|read| read.map(|file| (file, now))),
        }
        .and_then(|read| match read {
            Err(error) => Some(Err(error)),
            Ok((file, since)) => match try_lock() {
                Err(GateError::Locked { .. }) if now.duration_since(since) < LOCK_PATIENCE => {
                    self.read = Some((file, since));
                    None
                }
                lock => Some(lock.map(|lock| (lock, file)).map_err(anyhow::Error::from)),
            },
        });
        if turn.is_some() {
            self.asked = None;
        }
        turn
    }

    /// The policy of the file, once it is read. Begins to read if nothing does.
    fn poll_file(&mut self, now: Instant, asked: Asked) -> Option<anyhow::Result<ReadFile>> {
        let Some(reading) = &self.reading else {
            let (path, tested) = (self.policy_file.clone(), self.tested);
            let begun = Reading::start(now, move |progress| {
                let mut read = read_tested_policy(&path, tested, progress, require_tests);
                if let Ok(Ok(file)) = &mut read {
                    let sources = file.policy.name_sources();
                    file.seeds = look_up(&sources.list_asked(), &sources.resolvers, PATIENCE);
                }
                read
            });
            self.reading = match begun {
                Ok(reading) => Some(reading),
                Err(error) => return Some(Err(error)),
            };
            return None;
        };
        match reading.answer.try_recv() {
            // It may have read what was there before.
            Ok(_) if reading.since < asked.last => {
                self.reading = None;
                None
            }
            Ok(read) => {
                self.reading = None;
                if let Ok(Ok(file)) = &read {
                    self.tested = Some(hash_text(&file.policy));
                }
                let bad = |diagnostics| anyhow::anyhow!("{BAD_POLICY}\n{diagnostics}");
                Some(read.and_then(|file| file.map_err(bad)))
            }
            Err(TryRecvError::Empty) if now.duration_since(asked.first) < reading.patience() => None,
            Err(TryRecvError::Empty) if reading.is_testing() => Some(Err(anyhow::anyhow!(
                "the tests of the policy {0} did not end within {1} seconds\n\
                 help: see how long they take by `portcullis test {0}`, then send SIGHUP again",
                self.policy_file.display(),
                TEST_PATIENCE.as_secs()
            ))),
            Err(TryRecvError::Empty) => Some(Err(anyhow::anyhow!(
                "the policy {} could not be read within {} seconds\n\
                 help: see whether its file system hangs (the files of its sets too), then send SIGHUP again",
                self.policy_file.display(),
                READ_PATIENCE.as_secs()
            ))),
            Err(TryRecvError::Disconnected) => {
                self.reading = None;
                Some(Err(anyhow::anyhow!("the policy {} could not be read", self.policy_file.display())))
            }
        }
    }

    /// Makes a policy the live one. The caller holds the lock.
    ///
    /// # Errors
    /// When the policy does not fit or the gate is not the daemon's any more. The live policy stays then.
    pub(super) fn apply(
        gate: &Gate,
        place: &GatePlace,
        file: ReadFile,
        guard: &Guard,
    ) -> anyhow::Result<Reloaded> {
        let ReadFile { policy, tables, seeds } = file;
        let bad = |diagnostics| anyhow::anyhow!("{BAD_POLICY}\n{diagnostics}");
        if !gate.is_pinned_at(place)? {
            bail!("another command has detached the gate from {}", place.interface);
        }
        gate.settle_trial(place)?;
        gate.refuse_during_trial(place)?;
        guard.refuse_other_file(gate, place, &policy)?;
        refuse_unconfirmed(place, &policy)?;
        // Each step needs much memory for a moment, so each gives back what it had.
        return_memory();
        let changes = gate.changes_to(&policy)?;
        return_memory();
        let mut tables = tables.map_or_else(|| compile(&policy).map_err(bad), Ok)?;
        tables.destinations.seeds = seeds;
        guard.refuse_lost_management(gate, place, &policy, &tables)?;
        let carried = gate.find_carried_quarantines(&tables)?;
        let homeless = gate.find_homeless_edits(&tables)?;
        let generation = gate.apply(place, &policy, &tables)?;
        if let Some(warning) = confirm_policy(place, &policy) {
            notice!("portcullis: warning: {warning}");
        }
        if let Some(warning) = gate.find_handover_doubt()? {
            notice!("portcullis: warning: {warning}");
        }
        let text = format!(
            "{}{}{}portcullis: generation {generation} is live on {}",
            list_changes(&changes),
            list_carried(&carried),
            list_ended(&homeless),
            place.interface
        );
        Ok(Reloaded { policy, generation, text })
    }
}

impl Reading {
    fn start(
        now: Instant,
        read: impl FnOnce(&AtomicBool) -> ReadPolicy + Send + 'static,
    ) -> anyhow::Result<Reading> {
        let (sender, answer) = sync_channel(1);
        let is_testing = Arc::new(AtomicBool::new(false));
        let progress = is_testing.clone();
        std::thread::Builder::new()
            .name("policy".to_owned())
            .spawn(move || {
                let _ = sender.send(read(&progress));
            })
            .context("could not start the thread that reads the policy")?;
        Ok(Reading { answer, since: now, is_testing })
    }

    fn is_testing(&self) -> bool {
        self.is_testing.load(Ordering::Relaxed)
    }

    fn patience(&self) -> Duration {
        if self.is_testing() { READ_PATIENCE + TEST_PATIENCE } else { READ_PATIENCE }
    }
}

fn hash_text(policy: &Policy) -> TextHash {
    Sha256::digest(&policy.text).into()
}

/// Reads a policy, and runs its tests if another text than `tested` has them. `progress` is set in between.
fn read_tested_policy<E: Into<anyhow::Error>>(
    path: &Path,
    tested: Option<TextHash>,
    progress: &AtomicBool,
    run_tests: impl FnOnce(&CompiledPolicy) -> Result<(), E>,
) -> ReadPolicy {
    let policy = match read_regular_policy(path)? {
        Ok(policy) if !policy.tests.is_empty() && tested != Some(hash_text(&policy)) => policy,
        policy => return Ok(policy.map(|policy| ReadFile { policy, tables: None, seeds: Vec::new() })),
    };
    progress.store(true, Ordering::Relaxed);
    let tables = match compile(&policy) {
        Ok(tables) => tables,
        Err(diagnostics) => return Ok(Err(diagnostics)),
    };
    let compiled = CompiledPolicy { policy, tables };
    run_tests(&compiled).map_err(Into::into)?;
    let CompiledPolicy { policy, tables } = compiled;
    Ok(Ok(ReadFile { policy, tables: Some(tables), seeds: Vec::new() }))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const POLICY: &str = "[servers.s]\naddresses = [\"192.0.2.1\"]\n";

    fn locked() -> Result<(), GateError> {
        Err(GateError::Locked { interface: "dmz0".to_owned(), holder: "7".to_owned() })
    }

    fn reload() -> (Reload, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        std::fs::write(&path, POLICY).unwrap();
        (Reload::new(&path), folder)
    }

    /// Takes turns until the file was read.
    fn wait_for_file(reload: &mut Reload, now: Instant) {
        while reload.read.is_none() {
            assert!(reload.take_turn(now, locked).is_none());
            std::thread::yield_now();
        }
    }

    #[test]
    fn nothing_is_read_or_locked_before_a_reload_was_asked_for() {
        let (mut reload, _folder) = reload();
        assert!(reload.take_turn(Instant::now(), || -> Result<(), _> { panic!("locked") }).is_none());
        assert!(reload.reading.is_none());
    }

    #[test]
    fn a_reload_waits_for_another_command_but_not_for_ever() {
        let (mut reload, _folder) = reload();
        let start = Instant::now();
        reload.ask(start);
        wait_for_file(&mut reload, start);
        assert!(reload.take_turn(start + LOCK_PATIENCE / 2, locked).is_none());
        let error = reload.take_turn(start + LOCK_PATIENCE, locked).unwrap().unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(GateError::Locked { .. })), "{error}");
        assert!(reload.take_turn(start + LOCK_PATIENCE, || Ok(())).is_none(), "it was given up");
    }

    #[test]
    fn a_reload_that_has_its_turn_is_done_once() {
        let (mut reload, _folder) = reload();
        let now = Instant::now();
        reload.ask(now);
        reload.ask(now);
        wait_for_file(&mut reload, now);
        let (lock, file) = reload.take_turn(now, || Ok(7)).unwrap().unwrap();
        assert_eq!((lock, file.policy.servers.len()), (7, 1));
        assert!(reload.take_turn(now, || Ok(7)).is_none());
    }

    #[test]
    fn a_file_that_changes_between_two_hangups_is_read_twice() {
        let (mut reload, folder) = reload();
        let start = Instant::now();
        reload.ask(start);
        wait_for_file(&mut reload, start);
        std::fs::write(folder.path().join("p.toml"), POLICY.replace("[servers.s]", "[servers.other]"))
            .unwrap();
        let later = start + Duration::from_secs(1);
        reload.ask(later);
        wait_for_file(&mut reload, later);
        let (_, file) = reload.take_turn(later, || Ok(())).unwrap().unwrap();
        assert_eq!(file.policy.servers[0].name, "other");
    }

    #[test]
    fn what_the_tests_were_run_on_is_what_becomes_live_and_is_compiled_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let text = format!("{POLICY}[[tests]]\nfrom = \"s\"\ndeny = [\"tcp/80 to 198.51.100.9\"]\n");
        std::fs::write(&path, &text).unwrap();
        let (mut runs, progress) = (0, AtomicBool::new(false));
        let mut read = |tested| {
            read_tested_policy(&path, tested, &progress, |compiled| {
                runs += 1;
                anyhow::ensure!(compiled.policy.servers[0].name == "s", "a test fails");
                Ok(())
            })
            .map(Result::unwrap)
        };
        let first = read(None).unwrap();
        assert!(first.tables.is_some(), "nobody compiles it again");
        // the same text needs no test
        assert!(read(Some(hash_text(&first.policy))).unwrap().tables.is_none());
        std::fs::write(&path, text.replace("\"s\"", "\"t\"").replace("servers.s", "servers.t")).unwrap();
        assert!(read(None).unwrap_err().to_string().contains("a test fails"));
        assert_eq!(runs, 2);
        assert!(progress.load(Ordering::Relaxed));
    }

    #[test]
    fn a_file_that_hangs_is_given_up_holds_up_nobody_and_leaves_one_thread() {
        let (mut reload, _folder) = reload();
        let start = Instant::now();
        let (release, hung) = sync_channel::<()>(1);
        let stuck = Reading::start(start, move |_| {
            let _ = hung.recv();
            bail!("it came late")
        });
        reload.reading = Some(stuck.unwrap());
        let mut now = start;
        for _ in 0..3 {
            now += Duration::from_secs(1);
            reload.ask(now);
            assert!(reload.take_turn(now + READ_PATIENCE / 2, || Ok(())).is_none());
            now += READ_PATIENCE;
            let error = reload.take_turn(now, || Ok(())).unwrap().unwrap_err();
            assert!(error.to_string().contains("could not be read within 10 seconds"), "{error}");
            assert_eq!(reload.reading.as_ref().unwrap().since, start, "another thread was started");
        }
        // what it read long ago counts for nothing
        release.send(()).unwrap();
        reload.ask(now);
        wait_for_file(&mut reload, now);
        assert!(reload.take_turn(now, || Ok(())).unwrap().is_ok());
    }
}
