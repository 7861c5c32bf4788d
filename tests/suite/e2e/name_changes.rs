//! What else commands do with a policy that has names: edits, `diff`, `show policy`, `show needs`, `check --unused` and
//! `export nft`.

use std::net::SocketAddr;

use serde_json::Value;

use super::name_resolvers::{is_open, policy};
use super::resolver::{Resolver, kind_of, look_up};
use super::socket::{ARRIVES, NEVER, TcpServer, connect, echoes, tcp_talks};
use super::testbed::{Family, Testbed, V4, V6, in_both_families, ip, share_machine};
use crate::support::patience::{PATIENCE, deadline, eventually};

const NAME: &str = "deb.vendor.example";
const NEED: &str = "tcp/443 to deb.vendor.example";

fn names() -> String {
    policy(&[V4.router, V6.router], "")
}

/// web1 is answered that the peer has the name.
#[track_caller]
fn open(testbed: &Testbed, family: &Family) {
    let zone = Resolver::start(&testbed.router, family.router);
    zone.set(NAME, &[family.peer], 60);
    assert!(
        look_up(&testbed.dmz, family.web, family.router, NAME, kind_of(family.peer), ARRIVES),
        "no answer"
    );
}

#[test]
fn an_edit_has_no_name_and_a_denial_closes_what_a_name_has_opened() {
    let _machine = share_machine();
    in_both_families(|family| {
        let testbed = Testbed::new();
        testbed.attach(&names());
        let _server = TcpServer::start(&testbed.internet, 443);
        for need in ["tcp/443 to deb.other.example", NEED] {
            testbed.run("allow", &["web1", "out", need, "--for", "1h"]).failed(1, &["can't have a name"]);
        }
        open(&testbed, &family);
        let peer = SocketAddr::new(ip(family.peer), 443);
        let mut stream =
            connect(&testbed.dmz, ip(family.web), peer, ARRIVES).expect("a connection by a grant");
        assert!(echoes(&mut stream));

        testbed.run("deny", &["web1", "out", "tcp/443", "--for", "1h"]).done();
        assert_eq!(testbed.verdict("web1", family.peer, "tcp/443"), ("drop".to_owned(), "denied".to_owned()));
        stream.set_read_timeout(Some(NEVER.duration())).expect("a timeout");
        assert!(!echoes(&mut stream), "the connection goes on");
        let same = testbed.write("same.toml", &names());
        let differs = testbed.run("diff", &[&same]);
        assert_eq!(differs.code, Some(1), "{differs:#?}");
        assert!(differs.out.contains("! edit 1: deny web1 out tcp/443"), "{differs:#?}");

        // the grant has outlived the edit
        testbed.run("deny", &["--cancel", "1"]).done();
        assert!(is_open(&testbed, &family, family.peer));
        stream.set_read_timeout(Some(deadline(PATIENCE))).expect("a timeout");
        eventually("the connection goes on", || echoes(&mut stream));
        assert_eq!(testbed.run("diff", &[&same]).done().out, "");

        // an edit to an address needs no answer, and takes none away
        testbed.run("allow", &["web1", "out", &format!("tcp/443 to {}", family.clock), "--for", "1h"]).done();
        assert!(is_open(&testbed, &family, family.clock) && is_open(&testbed, &family, family.peer));
        assert_eq!(testbed.show("names").as_array().map(Vec::len), Some(1));
    });
}

/// The row of the need with the name.
fn find(rows: &Value) -> Value {
    let rows = rows.as_array().expect("a list");
    rows.iter().find(|row| row["need"] == NEED).unwrap_or_else(|| panic!("{rows:#?}")).clone()
}

#[test]
fn the_policy_its_differences_and_the_uses_of_its_needs_have_the_names_as_they_were_written() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let text = names();
    testbed.attach(&text);
    assert_eq!(testbed.run("show", &["policy"]).done().out, text);

    // another name, and another set behind the same need
    let other = testbed.write("other.toml", &text.replace(NAME, "*.mirror.example"));
    let differs = testbed.run("diff", &[&other]);
    assert_eq!(differs.code, Some(1), "{differs:#?}");
    for change in [
        "+ web1 may open tcp/443 to *.mirror.example",
        "- web1 may no longer open tcp/443 to deb.vendor.example",
    ] {
        assert!(differs.out.contains(change), "{differs:#?}");
    }
    let louder = testbed.write("louder.toml", &text.replace(NAME, "DEB.Vendor.EXAMPLE"));
    assert_eq!(testbed.run("diff", &[&louder]).done().out, "", "case is no difference");

    // each connection by the name counts for its need, and an answer does not
    let _server = TcpServer::start(&testbed.internet, 443);
    assert_eq!(find(&testbed.show("needs"))["uses"], 0);
    open(&testbed, &V4);
    assert_eq!(find(&testbed.show("needs"))["uses"], 0);
    let path = testbed.write("unused.toml", &text);
    let judge = |time: &str| {
        let findings = testbed.run("check", &["--unused", time, &path, "-j"]).done().json();
        let rows = findings.as_array().expect("a list").clone();
        rows.iter().find(|row| row["need"] == NEED).map(|row| row["judgement"].clone())
    };
    eventually("it is unused for a second", || judge("1s").is_some_and(|word| word == "unused"));
    let peer = SocketAddr::new(ip(V4.peer), 443);
    for _ in 0..3 {
        assert!(tcp_talks(&testbed.dmz, ip(V4.web), peer, ARRIVES));
    }
    let uses = find(&testbed.show("needs"))["uses"].as_u64().expect("a number");
    // a SYN may be sent again on a busy machine
    assert!((3..10).contains(&uses), "{uses}");
    assert_eq!(judge("1h"), None, "it was used within the hour");

    // what a need has counted stays when another one comes
    testbed.apply(&text.replace("\"udp/53\"", "\"udp/53\", \"udp/123\""));
    assert_eq!(find(&testbed.show("needs"))["uses"], uses);
}

#[test]
fn a_ruleset_of_nft_opens_no_name_and_says_so() {
    let _machine = share_machine();
    let testbed = Testbed::new();
    let path = testbed.write("dmz0.toml", &names().replace(NEED, &format!("{NEED}, {}", V4.peer)));
    let said = testbed.router.portcullis(&["export", "nft", &path]).done();
    assert!(said.out.contains("# - Names: nft learns no addresses"), "{}", said.out);
    let opens: Vec<&str> = said.out.lines().filter(|line| line.contains("tcp dport 443")).collect();
    assert!(!opens.is_empty() && opens.iter().all(|line| line.contains(V4.peer)), "{opens:#?}");

    // a need with names alone has no address, and must not open its port to all
    let path = testbed.write("dmz0.toml", &names());
    let said = testbed.router.portcullis(&["export", "nft", &path]).done();
    let opens = |line: &&str| line.contains("dport 443") && line.contains("accept");
    assert_eq!(said.out.lines().find(opens), None, "{}", said.out);
}
