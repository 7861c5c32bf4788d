//! `docs/evasion.md`, written from the suite, so that it can't say anything else.

use std::fmt::Write as _;
use std::path::Path;

use portcullis::gate::Verdict;

use super::table::{Class, Row};
use super::{
    answers, chains, fragments, handshakes, large, lengths, link, names, protocols, routes, servers,
};
use crate::e2e::evasion::list_attacks;

const HEAD: &str = "\
# Evasion

This page is for reviewers. It lists every way past a filter that we know of, frame by frame, and the verdict of the
gate on each.

The tests that play the frames also write this page. A test fails if the two differ.
`PORTCULLIS_BLESS=1 scripts/test program` writes the page anew.

The policy of the tests has a web server, and a name server that may ask port 53 of any peer
(`tests/suite/support/dmz.rs`). *A question that is needed* is a datagram to that port. Each class has frames that are
dropped, and similar frames that pass. The column *frames* counts the frames of a row, those of both families together.

## Example: read a row

| frame | IP | frames | verdict | reason |
| --- | --- | --- | --- | --- |
| one 802.1Q tag: SYN to a port that nobody needs | 4, 6 | 2 | drop | `new_flow` |

The test plays one frame over IPv4 and one over IPv6. The gate looks through the VLAN tag, drops both, and counts them
as `new_flow`. The heading above each table names the way around a filter, and the line below it names the test.
";

const TOOLS: &str = "
## Tools

These are tools that intruders use. `scripts/test e2e` runs them inside a DMZ of network namespaces:

1. Without the gate, frames of each line arrive at a tap beyond the router.
2. With the gate, each line sends as before. The tap sees none of its frames, and the count of drops has grown.
3. Permitted connections work before, between and after the lines.
4. After `detach`, frames of the first line arrive again.

In a line, WEB and DNS are servers. PEER and OTHER are hosts beyond the router. A 6 stands for IPv6, and `_` for a space
within an argument. The tests are in `e2e::evasion`.

| line | it is | test |
| --- | --- | --- |
";

const BEYOND_TOOLS: &str = "
Tunnels and offloads have tests of their own:

| attempt | without the gate | with the gate | test |
| --- | --- | --- | --- |
| iodine, to the attacker's server, from a name server that may ask one resolver | a datagram goes through and back | nothing gets out; `destination` | `iodine_reaches_its_server_without_the_gate_and_not_with_it` |
| ptunnel-ng: TCP in pings | a connection goes through | nothing gets out | `ptunnel_carries_tcp_in_pings_without_the_gate_and_not_with_it` |
| 24 MiB both ways at once through a permitted port, super-frames of up to 64 KiB | | arrives as it was sent, by its hash | `what_is_permitted_goes_both_ways_in_super_frames_and_arrives_as_it_was_sent` |
| UDP with segmentation offload to a port without a need | arrives | nothing gets out | `forbidden_super_frames_of_udp_stay_in` |
| a TCP connection that the server opened before the gate was attached | arrives | nothing gets out | `forbidden_super_frames_of_tcp_stay_in` |

## Ways out that remain

- **A tunnel through a permitted service.** A name server that may ask a resolver can tunnel data through it. The
  resolver passes each question on to the server of its domain, and that server may be the intruder's. A test shows that
  iodine works like this (`a_tunnel_through_the_permitted_resolver_is_not_stopped`). Give the role `dns = \"named\"`: see
  [names.md](names.md#close-the-way-through-the-resolver). Where that does not fit, name the destinations, put a `limit`
  on the need, and watch the questions at the resolver.
- **A name below a wildcard.** Whoever owns a domain below `*.mirror.example` is asked for it, and may be called.
- **A resolver beyond the router**, with `forgeable = true`. An accomplice who knows the port and id of a question may
  answer it.
- **The content of a permitted flow.** The gate does not look into it. VXLAN to port 53 is a question to port 53.
- **Spare bytes in permitted packets.** Bytes may hide behind the end of IPv4 options, in IPv6 options, or behind a UDP
  length that is shorter than the packet. They leave with the packet, and only to a permitted destination.
- **The link.** ARP, LLDP, 802.1X, slow protocols and 802.3 frames reach the router. A router does not forward them, but
  a bridge might.
";

fn list_classes() -> impl Iterator<Item = &'static Class> {
    [
        link::CLASSES,
        lengths::CLASSES,
        fragments::CLASSES,
        chains::CLASSES,
        routes::CLASSES,
        servers::CLASSES,
        names::CLASSES,
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
