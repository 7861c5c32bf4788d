//! `docs/evasion.md`, written from the suite, so that it can't say anything else.

use std::fmt::Write as _;
use std::path::Path;

use portcullis::gate::Verdict;

use super::table::{Class, Row};
use super::{answers, chains, fragments, handshakes, large, lengths, link, protocols, routes};

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

fn list_classes() -> impl Iterator<Item = &'static Class> {
    [
        link::CLASSES,
        lengths::CLASSES,
        fragments::CLASSES,
        chains::CLASSES,
        routes::CLASSES,
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
fn no_two_rows_of_a_class_say_the_same() {
    for class in list_classes() {
        let rows = (class.rows)();
        let names: std::collections::BTreeSet<_> =
            rows.iter().map(|row| (&row.frame, row.families)).collect();
        assert_eq!(names.len(), rows.len(), "{}", class.name);
    }
}
