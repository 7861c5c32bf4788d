//! A program that runs for each alarm that is opened, escalated or closed, with the alarm as JSON on its
//! standard input. It runs without a shell, in a clean environment, and for a limited time.

use std::fs::File;
use std::io::{Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{Event, Matter, PermanentError, Sink, Site};
use crate::alarm::{Change, Step};
use crate::host::host_name;
use crate::policy::Alarms;

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
}

impl Command {
    /// `words` are the program's path and its arguments. It may run for `limit`.
    pub(super) fn new(words: &[String], limit: Duration) -> Command {
        let name = format!("command {}", words.first().map_or("", String::as_str));
        Command { name, words: words.to_vec(), limit, cancel_flag: Arc::default() }
    }

    fn start(&self, change: &Change, event: &Event) -> anyhow::Result<Child> {
        let (program, arguments) = self.words.split_first().context("there is no command")?;
        Process::new(program)
            .args(arguments)
            .env_clear()
            .envs(ENVIRONMENT)
            .env("PORTCULLIS_HOST", host_name())
            .env("PORTCULLIS_INTERFACE", &*change.alarm.interface)
            .current_dir("/")
            // a group of its own, so that its children can be killed with it
            .process_group(0)
            .stdin(to_stdin(event.record()?)?)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot run {program}"))
    }

    fn await_end(&self, child: &mut Child) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + self.limit;
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if self.cancel_flag.load(Ordering::Relaxed) {
                end_group(child)?;
                anyhow::bail!("it was killed because the daemon ends");
            }
            if left.is_zero() {
                end_group(child)?;
                let limit = self.limit.as_secs_f32();
                return Err(PermanentError(format!("it did not end within {limit} s and was killed")).into());
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the flag and the child are polled, in growing pauses"
            )]
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(LAST_PAUSE);
        }
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
        let Matter::Alarm(change) = &event.matter else {
            return Ok(());
        };
        // An intruder can cause updates every few seconds, for as long as he likes.
        if change.step == Step::Updated {
            return Ok(());
        }
        let mut child = self.start(change, event)?;
        let status = self.await_end(&mut child)?;
        if !status.success() {
            return Err(PermanentError(format!("{} ended with {status}", self.name)).into());
        }
        Ok(())
    }
}

/// A file in memory. With a pipe, a program that reads nothing would hold up the sink.
fn to_stdin(text: &str) -> anyhow::Result<Stdio> {
    let mut file = File::from(memfd_create("alarm", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.rewind()?;
    Ok(Stdio::from(file))
}

/// Kills the program and all of its group.
fn end_group(child: &mut Child) -> anyhow::Result<()> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    // It has not been waited for, so no other process has its number yet.
    let _ = killpg(group, Signal::SIGKILL);
    child.kill()?;
    child.wait()?;
    Ok(())
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
        let ours = ["LANG", "PATH", "PORTCULLIS_HOST", "PORTCULLIS_INTERFACE", "PWD", "SHLVL", "_"];
        assert!(names.contains(&"PATH") && names.iter().all(|name| ours.contains(name)), "{names:?}");
        let has = |line: &str| rest.lines().any(|known| known == line);
        assert!(has(&format!("PORTCULLIS_HOST={}", host_name())), "{rest}");
        assert!(has("PORTCULLIS_INTERFACE=dmz0"), "{rest}");
        assert_eq!((&value["host"], &value["interface"]), (&host_name().into(), &"dmz0".into()));
        assert_eq!(rest.lines().last(), Some("/"));
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
}
