//! `docs/evasion.md`, written from the suite, so that it can't say anything else.

use std::fmt::Write as _;
use std::path::Path;

use portcullis::gate::Verdict;

use super::table::{Class, Row};
use super::{answers, chains, fragments, handshakes, large, lengths, link, protocols, routes, servers};
use crate::e2e::evasion::list_attacks;

const HEAD: &str = "\
# Evasion

Every way known to us of getting a packet past a filter, and what becomes of it. This file is
written by the tests that play it, and a test fails when it says anything else than they do:
`PORTCULLIS_BLESS=1 scripts/test program` writes it anew.

The policy is a usual one: a web server and a name server that may ask anybody's port 53
(`tests/suite/support/dmz.rs`). A *question that is needed* is a datagram to that port. Each class shows
what is dropped, and beside it what looks alike and passes. Frames counts what is
played for a row, in both families where both are named.
";

const TOOLS: &str = "
# Tools

Run inside the DMZ by `scripts/test e2e`, in network namespaces. Each line is run without the gate,
and its frames arrive at a tap beyond the router; then with it: it sends as before, the tap sees
nothing that the router has forwarded, and the count of drops has grown. What is permitted passes before, in
between and afterwards; detached, the gate lets the first line out again. WEB and DNS are servers,
PEER and OTHER hosts beyond, a 6 is for IPv6, `_` a space within an argument.
Tests: `e2e::evasion`.

| line | what it shows | test |
| --- | --- | --- |
";

const BEYOND_TOOLS: &str = "
Tunnels and offloads have tests of their own:

| what | without the gate | with it | test |
| --- | --- | --- | --- |
| iodine, to the attacker's server, from a name server that may ask one resolver | a datagram goes through and back | nothing gets out; `destination` | `iodine_reaches_its_server_without_the_gate_and_not_with_it` |
| ptunnel-ng: TCP in pings | a connection goes through | nothing gets out | `ptunnel_carries_tcp_in_pings_without_the_gate_and_not_with_it` |
| 24 MiB both ways at once through a permitted port, super-frames of up to 64 KiB | | arrives as it was sent, by its hash | `what_is_permitted_goes_both_ways_in_super_frames_and_arrives_as_it_was_sent` |
| UDP with segmentation offload to a port that nobody needs | arrives | nothing gets out | `forbidden_super_frames_of_udp_stay_in` |
| a TCP connection of the server's own, open and fast before the gate came | arrives | nothing gets out | `forbidden_super_frames_of_tcp_stay_in` |

# What gets out all the same

- **A tunnel through what is permitted.** Whom a server may ask, it may tell. A name server that may ask a
  resolver can tunnel through it to whoever serves a domain, for a resolver passes on what it is asked:
  iodine with the permitted resolver between works, and a test shows it
  (`a_tunnel_through_the_permitted_resolver_is_not_stopped`). Name the destinations, `limit` the need,
  and watch what the resolver is asked.
- **What a permitted flow carries.** The gate does not look into it: VXLAN to port 53 is a question to port 53.
- **Room in what passes.** Bytes after the end of IPv4 options, IPv6 options and a UDP length
  below the packet's leave with a packet that may leave, to where it may go.
- **The link.** ARP, LLDP, 802.1X, slow protocols and 802.3 frames reach the router, which does not forward them.
  A bridge might.
";

fn list_classes() -> impl Iterator<Item = &'static Class> {
    [
        link::CLASSES,
        lengths::CLASSES,
        fragments::CLASSES,
        chains::CLASSES,
        routes::CLASSES,
        servers::CLASSES,
        handshakes::CLASSES,
        answers::CLASSES,
        protocols::CLASSES,
        large::CLASSES,
    ]
    .into_iter()
    .flatten()
}

fn write_row(text: &mut String, row: &Row) {
    let (verdict, reason) = row.outcome();
    let verdict = if verdict == Verdict::Pass { "pass" } else { "drop" };
    let (frame, families, frames) = (&row.frame, row.families, row.scripts.len());
    writeln!(text, "| {frame} | {families} | {frames} | {verdict} | `{}` |", reason.name())
        .expect("a string");
}

fn write_document() -> String {
    let mut text = String::from(HEAD);
    for class in list_classes() {
        let test = class.test.trim_start_matches("suite::");
        write!(
            text,
            "\n## {}\n\nTest: `{test}`\n\n| frame | IP | frames | verdict | reason |\n| --- | --- | --- | --- | --- |\n",
            class.name
        )
        .expect("a string");
        (class.rows)().iter().for_each(|row| write_row(&mut text, row));
    }
    let rows: Vec<Row> = list_classes().flat_map(|class| (class.rows)()).collect();
    let frames: usize = rows.iter().map(|row| row.scripts.len()).sum();
    let classes = list_classes().count();
    write!(text, "\n{classes} classes, {} rows, {frames} frames.\n", rows.len()).expect("a string");
    text.push_str(TOOLS);
    for (test, attack) in list_attacks() {
        let name = test.rsplit("::").next().expect("a name");
        writeln!(text, "| `{}` | {} | `{name}` |", attack.line, attack.shows).expect("a string");
    }
    text.push_str(BEYOND_TOOLS);
    text
}

#[test]
fn the_published_table_is_what_the_suite_plays() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/evasion.md");
    let text = write_document();
    if std::env::var_os("PORTCULLIS_BLESS").is_some() {
        std::fs::write(&path, &text).expect("docs/evasion.md");
    }
    let published = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        published == text,
        "docs/evasion.md is not what the suite plays: PORTCULLIS_BLESS=1 writes it anew"
    );
}

#[test]
fn no_two_rows_of_a_class_have_the_same_words() {
    for class in list_classes() {
        let rows = (class.rows)();
        let names: std::collections::BTreeSet<_> =
            rows.iter().map(|row| (&row.frame, row.families)).collect();
        assert_eq!(names.len(), rows.len(), "{}", class.name);
    }
}
