//! A program that runs for each alarm that is opened, escalated or closed, with the alarm as JSON on its
//! standard input. It runs without a shell, in a clean environment, and for a limited time.

mod errors;

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{PipeReader, Seek as _, Write as _, pipe};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, chdir};

use self::errors::Errors;
use super::{Event, Matter, PermanentError, Sink, Site};
use crate::alarm::Step;
use crate::host::host_name;
use crate::policy::Alarms;
use crate::stderr;

/// Its environment, beside the host and the interface.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];
/// Between two checks whether it has ended: short at first, because most programs end soon.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(100);

/// The program of the policy's key `command`.
pub(super) fn from_policy(alarms: &Alarms, _: Site<'_>) -> Option<Box<dyn Sink>> {
    if alarms.command.is_empty() {
        return None;
    }
    let limit = Duration::from_secs(u64::from(alarms.command_timeout_s));
    Some(Box::new(Command::new(&alarms.command, limit)))
}

/// A program that takes alarms.
#[derive(Debug)]
pub(super) struct Command {
    name: String,
    words: Vec<String>,
    limit: Duration,
    cancel_flag: Arc<AtomicBool>,
    errors: Errors,
}

impl Command {
    /// `words` are the program's path and its arguments. It may run for `limit`.
    pub(super) fn new(words: &[String], limit: Duration) -> Command {
        let name = format!("command {}", words.first().map_or("", String::as_str));
        Command {
            name,
            words: words.to_vec(),
            limit,
            cancel_flag: Arc::default(),
            errors: Errors::new(Instant::now()),
        }
    }

    fn start(&self, kind: &str, interface: &str, event: &Event) -> anyhow::Result<Child> {
        let program = self.words.first().context("there is no command")?;
        // The working folder of this thread alone. (The kernel calls it a part of the file system's state.)
        unshare(CloneFlags::CLONE_FS).and_then(|()| chdir("/")).context("cannot change to the folder /")?;
        let input = to_stdin(event.record()?)?;
        let nothing = OpenOptions::new().write(true).open("/dev/null")?;
        let (errors, writer) = pipe()?;
        fcntl(&errors, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let mut actions = PosixSpawnFileActions::init()?;
        actions.add_dup2(input.as_raw_fd(), 0)?;
        actions.add_dup2(nothing.as_raw_fd(), 1)?;
        actions.add_dup2(writer.as_raw_fd(), 2)?;
        let mut environment: Vec<String> =
            ENVIRONMENT.iter().map(|(name, value)| format!("{name}={value}")).collect();
        environment.push(format!("PORTCULLIS_HOST={}", host_name()));
        environment.push(format!("PORTCULLIS_INTERFACE={interface}"));
        environment.push(format!("PORTCULLIS_EVENT={kind}"));
        let pid = posix_spawn(
            program.as_str(),
            &actions,
            &child_attributes()?,
            &to_c(self.words.iter().cloned())?,
            &to_c(environment.into_iter())?,
        );
        let pid = pid.with_context(|| format!("cannot run {program}"))?;
        Ok(Child { pid, errors: Some(errors), has_ended: false })
    }

    fn await_end(&mut self, child: &mut Child) -> anyhow::Result<WaitStatus> {
        let deadline = Instant::now() + self.limit;
        let mut pause = FIRST_PAUSE;
        loop {
            let status = child.try_wait()?;
            child.read_errors(&mut self.errors);
            if let Some(status) = status {
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.cancel_flag.load(Ordering::Relaxed) {
                child.end_group();
                anyhow::bail!("it was killed because the daemon ends");
            }
            if left.is_zero() {
                child.end_group();
                let limit = self.limit.as_secs_f32();
                return Err(PermanentError(format!("it did not end within {limit} s and was killed")).into());
            }
            child.rest(pause.min(left), self.errors.is_full());
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }
}

/// Signals are as in a fresh process: the daemon blocks and ignores some. It has a group of its own, so that its
/// children can be killed with it.
fn child_attributes() -> anyhow::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    Ok(attributes)
}

fn to_c(texts: impl Iterator<Item = String>) -> anyhow::Result<Vec<CString>> {
    texts.map(|text| CString::new(text).context("a NUL character")).collect()
}

/// A program that runs.
struct Child {
    pid: Pid,
    /// Its standard error, until that is closed.
    errors: Option<PipeReader>,
    has_ended: bool,
}

impl Child {
    fn try_wait(&mut self) -> anyhow::Result<Option<WaitStatus>> {
        match waitpid(self.pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => Ok(None),
            Ok(status) => {
                self.has_ended = true;
                Ok(Some(status))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what it has written to standard error, as far as that is of interest.
    fn read_errors(&mut self, errors: &mut Errors) {
        if let Some(reader) = &mut self.errors
            && !errors.read(reader)
        {
            self.errors = None;
        }
    }

    /// Waits a little, or until it writes. One that writes too much does not make the daemon read all the time.
    fn rest(&self, pause: Duration, is_full: bool) {
        if let Some(reader) = self.errors.as_ref().filter(|_| !is_full) {
            let mut polled = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut polled, PollTimeout::try_from(pause).unwrap_or(PollTimeout::ZERO));
            return;
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the flag and the child are polled, in growing pauses"
        )]
        std::thread::sleep(pause);
    }

    /// Kills the program and all of its group.
    fn end_group(&mut self) {
        if self.has_ended {
            return;
        }
        // It has not been waited for, so no other process has its number yet.
        let _ = killpg(self.pid, Signal::SIGKILL);
        while waitpid(self.pid, None) == Err(Errno::EINTR) {}
        self.has_ended = true;
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
    }
}

impl Sink for Command {
    fn name(&self) -> &str {
        &self.name
    }

    /// It must not outlive the daemon, because nothing else limits its time.
    fn cancel_flag(&self) -> Option<Arc<AtomicBool>> {
        Some(Arc::clone(&self.cancel_flag))
    }

    fn write(&mut self, event: &Event) -> anyhow::Result<()> {
        let (kind, interface) = match &event.matter {
            // An intruder can cause updates every few seconds, for as long as he likes.
            Matter::Alarm(change) if change.step == Step::Updated || change.is_muted => return Ok(()),
            Matter::Alarm(change) => ("alarm", &*change.alarm.interface),
            Matter::Audit(event) => ("audit", &*event.interface),
            Matter::Drop(_) | Matter::OpenAlarms(_) => return Ok(()),
        };
        let mut child = self.start(kind, interface, event)?;
        let outcome = self.await_end(&mut child);
        child.read_errors(&mut self.errors);
        for line in self.errors.report(Instant::now()) {
            stderr::notice(format_args!("portcullis: {}: {line}", self.name));
        }
        let why = match outcome? {
            WaitStatus::Exited(_, 0) => return Ok(()),
            WaitStatus::Exited(_, code) => format!("exit status {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("signal {signal}"),
            status => format!("{status:?}"),
        };
        Err(PermanentError(format!("{} ended with {why}", self.name)).into())
    }
}

/// A file in memory. With a pipe, a program that reads nothing would hold up the sink.
fn to_stdin(text: &str) -> anyhow::Result<File> {
    let mut file = File::from(memfd_create("alarm", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alarm::Change;
    use crate::alarm::example::opened_by;

    const LIMIT: Duration = Duration::from_secs(20);

    fn event(name: &str) -> Event {
        Event::of_alarm(opened_by(name))
    }

    /// A shell of the test's own, whose script is an argument.
    fn shell(script: &str, path: &std::path::Path, limit: Duration) -> Command {
        let path = path.display().to_string();
        Command::new(&["/bin/sh", "-c", script, "sh", &path].map(str::to_owned), limit)
    }

    #[test]
    fn the_program_reads_the_alarm_and_finds_host_and_interface_in_a_clean_environment() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reads");
        shell("cat >\"$1\"; env | sort >>\"$1\"; pwd >>\"$1\"", &path, LIMIT)
            .write(&event("w$(id)`id`"))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (line, rest) = text.split_once('\n').unwrap();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&value["kind"], &value["change"]), (&"attempt".into(), &"opened".into()));
        assert_eq!(value["server"], "w$(id)`id`");
        let names: Vec<&str> = rest.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let own = ["PORTCULLIS_EVENT", "PORTCULLIS_HOST", "PORTCULLIS_INTERFACE"];
        let ours = [&["LANG", "PATH", "PWD", "SHLVL", "_"], &own[..]].concat();
        assert!(names.contains(&"PATH") && names.iter().all(|name| ours.contains(name)), "{names:?}");
        let has = |line: &str| rest.lines().any(|known| known == line);
        assert!(has(&format!("PORTCULLIS_HOST={}", host_name())), "{rest}");
        assert!(has("PORTCULLIS_INTERFACE=dmz0") && has("PORTCULLIS_EVENT=alarm"), "{rest}");
        assert_eq!((&value["host"], &value["interface"]), (&host_name().into(), &"dmz0".into()));
        assert_eq!(rest.lines().last(), Some("/"));
    }

    #[test]
    fn what_was_done_to_the_gate_says_that_it_is_no_alarm() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("reads");
        shell("cat >\"$1\"; echo $PORTCULLIS_EVENT >>\"$1\"", &path, LIMIT)
            .write(&Event::of_audit(crate::audit::example::quarantine_by("$(id)")))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let (line, kind) = text.split_once('\n').unwrap();
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!((&value["audit"]["subject"], kind), (&"$(id)".into(), "audit\n"));
        assert!(value.get("kind").is_none());
    }

    #[test]
    fn a_program_that_never_ends_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ends");
        let mut command = shell("sleep 1000 & echo $! >\"$1\"; wait", &path, Duration::from_millis(300));
        let error = command.write(&event("web1")).unwrap_err();
        assert!(error.is::<PermanentError>() && error.to_string().contains("was killed"), "{error}");
        let pid = std::fs::read_to_string(&path).unwrap();
        // killed; nobody may have collected it yet
        let ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let deadline = Instant::now() + LIMIT;
        while !ended() {
            assert!(Instant::now() < deadline, "its child lives on");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_program_that_fails_or_is_not_there_is_an_error() {
        let mut fails = Command::new(&["/bin/false".to_owned()], LIMIT);
        assert!(fails.write(&event("web1")).unwrap_err().is::<PermanentError>());
        let mut missing = Command::new(&["/nowhere/page".to_owned()], LIMIT);
        let error = missing.write(&event("web1")).unwrap_err();
        assert!(!error.is::<PermanentError>() && format!("{error:#}").contains("cannot run /nowhere/page"));
    }

    #[test]
    fn a_program_that_reads_nothing_is_no_failure_and_updates_start_none() {
        Command::new(&["/bin/true".to_owned()], LIMIT).write(&event("web1")).unwrap();
        let change = Change { step: Step::Updated, ..opened_by("web1") };
        Command::new(&["/bin/false".to_owned()], LIMIT).write(&Event::of_alarm(change)).unwrap();
    }

    #[test]
    fn the_program_has_no_signal_blocked_or_ignored() {
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGHUP);
        mask.thread_block().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("signals");
        shell("grep -E '^Sig(Blk|Ign)' /proc/self/status >\"$1\"", &path, LIMIT)
            .write(&event("web1"))
            .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        // Two more are of the C library's own.
        let own: u64 = 0b11 << 31;
        let masks: Vec<u64> = text
            .lines()
            .map(|line| u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap() & !own)
            .collect();
        assert_eq!(masks, [0, 0], "{text}");
    }

    #[test]
    fn a_program_that_floods_standard_error_is_cut_and_killed_in_time() {
        let mut command = shell("exec yes >&2", std::path::Path::new("/"), Duration::from_millis(500));
        let error = command.write(&event("web1")).unwrap_err();
        assert!(error.to_string().contains("was killed"), "{error}");
        assert!(command.errors.report(Instant::now()).is_empty(), "it was reported already");
    }
}
