//! A server that asks its router by the router's link-local address: dig and dnsmasq.

use super::service::{BRIEF, ENOUGH, Service, run_client};
use super::site::wire_naturally;
use crate::e2e::calm::CalmCheck;
use crate::e2e::policies::dmz;
use crate::e2e::testbed::{NIC, Testbed, share_machine};
use crate::support::patience::{Wait, eventually};

/// The router's, as seen from the servers.
const ROUTER: &str = "fe80::1%eth0";

fn start_name_server(testbed: &Testbed) -> Service {
    let interface = format!("--interface={NIC}");
    let command = [
        "dnsmasq",
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file=",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--bind-interfaces",
        &interface,
        "--address=/www.dmz.example/192.0.2.80",
    ];
    Service::start(
        testbed,
        &testbed.router,
        "dnsmasq",
        &command,
        &[("udp", "fe80::1", 53), ("tcp", "fe80::1", 53)],
    )
}

/// Whether the router tells the address of a name over this transport. A question that must be answered is
/// asked up to four times, as resolvers do: the two may just be looking for each other on the link.
fn ask(testbed: &Testbed, transport: &str, wait: Wait) -> bool {
    let tries = if matches!(wait, Wait::AtMost(_)) { 4 } else { 1 };
    let limit = format!("+time={}", (wait.duration().as_secs() / tries).max(1));
    let tries = format!("+tries={tries}");
    let server = format!("@{ROUTER}");
    let command = ["dig", "-r", &server, &limit, &tries, "+short", transport, "www.dmz.example", "A"];
    run_client(&testbed.dmz, wait, &command).is_some_and(|said| said.trim() == "192.0.2.80")
}

#[test]
fn a_server_asks_its_router_from_a_link_local_address() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    wire_naturally(&testbed);
    let _name_server = start_name_server(&testbed);
    let bound = |settings: &str| {
        let text = crate::e2e::policies::dmz_with(settings);
        text.replace(
            "roles = [\"web\", \"managed\"]\n",
            "roles = [\"web\", \"managed\"]\nmac = \"02:00:00:00:00:10\"\n",
        )
    };
    let with = |services: &str| bound(&format!("link_services = [{services}]"));
    let check = CalmCheck::start(&testbed, &with("\"udp/53\", \"tcp/53\""));
    for transport in ["+notcp", "+tcp"] {
        assert!(ask(&testbed, transport, ENOUGH), "{transport}: {:#?}", testbed.drops());
    }
    assert!(testbed.drops().is_empty(), "{:#?}", testbed.drops());
    check.assert_calm();

    // each hangs on its need
    for (services, transport, other) in [("\"tcp/53\"", "+notcp", "+tcp"), ("\"udp/53\"", "+tcp", "+notcp")] {
        check.apply(&with(services));
        assert!(
            !ask(&testbed, transport, BRIEF),
            "{transport} with {services}: {:#?} {:#?} {}",
            testbed.drops(),
            check.daemon.said(),
            testbed.run("show", &["policy"]).out
        );
        assert!(ask(&testbed, other, ENOUGH), "{other} with {services}");
    }
    // in quarantine the server is cut off from the router too
    check.apply(&with("\"udp/53\", \"tcp/53\""));
    testbed.run("quarantine", &["web1"]).done();
    assert!(!ask(&testbed, "+notcp", BRIEF));
    testbed.run("release", &["web1"]).done();
    assert!(ask(&testbed, "+notcp", ENOUGH));
    check.apply(&dmz());
    assert!(!ask(&testbed, "+notcp", BRIEF));
    eventually("a source of no server is reported", || !check.daemon.find(&["spoof", "fe80::"]).is_empty());
}
