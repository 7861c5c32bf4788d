//! A name server that answers and asks: unbound on both sides, and dig.

use std::time::Duration;

use super::service::{ENOUGH, Service, run_client};
use super::site::Site;
use crate::e2e::testbed::{FAMILIES, Family, Testbed, in_both_families};
use crate::support::patience::{Wait, deadline, eventually};

/// What both servers have: in the foreground, as they were started, nothing of the machine's.
pub const COMMON: &str = r#"
    do-daemonize: no
    username: ""
    chroot: ""
    pidfile: ""
    use-syslog: no
    module-config: "iterator"
    num-threads: 1
    do-not-query-localhost: no
    access-control: 0.0.0.0/0 allow
    access-control: ::/0 allow
"#;
/// Strings of a TXT record: 250 bytes each.
const LONG: usize = 12;

fn start_unbound(testbed: &Testbed, inside: bool, text: &str) -> Service {
    let (name, machine) =
        if inside { ("unbound-dmz", &testbed.dmz) } else { ("unbound-internet", &testbed.internet) };
    let path = testbed.write(&format!("{name}.conf"), text);
    let at = |family: Family| if inside { family.dns } else { family.resolver };
    let listens = FAMILIES.map(|family| [("udp", at(family), 53), ("tcp", at(family), 53)]).concat();
    Service::start(testbed, machine, name, &["unbound", "-d", "-c", &path], &listens)
}

/// `www`, and `long` that does not fit into one packet.
fn records(domain: &str) -> String {
    let filler = format!("\"{}\" ", "0".repeat(250)).repeat(LONG);
    format!(
        "    local-zone: \"{domain}.\" static\n    local-data: \"www.{domain}. A 192.0.2.80\"\n    \
         local-data: 'long.{domain}. TXT {filler}'\n"
    )
}

fn start_both(testbed: &Testbed) -> [Service; 2] {
    let mut inside = format!("server:{COMMON}{}", records("dmz.example"));
    let mut outside = format!("server:{COMMON}    max-udp-size: 512\n");
    let mut forwards = String::new();
    for (family, domain) in FAMILIES.into_iter().zip(["four.example", "six.example"]) {
        inside += &format!("    interface: {0}\n    outgoing-interface: {0}\n", family.dns);
        outside += &format!("    interface: {}\n{}", family.resolver, records(domain));
        forwards +=
            &format!("forward-zone:\n    name: \"{domain}.\"\n    forward-addr: {}\n", family.resolver);
    }
    // nothing from a cache: each question goes out
    inside += "    max-udp-size: 4096\n    cache-max-ttl: 0\n";
    [start_unbound(testbed, true, &(inside + &forwards)), start_unbound(testbed, false, &outside)]
}

/// How long dig waits for an answer that must come.
fn time_of_dig(seconds: u64) -> String {
    format!("+time={}", deadline(Duration::from_secs(seconds)).as_secs())
}

/// Asks the name server of the DMZ; whether the answer is whole and came by this transport.
fn ask(testbed: &Testbed, family: &Family, wait: Wait, more: &[&str], name: &str, transport: &str) -> bool {
    let server = format!("@{}", family.dns);
    let kind = if name.starts_with("long") { "TXT" } else { "A" };
    let limit = time_of_dig(3);
    let command = ["dig", "-r", "-b", family.peer, &server, &limit, "+tries=3", "+nocookie"];
    let said = run_client(&testbed.internet, wait, &[&command, more, &[name, kind]].concat());
    said.is_some_and(|said| {
        let whole = if kind == "TXT" {
            said.matches(&"0".repeat(250)).count() == LONG
        } else {
            said.contains("192.0.2.80")
        };
        whole && said.contains(&format!("({transport})"))
    })
}

#[test]
fn names_are_answered_over_udp_in_fragments_over_tcp_and_after_truncation() {
    let site = Site::new();
    let _servers = start_both(&site.testbed);
    let testbed = &site.testbed;
    let ways: [(&[&str], &str, &str); 5] = [
        (&["+noedns"], "www.dmz.example", "UDP"),
        (&["+bufsize=1232"], "www.dmz.example", "UDP"),
        (&["+tcp"], "long.dmz.example", "TCP"),
        // truncated, so dig comes back over TCP
        (&["+bufsize=512"], "long.dmz.example", "TCP"),
        // three fragments
        (&["+bufsize=4096", "+ignore"], "long.dmz.example", "UDP"),
    ];
    in_both_families(|family| {
        for (more, name, transport) in ways {
            assert!(ask(testbed, &family, ENOUGH, more, name, transport), "{} {more:?}", family.dns);
        }
        for domain in ["four.example", "six.example"] {
            // asked beyond over UDP, and over TCP where the answer is too long for that
            assert!(ask(testbed, &family, ENOUGH, &[], &format!("www.{domain}"), "UDP"), "{domain}");
            assert!(ask(testbed, &family, ENOUGH, &["+tcp"], &format!("long.{domain}"), "TCP"), "{domain}");
        }
    });
    site.assert_quiet();
    for (family, domain) in FAMILIES.into_iter().zip(["four.example", "six.example"]) {
        let beyond = [format!("www.{domain}"), format!("long.{domain}")];
        for (direction, need, more, name, transport) in [
            ("in", "udp/53", &["+notcp"][..], "www.dmz.example", "UDP"),
            ("in", "tcp/53", &["+tcp"], "www.dmz.example", "TCP"),
            ("out", "udp/53", &["+tcp"], &beyond[0], "TCP"),
            ("out", "tcp/53", &["+tcp"], &beyond[1], "TCP"),
        ] {
            site.hangs_on("ns1", ("dns", direction, need), |wait| {
                // a forwarder that did not answer is left alone for a while: ask until it is not
                let tries = if wait == ENOUGH { 8 } else { 1 };
                (0..tries).any(|_| ask(testbed, &family, wait, more, name, transport))
            });
        }
    }
}

#[test]
fn a_name_server_that_is_away_says_so_and_a_client_that_is_gone_too() {
    let site = Site::new();
    let testbed = &site.testbed;
    in_both_families(|family| {
        // nobody listens: the server's ICMP error about a peer's question passes
        let server = format!("@{}", family.dns);
        let limit = time_of_dig(20);
        let command = ["-r", "-b", family.peer, &server, &limit, "+tries=1", "www.dmz.example"];
        let output = testbed.internet.command("dig").args(command).output().expect("dig");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("connection refused"), "{said}");
        // and its error about an answer for which it no longer waits
        let late = crate::e2e::socket::udp(&testbed.internet, family.resolver, 53);
        let asker = crate::e2e::socket::udp(&testbed.dmz, family.dns, 0);
        let beyond = std::net::SocketAddr::new(crate::e2e::testbed::ip(family.resolver), 53);
        asker.send_to(b"question", beyond).expect("a datagram");
        let (_, from) = late.recv_from(&mut [0; 16]).expect("the question");
        drop(asker);
        late.connect(from).expect("a peer");
        late.send(b"answer").expect("a datagram");
        eventually("the error has arrived", || {
            late.take_error()
                .expect("an error")
                .is_some_and(|error| error.raw_os_error() == Some(libc::ECONNREFUSED))
        });
    });
    site.assert_quiet();
}
