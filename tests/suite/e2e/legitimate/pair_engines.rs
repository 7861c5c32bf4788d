//! A pair of routers as packaging/pair has it: keepalived moves the addresses, conntrackd carries conntrack's table, and
//! the notify script joins both with the gates.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::logins::Login;
use super::pair::{
    MACS, Router, open_pushed, policy, prove_master, prove_one_master, wire_pair, wire_way_out,
};
use super::service::{ENOUGH, Service};
use super::website::{Protocol, Website};
use crate::e2e::command::Daemon;
use crate::e2e::handover::Stream;
use crate::e2e::hub::Hub;
use crate::e2e::socket::NEVER;
use crate::e2e::testbed::{FAMILIES, NIC, Namespace, Testbed, feed_ip, share_machine};
use crate::support::patience::eventually;

/// How the peers reach the servers by each router.
const WAYS: [(&str, &str, &str); 2] =
    [("eth0", "203.0.113.129", "2001:db8:ffff::1"), ("eth1", "203.0.113.133", "2001:db8:fffe::1")];

fn read_example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/pair").join(name);
    fs::read_to_string(path).expect("an example")
}

/// Two routers with everything that the examples start. The first one is the master.
struct Pair<'t> {
    testbed: &'t Testbed,
    routers: [Router<'t>; 2],
    conntrackd: [Option<Service>; 2],
    _keepalived: Vec<Service>,
    _daemons: [Daemon; 2],
    _hub: Hub,
}

impl<'t> Pair<'t> {
    fn start(testbed: &'t Testbed, machine: &'t Namespace) -> Pair<'t> {
        let (hub, routers) = wire_pair(testbed, machine);
        wire_way_out(testbed, machine);
        let [first, second] = routers.each_ref().map(|router| router.machine.name());
        feed_ip(&format!("link add sync0 netns {first} type veth peer name sync0 netns {second}\n"));
        for Router { machine, digit } in &routers {
            machine.ip(&format!("link set sync0 up\naddress add 203.0.113.20{digit}/29 dev sync0\n"));
            let rules = testbed.write("pair.nft", &read_example("pair.nft"));
            assert!(machine.command("nft").args(["-f", &rules]).status().expect("nft").success());
            for line in read_example("sysctl.conf").lines().filter(|line| line.starts_with("net.")) {
                let (key, value) = line.split_once(" = ").expect("a setting");
                machine.set_sysctl(&key["net.".len()..].replace('.', "/"), value);
            }
        }
        let conntrackd = routers.each_ref().map(|router| Some(start_conntrackd(testbed, router)));
        let daemons = [0, 1].map(|at| {
            let text = policy(routers[1 - at].digit, MACS[1 - at]);
            let text = text.replacen("pickup = 0\n", "pickup = 0\nhandover = \"conntrack\"\n", 1);
            let path = testbed.write(&format!("policy-{at}.toml"), &text);
            let daemon = Daemon::start(routers[at].machine.prepare(&["run", "-i", NIC, "-p", &path]));
            daemon.wait_for_line(&["attached to dmz0: "]);
            daemon
        });
        let start = |at: usize, priority: u8| {
            let notify = write_notify(testbed, &routers[at], at);
            let more = format!(
                "global_defs {{\n  script_user root\n}}\nvrrp_sync_group routers {{\n  group {{\n    four\n    six\n  }}\n  \
                 notify \"{notify} {NIC}\"\n}}\n"
            );
            routers[at].start_keepalived_with(testbed, priority, &more)
        };
        let mut keepalived = vec![start(0, 150)];
        prove_master(&routers[0]);
        keepalived.push(start(1, 100));
        prove_one_master(&routers[0], &routers[1]);
        Pair { testbed, routers, conntrackd, _keepalived: keepalived, _daemons: daemons, _hub: hub }
    }

    /// Waits until the second router has heard of so many connections to a port.
    fn wait_until_heard(&self, port: u16, count: usize) {
        let router = &self.routers[1];
        let conf = conf_of(self.testbed, router);
        let ends = format!(" dport={port} ");
        eventually("the other router has heard of the connections", || {
            let output =
                router.machine.command("conntrackd").args(["-C", &conf, "-e"]).output().expect("conntrackd");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            let is_good = |line: &&str| line.contains("ESTABLISHED") && line.contains(&ends);
            text.lines().filter(is_good).count() >= count
        });
    }

    /// The first router dies without a farewell: its cables are cut, and its processes never know.
    fn cut_first(&self) {
        self.routers[0]
            .machine
            .ip(&format!("link set {NIC} down\nlink set wan0 down\nlink set sync0 down\n"));
    }

    fn assert_calm(&self, at: usize) {
        let alarms = self.routers[at].portcullis("alarms", &["-j"]).done().json();
        assert_eq!(alarms, serde_json::json!([]), "router {at}: {alarms:#}");
    }
}

fn conf_of(testbed: &Testbed, router: &Router<'_>) -> String {
    testbed.folder.join(format!("conntrackd-{}.conf", router.digit)).display().to_string()
}

fn start_conntrackd(testbed: &Testbed, router: &Router<'_>) -> Service {
    let digit = router.digit;
    let name = format!("conntrackd-{digit}");
    let stem = testbed.folder.join(&name).display().to_string();
    let text = read_example("conntrackd.conf")
        .replace("192.0.2.201", &format!("203.0.113.20{digit}"))
        .replace("192.0.2.202", &format!("203.0.113.20{}", 5 - digit))
        .replace("/var/lock/conntrackd.lock", &format!("{stem}.lock"))
        .replace("/var/run/conntrackd.ctl", &format!("{stem}.ctl"))
        .replace("Syslog yes", "Syslog no");
    let conf = testbed.write(&format!("{name}.conf"), &text);
    let service = Service::start(testbed, router.machine, &name, &["conntrackd", "-C", &conf], &[]);
    eventually("conntrackd answers", || {
        let mut command = router.machine.command("conntrackd");
        command.args(["-C", &conf, "-s"]).output().expect("conntrackd").status.success()
    });
    service
}

/// The example's script. It also moves the address before the peers, which is keepalived's in the example.
fn write_notify(testbed: &Testbed, router: &Router<'_>, at: usize) -> String {
    let (dev, four, six) = WAYS[at];
    let route = format!("nsenter --net=/run/netns/{} ip route replace", testbed.internet.name());
    let moves = format!(
        "MASTER)\n    {route} 192.0.2.0/24 via {four} dev {dev}\n    {route} 2001:db8:1::/64 via {six} dev {dev}\n"
    );
    let program = env!("CARGO_BIN_EXE_portcullis");
    let text = read_example("portcullis-notify")
        .replace("portcullis takeover", &format!("{program} takeover"))
        .replace("portcullis import", &format!("{program} import"))
        .replace("conntrackd -", &format!("conntrackd -C {} -", conf_of(testbed, router)))
        .replace("/var/lib/portcullis/", &format!("{}/", testbed.folder.display()))
        .replacen("MASTER)\n", &moves, 1);
    assert_eq!(text.matches(program).count(), 2, "{text}");
    let path = testbed.write(&format!("notify-{at}"), &text);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("a mode");
    path
}

/// The server speaks first, and the peer answers.
#[track_caller]
fn talk((server, peer): &mut (TcpStream, TcpStream)) {
    let mut word = [0; 4];
    server.write_all(b"news").expect("a segment");
    peer.read_exact(&mut word).expect("what the server pushes");
    peer.write_all(&word).expect("a segment");
    server.read_exact(&mut word).expect("what the peer answers");
}

#[test]
fn with_the_files_of_the_examples_no_connection_dies_with_its_router() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = testbed.add_machine("p");
    let pair = Pair::start(&testbed, &machine);
    let (website, login) = (Website::start(&testbed, 4 << 20), Login::start(&testbed));
    let mut sessions = FAMILIES.map(|family| login.open_session(&testbed, &family));
    assert!(sessions.iter_mut().all(|session| session.echoes("before")));
    let mut pushed = open_pushed(&testbed, |family| (family.mail, 25), 20);
    let streams = FAMILIES.map(|family| Stream::open(&testbed, family.dns, family.peer));
    std::thread::scope(|scope| {
        let downloads = FAMILIES.map(|family| {
            let (website, testbed) = (&website, &testbed);
            scope.spawn(move || website.download_slowly(testbed, &family, Protocol::Http1, ENOUGH, "1M"))
        });
        pair.wait_until_heard(80, 2);
        pair.wait_until_heard(25, pushed.len());
        pair.wait_until_heard(22, 2);
        pair.cut_first();
        pushed.iter_mut().for_each(talk);
        // nobody sends a datagram again, so not before the table has come
        streams.iter().for_each(Stream::push);
        assert!(sessions.iter_mut().all(|session| session.echoes("afterwards")));
        assert!(downloads.into_iter().all(|download| download.join().expect("a download")));
    });
    let status = pair.routers[1].portcullis("show", &["status", "-j"]).done().json();
    let adopted = status["handover_state"]["adopted"].as_u64().expect("a number");
    // the downloads may have been over
    assert!(adopted >= 44, "{status:#}");
    pair.assert_calm(1);
}

#[test]
fn when_conntrackd_dies_the_connections_that_it_has_sent_live_and_the_later_ones_fail_closed() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = testbed.add_machine("p");
    let mut pair = Pair::start(&testbed, &machine);
    let mut early = open_pushed(&testbed, |family| (family.mail, 25), 5);
    pair.wait_until_heard(25, early.len());
    pair.conntrackd[0].take();
    let mut late = open_pushed(&testbed, |family| (family.web, 443), 2);
    pair.cut_first();
    early.iter_mut().for_each(talk);
    for (server, peer) in &mut late {
        peer.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        server.write_all(b"news").expect("a segment");
        assert!(peer.read_exact(&mut [0; 4]).is_err(), "it lives");
    }
    let drops = pair.routers[1].portcullis("show", &["drops", "-j"]).done().json();
    let rows = drops.as_array().expect("a list");
    assert!(rows.iter().any(|row| row["reason"] == "no_flow" && row["port"] == 443), "{drops:#}");
}

#[test]
fn while_both_routers_are_masters_connections_go_on_and_so_they_do_afterwards() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let machine = testbed.add_machine("p");
    let pair = Pair::start(&testbed, &machine);
    let mut pushed = open_pushed(&testbed, |family| (family.mail, 25), 5);
    pair.wait_until_heard(25, pushed.len());
    let [first, second] = &pair.routers;
    let nft =
        |rules: &str| assert!(second.machine.command("nft").arg(rules).status().expect("nft").success());
    // behind the gate: the second one hears no advert
    nft(&format!(
        "add table netdev deaf; add chain netdev deaf in {{ type filter hook ingress device {NIC} priority 0; }}; \
         add rule netdev deaf in meta l4proto 112 drop"
    ));
    eventually("both are masters", || (first.is_master(), second.is_master()) == ([true; 2], [true; 2]));
    for _ in 0..3 {
        pushed.iter_mut().for_each(talk);
    }
    nft("delete table netdev deaf");
    prove_one_master(first, second);
    let (dev, four, six) = WAYS[0];
    testbed.internet.ip(&format!(
        "route replace 192.0.2.0/24 via {four} dev {dev}\nroute replace 2001:db8:1::/64 via {six} dev {dev}\n"
    ));
    pushed.iter_mut().for_each(talk);
    pair.assert_calm(0);
    pair.assert_calm(1);
}
