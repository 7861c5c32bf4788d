//! The daemon of a router, with every sink on, and what it takes.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cpu;
use crate::network::{Namespace, run};

pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");

/// How long the daemon may take to put the gate down.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of `/proc/PID/stat`, on every Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// A running daemon, ended with the value.
pub struct Daemon {
    child: Child,
    folder: PathBuf,
    /// Where syslog messages go; nobody has to read them.
    _syslog: Option<UdpSocket>,
}

/// What the daemon has taken until now.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub cpu_seconds: f64,
    pub at: Instant,
}

impl Taken {
    /// The share of one core since then.
    pub fn share_until(self, later: Taken) -> f64 {
        (later.cpu_seconds - self.cpu_seconds) / later.at.duration_since(self.at).as_secs_f64()
    }
}

impl Daemon {
    /// Puts the gate of `dmz0` down and keeps watch, beside the CPU that is measured on. `sinks`: all
    /// that this machine can have, each with somebody at its other end.
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
            let said = fs::read_to_string(self.stderr())?;
            if said.contains("is down") {
                return Ok(());
            }
            if self.child.try_wait()?.is_some() || start.elapsed() > PATIENCE {
                bail!("the daemon did not start:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it says for people: alarms.
    pub fn stderr(&self) -> PathBuf {
        self.folder.join("stderr")
    }

    pub fn eve(&self) -> PathBuf {
        self.folder.join("eve.json")
    }

    pub fn taken(&self) -> Result<Taken> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // the name may hold spaces; behind it, user and system time are the 12th and 13th field
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |field: usize| fields.get(field).and_then(|text| text.parse::<f64>().ok());
        let ticks = ticks(11).zip(ticks(12)).context("/proc/PID/stat")?;
        Ok(Taken { cpu_seconds: (ticks.0 + ticks.1) / TICKS_A_SECOND, at: Instant::now() })
    }

    /// Resident memory now, and at most, MiB.
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

/// A line of a process's status, MiB; `None` once it has ended.
pub fn read_memory(pid: u32, key: &str) -> Option<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kib / 1024.0)
}

/// A command that has neither our priority nor our CPU: whoever is measured has no favours.
pub fn ordinary(space: &Namespace, program: &str) -> Command {
    let mut command = space.command("taskset");
    command.args(["--cpu-list", &cpu::name_others()]).args(["chrt", "--other", "0", program]);
    command
}

/// Takes the gate away that a daemon leaves behind.
pub fn detach(space: &Namespace, nic: &str) {
    let _ = run(space.command(PORTCULLIS).args(["detach", "-i", nic]));
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

/// An Alertmanager that is content with everything, until its process ends.
fn answer_all(listener: &TcpListener) {
    let _ = cpu::leave_to_others();
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
