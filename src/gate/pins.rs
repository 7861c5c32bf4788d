//! Pins: the bpffs that holds them, their names, and how they are made and removed.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use libbpf_rs::MapHandle;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::fstatfs;
use nix::unistd::{AccessFlags, access};

use super::error::{GateError, errno_of};
use super::{fault, system};

const BPFFS: &str = "/sys/fs/bpf";
/// The folder of all gates.
pub(super) const PINS: &str = "/sys/fs/bpf/portcullis";
/// How often a folder is made again that somebody takes away.
const ATTEMPTS: usize = 100;
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// Mount namespaces made after boot have inode numbers above this one.
const LAST_BOOT_INODE: u64 = 4_026_531_999;

/// The link that holds the filter.
pub(super) const LINK_FILTER: &str = "filter";
/// The link that holds the tracker.
pub(super) const LINK_TRACK: &str = "track";
/// All links of a gate.
pub(super) const LINKS: [&str; 2] = [LINK_FILTER, LINK_TRACK];

/// Mounts a bpffs where pins outlive this process, unless there is one.
pub(super) fn ensure_bpffs() -> Result<(), GateError> {
    let path = Path::new(BPFFS);
    if is_bpffs(path) {
        return Ok(());
    }
    check_mounts()?;
    fault::point();
    mount(
        Some("bpf"),
        path,
        Some("bpf"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("mode=700"),
    )
    .map_err(|errno| GateError::MountBpffs { path: path.to_owned(), errno })
}

/// Refuses a mount namespace of its own that hides the pins.
pub(super) fn check_mounts() -> Result<(), GateError> {
    let path = Path::new(BPFFS);
    if is_bpffs(path) || !is_private_mount_namespace() {
        return Ok(());
    }
    Err(GateError::PrivateMounts { path: path.to_owned() })
}

fn is_bpffs(path: &Path) -> bool {
    File::open(path)
        .ok()
        .and_then(|folder| fstatfs(folder.as_fd()).ok())
        .is_some_and(|stat| stat.filesystem_type().0 == BPF_FS_MAGIC)
}

fn is_private_mount_namespace() -> bool {
    let inode = |path: &str| fs::metadata(path).map(|ns| ns.ino());
    match (inode("/proc/self/ns/mnt"), inode("/proc/1/ns/mnt")) {
        (Ok(own), Ok(init)) => own != init,
        // not even root may look at process 1 everywhere
        (Ok(own), Err(_)) => own > LAST_BOOT_INODE,
        (Err(_), _) => false,
    }
}

/// Pins anything at `path`.
pub(super) fn pin(fd: BorrowedFd<'_>, path: &Path) -> Result<(), GateError> {
    system::pin(fd, path)
        .map_err(|errno| GateError::NotPinned { what: format!("could not pin {}", path.display()), errno })
}

/// Opens a pinned map.
pub(super) fn open_map(path: &Path) -> Result<MapHandle, Errno> {
    MapHandle::from_pinned_path(path).map_err(|error| errno_of(&error).unwrap_or(Errno::EIO))
}

/// Refuses a folder whose pins can't be removed. One that is not there is no error.
pub(super) fn check_writable(folder: &Path) -> Result<(), GateError> {
    match access(folder, AccessFlags::W_OK) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => {
            Err(GateError::NotPinned { what: format!("could not change {}", folder.display()), errno })
        }
    }
}

/// Refuses pins that somebody other than root may change. Where the bpffs is open to everybody, another user
/// could make the folder first, and rename a gate away. Folders that are not there are no error.
pub(super) fn check_owners(pins: &Path) -> Result<(), GateError> {
    let parent = Path::new(BPFFS);
    if let Some(stat) = look(parent)?
        && stat.mode() & 0o022 != 0
        // in a sticky folder, only its owner may rename what is root's
        && stat.mode() & 0o1000 == 0
    {
        return Err(foreign(parent, "everybody may rename what is in it".to_owned()));
    }
    for path in [Path::new(PINS), pins] {
        let Some(stat) = look(path)? else { continue };
        if !stat.is_dir() {
            return Err(foreign(path, "it is no folder".to_owned()));
        }
        if stat.uid() != 0 {
            return Err(foreign(path, format!("it belongs to user {}, not to root", stat.uid())));
        }
        if stat.mode() & 0o022 != 0 {
            return Err(foreign(path, "others than root may write to it".to_owned()));
        }
    }
    Ok(())
}

fn foreign(path: &Path, why: String) -> GateError {
    GateError::ForeignPins { path: path.to_owned(), why }
}

/// `None`: it is not there.
fn look(path: &Path) -> Result<Option<fs::Metadata>, GateError> {
    match fs::symlink_metadata(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(GateError::not_pinned(format!("could not look at {}", path.display()), &error)),
    }
}

/// Makes a folder for pins that is root's alone, with those above it. Whoever detaches the last gate meanwhile takes
/// the folder of all gates away, so one that has gone is made again.
pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    let make = || DirBuilder::new().recursive(true).mode(0o700).create(path);
    let mut made = make();
    for _ in 0..ATTEMPTS {
        if !made.as_ref().is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            break;
        }
        made = make();
    }
    made
}

/// Removes a folder with all its pins. Returns whether it was there.
pub(super) fn remove_tree(path: &Path) -> Result<bool, GateError> {
    let pins = list_tree(path)?;
    remove_listed(&pins)?;
    Ok(!pins.is_empty())
}

/// A pin or a folder, as it is to be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    path: PathBuf,
    is_folder: bool,
}

/// Everything below a folder and the folder itself, each before what holds it. Empty: it is not there. To remove
/// what is listed takes no descriptor.
pub(super) fn list_tree(path: &Path) -> Result<Vec<Listed>, GateError> {
    let mut listed = Vec::new();
    match list_below(path, &mut listed) {
        Ok(()) => Ok(listed),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => {
            Err(GateError::not_pinned(format!("could not read the folder {}", path.display()), &error))
        }
    }
}

fn list_below(path: &Path, listed: &mut Vec<Listed>) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list_below(&entry.path(), listed)?;
        } else {
            listed.push(Listed { path: entry.path(), is_folder: false });
        }
    }
    listed.push(Listed { path: path.to_owned(), is_folder: true });
    Ok(())
}

/// Removes one pin after the other, because the process may die before each of them.
pub(super) fn remove_listed(pins: &[Listed]) -> Result<(), GateError> {
    for Listed { path, is_folder } in pins {
        fault::point();
        let removed = if *is_folder { fs::remove_dir(path) } else { fs::remove_file(path) };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(GateError::from_io(format!("could not remove {}", path.display()), &error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether something is pinned at a path.
///
/// # Errors
/// When the kernel can't say: for a lack of rights or memory, a pin that is there would count as missing.
pub(super) fn has_pin(path: &Path) -> Result<bool, GateError> {
    path.try_exists()
        .map_err(|error| GateError::not_pinned(format!("could not look for {}", path.display()), &error))
}

/// Removes the folder of all gates once the last one is gone.
pub(super) fn remove_empty_parent(pins: &Path) {
    if let Some(parent) = pins.parent() {
        // fails while there is another gate
        let _ = fs::remove_dir(parent);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_folder_is_made_also_while_somebody_takes_its_empty_parent_away() {
        let root = tempfile::tempdir().unwrap();
        let gate = root.path().join("gates/dmz0");
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    remove_empty_parent(&gate);
                }
            });
            let made: Vec<io::Result<()>> = (0..300)
                .map(|_| make_folder(&gate).and_then(|()| fs::remove_dir(&gate)))
                .filter(Result::is_err)
                .collect();
            over.store(true, Ordering::Relaxed);
            assert!(made.is_empty(), "{made:?}");
        });
    }
}
