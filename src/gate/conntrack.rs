//! Whether the kernel tracks connections, and how.

use std::fs;
use std::path::Path;

/// It is there while conntrack is, as a module or built in.
const CONNTRACK: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const TCP_LOOSE: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_loose";

/// Whether the kernel has conntrack now.
pub(super) fn is_conntrack_loaded() -> bool {
    Path::new(CONNTRACK).exists()
}

/// net.netfilter.nf_conntrack_tcp_loose of this network namespace. `None`: there is no conntrack.
pub(super) fn read_tcp_loose() -> Option<u32> {
    fs::read_to_string(TCP_LOOSE).ok()?.trim().parse().ok()
}
