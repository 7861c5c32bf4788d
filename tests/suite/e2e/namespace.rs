//! One network namespace: its commands, its end, and all that gates in it leave elsewhere.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::sched::{CloneFlags, setns};

/// The router's NIC in front of the servers.
pub const NIC: &str = "dmz0";

const NAMESPACES: &str = "/run/netns";
pub const PINS: &str = "/sys/fs/bpf/portcullis";
pub const LOCKS: &str = "/run/portcullis";
pub const HISTORY: &str = "/var/lib/portcullis";

/// A network namespace with a name.
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// A new one, of a name as `pc-PID-…`. Whoever makes it removes it, or the next run does.
    pub fn create(name: &str) -> Namespace {
        let _builder = prepare_building();
        remove_namespace(name);
        feed_ip(&format!("netns add {name}\n"));
        Namespace::open(name.to_owned())
    }

    pub fn open(name: String) -> Namespace {
        let file = File::open(Path::new(NAMESPACES).join(&name)).expect("the namespace");
        let namespace = Namespace { name, file };
        // of an earlier one with this number, whose test was killed
        remove_traces(namespace.inode());
        namespace
    }

    /// Its number, which is in the names of its gates' pins.
    pub fn inode(&self) -> u64 {
        self.file.metadata().expect("a namespace's number").ino()
    }

    /// Runs something in a thread that lives in here. A socket made in here stays in here,
    /// whoever uses it later.
    #[track_caller]
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let joined = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&self.file, CloneFlags::CLONE_NEWNET).expect("entering a namespace");
                    act()
                })
                .join()
        });
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// A command in here. Not by `ip netns exec`, which hides the pins behind a /sys of its own.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={NAMESPACES}/{}", self.name)).arg("--").arg(program);
        command.stdin(Stdio::null());
        command
    }

    /// Whether the kernel has noticed the carrier of a NIC in here, and so sends what it is given.
    pub fn is_up(&self, nic: &str) -> bool {
        let output = self.command("ip").args(["-o", "link", "show", "dev", nic]).output().expect("ip");
        String::from_utf8_lossy(&output.stdout).contains(" state UP ")
    }

    /// Feeds lines to `ip` in here.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        let mut command = self.command("ip");
        command.args(["-batch", "-"]);
        feed(command, lines);
    }

    /// How many frames a NIC has been given to send and has not sent.
    pub fn count_unsent(&self, nic: &str) -> u64 {
        let output = self.command("ip").args(["-j", "-s", "link", "show", "dev", nic]).output().expect("ip");
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        links[0]["stats64"]["tx"]["dropped"].as_u64().expect("a count")
    }

    /// Sets a key below /proc/sys/net.
    pub fn set_sysctl(&self, key: &str, value: &str) {
        self.enter(|| fs::write(Path::new("/proc/sys/net").join(key), value).expect(key));
    }

    pub fn name(&self) -> &str {
        &self.name
    }
}

#[track_caller]
fn feed(mut command: Command, lines: &str) {
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("ip, of the package iproute2");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("a reader");
    let output = child.wait_with_output().expect("an end");
    assert!(output.status.success(), "ip: {}\n{lines}", String::from_utf8_lossy(&output.stderr));
}

#[track_caller]
pub fn feed_ip(lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]);
    feed(command, lines);
}

// ---- cleaning up; never panics -------------------------------------------------------------

/// Removes what earlier runs have left. Until this is dropped, nobody else makes namespaces: the first
/// `ip netns add` mounts something, and two at once could do so twice.
pub fn prepare_building() -> MutexGuard<'static, ()> {
    static CLEANED: Once = Once::new();
    static BUILDERS: Mutex<()> = Mutex::new(());

    let builder = BUILDERS.lock().unwrap_or_else(PoisonError::into_inner);
    CLEANED.call_once(remove_leftovers);
    builder
}

/// What test runs that were killed have left: their process is no more.
fn remove_leftovers() {
    list(Path::new(NAMESPACES))
        .iter()
        .filter(|name| is_leftover(name))
        .for_each(|name| remove_namespace(name));
    let temporary = std::env::temp_dir();
    for name in list(&temporary).iter().filter(|name| is_leftover(name)) {
        let _ = fs::remove_dir_all(temporary.join(name));
    }
}

/// `pc-PID-…` of no other process that runs.
fn is_leftover(name: &str) -> bool {
    let Some((pid, _)) = name.strip_prefix("pc-").and_then(|rest| rest.split_once('-')) else {
        return false;
    };
    let is_number = !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (pid == std::process::id().to_string() || !Path::new("/proc").join(pid).exists())
}

/// Removes a namespace with the gates in it and all that they left elsewhere.
pub fn remove_namespace(name: &str) {
    let path = Path::new(NAMESPACES).join(name);
    let Ok(number) = fs::metadata(&path).map(|namespace| namespace.ino()) else {
        return;
    };
    remove_traces(number);
    // only when empty
    let _ = fs::remove_dir(PINS);
    let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
}

/// Removes what the gates of a namespace have left elsewhere, by its number. The kernel gives numbers again.
fn remove_traces(number: u64) {
    let tail = format!("::{number}");
    let tails: HashSet<String> =
        ["", ":new", ".lock", ".daemon", ".saving", ".unread", ".unread-edits", ".sock", ".detached"]
            .map(|end| format!("{tail}{end}"))
            .into();
    for folder in [PINS, LOCKS, HISTORY].map(Path::new) {
        for entry in list(folder) {
            if entry.find("::").is_some_and(|at| tails.contains(&entry[at..])) {
                let path = folder.join(entry);
                let gone = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
                if let Err(error) = gone {
                    eprintln!("{} stays: {error}", path.display());
                }
            }
        }
    }
}

fn list(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}
