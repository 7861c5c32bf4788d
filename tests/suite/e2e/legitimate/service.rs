//! Programs of others: servers that end with their test, and clients that end by themselves.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::e2e::testbed::{Namespace, Testbed};
use crate::support::patience::{PATIENCE, Wait, within};

/// A server with its children, which are a process group of their own.
pub struct Service {
    child: Child,
    log: PathBuf,
}

impl Service {
    /// Starts it and waits until each of these (protocol, address, port) is listened on.
    #[track_caller]
    pub fn start(
        testbed: &Testbed,
        machine: &Namespace,
        name: &str,
        command: &[&str],
        listens: &[(&str, &str, u16)],
    ) -> Service {
        let log = testbed.folder.join(format!("{name}.log"));
        let file = File::create(&log).expect("a log");
        let mut program = machine.command(command[0]);
        program.args(&command[1..]).env("PATH", PATH).process_group(0);
        program.stdout(file.try_clone().expect("a file")).stderr(Stdio::from(file));
        let child = program.spawn().expect("nsenter, of the package util-linux");
        let mut service = Service { child, log };
        for listen in listens {
            let up = within(PATIENCE, || is_listening(machine, listen) || service.has_ended());
            assert!(up && !service.has_ended(), "{name} does not listen on {listen:?}: {}", service.log());
        }
        service
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // Not yet waited for, so its number is still its own.
        let group = Pid::from_raw(self.child.id() as i32);
        let _ = killpg(group, Signal::SIGTERM);
        if !within(Duration::from_secs(3), || matches!(self.child.try_wait(), Ok(Some(_)) | Err(_))) {
            let _ = killpg(group, Signal::SIGKILL);
            let _ = self.child.wait();
        }
    }
}

/// Debian has servers where a user's path may not lead.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn is_listening(machine: &Namespace, (protocol, address, port): &(&str, &str, u16)) -> bool {
    let mut command = machine.command("ss");
    command.args(["-Hln", &format!("--{protocol}"), &format!("src = [{address}]:{port}")]);
    let output = command.env("PATH", PATH).output().expect("ss, of the package iproute2");
    !output.stdout.is_empty()
}

/// Runs a client for so long at most; what it wrote to standard output if it succeeded.
pub fn run_client(machine: &Namespace, wait: Wait, command: &[&str]) -> Option<String> {
    let mut program = machine.command("timeout");
    program.args(["-k", "1"]).arg(wait.duration().as_secs_f64().to_string()).args(command);
    // no proxy, no configuration of the user's
    let output = program.env_clear().env("PATH", PATH).env("HOME", "/nonexistent").output().expect("timeout");
    if !output.status.success() && matches!(wait, Wait::AtMost(_)) {
        eprintln!("{command:?}: {} {}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// How long a client may take that must succeed.
pub const ENOUGH: Wait = Wait::AtMost(Duration::from_secs(40));
/// How long one tries that must fail; the proof is in the ledger.
pub const BRIEF: Wait = Wait::Exactly(Duration::from_secs(2));
/// As [`BRIEF`], and for a client that is to leave with data under way.
pub const A_SECOND: Wait = Wait::Exactly(Duration::from_secs(1));
