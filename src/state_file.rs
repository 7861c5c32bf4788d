//! Files in a gate's state folder, on a disk that may die or hang.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use crate::fault;
use crate::state_folder::make_state_folder;

/// How long the disk may take to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long it may take while something else waits for it in vain.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);

/// What was given up, and has not come to its end.
static GIVEN_UP: AtomicUsize = AtomicUsize::new(0);

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
/// being attached. While something that was given up has not come to its end, the next waits are short.
pub(crate) fn in_time<T: Send + 'static>(
    name: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    in_time_of(&GIVEN_UP, name, patience, work)
}

fn in_time_of<T: Send + 'static>(
    given_up: &'static AtomicUsize,
    name: &str,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let patience = if given_up.load(Ordering::SeqCst) == 0 { patience } else { patience.min(SHORT_PATIENCE) };
    let (sender, receiver) = mpsc::sync_channel(1);
    // set by the first of the two: the end of the work, or of the wait
    let is_over = Arc::new(AtomicBool::new(false));
    let at_its_end = Arc::clone(&is_over);
    thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = sender.send(work());
        if at_its_end.swap(true, Ordering::SeqCst) {
            given_up.fetch_sub(1, Ordering::SeqCst);
        }
    })?;
    receiver.recv_timeout(patience).map_err(|_| {
        given_up.fetch_add(1, Ordering::SeqCst);
        if is_over.swap(true, Ordering::SeqCst) {
            given_up.fetch_sub(1, Ordering::SeqCst);
        }
        io::Error::new(io::ErrorKind::TimedOut, "its disk does not answer")
    })
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn one_long_wait_for_a_disk_that_hangs_is_enough_until_it_answers() {
        static HANGING: AtomicUsize = AtomicUsize::new(0);
        const LONG: Duration = Duration::from_secs(60);
        let (release, hung) = mpsc::channel::<()>();
        let first = in_time_of(&HANGING, "hangs", Duration::from_millis(10), move || hung.recv());
        assert_eq!(first.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let (release_second, hung) = mpsc::channel::<()>();
        let begun = Instant::now();
        let second = in_time_of(&HANGING, "hangs", LONG, move || hung.recv());
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < LONG);
        drop((release, release_second));
        while HANGING.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        assert_eq!(in_time_of(&HANGING, "answers", LONG, || 7).unwrap(), 7);
        assert_eq!(HANGING.load(Ordering::SeqCst), 0);
    }
}
