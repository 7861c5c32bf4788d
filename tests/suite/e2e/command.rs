//! The program: commands that end, and the daemon.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::testbed::{NIC, Namespace, Testbed};
use crate::support::patience::{PATIENCE, eventually, within};

/// What a command came to.
#[derive(Debug)]
pub struct Outcome {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Outcome {
    /// Runs it until it ends.
    pub fn of(command: &mut Command) -> Outcome {
        let output = command.output().expect("the program");
        Outcome {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).expect("UTF-8"),
            err: String::from_utf8(output.stderr).expect("UTF-8"),
        }
    }

    /// It succeeded.
    #[track_caller]
    pub fn done(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    /// It failed with status 1 and said all this on standard error, in plain words.
    #[track_caller]
    pub fn refused(self, words: &[&str]) -> Outcome {
        self.failed(1, words)
    }

    /// As [`Outcome::refused`], with this status.
    #[track_caller]
    pub fn failed(self, status: i32, words: &[&str]) -> Outcome {
        assert_eq!(self.code, Some(status), "{self:#?}");
        for word in words {
            assert!(self.err.contains(word), "no `{word}` in {self:#?}");
        }
        for noise in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!self.err.contains(noise), "`{noise}` in {self:#?}");
        }
        self
    }

    /// Its one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error} in {self:#?}"))
    }
}

impl Namespace {
    /// The program, in here.
    pub fn prepare(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_portcullis"));
        command.args(args).env_remove("RUST_LOG").env_remove("NO_COLOR");
        command
    }

    /// Runs the program in here until it ends.
    #[track_caller]
    pub fn portcullis(&self, args: &[&str]) -> Outcome {
        Outcome::of(&mut self.prepare(args))
    }
}

/// A row of `show drops -j`.
#[derive(Clone, Debug)]
pub struct Row(pub Value);

impl Row {
    pub fn packets(&self) -> u64 {
        self.0["packets"].as_u64().expect("a count")
    }

    fn is(&self, server: &str, proto: &str, port: u16, reason: &str) -> bool {
        self.0["server"] == server
            && self.0["proto"] == proto
            && self.0["port"] == port
            && self.0["reason"] == reason
    }
}

impl Testbed {
    /// `portcullis COMMAND -i dmz0 ARGS...` on the router.
    #[track_caller]
    pub fn run(&self, command: &str, args: &[&str]) -> Outcome {
        self.router.portcullis(&[&[command, "-i", NIC], args].concat())
    }

    /// Attaches the gate with this policy.
    #[track_caller]
    pub fn attach(&self, policy: &str) -> Outcome {
        let path = self.write("policy.toml", policy);
        self.run("attach", &["-p", &path]).done()
    }

    /// Makes this policy the live one.
    #[track_caller]
    pub fn apply(&self, policy: &str) -> Outcome {
        let path = self.write("policy.toml", policy);
        self.run("apply", &[&path]).done()
    }

    #[track_caller]
    pub fn detach(&self) -> Outcome {
        self.run("detach", &[]).done()
    }

    /// `show SUBJECT -j`.
    #[track_caller]
    pub fn show(&self, subject: &str) -> Value {
        self.run("show", &[subject, "-j"]).done().json()
    }

    /// The whole ledger.
    #[track_caller]
    pub fn drops(&self) -> Vec<Row> {
        let value = self.show("drops");
        value.as_array().expect("a list").iter().cloned().map(Row).collect()
    }

    /// Packets of one kind in the ledger.
    #[track_caller]
    pub fn dropped(&self, server: &str, proto: &str, port: u16, reason: &str) -> u64 {
        let rows = self.drops();
        rows.iter().filter(|row| row.is(server, proto, port, reason)).map(Row::packets).sum()
    }

    /// `explain -j` of a packet.
    #[track_caller]
    pub fn explain(&self, from: &str, to: &str, what: &str) -> Value {
        self.run("explain", &["--from", from, "--to", to, what, "-j"]).done().json()
    }

    /// Verdict and reason of a packet.
    #[track_caller]
    pub fn verdict(&self, from: &str, to: &str, what: &str) -> (String, String) {
        let answer = self.explain(from, to, what);
        let word = |key: &str| answer[key].as_str().unwrap_or_default().to_owned();
        (word("verdict"), word("reason"))
    }

    /// Starts the daemon and waits until it says that the gate is attached.
    #[track_caller]
    pub fn daemon(&self, policy: &str, more: &[&str]) -> Daemon {
        let path = self.write("daemon.toml", policy);
        let args = [&["run", "-i", NIC, "-p", &path], more].concat();
        let daemon = Daemon::start(self.router.prepare(&args));
        daemon.wait_for_line(&["attached to dmz0: "]);
        daemon
    }
}

/// A daemon, ended with the test.
pub struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts a command whose standard error is listened to.
    pub fn start(mut command: Command) -> Daemon {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the program");
        let stderr = child.stderr.take().expect("a pipe");
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                heard.lock().expect("the lines").push(line);
            }
        });
        Daemon { child, lines, reader: Some(reader) }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub fn said(&self) -> Vec<String> {
        self.lines.lock().expect("the lines").clone()
    }

    /// Lines so far with all these words.
    pub fn find(&self, words: &[&str]) -> Vec<String> {
        self.said().into_iter().filter(|line| words.iter().all(|word| line.contains(word))).collect()
    }

    /// Waits for a line with all these words.
    #[track_caller]
    pub fn wait_for_line(&self, words: &[&str]) -> String {
        if !within(PATIENCE, || !self.find(words).is_empty()) {
            panic!("the daemon never said {words:?}, but {:#?}", self.said());
        }
        self.find(words).remove(0)
    }

    /// The number of its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32);
        kill(pid, signal).expect("a running daemon");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_none()
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the daemon has ended", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        status.expect("a status")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A command that is under way.
pub struct Running(Child);

impl Running {
    pub fn start(mut command: Command) -> Running {
        Running(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program"))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("a child").is_none()
    }

    /// SIGKILL; returns whether it was still running.
    pub fn kill(mut self) -> bool {
        let was_running = self.is_running();
        let _ = self.0.kill();
        let _ = self.0.wait();
        was_running
    }

    /// Waits for the end.
    pub fn outcome(mut self) -> Outcome {
        let (mut out, mut err) = (String::new(), String::new());
        // Both are short: neither pipe can fill while the other is read.
        self.0.stdout.take().expect("a pipe").read_to_string(&mut out).expect("UTF-8");
        self.0.stderr.take().expect("a pipe").read_to_string(&mut err).expect("UTF-8");
        Outcome { code: self.0.wait().expect("a child").code(), out, err }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
