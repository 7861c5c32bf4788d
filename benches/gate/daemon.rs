//! The daemon of a router, with or without sinks, and the CPU time and memory that it takes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cpu;
use crate::network::Namespace;
use crate::tool::PORTCULLIS;

/// How long the daemon may take to attach the gate.
const PATIENCE: Duration = Duration::from_secs(60);
/// The unit of times in `/proc/PID/stat`, the same on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A running daemon, terminated on drop.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    /// Receives the syslog messages. Nobody reads them.
    _syslog: Option<UdpSocket>,
}

/// CPU time that the daemon has taken until now.
#[derive(Clone, Copy, Debug)]
pub struct CpuTime {
    pub cpu_seconds: f64,
    pub at: Instant,
}

impl CpuTime {
    /// The share of one core from `self` to `later`.
    pub fn share_until(self, later: CpuTime) -> f64 {
        (later.cpu_seconds - self.cpu_seconds) / later.at.duration_since(self.at).as_secs_f64()
    }
}

impl Daemon {
    /// Starts a daemon on `dmz0` and waits until its gate is attached. It does not run on the CPU that is measured
    /// on. `sinks` turns on all that this machine can have, each with a receiver.
    pub fn start(space: &Namespace, folder: &Path, policy: &str, sinks: bool) -> Result<Daemon> {
        fs::create_dir_all(folder)?;
        let mut policy = policy.to_owned();
        let mut syslog = None;
        if sinks {
            syslog = Some(space.enter(|| Ok(UdpSocket::bind("127.0.0.1:5514")?))?);
            let alertmanager = space.enter(|| Ok(TcpListener::bind("127.0.0.1:9093")?))?;
            std::thread::spawn(move || answer_all(&alertmanager));
            policy.push_str(&describe_sinks(folder));
        }
        let path = folder.join("policy.toml");
        fs::write(&path, policy)?;
        let errors = File::create(folder.join("stderr"))?;
        let mut command = ordinary(space, PORTCULLIS);
        command.args(["run", "-i", "dmz0", "-p"]).arg(&path).stdout(Stdio::null()).stderr(errors);
        let child = command.spawn().context("could not start the daemon")?;
        let mut daemon = Daemon { child, folder: folder.to_owned(), _syslog: syslog };
        daemon.await_start()?;
        Ok(daemon)
    }

    fn await_start(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            let messages = fs::read_to_string(self.stderr())?;
            if messages.contains("attached to dmz0: ") {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                bail!("the daemon did not start:\n{messages}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The file of its standard error, with the alarms for people.
    pub fn stderr(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    /// The file of its EVE sink.
    pub fn eve(&self) -> PathBuf {
        self.folder.join("eve.json")
    }

    pub fn cpu_time(&self) -> Result<CpuTime> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // the process name may hold spaces; user and system time are the 12th and 13th field after it
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("/proc/PID/stat")?;
        Ok(CpuTime { cpu_seconds: (ticks.0 + ticks.1) / TICKS_A_SECOND, at: Instant::now() })
    }

    /// Resident memory and its peak, MiB.
    pub fn memory_mib(&self) -> Result<(f64, f64)> {
        let read = |key| read_memory(self.child.id(), key).with_context(|| format!("no {key} of the daemon"));
        Ok((read("VmRSS:")?, read("VmHWM:")?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A value of `/proc/PID/status`, MiB. `None` once the process has ended.
pub fn read_memory(pid: u32, key: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

/// A command with ordinary priority, off the CPU that is measured on. It gains nothing from the benchmark's own
/// priority.
pub fn ordinary(space: &Namespace, program: &str) -> Command {
    let mut command = space.command("taskset");
    command.args(["--cpu-list", &cpu::list_others()]).args(["chrt", "--other", "0", program]);
    command
}

fn describe_sinks(folder: &Path) -> String {
    let folder = folder.display();
    let journal = Path::new("/run/systemd/journal/socket").exists();
    format!(
        "[alarms]\neve = \"{folder}/eve.json\"\necs = \"{folder}/ecs.json\"\ncef = \"{folder}/cef.log\"\n\
         pcapng = \"{folder}/samples.pcapng\"\njournald = {journal}\nsyslog = \"udp://127.0.0.1:5514\"\n\
         alertmanager = \"http://127.0.0.1:9093\"\ncommand = [\"/bin/true\"]\n"
    )
}

/// An Alertmanager that accepts everything, until its process ends.
fn answer_all(listener: &TcpListener) {
    let _ = cpu::avoid_pinned();
    for stream in listener.incoming().flatten() {
        let _ = answer(stream);
    }
}

fn answer(stream: TcpStream) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        reader.read_exact(&mut vec![0; length])?;
        writer
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")?;
    }
}
