//! Tells the service manager how the daemon does: the protocol of sd_notify(3), one datagram a
//! message. Without `NOTIFY_SOCKET` nothing is told.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::debug;

/// The service manager, if there is one.
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// It wants to hear from us at least this often.
    watchdog: Option<Duration>,
    heard: Instant,
    status: String,
}

impl Notifier {
    /// From the environment, as sd_notify(3) and sd_watchdog_enabled(3) say.
    pub fn from_env() -> Notifier {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| open(&name));
        let number = |key: &str| env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| for_us && *usec > 0).map(Duration::from_micros);
        Notifier { socket, watchdog, heard: Instant::now(), status: String::new() }
    }

    /// The gate is down and the consumer reads.
    pub fn ready(&mut self, status: &str) {
        self.status = status.to_owned();
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// What `systemctl status` shows; told when it changes.
    pub fn status(&mut self, status: &str) {
        if status != self.status {
            self.status = status.to_owned();
            self.send(&format!("STATUS={}", one_line(status)));
        }
    }

    /// To be called by the consumer and nobody else: a consumer that hangs is to be noticed.
    pub fn alive(&mut self) {
        // half of it, as sd_watchdog_enabled(3) recommends
        if self.watchdog.is_some_and(|every| self.heard.elapsed() >= every / 2) {
            self.heard = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    /// The daemon ends because it was told to.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    fn send(&self, text: &str) {
        let Some((socket, address)) = &self.socket else {
            return;
        };
        if let Err(error) = socket.send_to_addr(text.as_bytes(), address) {
            debug!("the service manager does not listen: {error}");
        }
    }
}

fn open(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None if name.starts_with('/') => SocketAddr::from_pathname(name),
        None => return None,
    };
    let socket = UnixDatagram::unbound().ok()?;
    // a manager that hangs does not hold up the consumer
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}
