//! Where a gate lives: the folder of its pins, its locks and its socket.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::fstatfs;

use super::error::GateError;

const BPFFS: &str = "/sys/fs/bpf";
/// The folder of all gates.
pub const PINS: &str = "/sys/fs/bpf/portcullis";
const RUN: &str = "/run/portcullis";
const HISTORY: &str = "/var/lib/portcullis";
/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// How long a writer waits for another one, which takes well under a second.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
/// Shown only by the initial network namespace, on every kernel since 2.6.
const INITIAL_NETNS_ONLY: &str = "/proc/sys/net/core/netdev_budget";
/// Mount namespaces made after boot have inode numbers above this one.
const LAST_BOOT_INODE: u64 = 4_026_531_999;

/// One interface in one network namespace.
#[derive(Clone, Debug)]
pub struct GatePlace {
    pub interface: String,
    /// Index of the interface in this network namespace.
    pub ifindex: u32,
    /// Folder of maps, programs and links below the bpffs.
    pub pins: PathBuf,
    /// `/run/portcullis/IF`, to which `.lock` and `.sock` are added.
    stem: PathBuf,
}

impl GatePlace {
    /// The place of the gate on `interface`. In a network namespace other than
    /// the initial one its inode number is part of the name, so that two NICs
    /// of one name don't collide; bpffs reserves the dot, so `eth0.7` is `eth0:7`.
    ///
    /// # Errors
    /// When the interface isn't there.
    pub fn of(interface: &str) -> Result<GatePlace, GateError> {
        let place = GatePlace::of_any(interface)?;
        match place.ifindex {
            0 => Err(GateError::NoInterface {
                interface: interface.to_owned(),
                hint: super::orphans::hint_at_orphans(interface),
            }),
            _ => Ok(place),
        }
    }

    /// As [`GatePlace::of`], also when the interface is gone: then its index is 0. For
    /// whoever cleans up behind it.
    pub fn of_any(interface: &str) -> Result<GatePlace, GateError> {
        let why = match interface {
            "" => Some("it is empty"),
            "." | ".." => Some("it is a folder"),
            name if name.len() > 15 => Some("it is longer than 15 bytes"),
            name if name.contains(['/', ':']) || name.contains(char::is_whitespace) => {
                Some("it has a slash, a colon or a space")
            }
            name if name.contains("..") => Some("it has two dots in a row"),
            _ => None,
        };
        if let Some(why) = why {
            return Err(GateError::BadInterfaceName {
                interface: interface.escape_default().to_string(),
                why,
            });
        }
        let mut folder = interface.replace('.', ":");
        if !Path::new(INITIAL_NETNS_ONLY).exists() {
            let inode = fs::metadata("/proc/self/ns/net").map_or(0, |ns| ns.ino());
            folder.push_str(&format!("::{inode}"));
        }
        Ok(GatePlace {
            interface: interface.to_owned(),
            ifindex: nix::net::if_::if_nametoindex(interface).unwrap_or(0),
            pins: Path::new(PINS).join(&folder),
            stem: Path::new(RUN).join(folder),
        })
    }

    /// The place of a gate of another network namespace, whose NIC is out of reach: its index is 0.
    pub fn of_folder(interface: &str, folder: &str) -> GatePlace {
        GatePlace {
            interface: interface.to_owned(),
            ifindex: 0,
            pins: Path::new(PINS).join(folder),
            stem: Path::new(RUN).join(folder),
        }
    }

    /// The socket of the daemon.
    pub fn socket(&self) -> PathBuf {
        self.stem.with_added_extension("sock")
    }

    /// Where the daemon keeps what must outlive it: `/var/lib/portcullis/IF`.
    pub fn history(&self) -> PathBuf {
        let name = self.stem.file_name().unwrap_or_default();
        Path::new(HISTORY).join(name)
    }

    /// Folder in which a new gate is built before it gets its name.
    pub fn staging(&self) -> PathBuf {
        let mut name = self.pins.clone().into_os_string();
        // two colons: no interface's name becomes that
        name.push("::new");
        name.into()
    }

    /// Whether `detach` was the last that had to do with the gate here: who finds it gone then
    /// leaves it so.
    pub fn is_detach_ordered(&self) -> bool {
        self.order().exists()
    }

    /// Notes that the gate is lifted by order, or that it is not any more. To be called with the
    /// writers' lock held. Without the note a service would put the gate down again, no worse.
    pub fn note_detach_order(&self, lifted: bool) {
        let noted = match lifted {
            true => fs::write(self.order(), ""),
            false => fs::remove_file(self.order()),
        };
        if let Err(error) = noted
            && error.kind() != std::io::ErrorKind::NotFound
        {
            log::debug!("{}: {error}", self.order().display());
        }
    }

    fn order(&self) -> PathBuf {
        self.stem.with_added_extension("lifted")
    }

    /// EventFilter the writers' lock, waiting a little for another writer.
    pub fn lock(&self) -> Result<Lock, GateError> {
        self.take("lock", LOCK_PATIENCE).map_err(|holder| match holder {
            Taken::By(holder) => GateError::Locked { interface: self.interface.clone(), holder },
            Taken::Error(error) => error,
        })
    }

    /// As [`GatePlace::lock`], without waiting: for whoever has something else to do meanwhile.
    pub fn try_lock(&self) -> Result<Lock, GateError> {
        self.take("lock", Duration::ZERO).map_err(|holder| match holder {
            Taken::By(holder) => GateError::Locked { interface: self.interface.clone(), holder },
            Taken::Error(error) => error,
        })
    }

    /// EventFilter the daemon's lock: the perf buffer has one reader.
    pub fn lock_daemon(&self) -> Result<Lock, GateError> {
        self.take("daemon", Duration::ZERO).map_err(|holder| match holder {
            Taken::By(holder) => GateError::DaemonRuns { interface: self.interface.clone(), holder },
            Taken::Error(error) => error,
        })
    }

    fn take(&self, extension: &str, patience: Duration) -> Result<Lock, Taken> {
        let path = self.stem.with_added_extension(extension);
        let failed = |error: std::io::Error| {
            Taken::Error(GateError::Other {
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
            // whoever may open it may lock it
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(mut lock) => {
                    // Who holds it, for the message of whoever waits.
                    let _ = lock.set_len(0);
                    let _ = lock.rewind();
                    let _ = write!(lock, "{}", std::process::id());
                    return Ok(Lock { _file: lock });
                }
                Err((mut back, Errno::EWOULDBLOCK)) => {
                    if Instant::now() >= deadline {
                        let mut holder = String::new();
                        let _ = back.read_to_string(&mut holder);
                        return Err(Taken::By(holder));
                    }
                    file = back;
                    std::thread::sleep(Duration::from_millis(20));
                }
                Err((_, errno)) => return Err(failed(errno.into())),
            }
        }
    }
}

enum Taken {
    By(String),
    Error(GateError),
}

/// Held until dropped; the kernel drops it too when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Makes sure that a bpffs is mounted where pins outlive this process.
pub fn ensure_bpffs() -> Result<(), GateError> {
    let path = Path::new(BPFFS);
    if is_bpffs(path) {
        return Ok(());
    }
    check_mounts()?;
    super::fault::point();
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
pub fn check_mounts() -> Result<(), GateError> {
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
