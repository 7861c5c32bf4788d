//! A disk that hangs: a file system whose server never answers. Whoever touches it waits for ever.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;

use super::{count_reported, dmz_with_alarms};
use crate::e2e::command::Daemon;
use crate::e2e::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::eventually;

/// A mount of FUSE without a server.
struct HangingDisk {
    path: PathBuf,
    _device: File,
}

impl HangingDisk {
    fn new(path: &Path) -> HangingDisk {
        fs::create_dir_all(path).expect("a folder");
        let device =
            OpenOptions::new().read(true).write(true).open("/dev/fuse").expect("FUSE in this kernel");
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        mount(Some("hangs"), path, Some("fuse"), MsFlags::empty(), Some(&*options)).expect("a mount");
        HangingDisk { path: path.to_owned(), _device: device }
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        // ends every wait: what was mounted is gone
        let _ = umount2(&self.path, MntFlags::MNT_FORCE | MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_disk_that_hangs_holds_up_neither_the_gate_nor_the_daemon_nor_another_sink() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let tap = testbed.tap_internet();
    let disk = HangingDisk::new(&testbed.folder.join("disk"));
    let history = HangingDisk::new(&testbed.history());
    let ecs = testbed.folder.join("ecs.json");
    let lines = format!(
        "eve = \"{0}/logs/eve.json\"\npcapng = \"{0}/logs/drops.pcapng\"\necs = \"{1}\"",
        disk.path.display(),
        ecs.display()
    );
    let path = testbed.write("daemon.toml", &dmz_with_alarms(&lines));
    let mut daemon = Daemon::start(testbed.router.prepare(&["run", "-i", NIC, "-p", &path]));
    daemon.wait_for_line(&["the history", "does not answer"]);
    daemon.wait_for_line(&["attached to dmz0: "]);
    for round in 1..=2 {
        testbed.prove_drops(&tap, 2);
        eventually("the sink that works has all", || count_reported(&ecs) == round * 2);
        daemon.signal(Signal::SIGHUP);
        daemon.wait_for_line(&[&format!("generation {} is live", round + 1)]);
    }
    daemon.wait_for_line(&["alarm #", "opened", "udp/4000"]);
    assert_eq!(testbed.show("alarms").as_array().map(Vec::len), Some(1), "the daemon answers");
    assert!(daemon.end(Signal::SIGTERM).success());
    drop(history);
}
