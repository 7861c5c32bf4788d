//! Two routers that share an address by VRRP: keepalived with virtual MACs, and a gate on each.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::service::{self, Service};
use super::site::wire_naturally;
use crate::e2e::calm::CalmCheck;
use crate::e2e::command::Daemon;
use crate::e2e::handover::track;
use crate::e2e::hub::Hub;
use crate::e2e::policies::dmz;
use crate::e2e::socket::{ARRIVES, TcpServer, UdpServer, connect, tcp_talks, udp_talks};
use crate::e2e::tap::Tap;
use crate::e2e::testbed::{
    FAMILIES, Family, NIC, Namespace, Testbed, V4, in_both_families, ip, share_machine,
};
use crate::support::frame::{SYN, patched, tcp};
use crate::support::patience::eventually;

const VRRP: u8 = 112;
/// Advertisements in a row after which a router that hears none would have taken over: three intervals,
/// and a part of one.
const ENOUGH: u64 = 12;
/// Of the NICs of the testbed's router and of the second one.
pub const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:0b"];
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 10];

/// One of the two: its own addresses end in this digit.
pub struct Router<'t> {
    pub machine: &'t Namespace,
    pub digit: u8,
}

impl Router<'_> {
    /// Gives the NIC this router's own addresses. The servers' gateway is the one that both share.
    pub fn wire(&self) {
        self.machine.ip(&format!(
            "address flush dev {NIC}\naddress add 192.0.2.{0}/24 dev {NIC}\n\
             address add 2001:db8:1::{0}/64 dev {NIC} nodad\naddress add fe80::2:{0}/64 dev {NIC} nodad\n",
            self.digit
        ));
    }

    fn start_keepalived(&self, testbed: &Testbed, priority: u8) -> Service {
        self.start_keepalived_with(testbed, priority, "")
    }

    /// With more in its configuration.
    pub fn start_keepalived_with(&self, testbed: &Testbed, priority: u8, more: &str) -> Service {
        let instance = |name: &str, addresses: &str| {
            format!(
                "vrrp_instance {name} {{\n  state BACKUP\n  interface {NIC}\n  use_vmac\n  version 3\n  \
                 virtual_router_id 10\n  priority {priority}\n  advert_int 0.1\n  \
                 virtual_ipaddress {{\n{addresses}\n  }}\n}}\n"
            )
        };
        let name = format!("keepalived-{}-{priority}", self.digit);
        let six = format!("    fe80::1/64\n    {}/64", FAMILIES[1].router);
        let four = instance("four", &format!("    {}/24", V4.router));
        let text = format!("{more}{four}{}", instance("six", &six));
        let path = testbed.write(&format!("{name}.conf"), &text);
        let pids =
            [".pid", ".vrrp"].map(|end| testbed.folder.join(format!("{name}{end}")).display().to_string());
        let command = ["keepalived", "-n", "-l", "-P", "-f", &path, "-p", &pids[0], "-r", &pids[1]];
        Service::start(testbed, self.machine, &name, &command, &[])
    }

    /// Whether it has the shared addresses of IPv4 and IPv6.
    pub fn is_master(&self) -> [bool; 2] {
        let output = self.machine.command("ip").args(["-o", "address", "show"]).output().expect("ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        FAMILIES.map(|family| text.contains(&format!(" {}/", family.router)))
    }

    pub fn portcullis(&self, command: &str, args: &[&str]) -> crate::e2e::command::Outcome {
        self.machine.portcullis(&[&[command, "-i", NIC], args].concat())
    }

    /// A tap behind its gate, for the advertisements of the other one.
    fn tap_adverts(&self, other: u8) -> Tap {
        let sources = [ip(&format!("192.0.2.{other}")), ip(&format!("fe80::2:{other}"))];
        Tap::keeping(self.machine, NIC, move |one| one.protocol == VRRP && sources.contains(&one.source))
    }
}

/// The policy of one router, which names the other one.
pub fn policy(other: u8, mac: &str) -> String {
    format!(
        "{}\n[routers.peer]\naddresses = [\"192.0.2.{other}\", \"2001:db8:1::{other}\", \"fe80::2:{other}\"]\n\
         mac = [\"{mac}\", \"00:00:5e:00:01:0a\", \"00:00:5e:00:02:0a\"]\n",
        dmz()
    )
}

/// Advertisements go on, and of the two routers one is the master, in both families.
#[track_caller]
pub fn prove_one_master(master: &Router<'_>, backup: &Router<'_>) {
    let tap = backup.tap_adverts(master.digit);
    for address in [format!("192.0.2.{}", master.digit), format!("fe80::2:{}", master.digit)] {
        let address = ip(&address);
        eventually(&format!("advertisements of {address} arrive"), || {
            tap.count(|one| one.source == address) >= ENOUGH
        });
    }
    eventually("one router has the addresses", || {
        (master.is_master(), backup.is_master()) == ([true; 2], [false; 2])
    });
}

/// Puts a second router beside the testbed's on the servers' link. The link goes with the hub.
pub fn wire_pair<'t>(testbed: &'t Testbed, machine: &'t Namespace) -> (Hub, [Router<'t>; 2]) {
    let hub = Hub::that_learns(testbed);
    hub.plug(machine, NIC, MACS[1]);
    let routers = [Router { machine: &testbed.router, digit: 2 }, Router { machine, digit: 3 }];
    wire_naturally(testbed);
    routers.iter().for_each(Router::wire);
    (hub, routers)
}

#[test]
fn a_pair_of_routers_agrees_on_one_master_through_both_gates() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = testbed.add_machine("p");
    let (_hub, [first, second]) = wire_pair(&testbed, &machine);

    let check = CalmCheck::start(&testbed, &policy(3, MACS[1]));
    let named = testbed.write("second.toml", &policy(2, MACS[0]));
    let unnamed = testbed.write("unnamed.toml", &dmz());
    let daemon = Daemon::start(second.machine.prepare(&["run", "-i", NIC, "-p", &named]));
    daemon.wait_for_line(&["attached to dmz0: "]);
    let mut keepalived = first.start_keepalived(&testbed, 150);
    let _other = second.start_keepalived(&testbed, 100);
    prove_one_master(&first, &second);

    // the servers use the shared address, by its virtual MAC
    let _servers = [TcpServer::start(&testbed.dmz, 80), TcpServer::start(&testbed.internet, 25)];
    in_both_families(|family| {
        let _log = UdpServer::start(&testbed.internet, family.loghost, 514);
        let (web, loghost) = (SocketAddr::new(ip(family.web), 80), SocketAddr::new(ip(family.loghost), 514));
        let exchanger = SocketAddr::new(ip(family.exchanger), 25);
        assert!(tcp_talks(&testbed.internet, ip(family.peer), web, ARRIVES), "{:#?}", testbed.drops());
        assert!(udp_talks(&testbed.dmz, family.web, loghost, ARRIVES), "{:#?}", testbed.drops());
        assert!(tcp_talks(&testbed.dmz, ip(family.mail), exchanger, ARRIVES), "{:#?}", testbed.drops());
    });
    check.assert_calm();
    let alarms = second.portcullis("alarms", &["-j"]).done().json();
    let severe = alarms.as_array().expect("a list").iter().filter(|alarm| alarm["severity"] != "low");
    assert_eq!(severe.count(), 0, "alarms of the second router: {alarms:#}");

    // a router that does not know the other one believes itself alone
    second.portcullis("apply", &[&unnamed]).done();
    eventually("the second router takes the addresses too", || second.is_master() == [true; 2]);
    second.portcullis("apply", &[&named]).done();
    prove_one_master(&first, &second);

    // the other way round
    drop(keepalived);
    eventually("the second router takes over", || second.is_master() == [true; 2]);
    keepalived = first.start_keepalived(&testbed, 50);
    prove_one_master(&second, &first);
    check.assert_calm();

    // what a server must not do is reported as ever, although it goes to the virtual MAC
    let forbidden = tcp((ip(V4.web), 40_000), (ip(V4.peer), 22), SYN);
    testbed.dmz.inject("eth0", &patched(&forbidden, 0, &VIRTUAL_MAC));
    daemon.wait_for_line(&["critical attempt: web1", "tcp/22"]);
    drop(keepalived);
}

/// As packaging/pair/portcullis-notify, where the other router's table is at hand: conntrackd would have carried it.
fn write_notify(testbed: &Testbed, dead: &Namespace) -> String {
    let script = format!(
        "#!/bin/sh\nset -e\n\
         {program} takeover -i {NIC} --for 10s\n\
         nsenter --net=/run/netns/{dead} conntrack -L -o save >{folder}/table\n\
         nsenter --net=/run/netns/{internet} ip route replace 192.0.2.0/24 via 203.0.113.133 dev eth1\n\
         nsenter --net=/run/netns/{internet} ip route replace 2001:db8:1::/64 via 2001:db8:fffe::1 dev eth1\n\
         conntrack -R {folder}/table\n",
        program = env!("CARGO_BIN_EXE_portcullis"),
        dead = dead.name(),
        internet = testbed.internet.name(),
        folder = testbed.folder.display(),
    );
    let path = testbed.write("notify", &script);
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    path
}

#[test]
fn when_a_router_dies_silently_keepalived_moves_its_address_and_no_connection_dies() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = testbed.add_machine("p");
    let (_hub, [first, second]) = wire_pair(&testbed, &machine);
    wire_way_out(&testbed, &machine);
    for router in [first.machine, second.machine] {
        track(router);
    }
    let handover = |text: String| text.replacen("pickup = 0\n", "pickup = 0\nhandover = \"conntrack\"\n", 1);
    let paths = [("one.toml", 3, MACS[1]), ("two.toml", 2, MACS[0])]
        .map(|(name, other, mac)| testbed.write(name, &handover(policy(other, mac))));
    first.portcullis("attach", &["-p", &paths[0]]).done();
    let daemon = Daemon::start(second.machine.prepare(&["run", "-i", NIC, "-p", &paths[1]]));
    daemon.wait_for_line(&["attached to dmz0: "]);
    let notify = write_notify(&testbed, first.machine);
    let more = format!(
        "global_defs {{\n  script_user root\n}}\nvrrp_sync_group both {{\n  group {{\n    four\n    six\n  }}\n  \
         notify_master \"{notify}\"\n}}\n"
    );
    let one = first.start_keepalived(&testbed, 150);
    prove_master(&first);
    let other = second.start_keepalived_with(&testbed, 100, &more);
    prove_one_master(&first, &second);

    let mut all = open_pushed(&testbed, |family| (family.web, 443), 20);
    // no farewell: its cables are cut, and its processes never know
    first.machine.ip(&format!("link set {NIC} down\nlink set wan0 down\n"));
    for (server, peer) in &mut all {
        server.write_all(b"news").expect("a segment");
        peer.read_exact(&mut [0; 4]).unwrap_or_else(|error| panic!("{error}: {}", other.log()));
    }
    let status = second.portcullis("show", &["status", "-j"]).done().json();
    assert_eq!(status["handover_state"]["adopted"], all.len(), "{status:#}");
    let alarms = second.portcullis("alarms", &["-j"]).done().json();
    assert_eq!(alarms, serde_json::json!([]), "{alarms:#}");
    drop(one);
}

pub fn prove_master(router: &Router<'_>) {
    eventually("it has the addresses", || router.is_master() == [true; 2]);
}

/// The second router's way to the peers. They do not use it yet.
pub fn wire_way_out(testbed: &Testbed, machine: &Namespace) {
    crate::e2e::testbed::feed_ip(&format!(
        "link add wan0 address 02:00:00:00:00:0c netns {} type veth \
         peer name eth1 address 02:00:00:00:00:0d netns {}\n",
        machine.name(),
        testbed.internet.name()
    ));
    machine.set_sysctl("ipv4/ip_forward", "1");
    machine.set_sysctl("ipv6/conf/all/forwarding", "1");
    machine.ip("link set wan0 up\naddress add 203.0.113.133/30 dev wan0\n\
         address add 2001:db8:fffe::1/64 dev wan0 nodad\n\
         route add default via 203.0.113.134\nroute add default via 2001:db8:fffe::2\n");
    testbed.internet.ip("link set eth1 up\naddress add 203.0.113.134/30 dev eth1\n\
         address add 2001:db8:fffe::2/64 dev eth1 nodad\n");
    testbed.internet.set_sysctl("ipv4/conf/all/rp_filter", "0");
    testbed.internet.set_sysctl("ipv4/conf/eth1/rp_filter", "0");
}

/// Connections of peers to a service of a server, both ends of each, in which the server speaks first.
pub fn open_pushed(
    testbed: &Testbed,
    place: impl Fn(Family) -> (&'static str, u16),
    count: usize,
) -> Vec<(TcpStream, TcpStream)> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let (server, port) = place(family);
        let address = SocketAddr::new(ip(server), port);
        let listener = testbed.dmz.enter(|| TcpListener::bind(address)).expect("a free port");
        for _ in 0..count {
            let mut peer =
                connect(&testbed.internet, ip(family.peer), address, service::ENOUGH).expect("a connection");
            let (mut server, _) = listener.accept().expect("a connection");
            server.set_read_timeout(Some(service::ENOUGH.duration())).expect("a timeout");
            server.write_all(b"news").expect("a segment");
            peer.read_exact(&mut [0; 4]).expect("what the server pushes");
            all.push((server, peer));
        }
    }
    all
}
