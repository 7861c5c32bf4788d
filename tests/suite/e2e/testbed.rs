//! A DMZ, its router and the internet: network namespaces that are gone when the test is over.
//!
//! ```text
//!   internet eth0 ------ wan0 router dmz0 ------ eth0 dmz
//! ```
//!
//! Every server is an address of `dmz`, everybody else one of `internet`, so nothing that
//! leaves the router can escape a tap there. Neighbours are permanent and nothing talks by
//! itself: what a tap sees, a test has sent. Addresses are those kept for documentation.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use portcullis::gate::{Gate, GatePlace};
use tempfile::TempDir;

use super::namespace::{HISTORY, LOCKS, PINS, prepare_building, remove_namespace};
pub use super::namespace::{NIC, Namespace, feed_ip};
use super::nics::{Pair, move_pair};
use super::socket::{UdpServer, udp_talks};
use crate::support::dmz::in_each;
pub use crate::support::dmz::ip;
use crate::support::patience::{Wait, eventually};

/// Actors of one address family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub web: &'static str,
    pub mail: &'static str,
    pub dns: &'static str,
    pub router: &'static str,
    /// Who may log in.
    pub bastion: &'static str,
    /// Anybody.
    pub peer: &'static str,
    pub resolver: &'static str,
    /// Another mail server.
    pub exchanger: &'static str,
    pub loghost: &'static str,
    /// The time server.
    pub clock: &'static str,
}

pub const V4: Family = Family {
    web: "192.0.2.80",
    mail: "192.0.2.25",
    dns: "192.0.2.53",
    router: "192.0.2.1",
    bastion: "203.0.113.7",
    peer: "198.51.100.99",
    resolver: "198.51.100.53",
    exchanger: "198.51.100.25",
    loghost: "198.51.100.20",
    clock: "198.51.100.30",
};

pub const V6: Family = Family {
    web: "2001:db8:1::80",
    mail: "2001:db8:1::25",
    dns: "2001:db8:1::53",
    router: "2001:db8:1::1",
    bastion: "2001:db8:f::7",
    peer: "2001:db8:2::99",
    resolver: "2001:db8:2::53",
    exchanger: "2001:db8:2::25",
    loghost: "2001:db8:2::20",
    clock: "2001:db8:2::30",
};

pub const FAMILIES: [Family; 2] = [V4, V6];

/// Does the same in both families, and says in which one it failed.
pub fn in_both_families(test: impl FnMut(Family)) {
    in_each(FAMILIES, |family| ip(family.web), test);
}

impl Family {
    fn servers(&self) -> [&'static str; 3] {
        [self.web, self.mail, self.dns]
    }

    fn peers(&self) -> [&'static str; 6] {
        [self.bastion, self.peer, self.resolver, self.exchanger, self.loghost, self.clock]
    }
}

// ---- order among tests ---------------------------------------------------------------------

static MACHINE: RwLock<()> = RwLock::new(());

/// For a test that others may run beside.
pub fn share_machine() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// For a test that loads the machine or turns a knob of it: no other of this tier meanwhile.
pub fn exclusive() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Version and patch level of the running kernel.
pub fn kernel() -> (u32, u32) {
    let name = nix::sys::utsname::uname().expect("the kernel's name");
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers =
        release.split(|char: char| !char.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().expect("a version"), numbers.next().expect("a patch level"))
}

/// Where this kernel has the tracker.
pub fn tracker_hook() -> &'static str {
    if kernel() >= (6, 6) { "tcx" } else { "clsact" }
}

// ---- the testbed -----------------------------------------------------------------------------

/// What the servers are plugged into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Plug {
    /// A cable, whose driver has XDP of its own.
    Cable,
    /// A bridge, which has none.
    Bridge,
    /// Two NICs of a virtual machine that are joined outside of it, by the name of the pair in
    /// `PORTCULLIS_NICS`. The router's is of the driver of that name.
    Nics(&'static str),
}

/// A cable that something can be put into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Dmz,
    Internet,
}

/// A DMZ behind its router.
pub struct Testbed {
    pub internet: Namespace,
    pub router: Namespace,
    pub dmz: Namespace,
    /// For policies and what the daemon writes.
    pub folder: PathBuf,
    _temporary: TempDir,
    added: Mutex<Vec<String>>,
    /// Last: NICs come back when nothing holds their namespaces any more.
    _pair: Option<Pair>,
}

impl Testbed {
    pub fn new() -> Testbed {
        Testbed::plugged(Plug::Cable)
    }

    pub fn plugged(plug: Plug) -> Testbed {
        static COUNT: AtomicU32 = AtomicU32::new(0);

        let _builder = prepare_building();
        let stem = format!("pc-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let names = ["i", "r", "d"].map(|end| format!("{stem}-{end}"));
        names.iter().for_each(|name| remove_namespace(name));
        feed_ip(&names.iter().map(|name| format!("netns add {name}\n")).collect::<String>());
        let [internet, router, dmz] = names.map(Namespace::open);
        // servers that give up root read what lies there
        let temporary = tempfile::Builder::new()
            .prefix(&format!("{stem}-"))
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .expect("a folder");
        let folder = temporary.path().to_owned();
        let pair = if let Plug::Nics(pair) = plug { Some(Pair(pair)) } else { None };
        let added = Mutex::default();
        let testbed = Testbed { internet, router, dmz, folder, _temporary: temporary, added, _pair: pair };
        testbed.wire(plug);
        testbed.wait_for_carrier();
        testbed
    }

    fn wire(&self, plug: Plug) {
        let [internet, router, dmz] = [&self.internet, &self.router, &self.dmz].map(Namespace::name);
        feed_ip(&format!(
            "link add wan0 address 02:00:00:00:00:02 netns {router} type veth \
             peer name eth0 address 02:00:00:00:00:03 netns {internet}\n"
        ));
        match plug {
            Plug::Nics(pair) => move_pair(pair, router, dmz),
            Plug::Cable | Plug::Bridge => {
                let port = if plug == Plug::Cable { NIC } else { "port0" };
                feed_ip(&format!(
                    "link add {port} address 02:00:00:00:00:01 netns {router} type veth \
                     peer name eth0 address 02:00:00:00:00:10 netns {dmz}\n"
                ));
            }
        }
        for machine in [&self.internet, &self.router, &self.dmz] {
            machine.set_sysctl("ipv6/conf/all/accept_dad", "0");
            machine.set_sysctl("ipv6/conf/default/accept_ra", "0");
            machine.set_sysctl("ipv6/conf/default/router_solicitations", "0");
        }
        self.router.set_sysctl("ipv4/ip_forward", "1");
        self.router.set_sysctl("ipv6/conf/all/forwarding", "1");

        if plug == Plug::Bridge {
            self.router.ip(&format!(
                "link add {NIC} address 02:00:00:00:00:01 type bridge forward_delay 0 mcast_snooping 0\n\
                 link set port0 addrgenmode none\n\
                 link set port0 address 02:00:00:00:00:04\n\
                 link set port0 master {NIC}\n\
                 link set port0 up\n"
            ));
        }
        self.wire_router_to_dmz(NIC);
        self.router.ip("link set lo up\n\
             link set wan0 addrgenmode none\n\
             link set wan0 up\n\
             address add 203.0.113.129/30 dev wan0\n\
             address add 2001:db8:ffff::1/64 dev wan0 nodad\n\
             neighbour add 203.0.113.130 lladdr 02:00:00:00:00:03 dev wan0 nud permanent\n\
             neighbour add 2001:db8:ffff::2 lladdr 02:00:00:00:00:03 dev wan0 nud permanent\n\
             route add default via 203.0.113.130\n\
             route add default via 2001:db8:ffff::2\n");

        self.wire_dmz("eth0");
        self.wire_internet();
        let peers = FAMILIES.map(|family| family.peers()).concat();
        let lines = peers.iter().map(|peer| {
            // an address that is still tentative can't be bound to
            let flag = if peer.contains(':') { "nodad" } else { "" };
            format!("address add {peer} dev lo {flag}\n")
        });
        self.internet.ip(&lines.collect::<String>());
    }

    /// The way from the peers to the servers.
    fn wire_internet(&self) {
        let mut lines = up("eth0");
        lines.push_str(
            "address add 203.0.113.130/30 dev eth0\n\
             address add 2001:db8:ffff::2/64 dev eth0 nodad\n\
             neighbour add 203.0.113.129 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
             neighbour add 2001:db8:ffff::1 lladdr 02:00:00:00:00:02 dev eth0 nud permanent\n\
             route add 192.0.2.0/24 via 203.0.113.129\n\
             route add 2001:db8:1::/64 via 2001:db8:ffff::1\n",
        );
        self.internet.ip(&lines);
    }

    /// A NIC that has just come up swallows packets until the kernel has noticed its carrier. There must
    /// be no gate: it would drop what goes from end to end here.
    pub fn wait_for_carrier(&self) {
        for family in FAMILIES {
            let _echo = UdpServer::start(&self.internet, family.peer, 7);
            let target = SocketAddr::new(ip(family.peer), 7);
            eventually("packets go from end to end", || {
                udp_talks(&self.dmz, family.dns, target, Wait::AtMost(Duration::from_millis(20)))
            });
        }
    }

    /// Addresses and neighbours of the router's NIC in front of the servers.
    pub fn wire_router_to_dmz(&self, nic: &str) {
        let mut lines = up(nic);
        lines.push_str(&format!(
            "address add {}/24 dev {nic}\naddress add {}/64 dev {nic} nodad\n",
            V4.router, V6.router
        ));
        for server in FAMILIES.map(|family| family.servers()).concat() {
            lines.push_str(&format!(
                "neighbour add {server} lladdr 02:00:00:00:00:10 dev {nic} nud permanent\n"
            ));
        }
        self.router.ip(&lines);
    }

    /// Takes the cable to the DMZ away and puts in a new one, whose NIC has the same name. The
    /// servers' sockets are of no use afterwards.
    pub fn replace_cable(&self) {
        self.router.ip(&format!("link delete {NIC}\n"));
        feed_ip(&format!(
            "link add {NIC} address 02:00:00:00:00:01 netns {} type veth \
             peer name eth0 address 02:00:00:00:00:10 netns {}\n",
            self.router.name(),
            self.dmz.name()
        ));
        self.wire_router_to_dmz(NIC);
        self.wire_dmz("eth0");
        // A daemon attaches its gate to the new NIC within a second, and then no packet of this test
        // goes from end to end. So ask the kernel.
        for (machine, nic) in [(&self.router, NIC), (&self.dmz, "eth0")] {
            eventually(&format!("{nic} is up"), || machine.is_up(nic));
        }
    }

    /// Brings the router's NIC up again, under a gate: going down has cost it its IPv6 addresses and neighbours.
    pub fn restore_after_down(&self) {
        self.router.ip(&format!("address flush dev {NIC}\n"));
        self.wire_router_to_dmz(NIC);
        // through a gate nothing comes back that would show it: what is dropped does
        for (family, port) in [(V4, 4_998), (V6, 4_999)] {
            let socket = super::socket::udp(&self.dmz, family.web, 0);
            let before = self.dropped("web1", "udp", port, "new_flow");
            eventually("packets come to the gate", || {
                let _ = socket.send_to(&[], SocketAddr::new(ip(family.peer), port));
                self.dropped("web1", "udp", port, "new_flow") > before
            });
        }
    }

    /// The servers' addresses, and their way out.
    pub fn wire_dmz(&self, nic: &str) {
        let mut lines = up(nic);
        for family in FAMILIES {
            let (bits, flag) = if family.web.contains(':') { (64, "nodad") } else { (24, "") };
            for server in family.servers() {
                lines.push_str(&format!("address add {server}/{bits} dev {nic} {flag}\n"));
            }
            let router = family.router;
            lines.push_str(&format!(
                "neighbour add {router} lladdr 02:00:00:00:00:01 dev {nic} nud permanent\n\
                 route add default via {router}\n"
            ));
        }
        self.dmz.ip(&lines);
    }

    /// Puts a new machine into the cable of the DMZ or of the internet: `near` is its NIC towards
    /// the router, `far` the one towards the others. It has no addresses, and copies nothing yet.
    pub fn splice(&self, into: Cut) -> Namespace {
        let (machine, mac, end) = match into {
            Cut::Dmz => (&self.dmz, "02:00:00:00:00:10", "x"),
            Cut::Internet => (&self.internet, "02:00:00:00:00:03", "y"),
        };
        let between = self.add_machine(end);
        machine.ip(&format!("link set eth0 netns {} name near\n", between.name()));
        feed_ip(&format!(
            "link add far netns {} type veth peer name eth0 address {mac} netns {}\n",
            between.name(),
            machine.name()
        ));
        between.ip("link set near addrgenmode none\nlink set far addrgenmode none\n\
             link set near up\nlink set far up\n");
        match into {
            Cut::Dmz => self.wire_dmz("eth0"),
            Cut::Internet => self.wire_internet(),
        }
        between
    }

    /// A new machine that has no NIC yet. `end` tells its name from those of the others.
    pub fn add_machine(&self, end: &str) -> Namespace {
        let name = self.dmz.name();
        let name = format!("{}-{end}", name.rsplit_once('-').expect("a stem").0);
        remove_namespace(&name);
        feed_ip(&format!("netns add {name}\n"));
        let machine = Namespace::open(name);
        machine.set_sysctl("ipv6/conf/all/accept_dad", "0");
        machine.set_sysctl("ipv6/conf/default/accept_ra", "0");
        machine.set_sysctl("ipv6/conf/default/router_solicitations", "0");
        machine.ip("link set lo up\n");
        self.added.lock().expect("a list").push(machine.name().to_owned());
        machine
    }

    /// Where the gate lives, for the library. It asks for the process's namespace; this is for
    /// the thread that enters the router.
    pub fn place(&self) -> GatePlace {
        let mut place = self.router.enter(|| GatePlace::of(NIC)).expect("a place");
        place.pins = self.pins();
        place
    }

    /// The folder of the daemon's history.
    pub fn history(&self) -> PathBuf {
        Path::new(HISTORY).join(self.pins().file_name().expect("a name"))
    }

    /// The folder of the gate's pins.
    pub fn pins(&self) -> PathBuf {
        Path::new(PINS).join(format!("{NIC}::{}", self.router.inode()))
    }

    /// The daemon's socket.
    pub fn socket(&self) -> PathBuf {
        Path::new(LOCKS).join(format!("{NIC}::{}.sock", self.router.inode()))
    }

    /// The lock of those who change the gate.
    pub fn lock(&self) -> PathBuf {
        Path::new(LOCKS).join(format!("{NIC}::{}.lock", self.router.inode()))
    }

    /// The attached gate, opened by the library.
    pub fn open_gate(&self) -> Gate {
        let place = self.place();
        self.router.enter(|| Gate::open(&place)).expect("a gate")
    }

    /// Whether the kernel has an XDP program on the NIC.
    pub fn has_xdp(&self) -> bool {
        !self.xdp_of().is_empty()
    }

    /// Waits until it has none: the kernel takes its time.
    #[track_caller]
    pub fn wait_for_detach(&self) {
        eventually("the gate is detached", || !self.has_xdp());
    }

    /// How it has it: `xdp` is in the driver, `xdpgeneric` in the stack; empty: not at all.
    pub fn xdp_of(&self) -> String {
        let output = self.router.command("ip").args(["link", "show", "dev", NIC]).output().expect("ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().find(|word| word.starts_with("xdp")).unwrap_or_default().to_owned()
    }

    /// Takes the tracker off behind the program's back.
    pub fn remove_tracker(&self) {
        if tracker_hook() == "tcx" {
            fs::remove_file(self.pins().join("links/track")).expect("the tracker's link");
        } else {
            let mut tc = self.router.command("tc");
            let status = tc.args(["filter", "del", "dev", NIC, "egress"]).status().expect("tc, of iproute2");
            assert!(status.success(), "the tracker's filter could not be removed");
        }
    }

    /// Writes a file of the test's own.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        for machine in [&self.internet, &self.router, &self.dmz] {
            remove_namespace(machine.name());
        }
        let added = self.added.lock().unwrap_or_else(PoisonError::into_inner);
        added.iter().for_each(|name| remove_namespace(name));
    }
}

fn up(nic: &str) -> String {
    format!("link set lo up\nlink set {nic} addrgenmode none\nlink set {nic} up\n")
}
