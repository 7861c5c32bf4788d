//! A pair of routers, and conntrack's table that goes from one to the other: no visitor's connection dies. The test
//! itself carries the table, as conntrackd does. `PORTCULLIS_FAILOVERS` makes a run longer, with 9,000 idle connections.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;

use serde_json::Value;

use super::command::{Daemon, Outcome};
use super::policies::{dmz, dmz_with};
use super::socket::{ARRIVES, NEVER, connect, udp};
use super::testbed::{FAMILIES, NIC, Namespace, Testbed, V4, V6, exclusive, feed_ip, ip, share_machine};
use crate::support::frame::{ACK, PSH, tcp};
use crate::support::patience::eventually;

/// Of the second router: IPv6 has no second way to one gateway.
const LINK_LOCAL: &str = "fe80::5";
/// Connections that nobody uses until the address has moved.
/// As many as 20,000 descriptors have room for.
const IDLE: usize = 9_000;
const KEY: &str = "handover = \"conntrack\"";

/// Two routers between the same networks. Both have the gateway's addresses, and the routes of servers and peers say
/// which one is asked: as if the address moved.
struct Pair<'t> {
    testbed: &'t Testbed,
    second: Namespace,
    is_second_active: bool,
}

impl Pair<'_> {
    fn new(testbed: &Testbed) -> Pair<'_> {
        let second = testbed.add_machine("s");
        let pair = Pair { testbed, second, is_second_active: false };
        let [internet, router, dmz] = [&testbed.internet, &pair.second, &testbed.dmz].map(Namespace::name);
        feed_ip(&format!(
            "link add wan0 address 02:00:00:00:00:0c netns {router} type veth \
             peer name eth1 address 02:00:00:00:00:0d netns {internet}\n\
             link add {NIC} address 02:00:00:00:00:0b netns {router} type veth \
             peer name eth1 address 02:00:00:00:00:1b netns {dmz}\n"
        ));
        pair.second.set_sysctl("ipv4/ip_forward", "1");
        pair.second.set_sysctl("ipv6/conf/all/forwarding", "1");
        for machine in [&testbed.internet, &testbed.dmz] {
            machine.ip("link set eth1 addrgenmode none\nlink set eth1 up\n");
        }
        pair.second.ip(&format!(
            "link set {NIC} addrgenmode none\nlink set {NIC} up\nlink set wan0 addrgenmode none\nlink set wan0 up\n\
             address add 203.0.113.133/30 dev wan0\naddress add 2001:db8:fffe::1/64 dev wan0 nodad\n\
             neighbour add 203.0.113.134 lladdr 02:00:00:00:00:0d dev wan0 nud permanent\n\
             neighbour add 2001:db8:fffe::2 lladdr 02:00:00:00:00:0d dev wan0 nud permanent\n\
             route add default via 203.0.113.134\nroute add default via 2001:db8:fffe::2\n\
             address add {}/24 dev {NIC}\naddress add {}/64 dev {NIC} nodad\naddress add {LINK_LOCAL}/64 dev {NIC} nodad\n",
            V4.router, V6.router
        ));
        for server in FAMILIES.iter().flat_map(|family| [family.web, family.mail, family.dns]) {
            pair.second
                .ip(&format!("neighbour add {server} lladdr 02:00:00:00:00:1b dev {NIC} nud permanent\n"));
        }
        testbed.internet.ip("address add 203.0.113.134/30 dev eth1\n\
             address add 2001:db8:fffe::2/64 dev eth1 nodad\n\
             neighbour add 203.0.113.133 lladdr 02:00:00:00:00:0c dev eth1 nud permanent\n\
             neighbour add 2001:db8:fffe::1 lladdr 02:00:00:00:00:0c dev eth1 nud permanent\n");
        testbed.dmz.ip(&format!(
            "address add fe80::d/64 dev eth1 nodad\n\
             neighbour add {} lladdr 02:00:00:00:00:0b dev eth1 nud permanent\n\
             neighbour add {LINK_LOCAL} lladdr 02:00:00:00:00:0b dev eth1 nud permanent\n",
            V4.router
        ));
        for machine in [&testbed.internet, &testbed.dmz] {
            machine.set_sysctl("ipv4/conf/all/rp_filter", "0");
            machine.set_sysctl("ipv4/conf/eth1/rp_filter", "0");
        }
        for router in [&testbed.router, &pair.second] {
            track(router);
        }
        pair
    }

    /// The one that forwards, and the other one.
    fn routers(&self) -> [&Namespace; 2] {
        let [first, second] = [&self.testbed.router, &self.second];
        if self.is_second_active { [second, first] } else { [first, second] }
    }

    fn portcullis(router: &Namespace, command: &str, args: &[&str]) -> Outcome {
        router.portcullis(&[&[command, "-i", NIC], args].concat())
    }

    fn attach(&self, policy: &str) {
        let path = self.testbed.write("pair.toml", policy);
        for router in self.routers() {
            Self::portcullis(router, "attach", &["-p", &path]).done();
        }
    }

    /// The address moves. conntrackd's commit comes after it.
    fn move_address(&mut self) {
        self.is_second_active = !self.is_second_active;
        let (dev, gateway, four, six) = match self.is_second_active {
            true => ("eth1", LINK_LOCAL, "203.0.113.133", "2001:db8:fffe::1"),
            false => ("eth0", V6.router, "203.0.113.129", "2001:db8:ffff::1"),
        };
        self.testbed.dmz.ip(&format!(
            "route replace default via {} dev {dev} onlink\nroute replace default via {gateway} dev {dev}\n",
            V4.router
        ));
        self.testbed.internet.ip(&format!(
            "route replace 192.0.2.0/24 via {four} dev {dev}\nroute replace 2001:db8:1::/64 via {six} dev {dev}\n"
        ));
    }

    /// As a notify script does it: the address has moved, early answers are expected, then the table comes.
    fn fail_over(&mut self) {
        self.move_address();
        let [active, before] = self.routers();
        Self::portcullis(active, "takeover", &["--for", "10s"]).done();
        self.carry_table(before, active);
    }

    fn carry_table(&self, from: &Namespace, to: &Namespace) {
        let path = self.testbed.folder.join("table");
        let output = from.command("conntrack").args(["-L", "-o", "save"]).output().expect("conntrack");
        fs::write(&path, &output.stdout).expect("a file");
        let run = |args: &[&str]| {
            let output = to.command("conntrack").args(args).output().expect("conntrack");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        run(&["-F"]);
        run(&["-R", &path.display().to_string()]);
    }

    fn adopted(router: &Namespace) -> u64 {
        Self::status(router)["handover_state"]["adopted"].as_u64().expect("a number")
    }

    fn status(router: &Namespace) -> Value {
        Self::portcullis(router, "show", &["status", "-j"]).done().json()
    }

    fn alarms(router: &Namespace) -> Vec<Value> {
        let alarms = Self::portcullis(router, "alarms", &["-j"]).done().json();
        alarms.as_array().expect("a list").clone()
    }
}

/// Lets the kernel of a router track connections, as its ruleset does.
pub fn track(router: &Namespace) {
    let rules = "add table inet pair; add chain inet pair forward { type filter hook forward priority 0; }; \
                 add rule inet pair forward ct state established counter";
    let status = router.command("nft").arg(rules).status().expect("nft");
    assert!(status.success());
    router.set_sysctl("netfilter/nf_conntrack_tcp_loose", "0");
}

/// Both ends of a connection.
struct Ends {
    server: TcpStream,
    peer: TcpStream,
}

impl Ends {
    /// The server speaks first, as a websocket does, and the peer answers.
    #[track_caller]
    fn talk(&mut self) {
        self.server.write_all(b"news").expect("a segment");
        let mut word = [0; 4];
        self.peer.read_exact(&mut word).expect("what the server pushes");
        self.peer.write_all(&word).expect("a segment");
        self.server.read_exact(&mut word).expect("what the peer answers");
    }
}

fn open_all(testbed: &Testbed, port: u16, count: usize) -> Vec<Ends> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let address = SocketAddr::new(ip(family.web), port);
        let listener = testbed.dmz.enter(|| TcpListener::bind(address)).expect("a free port");
        for _ in 0..count {
            let peer = connect(&testbed.internet, ip(family.peer), address, ARRIVES).expect("a connection");
            let (server, _) = listener.accept().expect("a connection");
            for end in [&server, &peer] {
                end.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
                end.set_write_timeout(Some(ARRIVES.duration())).expect("a timeout");
            }
            all.push(Ends { server, peer });
        }
    }
    all.iter_mut().for_each(Ends::talk);
    all
}

/// A UDP flow in which the server goes on by itself.
pub struct Stream {
    server: UdpSocket,
    peer: UdpSocket,
    to: SocketAddr,
}

impl Stream {
    pub fn open(testbed: &Testbed, server: &str, peer: &str) -> Stream {
        let (at, from) = (udp(&testbed.dmz, server, 53), udp(&testbed.internet, peer, 0));
        let to = from.local_addr().expect("an address");
        from.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
        at.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
        let stream = Stream { server: at, peer: from, to };
        // answered and assured: several datagrams both ways
        for _ in 0..3 {
            stream.peer.send_to(b"ask", SocketAddr::new(ip(server), 53)).expect("a datagram");
            stream.server.recv_from(&mut [0; 16]).expect("a question");
            stream.push();
        }
        stream
    }

    #[track_caller]
    pub fn push(&self) {
        self.server.send_to(b"news", self.to).expect("a datagram");
        self.peer.recv(&mut [0; 16]).expect("what the server pushes");
    }
}

/// What else this process has open.
const OTHER_DESCRIPTORS: usize = 2_000;

/// Lets this process have both ends of so many connections. Returns of how many, for where root may not raise the
/// hard limit that is the most.
fn allow_connections(count: usize) -> usize {
    let limit = |soft: usize, hard: usize| {
        let (pid, limit) = (std::process::id().to_string(), format!("--nofile={soft}:{hard}"));
        let output = Command::new("prlimit").args(["--pid", &pid, &limit]).output();
        output.expect("prlimit, of util-linux").status.success()
    };
    let limits = fs::read_to_string("/proc/self/limits").expect("the limits");
    let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let number = |at: usize| -> usize {
        line.split_whitespace().nth(at).and_then(|number| number.parse().ok()).expect("a number")
    };
    let (soft, hard) = (number(3), number(4));
    let wanted = 2 * count + OTHER_DESCRIPTORS;
    if wanted <= soft || limit(wanted, hard.max(wanted)) {
        return count;
    }
    assert!(limit(hard, hard), "this process may not have as many descriptors as its hard limit says");
    let most = hard.saturating_sub(OTHER_DESCRIPTORS) / 2;
    println!("{most} connections in place of {count}: the hard limit of descriptors is {hard}");
    assert!(most >= 500, "too few descriptors for a test of many connections");
    most
}

/// How often the address moves, and how many connections are idle meanwhile.
fn failovers() -> (usize, usize) {
    let asked_for = std::env::var("PORTCULLIS_FAILOVERS").ok();
    asked_for.map_or((3, 200), |count| (count.parse().expect("PORTCULLIS_FAILOVERS is a number"), IDLE))
}

/// Moves the address to and fro, and every flow goes on each time.
fn prove_failovers(failovers: usize, flows: usize) {
    let flows = allow_connections(flows);
    let testbed = Testbed::new();
    let mut pair = Pair::new(&testbed);
    let roomy = dmz_with(KEY).replace("established = 4096", "established = 32768");
    let path = testbed.write("pair.toml", &roomy);
    let daemons =
        pair.routers().map(|router| Daemon::start(router.prepare(&["run", "-i", NIC, "-p", &path])));
    daemons.iter().for_each(|daemon| drop(daemon.wait_for_line(&["attached to dmz0: "])));

    let mut idle = open_all(&testbed, 443, flows / FAMILIES.len());
    let mut busy = open_all(&testbed, 80, 4);
    let streams = FAMILIES.map(|family| Stream::open(&testbed, family.dns, family.peer));
    for failover in 0..failovers {
        // a download is under way: more than the window, and its reader is slow
        let chunk = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            let downloads: Vec<_> = busy
                .iter_mut()
                .map(|Ends { server, peer }| {
                    let chunk = &chunk;
                    scope.spawn(move || server.write_all(chunk).expect("a download"));
                    peer
                })
                .collect();
            pair.fail_over();
            for peer in downloads {
                peer.read_exact(&mut vec![0; 1 << 20]).expect("the rest of a download");
            }
        });
        streams.iter().for_each(Stream::push);
        idle.iter_mut().chain(&mut busy).for_each(Ends::talk);
        let [active, _] = pair.routers();
        if failover == 0 {
            assert!(Pair::adopted(active) >= flows as u64, "{:#}", Pair::status(active));
        }
    }
    // the answers that came early were counted, and raised no alarm
    for router in pair.routers() {
        assert_eq!(Pair::alarms(router), Vec::<Value>::new());
        let status = Pair::status(router);
        assert_eq!((&status["handover"], &status["pickup_s"]), (&"conntrack".into(), &0.into()));
        assert_eq!(status["handover_state"]["active"], true, "{status:#}");
        assert_eq!(status["handover_state"]["tcp_loose"], 0, "{status:#}");
    }
}

#[test]
fn no_connection_dies_when_the_address_moves_to_the_other_router_and_back() {
    let _machine = share_machine();
    let (failovers, flows) = failovers();
    prove_failovers(failovers, flows);
}

#[test]
fn nine_thousand_idle_connections_live_through_a_failover() {
    // both ends of each are descriptors of this process
    let _machine = exclusive();
    prove_failovers(1, IDLE);
}

#[test]
fn without_the_key_every_connection_dies_with_its_router() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut pair = Pair::new(&testbed);
    pair.attach(&dmz());
    let mut open = open_all(&testbed, 80, 2);
    pair.fail_over();
    for ends in &mut open {
        ends.peer.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        ends.server.write_all(b"news").expect("a segment");
        assert!(ends.peer.read_exact(&mut [0; 4]).is_err(), "it lives");
    }
    let [active, _] = pair.routers();
    let drops = Pair::portcullis(active, "show", &["drops", "-j"]).done().json();
    assert!(drops.as_array().expect("a list").iter().any(|row| row["reason"] == "no_flow"), "{drops:#}");
    // a policy that turns it on swaps the programs without a gap, and what is open goes on
    let path = testbed.write("pair.toml", &dmz_with(KEY));
    Pair::portcullis(active, "apply", &[&path]).done();
    for ends in &mut open {
        ends.peer.set_read_timeout(Some(ARRIVES.duration())).expect("a timeout");
        ends.peer.read_exact(&mut [0; 4]).expect("what TCP has sent again");
        ends.talk_after_word();
    }
}

impl Ends {
    fn talk_after_word(&mut self) {
        self.peer.write_all(b"word").expect("a segment");
        self.server.read_exact(&mut [0; 4]).expect("what the peer answers");
        self.talk();
    }
}

#[test]
fn a_gate_that_is_attached_in_mid_traffic_loses_no_packet() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    track(&testbed.router);
    let mut open = open_all(&testbed, 80, 20);
    let streams = FAMILIES.map(|family| Stream::open(&testbed, family.dns, family.peer));
    testbed.attach(&dmz_with(KEY));
    // the server speaks first in each
    open.iter_mut().for_each(Ends::talk);
    streams.iter().for_each(Stream::push);
    assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
    let status = testbed.show("status");
    assert_eq!(status["handover_state"]["adopted"], 42, "{status:#}");
    // what conntrack does not know stays out
    let stray = tcp((ip(V4.web), 80), (ip(V4.peer), 9), ACK | PSH);
    testbed.dmz.inject("eth0", &stray);
    eventually("the stray segment is dropped", || testbed.dropped("web1", "tcp", 80, "no_flow") == 1);
    let said = testbed.run("show", &["status"]).done().out;
    assert!(said.lines().any(|line| line.starts_with("taken over ") && line.contains("42 of 43")), "{said}");
    // nor does a connection that the server opened
    let to = SocketAddr::new(ip(V4.peer), 7777);
    let own: std::io::Result<TcpStream> = connect(&testbed.dmz, ip(V4.web), to, NEVER);
    assert!(own.is_err());
}

#[test]
fn a_takeover_lasts_a_minute_at_most_and_says_until_when() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.run("takeover", &["--for", "10s"]).refused(&["there is no gate on dmz0"]);
    testbed.run("takeover", &["--for", "61s"]).failed(2, &["60s at most"]);
    testbed.attach(&dmz_with(KEY));
    let said = testbed.run("takeover", &["--for", "60s"]).done().out;
    assert!(
        said.starts_with("answers of connections that dmz0 does not know yet raise no alarm until "),
        "{said}"
    );
    let left = testbed.show("status")["handover_state"]["takeover_s"].as_u64().expect("seconds");
    assert!((1..=60).contains(&left), "{left}");
    let audit = testbed.run("show", &["audit", "-j"]).done().out;
    assert!(audit.contains("\"takeover\""), "{audit}");
}

#[test]
fn quarantines_and_edits_go_to_the_other_router_and_end_there_too() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let pair = Pair::new(&testbed);
    pair.attach(&dmz_with(KEY));
    let [one, other] = pair.routers();
    let run = |router: &Namespace, command: &str, args: &[&str]| Pair::portcullis(router, command, args);
    run(one, "quarantine", &["mx1", "--for", "1h"]).done();
    run(one, "quarantine", &[V4.web, "--address-only"]).done();
    run(one, "allow", &["ns1", "out", "tcp/443 to 198.51.100.9", "--for", "10m", "--note", "update"]).done();
    let carry = || {
        let state = one.portcullis(&["export", "state", "-i", NIC]).done().out;
        let path = testbed.write("state.json", &state);
        other.portcullis(&["import", "state", "-i", NIC, &path])
    };
    let said = carry().done().out;
    assert_eq!(said.lines().filter(|line| line.starts_with("+ ")).count(), 3, "{said}");
    let status = Pair::status(other);
    assert_eq!(status["quarantined"], serde_json::json!(["mx1"]), "{status:#}");
    assert_eq!(status["quarantined_addresses"][0]["address"], V4.web, "{status:#}");
    let edits = run(other, "show", &["edits", "-j"]).done().json();
    assert_eq!((&edits[0]["server"], &edits[0]["note"]), (&"ns1".into(), &"update".into()), "{edits:#}");
    assert!(edits[0]["left_s"].as_u64().is_some_and(|left| (500..=600).contains(&left)), "{edits:#}");
    // once more: nothing changes
    let said = carry().done().out;
    assert!(!said.contains("+ ") && !said.contains("- "), "{said}");
    // what was done at the receiver itself stays
    run(other, "quarantine", &["ns1"]).done();
    run(one, "release", &["mx1"]).done();
    run(one, "allow", &["--cancel", "1"]).done();
    let said = carry().done().out;
    assert_eq!(said.lines().filter(|line| line.starts_with("- ")).count(), 2, "{said}");
    assert_eq!(Pair::status(other)["quarantined"], serde_json::json!(["ns1"]));
    assert_eq!(run(other, "show", &["edits", "-j"]).done().json(), serde_json::json!([]));
    // a server that this policy does not have
    let state =
        one.portcullis(&["export", "state", "-i", NIC]).done().out.replace("\"address\"", "\"server\"");
    let path = testbed.write("state.json", &state.replace(V4.web, "nobody"));
    other.portcullis(&["import", "state", "-i", NIC, &path]).refused(&["not taken over"]);
    let path = testbed.write("state.json", "{}");
    other.portcullis(&["import", "state", "-i", NIC, &path]).refused(&["is no state of a gate"]);
    let audit = run(other, "show", &["audit", "-j"]).done().out;
    assert!(audit.contains("imported from"), "{audit}");
}
