//! An Alertmanager and a log server that hang, a command that never ends, a full disk: none of
//! them holds up the daemon or another sink.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::signal::Signal;

use super::{count_reported, dmz_with_alarms};
use crate::e2e::testbed::{Testbed, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually};

/// What a tmpfs counts in.
const PAGE: usize = 4096;

/// A disk of 64 KiB.
struct Disk(PathBuf);

impl Disk {
    fn new(path: PathBuf) -> Disk {
        fs::create_dir_all(&path).expect("a folder");
        let none: Option<&str> = None;
        mount(none, &path, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("a tmpfs");
        Disk(path)
    }

    /// Leaves one page: something is written, and then half of something.
    fn fill(&self) {
        let zeros = vec![0; PAGE];
        let mut filler = fs::File::create(self.filler()).expect("a file");
        while std::io::Write::write_all(&mut filler, &zeros).is_ok() {}
        let length = filler.metadata().expect("a length").len();
        filler.set_len(length - PAGE as u64).expect("a page less");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = umount(&self.0);
    }
}

#[test]
fn what_hangs_never_ends_or_is_full_holds_up_neither_the_daemon_nor_another_sink() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let disk = Disk::new(testbed.folder.join("disk"));
    disk.fill();
    // they take connections, as far as the kernel does that for them, and never answer
    let hanging = |address| testbed.router.enter(|| TcpListener::bind(address).expect("a listener"));
    let _hanging = [hanging("127.0.0.1:9093"), hanging("127.0.0.1:6514")];
    let (eve, ecs) = (disk.0.join("eve.json"), testbed.folder.join("ecs.json"));
    let pids = testbed.folder.join("pids");
    let lines = format!(
        "eve = \"{}\"\necs = \"{}\"\nalertmanager = \"http://127.0.0.1:9093\"\n\
         syslog = \"tls://127.0.0.1\"\n\
         command = [\"/bin/sh\", \"-c\", \"echo $$ >>{}; sleep 1000 & wait\"]\ncommand_timeout = 3600\n",
        eve.display(),
        ecs.display(),
        pids.display()
    );
    let mut daemon = testbed.daemon(&dmz_with_alarms(&lines), &[]);
    for round in 1..=3_u64 {
        testbed.prove_drops(&tap, 4);
        eventually("the sink that works has all", || count_reported(&ecs) == round * 4);
    }
    daemon.wait_for_line(&["alarm #1 opened", "udp/4000"]);
    eventually("the command runs", || fs::read_to_string(&pids).is_ok_and(|text| text.ends_with('\n')));
    assert!(count_reported(&eve) < 12, "the disk was not full");
    assert!(fs::metadata(&eve).is_ok_and(|file| file.len() > 0), "the disk had no room at all");
    assert_eq!(testbed.show("alarms").as_array().map(Vec::len), Some(1), "the daemon answers");

    // the disk has room again: nothing was lost
    fs::remove_file(disk.filler()).expect("a file");
    eventually("what waited is written", || count_reported(&eve) == 12);

    // and it ends when it is asked to, its command with it
    let limit = deadline(PATIENCE);
    let began = Instant::now();
    assert!(daemon.end(Signal::SIGTERM).success());
    assert!(began.elapsed() < limit);
    let pid = fs::read_to_string(&pids).expect("a number");
    eventually("the command is gone", || !Path::new("/proc").join(pid.trim()).exists());
}
