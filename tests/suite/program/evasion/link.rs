//! Below IP: EtherTypes, and what lies under tags.

use portcullis::abi::Reason;

use super::table::{Row, classes, drops, forbidden, passes, question};
use crate::support::dmz::{V4, V6};
use crate::support::frame::{IP, SYN, cut, link_frame, patched, tagged, tcp, udp};

classes! {
    an_ethertype_that_nobody_needs_does_not_leave: "EtherTypes", list_ethertypes;
    what_tags_hide_is_judged_as_without_them_and_a_third_hides_too_much: "VLAN tags", list_tags;
    a_tag_without_a_vlan_is_a_tag: "Priority tags, stacked", list_priority_tags;
}

const C: u16 = 0x8100;
const S: u16 = 0x88a8;

fn list_ethertypes() -> Vec<Row> {
    let link = [0x0806, 0x88cc, 0x888e, 0x8809];
    let others: Vec<u16> = [
        0x0600, 0x0801, 0x0805, 0x0807, 0x22f0, 0x22f3, 0x6002, 0x6558, 0x6559, 0x8035, 0x809b, 0x80f3,
        0x8137, 0x814c, 0x8808, 0x8847, 0x8848, 0x8863, 0x8864, 0x8870, 0x887b, 0x8892, 0x88a2, 0x88a4,
        0x88b5, 0x88b6, 0x88b7, 0x88ca, 0x88cd, 0x88e1, 0x88e5, 0x88e7, 0x88f5, 0x88f7, 0x8902, 0x8906,
        0x890d, 0x8914, 0x8915, 0x8917, 0x891d, 0x892d, 0x893f, 0x894f, 0x8999, 0x9000, 0x9100, 0x9200,
        0x9300, 0xa0ed, 0xcafe, 0xfefe, 0xffff,
    ]
    .into();
    let (from, to) = forbidden(V4);
    let hidden = tcp(from, to, SYN)[IP..].to_vec();
    let carry =
        |types: &[u16]| -> Vec<Vec<u8>> { types.iter().map(|kind| link_frame(*kind, &hidden)).collect() };
    let snap = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &hidden].concat();
    vec![
        Row::many(
            "an IP packet under any other EtherType: MPLS, PPPoE, MACsec, 802.1ah, HSR, PTP, NSH, IPX, 0x9100, ...",
            "",
            carry(&others).into_iter().map(|frame| drops(frame, Reason::Ethertype)).collect(),
        ),
        Row::many(
            "an IP packet under the EtherType of ARP, LLDP, 802.1X, LACP: never forwarded",
            "",
            carry(&link).into_iter().map(|frame| passes(frame, Reason::LinkLayer)).collect(),
        ),
        Row::link(
            "an IP packet in 802.3 with SNAP: never forwarded",
            passes(link_frame(snap.len() as u16, &snap), Reason::LinkLayer),
        ),
        Row::many(
            "an EtherType of one family, a packet of the other",
            "4, 6",
            vec![
                drops(patched(&tcp(from, to, SYN), 12, &[0x86, 0xdd]), Reason::Malformed),
                drops(patched(&udp(question(V6).0, question(V6).1), 12, &[8, 0]), Reason::Malformed),
            ],
        ),
        Row::many(
            "an IP version that there is not",
            "4, 6",
            (0..16_u8)
                .flat_map(|version| {
                    let v4 = patched(&udp(question(V4).0, question(V4).1), IP, &[version << 4 | 5]);
                    let (from, to) = question(V6);
                    let v6 = patched(&udp(from, to), IP, &[version << 4]);
                    let mut scripts = Vec::new();
                    if version != 4 {
                        scripts.push(drops(v4, Reason::Malformed));
                    }
                    if version != 6 {
                        scripts.push(drops(v6, Reason::Malformed));
                    }
                    scripts
                })
                .collect(),
        ),
    ]
}

/// The frame under these tags, the outermost first.
fn under(frame: &[u8], tags: &[(u16, u16)]) -> Vec<u8> {
    tags.iter().rev().fold(frame.to_vec(), |frame, (tpid, tci)| tagged(&frame, *tpid, *tci))
}

/// A row for what may leave and one for what may not, under the same tags.
fn pair(rows: &mut Vec<Row>, what: &str, tags: &[(u16, u16)]) {
    rows.push(Row::both(format!("{what}: SYN to a port that nobody needs"), |family| {
        let (from, to) = forbidden(family);
        drops(under(&tcp(from, to, SYN), tags), Reason::NewFlow)
    }));
    rows.push(Row::both(format!("{what}: a question that is needed"), |family| {
        let (from, to) = question(family);
        passes(under(&udp(from, to), tags), Reason::Need)
    }));
}

fn too_deep(what: &str, tags: &[(u16, u16)]) -> Row {
    Row::both(format!("{what}: a question that is needed"), |family| {
        let (from, to) = question(family);
        drops(under(&udp(from, to), tags), Reason::Malformed)
    })
}

fn list_tags() -> Vec<Row> {
    let mut rows = Vec::new();
    pair(&mut rows, "one 802.1Q tag", &[(C, 7)]);
    pair(&mut rows, "one 802.1ad tag", &[(S, 7)]);
    pair(&mut rows, "QinQ: 802.1ad, then 802.1Q", &[(S, 7), (C, 8)]);
    pair(&mut rows, "QinQ the other way round: 802.1Q, then 802.1ad", &[(C, 7), (S, 8)]);
    pair(&mut rows, "802.1Q twice", &[(C, 7), (C, 7)]);
    pair(&mut rows, "802.1ad twice", &[(S, 7), (S, 7)]);
    pair(&mut rows, "the reserved VLAN 4095, with priority and DEI", &[(C, 0xffff)]);
    for tags in 0..8_u16 {
        let kinds = [0, 1, 2].map(|bit| if tags >> bit & 1 == 1 { S } else { C });
        let what = format!("three tags: {:#06x} {:#06x} {:#06x}", kinds[0], kinds[1], kinds[2]);
        rows.push(too_deep(&what, &kinds.map(|kind| (kind, 7))));
    }
    rows.push(too_deep("sixteen tags", &[(C, 7); 16]));
    rows.push(Row::both_many("a frame that ends within a tag", |family| {
        let (from, to) = question(family);
        let frame = under(&udp(from, to), &[(S, 7), (C, 8)]);
        (14..22).map(|length| drops(cut(&frame, length), Reason::Malformed)).collect()
    }));
    rows
}

fn list_priority_tags() -> Vec<Row> {
    let mut rows = Vec::new();
    pair(&mut rows, "a tag of VLAN 0", &[(C, 0)]);
    pair(&mut rows, "a tag of VLAN 0 and the highest priority", &[(C, 0xe000)]);
    pair(&mut rows, "VLAN 0 twice", &[(C, 0), (C, 0)]);
    pair(&mut rows, "VLAN 0 within VLAN 7", &[(S, 7), (C, 0)]);
    pair(&mut rows, "VLAN 7 within VLAN 0", &[(C, 0), (C, 7)]);
    rows.push(too_deep("VLAN 0 three times", &[(C, 0); 3]));
    rows.push(too_deep("VLAN 0 three times, 802.1ad first", &[(S, 0), (C, 0), (C, 0)]));
    rows
}
