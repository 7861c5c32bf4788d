//! Servers that have their addresses by DHCP: dhclient, and dnsmasq on the router with leases of two minutes.

use std::os::unix::fs::PermissionsExt as _;
use std::{fs, path::Path};

use super::service::Service;
use super::site::wire_naturally;
use crate::e2e::calm::CalmCheck;
use crate::e2e::policies::dmz_with;
use crate::e2e::testbed::{NIC, Testbed, V4, share_machine};
use crate::support::patience::eventually;

/// What the client asks for by unicast after two seconds, and by broadcast after six.
const CLIENT: &str =
    "initial-interval 1;\nsupersede dhcp-renewal-time 2;\nsupersede dhcp-rebinding-time 6;\n";

fn start_server(testbed: &Testbed) -> Service {
    let (interface, leases) = (format!("--interface={NIC}"), testbed.folder.join("dnsmasq.leases"));
    let range = format!("--dhcp-range={0},{0},255.255.255.0,2m", V4.web);
    let leases = format!("--dhcp-leasefile={}", leases.display());
    let command = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--log-facility=-",
        "--port=0",
        "--bind-interfaces",
        "--no-ping",
        &interface,
        &range,
        &leases,
    ];
    Service::start(testbed, &testbed.router, "dnsmasq", &command, &[("udp", "0.0.0.0", 67)])
}

/// dhclient for the web server, whose address it leaves alone.
struct Client<'t> {
    testbed: &'t Testbed,
    options: [String; 4],
}

impl Client<'_> {
    fn new(testbed: &Testbed) -> Client<'_> {
        let script = testbed.write("dhclient-script", "#!/bin/sh\nexit 0\n");
        fs::set_permissions(Path::new(&script), fs::Permissions::from_mode(0o755)).expect("a mode");
        let file = |name: &str| testbed.folder.join(name).display().to_string();
        let options =
            [testbed.write("dhclient.conf", CLIENT), file("dhclient.leases"), file("dhclient.pid"), script];
        Client { testbed, options }
    }

    fn start(&self, name: &str, mode: &str) -> Service {
        let [config, leases, pid, script] = &self.options;
        let command =
            ["dhclient", "-4", mode, "-d", "-cf", config, "-lf", leases, "-pf", pid, "-sf", script, "eth0"];
        Service::start(self.testbed, &self.testbed.dmz, name, &command, &[])
    }
}

/// What the two say to each other by unicast, in the log of the client.
fn count(log: &str, line: &str) -> usize {
    log.lines().filter(|said| said.starts_with(line)).count()
}

const UNICAST: &str = "DHCPREQUEST for 192.0.2.80 on eth0 to 192.0.2.1";
const BROADCAST: &str = "DHCPREQUEST for 192.0.2.80 on eth0 to 255.255.255.255";
const LEASED: &str = "bound to 192.0.2.80";

#[test]
fn a_lease_is_renewed_and_released_without_an_alarm() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    wire_naturally(&testbed);
    let _server = start_server(&testbed);
    let check = CalmCheck::start(&testbed, &dmz_with("dhcp = true"));
    let client = Client::new(&testbed);

    // nothing permits the unicast, so the client comes back by broadcast
    let service = client.start("dhclient", "-v");
    eventually("a lease", || count(&service.log(), LEASED) == 1);
    eventually("a renewal by unicast, and one by broadcast", || {
        let log = service.log();
        count(&log, UNICAST) >= 1 && count(&log, BROADCAST) >= 2 && count(&log, LEASED) >= 2
    });
    let quiet = || testbed.dropped("web1", "udp", 67, "new_flow");
    eventually("the unicast is counted", || quiet() >= 1);
    assert!(testbed.drops().iter().all(|row| row.0["server"] == "mx1" || row.0["quiet"] == true));
    check.assert_calm();

    // with a need it passes
    let needed = dmz_with("dhcp = true")
        .replace("\"udp/123 to @clocks\"", &format!("\"udp/123 to @clocks\", \"udp/67 to {}\"", V4.router));
    check.apply(&needed);
    let (before, dropped) = (service.log(), quiet());
    eventually("leases are renewed by unicast", || {
        let log = service.log();
        count(&log, LEASED) >= count(&before, LEASED) + 3
    });
    let log = service.log();
    assert!(count(&log, BROADCAST) <= count(&before, BROADCAST) + 1, "{log}");
    assert!(quiet() <= dropped + 1, "{:#?}", testbed.drops());

    // and is given back, once more without a need
    check.apply(&dmz_with("dhcp = true"));
    let dropped = quiet();
    drop(service);
    let release = client.start("dhclient-release", "-r");
    eventually("the lease is given back", || release.log().contains("DHCPRELEASE"));
    eventually("which is counted", || quiet() > dropped);
    check.assert_calm();
}
