//! Tells the service manager how the daemon does, by the protocol of sd_notify(3): one datagram for each
//! message. Without `NOTIFY_SOCKET` nothing is sent.

use std::env;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::debug;

/// The service manager, if there is one.
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The longest silence that the service manager accepts.
    watchdog: Option<Duration>,
    last_sign: Instant,
    status: String,
}

impl ServiceManager {
    /// From the environment, as sd_notify(3) and sd_watchdog_enabled(3) say.
    pub(super) fn from_env() -> ServiceManager {
        let socket = env::var("NOTIFY_SOCKET").ok().and_then(|name| open(&name));
        let number = |key: &str| env::var(key).ok().and_then(|text| text.parse::<u64>().ok());
        let is_for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| is_for_us && *usec > 0);
        ServiceManager::new(socket, watchdog.map(Duration::from_micros))
    }

    fn new(socket: Option<(UnixDatagram, SocketAddr)>, watchdog: Option<Duration>) -> ServiceManager {
        ServiceManager { socket, watchdog, last_sign: Instant::now(), status: String::new() }
    }

    /// The gate is attached, and the daemon reads its samples.
    pub(super) fn notify_ready(&mut self, status: &str) {
        self.status = status.to_owned();
        self.send(&format!("READY=1\nSTATUS={}", join_lines(status)));
    }

    /// The line that `systemctl status` shows. It is sent when it changes.
    pub(super) fn notify_status(&mut self, status: &str) {
        if status != self.status {
            self.status = status.to_owned();
            self.send(&format!("STATUS={}", join_lines(status)));
        }
    }

    /// A sign of life. Only the event loop calls this, so that the watchdog sees when it hangs.
    pub(super) fn keep_alive(&mut self) {
        // Half the time, as sd_watchdog_enabled(3) recommends.
        if self.watchdog.is_some_and(|every| self.last_sign.elapsed() >= every / 2) {
            self.last_sign = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    /// The daemon ends because a signal or a command ends it.
    pub(super) fn notify_stopping(&self) {
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
    // A service manager that hangs must not hold up the daemon.
    socket.set_nonblocking(true).ok()?;
    Some((socket, address.ok()?))
}

fn join_lines(text: &str) -> String {
    text.replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager in this process.
    fn manager(name: &str, watchdog: Option<Duration>) -> (ServiceManager, UnixDatagram) {
        let name = format!("portcullis-test-{name}-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        (ServiceManager::new(open(&format!("@{name}")), watchdog), listener)
    }

    fn receive(listener: &UnixDatagram) -> Option<String> {
        let mut bytes = [0; 256];
        let length = listener.recv(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    #[test]
    fn a_status_is_one_line_and_sent_when_it_changes() {
        let (mut manager, listener) = manager("status", None);
        manager.notify_ready("attached\nREADY=0");
        assert_eq!(receive(&listener).unwrap(), "READY=1\nSTATUS=attached READY=0");
        manager.notify_status("attached\nREADY=0");
        assert_eq!(receive(&listener), None);
        manager.notify_status("NOT ATTACHED");
        assert_eq!(receive(&listener).unwrap(), "STATUS=NOT ATTACHED");
        manager.notify_stopping();
        assert_eq!(receive(&listener).unwrap(), "STOPPING=1");
    }

    #[test]
    fn signs_of_life_come_at_half_the_watchdogs_time() {
        let (mut manager, listener) = manager("watchdog", Some(Duration::from_secs(60)));
        manager.keep_alive();
        assert_eq!(receive(&listener), None);
        manager.last_sign = Instant::now() - Duration::from_secs(30);
        manager.keep_alive();
        assert_eq!(receive(&listener).unwrap(), "WATCHDOG=1");
        manager.keep_alive();
        assert_eq!(receive(&listener), None);
    }

    #[test]
    fn without_a_service_manager_nothing_is_sent_and_a_relative_path_is_none() {
        let mut manager = ServiceManager::new(open("relative/path"), None);
        assert!(manager.socket.is_none());
        manager.notify_ready("attached");
        manager.keep_alive();
    }
}
