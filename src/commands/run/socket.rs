//! The daemon's socket: whoever connects is told the open alarms, one JSON
//! value a line, and the connection is closed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use log::debug;

use crate::alarm::{Change, Engine, Step};
use crate::clock::Clock;
use crate::sink::render_line;

/// Connections served at a time; a further one waits to be accepted.
const MOST_CLIENTS: usize = 8;
/// A client that does not read is left.
const CLIENT_PATIENCE: Duration = Duration::from_secs(5);

pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    clients: Arc<AtomicUsize>,
}

impl Socket {
    /// The daemon's lock is held, so what lies at `path` is a dead daemon's.
    pub fn listen(path: &Path) -> anyhow::Result<Socket> {
        let _ = fs::remove_file(path);
        let listener = UnixListener::bind(path)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| format!("could not listen at {}", path.display()))?;
        // alarms tell attackers what is seen: root's business
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("could not protect {}", path.display()))?;
        Ok(Socket { listener, path: path.to_owned(), clients: Arc::default() })
    }

    /// Answers whoever is waiting; each in a thread, so that nobody holds up the daemon.
    pub fn answer(&self, engine: &Engine) {
        while self.clients.load(Ordering::SeqCst) < MOST_CLIENTS {
            let Ok((stream, _)) = self.listener.accept() else {
                return;
            };
            let text = list_alarms(engine);
            let clients = Arc::clone(&self.clients);
            clients.fetch_add(1, Ordering::SeqCst);
            std::thread::spawn(move || {
                if let Err(error) = send(stream, &text) {
                    debug!("a client left early: {error}");
                }
                clients.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn send(mut stream: UnixStream, text: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(CLIENT_PATIENCE))?;
    stream.write_all(text.as_bytes())
}

fn list_alarms(engine: &Engine) -> String {
    let now = Clock::now();
    let mut text = String::new();
    for alarm in engine.open_alarms() {
        let change = Change { time: now.wall, step: Step::Updated, alarm: alarm.clone() };
        let line = render_line(&change, false);
        if let Ok(mut value) = serde_json::to_value(alarm) {
            value["line"] = line.into();
            text.push_str(&value.to_string());
            text.push('\n');
        }
    }
    text
}
