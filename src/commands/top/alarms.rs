//! The open alarms as `top` lists them: sorted, filtered, one selected.

use jiff::Timestamp;
use serde_json::Value;

use crate::alarm::Severity;
use crate::sink::escape;

/// One line of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AlarmLine {
    pub id: u64,
    pub severity: Option<Severity>,
    pub age: String,
    pub server: String,
    pub what: String,
    pub to: String,
    pub packets: u64,
    /// Somebody is at it, or it is silenced.
    pub mark: &'static str,
}

/// A text of a record, harmless to a terminal.
pub(super) fn text(alarm: &Value, key: &str) -> String {
    escape(alarm[key].as_str().unwrap_or_default()).into_owned()
}

/// The alarms of a daemon, the most severe first, and of equally severe ones the youngest.
pub(super) fn sort(alarms: &mut [Value]) {
    let severity = |alarm: &Value| alarm["severity"].as_str().and_then(Severity::from_name);
    alarms.sort_by_key(|alarm| {
        let since = alarm["since"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
        (std::cmp::Reverse(severity(alarm)), std::cmp::Reverse(since), alarm["id"].as_u64())
    });
}

/// Whether an alarm has a word anywhere that people see.
pub(super) fn has_word(alarm: &Value, word: &str) -> bool {
    let word = word.to_lowercase();
    let keys = ["severity", "kind", "server", "service", "seen"];
    word.is_empty() || keys.iter().any(|key| text(alarm, key).to_lowercase().contains(&word))
}

pub(super) fn describe(alarm: &Value, now: Timestamp) -> AlarmLine {
    let since = alarm["since"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let parts = alarm["parts"].as_array().map_or(0, Vec::len);
    let more = if parts > 1 { format!(" +{}", parts - 1) } else { String::new() };
    let destinations = &alarm["destinations"];
    let first = escape(destinations["first"][0].as_str().unwrap_or("-")).into_owned();
    let to = match destinations["count"].as_u64().unwrap_or(0) {
        0 | 1 => first,
        count => format!("{first} +{}", count - 1),
    };
    AlarmLine {
        id: alarm["id"].as_u64().unwrap_or(0),
        severity: alarm["severity"].as_str().and_then(Severity::from_name),
        age: since.map_or("?".to_owned(), |since| show_age(now.duration_since(since).as_secs())),
        server: alarm["server"].as_str().map_or("-".to_owned(), |server| escape(server).into_owned()),
        what: format!("{} {}{more}", text(alarm, "kind"), text(alarm, "service")),
        to,
        packets: alarm["packets"].as_u64().unwrap_or(0),
        mark: match (alarm["acknowledged"].is_object(), alarm["silenced"].is_object()) {
            (true, _) => "ack",
            (false, true) => "sil",
            (false, false) => "",
        },
    }
}

/// An age of at most four characters.
fn show_age(seconds: i64) -> String {
    match seconds.max(0) {
        seconds if seconds < 100 => format!("{seconds}s"),
        seconds if seconds < 6_000 => format!("{}m", seconds / 60),
        seconds if seconds < 360_000 => format!("{}h", seconds / 3_600),
        seconds => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_is_first_and_of_equally_grave_ones_the_youngest() {
        let alarm = |id: u64, severity: &str, minute: u8| {
            serde_json::json!({
                "id": id, "severity": severity, "since": format!("2026-11-22T15:{minute:02}:00Z"), "kind": "scan",
                "service": "many", "server": "web1", "packets": 7, "parts": [{}, {}],
                "destinations": {"count": 3, "first": ["198.51.100.7"]},
            })
        };
        let mut alarms =
            vec![alarm(1, "low", 9), alarm(2, "critical", 1), alarm(3, "high", 5), alarm(4, "critical", 3)];
        sort(&mut alarms);
        let ids: Vec<u64> = alarms.iter().map(|alarm| alarm["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, [4, 2, 3, 1]);
        let line = describe(&alarms[0], "2026-11-22T15:05:00Z".parse().unwrap());
        assert_eq!((&*line.age, &*line.what, &*line.to), ("2m", "scan many +1", "198.51.100.7 +2"));
        assert!(has_word(&alarms[0], "WEB") && !has_word(&alarms[0], "mx"));
    }

    #[test]
    fn an_age_is_short() {
        let shown = [0, 99, 100, 5_999, 6_000, 359_999, 360_000].map(show_age);
        assert_eq!(shown, ["0s", "99s", "1m", "99m", "1h", "99h", "4d"]);
    }
}
