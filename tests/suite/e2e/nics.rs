//! The NICs of a virtual machine. `PORTCULLIS_NICS` names pairs of them by their places on the
//! bus, `NAME=NEAR,FAR …`; each pair is joined outside of the machine. `scripts/vm` makes such a one.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::namespace::{NIC, feed_ip};
use crate::support::patience::{PATIENCE, within};

/// The places of a pair's NICs, near and far.
fn find_slots(pair: &str) -> [String; 2] {
    let pairs = std::env::var("PORTCULLIS_NICS")
        .expect("PORTCULLIS_NICS names this machine's NICs: this test is for `scripts/vm`");
    let ends = pairs
        .split_whitespace()
        .find_map(|entry| entry.strip_prefix(pair)?.strip_prefix('=')?.split_once(','))
        .unwrap_or_else(|| panic!("no pair {pair} in `{pairs}`"));
    [ends.0.to_owned(), ends.1.to_owned()]
}

/// Gives the near one to the router and the far one to the servers. They have the addresses that
/// the cables' ends have elsewhere from the start: qemu's vmxnet3 is deaf once its own was changed.
pub fn move_pair(pair: &str, router: &str, dmz: &str) {
    let [near, far] = find_slots(pair);
    for (slot, machine, name) in [(near, router, NIC), (far, dmz, "eth0")] {
        let now = find_nic(&slot).expect("the NIC in the initial namespace");
        feed_ip(&format!("link set {now} down\nlink set {now} netns {machine} name {name}\n"));
    }
}

/// A pair that is in use, by its name.
pub struct Pair(pub &'static str);

impl Drop for Pair {
    /// Waits until both are back from namespaces that end, which is when the kernel gets round to
    /// it, and gives them names that are in nobody's way.
    fn drop(&mut self) {
        for slot in find_slots(self.0) {
            let spare = format!("spare{}", slot.rsplit(':').next().unwrap_or_default());
            within(PATIENCE, || {
                find_nic(&slot).is_some_and(|now| {
                    let mut ip = Command::new("ip");
                    ip.args(["link", "set", &now, "down", "name", &spare]);
                    now == spare || ip.status().is_ok_and(|done| done.success())
                })
            });
        }
    }
}

/// The name of the NIC at this place, if it is in the initial namespace.
fn find_nic(slot: &str) -> Option<String> {
    let device = Path::new("/sys/bus/pci/devices").join(slot);
    let below = fs::read_dir(&device).ok()?.flatten().map(|entry| entry.path().join("net"));
    [device.join("net")].into_iter().chain(below).find_map(|folder| {
        let nic = fs::read_dir(folder).ok()?.flatten().next()?;
        nic.file_name().into_string().ok()
    })
}
