//! The locks of a gate: one for whoever changes it, one for its daemon.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::GateError;
use super::place::{GatePlace, RUN};

/// How long a writer waits for another one, which takes well under a second.
const PATIENCE: Duration = Duration::from_secs(10);

/// Held until dropped. The kernel drops it too when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

enum Refusal {
    /// Id of the process that has the lock.
    HeldBy(String),
    Failed(GateError),
}

impl GatePlace {
    /// Takes the writers' lock, and waits a little for another writer.
    ///
    /// # Errors
    /// When another writer keeps it, or it can't be opened.
    pub fn lock(&self) -> Result<Lock, GateError> {
        self.lock_within(PATIENCE)
    }

    /// As [`GatePlace::lock`], without waiting.
    ///
    /// # Errors
    /// As [`GatePlace::lock`].
    pub fn try_lock(&self) -> Result<Lock, GateError> {
        self.lock_within(Duration::ZERO)
    }

    fn lock_within(&self, patience: Duration) -> Result<Lock, GateError> {
        self.take_lock("lock", patience).map_err(|refusal| match refusal {
            Refusal::HeldBy(holder) => GateError::Locked { interface: self.interface.clone(), holder },
            Refusal::Failed(error) => error,
        })
    }

    /// Takes the daemon's lock: the perf buffer has one reader.
    ///
    /// # Errors
    /// When another daemon has it, or it can't be opened.
    pub fn lock_daemon(&self) -> Result<Lock, GateError> {
        self.take_lock("daemon", Duration::ZERO).map_err(|refusal| match refusal {
            Refusal::HeldBy(holder) => GateError::DaemonRuns { interface: self.interface.clone(), holder },
            Refusal::Failed(error) => error,
        })
    }

    /// The number of the process that took the daemon's lock last.
    pub fn daemon_process(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.run_file("daemon")).ok()?;
        text.parse::<u32>().ok().map(|process| process.to_string())
    }

    /// Takes the lock of those who write the file of quarantines. It is not the lock of the gate, so a slow
    /// disk holds up no command.
    ///
    /// # Errors
    /// When another process keeps it, or it can't be opened.
    pub(super) fn lock_saving(&self) -> Result<Lock, GateError> {
        self.take_lock("saving", PATIENCE).map_err(|refusal| match refusal {
            Refusal::HeldBy(holder) => GateError::Other {
                what: "could not save the quarantines".to_owned(),
                why: format!("another process is saving them (process {holder})"),
            },
            Refusal::Failed(error) => error,
        })
    }

    fn take_lock(&self, extension: &str, patience: Duration) -> Result<Lock, Refusal> {
        let path = self.run_file(extension);
        let failed = |error: io::Error| {
            Refusal::Failed(GateError::Other {
                what: format!("could not open the lock {}", path.display()),
                why: format!("{error}\nhelp: run it as root"),
            })
        };
        DirBuilder::new().recursive(true).mode(0o700).create(RUN).map_err(failed)?;
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            // anybody who may open it may lock it
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    // the holder, for the message of others
                    let _ = lock.set_len(0);
                    let _ = lock.rewind();
                    let _ = write!(lock, "{}", std::process::id());
                    return Ok(Lock { _file: lock });
                }
                Err((mut back, Errno::EWOULDBLOCK)) => {
                    if Instant::now() >= deadline {
                        let mut holder = String::new();
                        let _ = back.read_to_string(&mut holder);
                        return Err(Refusal::HeldBy(holder));
                    }
                    file = back;
                    #[expect(
                        clippy::disallowed_methods,
                        reason = "no lock of another process can wake a thread"
                    )]
                    thread::sleep(Duration::from_millis(20));
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }
}
