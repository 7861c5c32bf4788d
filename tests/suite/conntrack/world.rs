//! Two routers with the same servers behind them: one with the gate attached, one with the ruleset. Nobody
//! lives at their far ends but raw sockets, so nothing is sent and nothing comes but what a test has said.
//!
//! ```text
//!   wanN ------ wan0 router N dmz0 ------ dmzN
//! ```

use std::fs::{self, File};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use portcullis::nft::{Ruleset, export};
use portcullis::policy::parse;
use tempfile::TempDir;

use super::policy::{MARKER_PEER, MARKER_PORT, MARKER_SERVER, Policy};
use super::story::Side;
use crate::e2e::namespace::{NIC, Namespace, feed_ip, remove_namespace};
use crate::e2e::socket::set_option;
use crate::e2e::tap::open_raw;
use crate::support::dmz::ip;
use crate::support::frame::{ROUTER_MAC, SERVER_MAC, UDP, packet, udp_datagram};
use crate::support::patience::{PATIENCE, deadline};

/// Of linux/if_packet.h: a socket does not see what it sends.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

pub const FAR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
const WAN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// Who has an opinion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    Gate,
    Conntrack,
}

/// One router, with a socket at each of its far ends.
pub struct World {
    router: Namespace,
    dmz: File,
    wan: File,
    markers: u64,
}

/// Both routers.
pub struct Worlds {
    pub gate: World,
    pub conntrack: World,
    folder: TempDir,
    ends: Namespace,
}

impl Worlds {
    /// Each under a policy, which is the same for both but in a test of the tests.
    pub fn new(policy: &Policy, opinion: &Policy) -> Worlds {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!("pc-{}-ct{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let ends = Namespace::create(&format!("{stem}-e"));
        // it has no addresses, so it answers nothing
        ends.set_sysctl("ipv6/conf/all/disable_ipv6", "1");
        ends.set_sysctl("ipv6/conf/default/disable_ipv6", "1");
        let folder = tempfile::Builder::new().prefix(&format!("{stem}-")).tempdir().expect("a folder");
        let mut gate = World::new(&stem, 0, &ends, policy);
        let mut conntrack = World::new(&stem, 1, &ends, policy);
        gate.wait_for_carrier();
        conntrack.wait_for_carrier();

        let path = write(&folder, "policy.toml", &policy.text);
        gate.router.portcullis(&["attach", "-i", NIC, "-p", &path]).done();
        // a frame that waits in a GRO list is overtaken by a marker
        run(gate.router.command("ethtool").args(["-K", NIC, "gro", "off"]));

        for (key, value) in [
            // no flow without its handshake
            ("nf_conntrack_tcp_loose", "0"),
            // the gate compares no windows and no checksums
            ("nf_conntrack_tcp_be_liberal", "1"),
            ("nf_conntrack_checksum", "0"),
        ] {
            conntrack.router.set_sysctl(&format!("netfilter/{key}"), value);
        }
        let ruleset = write_ruleset(opinion);
        let path = write(&folder, "opinion.nft", &ruleset.text);
        run(conntrack.router.command("nft").args(["-c", "-f", &path]));
        // twice: it replaces itself
        for _ in 0..2 {
            run(conntrack.router.command("nft").args(["-f", &path]));
        }
        Worlds { gate, conntrack, folder, ends }
    }

    pub fn of(&mut self, judge: Judge) -> &mut World {
        match judge {
            Judge::Gate => &mut self.gate,
            Judge::Conntrack => &mut self.conntrack,
        }
    }

    /// What both know of flows and drops, for whoever looks into a difference.
    pub fn describe(&self) -> String {
        let ledger = self.gate.router.portcullis(&["show", "-i", NIC, "drops"]).out;
        let flows = read(self.conntrack.router.command("conntrack").arg("-L"));
        let ruleset = fs::read_to_string(self.folder.path().join("opinion.nft")).unwrap_or_default();
        format!("drops of the gate:\n{ledger}\nflows of conntrack:\n{flows}\nruleset:\n{ruleset}")
    }
}

impl Drop for Worlds {
    fn drop(&mut self) {
        for namespace in [&self.gate.router, &self.conntrack.router, &self.ends] {
            remove_namespace(namespace.name());
        }
    }
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// What `portcullis export nft` prints.
fn write_ruleset(policy: &Policy) -> Ruleset {
    let policy = parse(&policy.text, "opinion.toml").unwrap_or_else(|errors| panic!("{errors}"));
    export(&policy, NIC)
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.stderr(Stdio::piped()).output().expect("a program of the fuzz tier's packages");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn read(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("a program of the fuzz tier's packages");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl World {
    fn new(stem: &str, number: usize, ends: &Namespace, policy: &Policy) -> World {
        let router = Namespace::create(&format!("{stem}-{number}"));
        let (inside, outside) = (format!("dmz{number}"), format!("wan{number}"));
        for key in [
            "ipv6/conf/all/accept_dad",
            "ipv6/conf/default/accept_dad",
            "ipv6/conf/default/accept_ra",
            "ipv6/conf/default/router_solicitations",
        ] {
            router.set_sysctl(key, "0");
        }
        feed_ip(&format!(
            "link add {NIC} address {} netns {} type veth peer name {inside} address {} netns {}\n\
             link add wan0 address {} netns {} type veth peer name {outside} address {} netns {}\n",
            spell(ROUTER_MAC),
            router.name(),
            spell(SERVER_MAC),
            ends.name(),
            spell(WAN_MAC),
            router.name(),
            spell(FAR_MAC),
            ends.name(),
        ));
        ends.ip(&format!(
            "link set {inside} addrgenmode none arp off up\nlink set {outside} addrgenmode none arp off up\n"
        ));
        let mut lines = format!(
            "link set lo up\n\
             link set {NIC} addrgenmode none\nlink set {NIC} up\n\
             link set wan0 addrgenmode none\nlink set wan0 up\n\
             address add 192.0.2.1/24 dev {NIC}\naddress add 2001:db8:1::1/64 dev {NIC} nodad\n\
             address add 203.0.113.253/30 dev wan0\naddress add 2001:db8:ffff::1/64 dev wan0 nodad\n\
             neighbour add 203.0.113.254 lladdr {far} dev wan0 nud permanent\n\
             neighbour add 2001:db8:ffff::2 lladdr {far} dev wan0 nud permanent\n\
             route add default via 203.0.113.254\nroute add default via 2001:db8:ffff::2\n",
            far = spell(FAR_MAC),
        );
        for server in policy.actors() {
            for v6 in [false, true] {
                let home = policy.servers[server].home(v6);
                lines.push_str(&format!(
                    "neighbour add {home} lladdr {} dev {NIC} nud permanent\n",
                    spell(SERVER_MAC)
                ));
            }
        }
        lines.push_str(&format!(
            "neighbour add {MARKER_SERVER} lladdr {} dev {NIC} nud permanent\n",
            spell(SERVER_MAC)
        ));
        router.ip(&lines);
        for (key, value) in [
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/all/forwarding", "1"),
            // a router that follows source routes, as those that one would attack do
            ("ipv4/conf/all/accept_source_route", "1"),
            ("ipv4/conf/dmz0/accept_source_route", "1"),
            ("ipv4/conf/wan0/accept_source_route", "1"),
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/dmz0/rp_filter", "0"),
            ("ipv4/conf/wan0/rp_filter", "0"),
        ] {
            router.set_sysctl(key, value);
        }
        let open = |nic: &str| {
            let socket = File::from(ends.enter(|| open_raw(nic)));
            set_packet_option(&socket, PACKET_IGNORE_OUTGOING);
            socket
        };
        let (dmz, wan) = (open(&inside), open(&outside));
        World { router, dmz, wan, markers: 0 }
    }

    /// A NIC that has just come up swallows packets until the kernel has noticed its carrier.
    fn wait_for_carrier(&mut self) {
        for socket in [&self.dmz, &self.wan] {
            let short = libc::timeval { tv_sec: 0, tv_usec: 20_000 };
            set_option(socket, libc::SO_RCVTIMEO, short).expect("a timeout");
        }
        for side in [Side::Server, Side::Peer] {
            let begun = Instant::now();
            while !self.try_marker(side, Duration::from_millis(20), |_| ()) {
                assert!(begun.elapsed() < deadline(PATIENCE), "no packet goes from end to end");
            }
        }
    }

    /// Sends a frame from one side, and shows all that has come out at the other one by then.
    pub fn send(&mut self, from: Side, frame: &[u8], arrived: impl FnMut(&[u8])) {
        // a frame that the kernel refuses to send is one that nobody gets
        let _ = self.near(from).write(frame);
        assert!(self.try_marker(from, deadline(PATIENCE), arrived), "a marker behind {frame:02x?} is lost");
    }

    fn near(&self, from: Side) -> &File {
        if from == Side::Server { &self.dmz } else { &self.wan }
    }

    fn far(&self, from: Side) -> &File {
        self.near(from.other())
    }

    /// Sends a marker, and shows what comes out before it. False: it has not come.
    fn try_marker(&mut self, from: Side, patience: Duration, mut arrived: impl FnMut(&[u8])) -> bool {
        self.markers += 1;
        let content = self.markers.to_be_bytes();
        let marker = build_marker(from, &content);
        self.near(from).write_all(&marker).expect("a marker");
        let begun = Instant::now();
        let mut frame = [0; 1 << 16];
        loop {
            match self.far(from).read(&mut frame) {
                Ok(length) => {
                    let frame = &frame[..length];
                    // behind Ethernet, IPv4 and UDP
                    if frame.get(42..50) == Some(&content[..])
                        && frame.get(14..42).map(|head| head[9]) == Some(UDP)
                    {
                        return true;
                    }
                    arrived(frame);
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => panic!("reading a raw socket: {error}"),
            }
            if begun.elapsed() > patience {
                return false;
            }
        }
    }
}

fn set_packet_option(socket: &File, name: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: `on` is as long as we say and outlives the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            name,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    assert_eq!(result, 0, "an option of a raw socket: {}", std::io::Error::last_os_error());
}

fn build_marker(from: Side, content: &[u8]) -> Vec<u8> {
    let ends =
        [SocketAddr::new(ip(MARKER_SERVER), MARKER_PORT), SocketAddr::new(ip(MARKER_PEER), MARKER_PORT)];
    let [source, destination] = if from == Side::Server { ends } else { [ends[1], ends[0]] };
    let datagram =
        udp_datagram((source.ip(), source.port()), (destination.ip(), destination.port()), content);
    frame_from(from, false, &packet(source.ip(), destination.ip(), UDP, &datagram))
}

/// The frame of an IP packet from one side to the router.
pub fn frame_from(side: Side, v6: bool, packet: &[u8]) -> Vec<u8> {
    let (to, from) = match side {
        Side::Server => (ROUTER_MAC, SERVER_MAC),
        Side::Peer => (WAN_MAC, FAR_MAC),
    };
    let ethertype: u16 = if v6 { 0x86dd } else { 0x0800 };
    [&to[..], &from[..], &ethertype.to_be_bytes(), packet].concat()
}

fn spell(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
