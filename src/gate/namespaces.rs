//! Which network namespaces still exist, as far as `/proc` shows.

use std::collections::HashSet;
use std::fs::{self, DirEntry};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

/// `PROC_PID_INIT_INO` of the kernel: in any other PID namespace some processes can't be seen.
const INITIAL_PID_NAMESPACE: u64 = 0xefff_fffc;

/// Network namespaces that something holds: a process or a thread that lives in it, an open file, or a
/// mount, as `ip netns` makes them.
pub(super) struct Namespaces {
    /// Their inode numbers.
    pub seen: HashSet<u64>,
    /// Nothing was hidden from this process.
    pub all: bool,
}

impl Namespaces {
    /// Looks at every process.
    pub(super) fn look() -> Namespaces {
        let mut found = Namespaces { seen: HashSet::new(), all: true };
        let own = fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino());
        found.all = own.is_ok_and(|inode| inode == INITIAL_PID_NAMESPACE);
        let mut mounts = HashSet::new();
        let processes = found.read_folder(Path::new("/proc"));
        for process in processes.iter().filter(|entry| is_number(entry)) {
            let process = process.path();
            // Not even root may look at init everywhere. It lives in the initial namespace.
            let all_before = found.all;
            found.read_process(&process, &mut mounts);
            found.all |= all_before && process.ends_with("1");
        }
        found
    }

    fn read_process(&mut self, process: &Path, mounts: &mut HashSet<u64>) {
        for thread in self.read_folder(&process.join("task")) {
            let namespace = self.ask(fs::metadata(thread.path().join("ns/net")));
            self.seen.extend(namespace.map(|namespace| namespace.ino()));
        }
        for file in self.read_folder(&process.join("fd")) {
            let target = self.ask(fs::read_link(file.path()));
            self.seen.extend(target.and_then(|target| parse_namespace(&target.to_string_lossy())));
        }
        let mount = self.ask(fs::metadata(process.join("ns/mnt")));
        if mount.is_some_and(|mount| mounts.insert(mount.ino())) {
            let table = self.ask(fs::read_to_string(process.join("mountinfo"))).unwrap_or_default();
            // the fourth field: what of the file system is mounted
            let roots = table.lines().filter_map(|line| line.split(' ').nth(3));
            self.seen.extend(roots.filter_map(parse_namespace));
        }
    }

    fn read_folder(&mut self, path: &Path) -> Vec<DirEntry> {
        let entries = self.ask(fs::read_dir(path)).into_iter().flatten();
        entries.filter_map(|entry| self.ask(entry)).collect()
    }

    /// A process that is gone meanwhile holds nothing. After any other error something may be hidden.
    fn ask<T>(&mut self, answer: io::Result<T>) -> Option<T> {
        let gone = [Some(Errno::ENOENT as i32), Some(Errno::ESRCH as i32)];
        self.all &= answer.as_ref().err().is_none_or(|error| gone.contains(&error.raw_os_error()));
        answer.ok()
    }
}

fn is_number(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit)
}

/// The number in `net:[4026531840]`.
fn parse_namespace(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_something_holds_is_seen_and_no_other() {
        assert_eq!(parse_namespace("net:[4026531840]"), Some(4_026_531_840));
        for other in ["mnt:[4026531841]", "/", "net:[x]", "socket:[12]", "net:[7"] {
            assert_eq!(parse_namespace(other), None, "{other}");
        }
        let own = fs::metadata("/proc/self/ns/net").unwrap().ino();
        assert!(Namespaces::look().seen.contains(&own));
    }
}
