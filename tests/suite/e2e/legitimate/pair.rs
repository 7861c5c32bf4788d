//! Two routers that share an address by VRRP: keepalived with virtual MACs, and a gate on each.

use std::net::SocketAddr;

use super::service::Service;
use super::site::wire_naturally;
use crate::e2e::calm::CalmCheck;
use crate::e2e::command::Daemon;
use crate::e2e::hub::Hub;
use crate::e2e::policies::dmz;
use crate::e2e::socket::{ARRIVES, TcpServer, UdpServer, tcp_talks, udp_talks};
use crate::e2e::tap::Tap;
use crate::e2e::testbed::{FAMILIES, NIC, Namespace, Testbed, V4, in_both_families, ip, share_machine};
use crate::support::frame::{SYN, patched, tcp};
use crate::support::patience::eventually;

const VRRP: u8 = 112;
/// Advertisements in a row after which a router that hears none would have taken over: three intervals,
/// and a part of one.
const ENOUGH: u64 = 12;
const VIRTUAL_MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 10];

/// One of the two: its own addresses end in this digit.
struct Router<'t> {
    machine: &'t Namespace,
    digit: u8,
}

impl Router<'_> {
    /// Gives the NIC this router's own addresses. The servers' gateway is the one that both share.
    fn wire(&self) {
        self.machine.ip(&format!(
            "address flush dev {NIC}\naddress add 192.0.2.{0}/24 dev {NIC}\n\
             address add 2001:db8:1::{0}/64 dev {NIC} nodad\naddress add fe80::2:{0}/64 dev {NIC} nodad\n",
            self.digit
        ));
    }

    fn start_keepalived(&self, testbed: &Testbed, priority: u8) -> Service {
        let instance = |name: &str, addresses: &str| {
            format!(
                "vrrp_instance {name} {{\n  state BACKUP\n  interface {NIC}\n  use_vmac\n  version 3\n  \
                 virtual_router_id 10\n  priority {priority}\n  advert_int 0.1\n  \
                 virtual_ipaddress {{\n{addresses}\n  }}\n}}\n"
            )
        };
        let name = format!("keepalived-{}-{priority}", self.digit);
        let six = format!("    fe80::1/64\n    {}/64", FAMILIES[1].router);
        let text = instance("four", &format!("    {}/24", V4.router)) + &instance("six", &six);
        let path = testbed.write(&format!("{name}.conf"), &text);
        let pids =
            [".pid", ".vrrp"].map(|end| testbed.folder.join(format!("{name}{end}")).display().to_string());
        let command = ["keepalived", "-n", "-l", "-P", "-f", &path, "-p", &pids[0], "-r", &pids[1]];
        Service::start(testbed, self.machine, &name, &command, &[])
    }

    /// Whether it has the shared addresses of IPv4 and IPv6.
    fn is_master(&self) -> [bool; 2] {
        let output = self.machine.command("ip").args(["-o", "address", "show"]).output().expect("ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        FAMILIES.map(|family| text.contains(&format!(" {}/", family.router)))
    }

    fn portcullis(&self, command: &str, args: &[&str]) -> crate::e2e::command::Outcome {
        self.machine.portcullis(&[&[command, "-i", NIC], args].concat())
    }

    /// A tap behind its gate, for the advertisements of the other one.
    fn tap_adverts(&self, other: u8) -> Tap {
        let sources = [ip(&format!("192.0.2.{other}")), ip(&format!("fe80::2:{other}"))];
        Tap::keeping(self.machine, NIC, move |one| one.protocol == VRRP && sources.contains(&one.source))
    }
}

/// The policy of one router, which names the other one.
fn policy(other: u8, mac: &str) -> String {
    format!(
        "{}\n[routers.peer]\naddresses = [\"192.0.2.{other}\", \"2001:db8:1::{other}\", \"fe80::2:{other}\"]\n\
         mac = [\"{mac}\", \"00:00:5e:00:01:0a\", \"00:00:5e:00:02:0a\"]\n",
        dmz()
    )
}

/// Advertisements go on, and of the two routers one is the master, in both families.
#[track_caller]
fn prove_one_master(master: &Router<'_>, backup: &Router<'_>) {
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

#[test]
fn a_pair_of_routers_agrees_on_one_master_through_both_gates() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let hub = Hub::that_learns(&testbed);
    let machine = testbed.add_machine("p");
    hub.plug(&machine, NIC, "02:00:00:00:00:0b");
    let first = Router { machine: &testbed.router, digit: 2 };
    let second = Router { machine: &machine, digit: 3 };
    wire_naturally(&testbed);
    first.wire();
    second.wire();

    let check = CalmCheck::start(&testbed, &policy(3, "02:00:00:00:00:0b"));
    let named = testbed.write("second.toml", &policy(2, "02:00:00:00:00:01"));
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
