//! Programs that carry a network in what seems harmless: iodine in DNS, ptunnel-ng in pings.

use std::net::SocketAddr;
use std::time::Duration;

use super::attack::{Stage, Tool};
use crate::e2e::policies::dmz;
use crate::e2e::socket::{TcpServer, UdpServer, tcp_talks, udp_talks};
use crate::e2e::testbed::{Namespace, Testbed, V4, ip, share_machine};
use crate::support::patience::{PATIENCE, Wait, within};

/// The tunnel's far end; its server gives out the near ones.
const FAR: &str = "203.0.113.193";
/// A client that gets no answer tries this long before it is stopped.
const TRIES: Duration = Duration::from_secs(3);

/// A policy by which the name server may ask one resolver.
fn dmz_with_resolver() -> String {
    let one = format!(r#"out = ["udp/53 to {}"]"#, V4.resolver);
    dmz().replacen(r#"out = ["udp/53", "tcp/53"]"#, &one, 1)
}

fn start_iodined(testbed: &Testbed, address: &str) -> Tool {
    let mut command = testbed.internet.command("iodined");
    let net = format!("{FAR}/28");
    command.args(["-f", "-P", "secret", "-l", address, &net, "t.example"]);
    let tool = Tool::start(command);
    assert!(
        within(PATIENCE, || find_end(&testbed.internet).is_some()),
        "iodined, of the package iodine, is up"
    );
    tool
}

/// The address of a tunnel's end.
fn find_end(machine: &Namespace) -> Option<String> {
    let output = machine.command("ip").args(["-o", "-4", "address"]).output().expect("ip");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains(" dns0 "))?;
    let address = line.split_whitespace().skip_while(|word| *word != "inet").nth(1)?;
    Some(address.split('/').next()?.to_owned())
}

fn start_iodine(testbed: &Testbed, server: &str) -> Tool {
    let mut command = testbed.dmz.command("iodine");
    command.args(["-f", "-r", "-T", "TXT", "-P", "secret", server, "t.example"]);
    Tool::start(command)
}

/// Runs a client and tells whether a datagram goes through its tunnel and back.
fn tunnels(testbed: &Testbed, server: &str, patience: Duration) -> bool {
    let mut client = start_iodine(testbed, server);
    if !within(patience, || find_end(&testbed.dmz).is_some() || !client.is_running()) {
        return false;
    }
    let _echo = UdpServer::start(&testbed.internet, FAR, 7);
    let target = SocketAddr::new(ip(FAR), 7);
    within(PATIENCE, || {
        find_end(&testbed.dmz).is_some_and(|near| {
            udp_talks(&testbed.dmz, &near, target, Wait::AtMost(Duration::from_millis(500)))
        })
    })
}

/// Has the DMZ's stack speak as the name server where nothing else is said.
fn speak_as_the_name_server(testbed: &Testbed) {
    testbed.dmz.ip(&format!("route replace default via {} src {}\n", V4.router, V4.dns));
}

#[test]
fn iodine_reaches_its_server_without_the_gate_and_not_with_it() {
    let _machine = share_machine();
    let stage = Stage::new();
    speak_as_the_name_server(&stage.testbed);
    let server = start_iodined(&stage.testbed, V4.peer);
    assert!(tunnels(&stage.testbed, V4.peer, PATIENCE), "it tunnels without the gate");

    stage.testbed.attach(&dmz_with_resolver());
    stage.prove_service();
    let sent =
        stage.prove_kept_in("iodine", || assert!(!tunnels(&stage.testbed, V4.peer, TRIES), "it tunnels"));
    println!("{sent} frames sent, none arrived");
    assert!(stage.testbed.dropped("ns1", "udp", 53, "destination") > 0, "{:#?}", stage.testbed.drops());
    stage.prove_service();

    stage.detach();
    assert!(tunnels(&stage.testbed, V4.peer, PATIENCE), "it tunnels again");
    drop(server);
}

/// What no filter of packets can tell apart, kept here so that nobody believes otherwise: whom a
/// server may ask, it may tell, and a resolver passes on what it is asked.
#[test]
fn a_tunnel_through_the_permitted_resolver_is_not_stopped() {
    let _machine = share_machine();
    let stage = Stage::new();
    speak_as_the_name_server(&stage.testbed);
    stage.testbed.attach(&dmz_with_resolver());
    let _server = start_iodined(&stage.testbed, V4.resolver);
    assert!(tunnels(&stage.testbed, V4.resolver, PATIENCE), "it tunnels");
    assert_eq!(stage.testbed.dropped("ns1", "udp", 53, "destination"), 0);
}

/// A client of ptunnel-ng, by which local port 2222 leads to port 25 beyond the router.
fn start_ptunnel(testbed: &Testbed) -> Tool {
    let mut command = testbed.dmz.command("ptunnel-ng");
    command.args([&format!("-p{}", V4.peer), "-l2222", &format!("-r{}", V4.peer), "-R25"]);
    Tool::start(command)
}

fn pings_through(testbed: &Testbed, patience: Duration) -> bool {
    let _client = start_ptunnel(testbed);
    let near = SocketAddr::new(ip("127.0.0.1"), 2222);
    within(patience, || tcp_talks(&testbed.dmz, ip("127.0.0.1"), near, Wait::AtMost(Duration::from_secs(1))))
}

#[test]
fn ptunnel_carries_tcp_in_pings_without_the_gate_and_not_with_it() {
    let _machine = share_machine();
    let stage = Stage::new();
    let _mail = TcpServer::start(&stage.testbed.internet, 25);
    let server = Tool::start(stage.testbed.internet.command("ptunnel-ng"));
    assert!(pings_through(&stage.testbed, PATIENCE), "it tunnels without the gate");

    stage.testbed.attach(&dmz());
    stage.prove_service();
    let sent =
        stage.prove_kept_in("ptunnel-ng", || assert!(!pings_through(&stage.testbed, TRIES), "it tunnels"));
    println!("{sent} frames sent, none arrived");
    stage.prove_service();

    stage.detach();
    assert!(pings_through(&stage.testbed, PATIENCE), "it tunnels again");
    drop(server);
}
