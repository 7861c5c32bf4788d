//! Which gate is on which NIC, by the pinned links of all gates. A NIC keeps its index when it gets another
//! name, and a program has one id on the whole machine. So a gate is found on its NIC under any name, and
//! after a move to another network namespace as well.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::orphans::{list_folders, parse_folder};
use super::pins::{LINK_FILTER, LINK_TRACK, PINS};
use super::system::{self, LinkFacts};

/// Only the initial network namespace has this file, in every kernel since 2.6.
const INITIAL_NETNS_ONLY: &str = "/proc/sys/net/core/netdev_budget";

/// What the links of one gate say.
#[derive(Clone, Debug)]
pub(super) struct PinnedLinks {
    /// Name of the gate's folder.
    pub(super) folder: String,
    /// The name that the NIC had when the gate was attached.
    pub(super) attached_as: String,
    filter: Option<LinkFacts>,
    tracker: Option<LinkFacts>,
}

impl PinnedLinks {
    pub(super) fn read(folder: &str) -> Option<PinnedLinks> {
        let (attached_as, _) = parse_folder(folder)?;
        let facts = |name: &str| {
            let link = system::open_pin(&Path::new(PINS).join(folder).join("links").join(name)).ok()?;
            // 0: its NIC is gone, or somebody has detached it
            system::link_facts(link.as_fd()).ok().filter(|facts| facts.ifindex != 0)
        };
        let (filter, tracker) = (facts(LINK_FILTER), facts(LINK_TRACK));
        Some(PinnedLinks { folder: folder.to_owned(), attached_as, filter, tracker })
    }

    /// The ids of its programs.
    pub(super) fn program_ids(&self) -> impl Iterator<Item = u32> {
        self.filter.iter().chain(&self.tracker).map(|link| link.program_id)
    }

    /// Whether a NIC of some network namespace has programs of the gate.
    pub(super) fn is_on_nic(&self) -> bool {
        self.filter.is_some() || self.tracker.is_some()
    }

    /// Whether the gate's filter is the program on the NIC of this index here.
    pub(super) fn has_filter_on(&self, ifindex: u32) -> bool {
        self.filter.is_some_and(|filter| {
            filter.ifindex == ifindex
                && matches!(system::query_xdp(ifindex), Ok(Some((id, _))) if id == filter.program_id)
        })
    }

    /// Whether the gate is on the NIC of this index here. Each namespace counts its NICs for itself, so the
    /// program that is on the NIC decides. A tracker alone can't be asked for, and counts where it was attached.
    pub(super) fn is_on(&self, ifindex: u32) -> bool {
        match (self.filter, self.tracker) {
            (Some(_), _) => self.has_filter_on(ifindex),
            (None, Some(tracker)) => {
                tracker.ifindex == ifindex && self.folder == name_folder(&self.attached_as)
            }
            (None, None) => false,
        }
    }
}

/// The links of every gate.
pub(super) fn read_all_links() -> Vec<PinnedLinks> {
    list_folders().unwrap_or_default().iter().filter_map(|folder| PinnedLinks::read(folder)).collect()
}

/// The name of a gate's folder. In a network namespace other than the initial one its inode number is part
/// of it, so that two NICs of one name have two folders. bpffs reserves the dot, so `eth0.7` is `eth0:7`.
pub(super) fn name_folder(interface: &str) -> String {
    let mut folder = interface.replace('.', ":");
    if !Path::new(INITIAL_NETNS_ONLY).exists() {
        let inode = fs::metadata("/proc/self/ns/net").map_or(0, |ns| ns.ino());
        folder.push_str(&format!("::{inode}"));
    }
    folder
}
