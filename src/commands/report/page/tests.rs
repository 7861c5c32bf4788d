use super::*;
use crate::history::SampleRow;

fn found(hostile: &str) -> ReportData {
    let time: Timestamp = "2026-11-22T15:00:00Z".parse().unwrap();
    ReportData {
        alarms: vec![AlarmEntry {
            id: 1,
            state: crate::history::AlarmState::Closed,
            changed: time,
            alarm: serde_json::json!({
                "severity": hostile, "kind": hostile, "seen": hostile, "why": hostile,
                "since": "2026-11-22T15:00:00Z", "last": hostile,
                "technique": {"id": hostile, "name": hostile}, "next": [hostile],
                "parts": [
                    {"severity": hostile, "kind": hostile, "seen": hostile, "since": hostile,
                        "technique": {"id": hostile}, "packets": 3},
                    {},
                ],
            }),
        }],
        counts: vec![MinuteCount {
            minute: time.as_second(),
            server: Some(hostile.to_owned()),
            service: hostile.to_owned(),
            reason: hostile.to_owned(),
            verdict: "drop".to_owned(),
            quiet: false,
            while_away: false,
            destination: None,
            packets: 5,
            folded: true,
            span_s: 86_400,
        }],
        removed: vec![RemovedCounts {
            server: Some(hostile.to_owned()),
            from: time.as_second(),
            to: time.as_second() + 86_400,
            packets: 1_234,
        }],
        samples: vec![SampleRow {
            time,
            server: Some(hostile.to_owned()),
            source: None,
            destination: None,
            service: hostile.to_owned(),
            reason: hostile.to_owned(),
            verdict: hostile.to_owned(),
            length: Some(60),
            frame: "3c7363726970743e".to_owned(),
        }],
        audit: vec![crate::audit::example::quarantine_by(hostile)],
    }
}

fn find_data(page: &str) -> String {
    let (_, data) = page.split_once("<script id=\"data\" type=\"application/json\">").expect("the data");
    data.split_once("</script>").expect("its end").0.to_owned()
}

#[test]
fn a_page_begins_with_three_sentences_and_says_of_which_policy_it_is() {
    let mut found = found("web1");
    found.alarms[0].alarm = serde_json::json!({
        "severity": "critical", "kind": "spread", "server": "web1", "seen": "web1 tried", "verdict": "drop",
        "why": "That is a worm", "next": ["portcullis quarantine -i dmz0 web1"],
    });
    let page = render(&cover("dmz0"), &found);
    for words in [
        "web1 (critical spread) raised 1 alarm, and 5 packets were dropped.",
        "Alarm #1 is the most severe. That is a worm. Its packets did not leave.",
        "Nothing: every alarm is closed.",
        "generation <b>7</b>",
        &"ab".repeat(32),
        "class=\"alarm critical over\"",
    ] {
        assert!(page.contains(words), "{words}: {page}");
    }
    found.alarms[0].state = crate::history::AlarmState::Open;
    let page = render(&cover("dmz0"), &found);
    assert!(page.contains("1 alarm, 1 of them acknowledged by nobody."), "{page}");
    assert!(page.contains("Next: <code>portcullis quarantine -i dmz0 web1</code>"), "{page}");
}

fn cover(interface: &str) -> Cover<'_> {
    let time = |text: &str| text.parse().unwrap();
    Cover {
        interface,
        from: time("2026-11-22T14:00:00Z"),
        to: time("2026-11-22T16:00:00Z"),
        made: time("2026-11-22T16:00:01Z"),
        policy: Some(PolicyMark { generation: 7, hash: "ab".repeat(32) }),
        file: Some("dmz.toml".to_owned()),
    }
}

#[test]
fn nothing_hostile_becomes_markup_wherever_it_comes_from() {
    let hostile = "\"><script>x()</script><img src=x onerror='y'>\u{1b}[2J";
    let page = render(&cover("dmz0"), &found(hostile));
    for bad in ["<script>", "<img", "onerror='", "\u{1b}", "src=\"http", "url(", "@import"] {
        assert!(!page.contains(bad), "{bad}");
    }
    // the only one is the data of the page, which no browser runs and which nothing in it can end
    assert_eq!((page.matches("<script").count(), page.matches("</script").count()), (1, 1));
    let data: serde_json::Value = serde_json::from_str(&find_data(&page)).unwrap();
    assert_eq!(data["counts"][0]["server"], hostile);
    assert!(page.matches("&lt;script&gt;").count() >= 8, "{page}");
}

#[test]
fn a_page_names_the_servers_whose_counts_had_no_room_and_is_silent_if_there_is_none() {
    let page = render(&cover("dmz0"), &found("web1"));
    let words = "web1 1\u{202f}234 packets from 2026-11-22 15:00 to 2026-11-23 15:00";
    assert!(page.contains("no room for their counts: ") && page.contains(words), "{page}");
    let silent = render(&cover("dmz0"), &ReportData { removed: Vec::new(), ..found("web1") });
    assert!(!silent.contains("no room"), "{silent}");
}

#[test]
fn an_empty_time_is_a_page_all_the_same() {
    let page = render(&cover("dmz0"), &ReportData::default());
    assert!(page.contains("Nothing was dropped in this time.") && page.ends_with("</html>\n"));
}

#[test]
fn a_page_has_bounds() {
    let mut found = found("web1");
    let row = found.counts[0].clone();
    for number in 0..20_000_u32 {
        let mut row = row.clone();
        row.destination = Some(std::net::Ipv4Addr::from(0xc633_6400 + number).into());
        row.service = format!("tcp/{number}");
        row.minute += i64::from(number) * 60;
        found.counts.push(row);
    }
    let sample = found.samples[0].clone();
    found.samples.resize(5_000, sample);
    let alarm = found.alarms[0].clone();
    found.alarms.resize(5_000, alarm);
    let page = render(&cover("dmz0"), &found);
    assert!(page.len() < 4 << 20, "{}", page.len());
    assert!(page.contains("and 4500 more alarms"));
}

#[test]
fn every_element_of_a_drawing_is_closed() {
    // an SVG element without an end holds all that follow, and a browser draws none of them
    let page = render(&cover("dmz0"), &found("web1"));
    let mut rest = &page[..];
    for _ in 0..3 {
        let begin = rest.find("<svg").expect("a drawing");
        let end = begin + rest[begin..].find("</svg>").expect("its end") + "</svg>".len();
        let mut open = Vec::new();
        for tag in rest[begin..end].split('<').skip(1) {
            let name = tag.split([' ', '>']).next().expect("a name");
            match name.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name)),
                None => open.push(name),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        rest = &rest[end..];
    }
}
