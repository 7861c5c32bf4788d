//! Every key of the language: read, printed, compared and documented.

use super::claims::print_policy;
use super::*;

/// A key, with a value that is not its default, and this value as a difference prints it.
type Example = (&'static str, &'static str, &'static str);

const SETTINGS: &[Example] = &[
    ("mode", "\"observe\"", "observe"),
    ("tracking", "\"service\"", "service"),
    ("unknown_sources", "\"allow\"", "allow"),
    // Compared as needs, see `changes`.
    ("management", "[\"tcp/22 from @bastion\"]", "tcp/22 from @bastion"),
    ("link_services", "[\"udp/53\", \"tcp/domain\"]", "tcp/53, udp/53"),
    ("quiet_ethertypes", "[0x8899, 0x0600]", "0x8899, 0x0600"),
    ("pickup", "60", "60"),
    ("handover", "\"conntrack\"", "conntrack"),
    ("dhcp", "true", "true"),
];

const NAMES: &[Example] = &[
    ("resolvers", "[\"192.0.2.1\", \"@bastion\"]", "192.0.2.1, @bastion"),
    ("from", "[\"eth1\"]", "eth1"),
    ("private", "[\"10.20.0.0/16\"]", "10.20.0.0/16"),
    ("ttl", "[60, 3600]", "60, 3600"),
    ("nat64", "[\"2001:db8:64::/96\"]", "2001:db8:64::/96"),
    ("forgeable", "true", "true"),
    ("resolve", "true", "true"),
];

const ALARMS: &[Example] = &[
    ("eve", "\"/e\"", "/e"),
    ("ecs", "\"/f\"", "/f"),
    ("cef", "\"/c\"", "/c"),
    ("pcapng", "\"/p\"", "/p"),
    ("rotate_mib", "0", "0"),
    ("rotate_keep", "9", "9"),
    ("journald", "true", "true"),
    ("syslog", "\"tls://[2001:db8::5]\"", "tls://[2001:db8::5]:6514"),
    ("alertmanager", "[\"https://am:9093/prefix/\", \"http://b\"]", "https://am:9093/prefix, http://b"),
    ("alertmanager_user", "\"gate\"", "gate"),
    ("alertmanager_password_file", "\"/etc/p\"", "/etc/p"),
    ("alertmanager_token_file", "\"/etc/t\"", "/etc/t"),
    ("mail_server", "\"starttls://mx.example.com\"", "starttls://mx.example.com:587"),
    ("mail_from", "\"gate@example.com\"", "gate@example.com"),
    ("mail_to", "[\"noc@example.com\", \"on-call@example.com\"]", "noc@example.com, on-call@example.com"),
    ("mail_user", "\"gate\"", "gate"),
    ("mail_password_file", "\"/etc/m\"", "/etc/m"),
    ("command", "[\"/bin/page\", \"-x y\"]", "/bin/page -x y"),
    ("command_timeout", "5", "5"),
    ("tls_ca", "\"/ca.pem\"", "/ca.pem"),
];

const RESPONSE: &[Example] = &[
    ("quarantine_on", "[\"spread\", \"scan\"]", "spread, scan"),
    ("quarantine_for", "\"released\"", "released"),
    ("history_days", "7", "7"),
];

fn table_examples() -> Vec<Example> {
    TableSizes::KEYS.iter().map(|key| (*key, "12345", "12345")).collect()
}

/// A valid policy whose server has a MAC.
fn bound() -> String {
    format!("{BASE}mac = \"02:00:00:00:00:10\"\n")
}

/// The same with one more key.
fn with(table: &str, key: &str, value: &str) -> Policy {
    read(&format!("{}[{table}]\n{key} = {value}\n", bound()))
}

#[test]
fn each_key_is_read_compared_and_printed() {
    let plain = read(&bound());
    let tables = table_examples();
    for (table, prefix, keys, examples) in [
        ("policy", "", Settings::KEYS, SETTINGS),
        ("names", "names.", NameSettings::KEYS, NAMES),
        ("alarms", "alarms.", Alarms::KEYS, ALARMS),
        ("alarms", "alarms.", Response::KEYS, RESPONSE),
        ("tables", "tables.", TableSizes::KEYS, &tables[..]),
    ] {
        let known: Vec<&str> = examples.iter().map(|(key, ..)| *key).collect();
        assert_eq!(known, keys, "each key of [{table}] has an example here");
        for (key, value, shown) in examples {
            let policy = with(table, key, value);
            let changes: Vec<String> = diff(&plain, &policy).iter().map(ToString::to_string).collect();
            let [change] = &changes[..] else { panic!("`{key}` makes {changes:?}") };
            let is_need = *key == "management";
            let start =
                if is_need { "+ every server may accept".into() } else { format!("~ {prefix}{key} ") };
            assert!(change.starts_with(&start) && change.ends_with(shown), "{change}");
            assert!(diff(&policy, &policy).is_empty(), "{key}");
            let again = parse(&print_policy(&policy), "dmz.toml").unwrap_or_else(|errors| panic!("{errors}"));
            assert!(diff(&policy, &again).is_empty() && !diff(&plain, &again).is_empty(), "{key}");
        }
    }
}

#[test]
fn each_key_of_the_policy_is_in_its_summary() {
    let json = serde_json::to_value(summarize(&read(BASE))).unwrap();
    for key in Settings::KEYS {
        assert!(!json[key].is_null(), "{key}");
    }
}

/// A key that the starter policy lacked would only be found in the manual.
#[test]
fn each_table_and_key_is_in_the_starter_policy_and_in_the_manual() {
    for table in Policy::TABLES {
        let headers = [format!("[{table}]"), format!("[{table}.")];
        for text in [MANUAL, STARTER] {
            assert!(headers.iter().any(|header| text.contains(header)), "[{table}] is missing");
        }
    }
    let keys = [
        Settings::KEYS,
        NameSettings::KEYS,
        Router::KEYS,
        Role::KEYS,
        Server::KEYS,
        PolicyTest::KEYS,
        Alarms::KEYS,
        Response::KEYS,
        TableSizes::KEYS,
    ]
    .concat();
    for key in &keys {
        assert!(MANUAL.contains(&format!("`{key}`")), "docs/policy.md doesn't have `{key}`");
    }
    for key in &keys {
        let sets = |line: &str| {
            let line = line.trim_start_matches(['#', ' ']);
            line.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
        };
        assert!(STARTER.lines().any(sets), "the starter policy doesn't have `{key}`");
    }
}

/// The starter policy has most keys of `[alarms]` and `[tables]` as comments. Uncommented they are valid.
#[test]
fn the_examples_that_the_starter_has_as_comments_are_valid() {
    let mut in_alarms = false;
    let text: String = STARTER
        .lines()
        .map(|line| {
            in_alarms |= line == "[alarms]";
            let uncommented = line.strip_prefix("# ").filter(|line| {
                line.starts_with('[') || line.split('=').next().is_some_and(|key| !key.trim().contains(' '))
            });
            format!("{}\n", uncommented.filter(|_| in_alarms).unwrap_or(line))
        })
        .collect();
    let policy = parse(&text, "starter.toml").unwrap_or_else(|errors| panic!("{errors}"));
    let mentioned = policy.alarms.entries().into_iter().chain(policy.response.entries());
    for (key, value) in mentioned {
        assert!(value != Value::Unset, "{key} is still a comment");
    }
}
