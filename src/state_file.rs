//! Files in a gate's state folder, on a disk that may die or hang.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::fault;
use crate::state_folder::make_state_folder;

/// How long the disk may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// More than the tables of the largest gate take.
pub(crate) const MOST_BYTES: u64 = 64 << 20;

/// Writes a file of these parts: it is there as a whole or not at all, whatever happens.
pub(crate) fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fault::point();
        make_state_folder(folder)?;
    }
    let fresh = path.with_added_extension("new");
    fault::point();
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    fault::point();
    for part in parts {
        file.write_all(part)?;
    }
    file.sync_all()?;
    fault::point();
    fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// Removes a file, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    if !path.try_exists()? {
        return Ok(());
    }
    fault::point();
    fs::remove_file(path)?;
    sync_folder(path)
}

/// Without this a crash may bring back what stood there before.
pub(crate) fn sync_folder(path: &Path) -> io::Result<()> {
    fault::point();
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// Does it in a thread of its own, and waits for so long: a disk that does not answer must not keep the gate from
/// being attached.
pub(crate) fn in_time<T: Send + 'static>(
    name: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        // nobody waits any more once the time is over
        let _ = sender.send(work());
    })?;
    receiver
        .recv_timeout(patience)
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "its disk does not answer"))
}
