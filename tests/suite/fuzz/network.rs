//! A network namespace of its own for a thread: neighbour discovery asks the routing table, and the
//! machine's own must not decide a test.

use std::fs;
use std::process::Command;

use nix::sched::{CloneFlags, unshare};

/// Puts the calling thread into a namespace in which `setting::stays_on_link` is right. It is
/// gone with the thread.
pub fn enter_own_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace (the test needs root)");
    for command in [
        "ip link set lo up",
        "ip link add fuzz0 type veth peer name fuzz1",
        "ip link set fuzz0 up",
        "ip link set fuzz1 up",
        "ip addr add 198.51.100.54/32 dev lo",
        "ip -6 route add 2001:db8:1:0:8000::/65 dev fuzz0",
    ] {
        let mut words = command.split(' ');
        let status = Command::new(words.next().expect("a program")).args(words).status().expect("ip");
        assert!(status.success(), "`{command}` failed");
    }
    // A test run's frames come in by the loopback device. Where it does not forward, the kernel
    // says so before it has asked any table.
    fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").expect("forwarding");
}
