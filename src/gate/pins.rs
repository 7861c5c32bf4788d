//! Pins: the bpffs that holds them, their names, and how they are made and removed.

use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use libbpf_rs::MapHandle;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::fstatfs;
use nix::unistd::{AccessFlags, access};

use super::error::GateError;
use super::{fault, system};

const BPFFS: &str = "/sys/fs/bpf";
/// The folder of all gates.
pub(super) const PINS: &str = "/sys/fs/bpf/portcullis";
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
    MapHandle::from_pinned_path(path).map_err(|error| match error.kind() {
        libbpf_rs::ErrorKind::NotFound => Errno::ENOENT,
        libbpf_rs::ErrorKind::PermissionDenied => Errno::EPERM,
        _ => Errno::EIO,
    })
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

/// Removes a folder with all its pins. Returns whether it was there.
pub(super) fn remove_tree(path: &Path) -> Result<bool, GateError> {
    match remove_all(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(GateError::from_io(format!("could not remove {}", path.display()), &error)),
    }
}

/// One pin after the other, because the process may die before each of them.
fn remove_all(path: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_all(&entry.path())?;
        } else {
            fault::point();
            fs::remove_file(entry.path())?;
        }
    }
    fault::point();
    fs::remove_dir(path)
}

/// Removes the folder of all gates once the last one is gone.
pub(super) fn remove_empty_parent(pins: &Path) {
    if let Some(parent) = pins.parent() {
        // fails while there is another gate
        let _ = fs::remove_dir(parent);
    }
}
