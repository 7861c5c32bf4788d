//! What the commands say of names: `explain`, `show names`, `show status` and the metrics, after real answers.

use std::net::{IpAddr, UdpSocket};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::metrics::{self, ADDRESS};
use super::policies::dmz;
use super::socket::udp;
use super::testbed::{Family, NIC, Testbed, V4, V6, ip, share_machine};
use crate::support::dns::{A, AAAA, Message};
use crate::support::patience::{PATIENCE, deadline, eventually};

/// The default route leads to these resolvers, and the addresses are of documentation.
const NAMES: &str = r#"
[names]
resolvers = ["198.51.100.53", "2001:db8:2::53"]
private = ["198.51.100.0/24", "2001:db8:2::/64"]
forgeable = true

[roles.updated]
out = [
    "udp/53 to 198.51.100.53, 2001:db8:2::53",
    "tcp/443 to deb.vendor.example, *.mirror.example",
    "tcp/25 to mx.vendor.example",
]
"#;

/// [`dmz`] with names that the web server may use.
pub fn with_names() -> String {
    dmz().replace("roles = [\"web\", \"managed\"]", "roles = [\"web\", \"managed\", \"updated\"]") + NAMES
}

/// A resolver of the internet and a client of the web server.
pub struct Lookup {
    pub resolver: UdpSocket,
    client: UdpSocket,
}

impl Lookup {
    pub fn new(testbed: &Testbed, family: Family) -> Lookup {
        let resolver = udp(&testbed.internet, family.resolver, 53);
        let client = udp(&testbed.dmz, family.web, 40_053);
        client.connect((ip(family.resolver), 53)).expect("a way to the resolver");
        for socket in [&resolver, &client] {
            socket.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
        }
        Lookup { resolver, client }
    }

    /// The web server asks for a name, and is answered this address.
    #[track_caller]
    pub fn answer(&self, name: &str, address: &str) {
        let address: IpAddr = ip(address);
        let query = Message::query(0x1234, name, if address.is_ipv4() { A } else { AAAA });
        self.client.send(&query.bytes()).expect("a question");
        let mut bytes = [0; 512];
        let (_, from) = self.resolver.recv_from(&mut bytes).expect("the question");
        self.resolver.send_to(&query.addresses(&[address], 60).bytes(), from).expect("an answer");
        let length = self.client.recv(&mut bytes).expect("the answer");
        assert!(length > 12, "{length}");
    }
}

fn explain(testbed: &Testbed, to: &str, what: &str, more: &[&str]) -> (String, Value) {
    let args = [&["--from", "web1", "--to", to, what], more].concat();
    let json = testbed.run("explain", &[&args[..], &["-j"]].concat()).done().json();
    (testbed.run("explain", &args).done().out, json)
}

#[test]
fn explain_and_show_names_say_who_was_answered_what_and_until_when() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    testbed.attach(&with_names());
    for family in [V4, V6] {
        let (text, json) = explain(&testbed, family.peer, "tcp/443", &[]);
        assert!(
            text.starts_with("drop: nobody answered that address to web1\n  reason   destination\n"),
            "{text}"
        );
        assert_eq!(json["answered"], "nobody answered that address to web1");
        let lookup = Lookup::new(&testbed, family);
        lookup.answer("DEB.vendor.example", family.peer);

        let (text, json) = explain(&testbed, family.peer, "tcp/443", &[]);
        let begin = format!("pass: web1 was answered {} for deb.vendor.example ", family.peer);
        assert!(text.starts_with(&begin) && text.contains(" ago, open for "), "{text}");
        assert!(text.contains(" more\n  reason   need\n"), "{text}");
        assert_eq!((&json["verdict"], &json["reason"]), (&"pass".into(), &"need".into()));
        assert_eq!(
            (&json["grant"]["address"], &json["grant"]["from"]),
            (&family.peer.into(), &"answer".into())
        );
        assert_eq!(json["need"], "tcp/443 to deb.vendor.example, *.mirror.example");
        // no connection was opened
        let (text, _) = explain(&testbed, family.peer, "tcp/443", &["--flags", "A"]);
        assert!(
            text.starts_with(&format!("drop: web1 has no connection to {} that a name", family.peer)),
            "{text}"
        );
        let (text, _) = explain(&testbed, family.peer, "tcp/25", &[]);
        let begin = format!(
            "drop: web1 was answered {} for deb.vendor.example alone, and no need for tcp/25 has that name\n",
            family.peer
        );
        assert!(text.starts_with(&begin), "{text}");
        // names have no part in the rest
        let (text, json) = explain(&testbed, family.loghost, "udp/514", &[]);
        assert!(text.starts_with("pass: need\n") && json.get("answered").is_none(), "{text} {json}");
        let (text, _) = explain(&testbed, family.peer, "tcp/22", &[]);
        assert!(text.starts_with("drop: new_flow\n"), "{text}");
    }

    // a name in place of an address
    let (text, json) = explain(&testbed, "deb.vendor.example", "tcp/443", &[]);
    assert!(text.starts_with(&format!("pass: web1 was answered {} for deb", V4.peer)), "{text}");
    assert_eq!(json["verdict"], "pass");
    for (from, to, words) in [
        (
            "web1",
            "mx.vendor.example",
            ["nobody answered web1 an address of mx.vendor.example", "looked the name up"],
        ),
        ("web1", "a.mirror.example", ["only as one of `*.mirror.example`", "--to '*.mirror.example'"]),
        ("web1", "other.example", ["no need of the policy has the name `other.example`", "--to"]),
        (V4.peer, "deb.vendor.example", ["--from is none", "give a server"]),
    ] {
        testbed.run("explain", &["--from", from, "--to", to, "tcp/443"]).refused(&words);
    }

    let rows = testbed.show("names");
    assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows:#}");
    for (row, address) in [(&rows[0], V4.peer), (&rows[1], V6.peer)] {
        assert_eq!((&row["server"], &row["name"]), (&"web1".into(), &"deb.vendor.example".into()));
        assert_eq!((&row["address"], &row["from"]), (&address.into(), &"answer".into()));
        assert!(row["last_used"].is_null() && row["until"].is_string(), "{row:#}");
    }
    let table = testbed.run("show", &["names"]).done().out;
    let heads: Vec<&str> = table.lines().next().expect("a line").split_whitespace().collect();
    assert_eq!(heads, ["SERVER", "NAME", "ADDRESS", "FROM", "UNTIL", "LAST", "USED"]);

    // what the policy no longer has opens nothing
    testbed.apply(&with_names().replace("deb.vendor.example", "rpm.vendor.example"));
    assert_eq!(testbed.show("names"), serde_json::json!([]));
    assert_eq!(testbed.run("show", &["names"]).done().out, "no name of the policy has an address now\n");
    testbed.apply(&dmz());
    assert_eq!(testbed.run("show", &["names"]).done().out, "the live policy has no names\n");
}

#[test]
fn status_and_metrics_count_questions_answers_grants_and_each_failure() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let mut daemon = testbed.daemon(&with_names(), &["--metrics", ADDRESS]);
    testbed.wait_for_consumer();
    let lookup = Lookup::new(&testbed, V4);
    lookup.answer("deb.vendor.example", V4.peer);
    lookup.answer("deb.vendor.example", V4.peer);
    // no name may have that one, and nobody needs the other name
    lookup.answer("deb.vendor.example", "10.0.0.1");
    lookup.answer("other.example", V4.peer);
    // nobody has asked
    let unasked = Message::query(7, "deb.vendor.example", A).addresses(&[ip(V4.peer)], 60);
    lookup.resolver.send_to(&unasked.bytes(), (ip(V4.web), 40_053)).expect("an answer");

    let status = testbed.show("status");
    let names = &status["names"];
    assert_eq!((&names["names"], &names["resolvers"]), (&3.into(), &2.into()), "{names:#}");
    assert_eq!((&names["grants"], &names["most_of_server"]), (&1.into(), &1.into()), "{names:#}");
    let text = testbed.run("show", &["status"]).done().out;
    assert!(text.contains("3 (resolvers: 2, open grants: 1)"), "{text}");
    assert!(
        text.contains("warning: answers of the resolver 198.51.100.53 can be forged from outside"),
        "{text}"
    );

    eventually("the metrics say the same", || {
        let page = metrics::scrape(&testbed);
        let value = |family: &str, labels: &[&str]| metrics::value(&page, family, labels);
        let answers =
            |outcome: &str| value("portcullis_name_answers_total", &[&format!("outcome=\"{outcome}\"")]);
        let grants =
            |outcome: &str| value("portcullis_name_grants_total", &[&format!("outcome=\"{outcome}\"")]);
        value("portcullis_names", &[]) == Some(3.0)
            && value("portcullis_grants", &[]) == Some(1.0)
            && value("portcullis_name_questions_total", &[]) == Some(3.0)
            && answers("read") == Some(3.0)
            && answers("other") == Some(1.0)
            && answers("no_query") == Some(1.0)
            && answers("interface") == Some(0.0)
            && value("portcullis_name_addresses_refused_total", &[]) == Some(1.0)
            && (grants("made"), grants("renewed")) == (Some(1.0), Some(1.0))
    });
    let share = metrics::value(&metrics::scrape(&testbed), "portcullis_grant_share_used_ratio", &[]);
    assert!(share.is_some_and(|share| share > 0.0 && share < 0.1), "{share:?} of {NIC}");
    assert!(daemon.end(Signal::SIGTERM).success());
}
