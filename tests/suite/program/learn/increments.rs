//! What a policy lacks, as a patch of its file.

use std::time::Duration;

use super::scene::{Capture, Scene, needs};
use super::{MINUTE, hour};

const POLICY: &str = r#"# My DMZ. Ask me before you change it.
[policy]
mode = "enforce"    # since Monday
management = ["tcp/22 from 203.0.113.7"]

[sets]
loghosts = ["198.51.100.20"]    # the old one is gone

[roles.web]
in = ["tcp/443"]    # no http

# everybody
[roles.managed]
out = [
    "udp/514 to @loghosts",      # logs
    "udp/123 to 198.51.100.30",  # time
    "tcp/3128 to 198.51.100.50", # the proxy
]
quiet = ["udp/5353"]

[servers.web1]
addresses = ["192.0.2.80"]
roles = ["web", "managed"]

[servers.ns1]
addresses = ["192.0.2.53"]
roles = ["managed"]
"#;

fn day() -> Capture {
    hour(|capture| {
        for server in ["192.0.2.80", "192.0.2.53"] {
            capture.send(MINUTE, server, "198.51.100.20", 514);
            capture.exchange(2 * MINUTE, server, "198.51.100.30", 123);
            capture.send(3 * MINUTE, server, "224.0.0.251", 5353);
            capture.connect(4 * MINUTE, server, "198.51.100.60", 8140);
        }
        capture.connect(5 * MINUTE, "192.0.2.80", "198.51.100.70", 5432);
        capture.connect(6 * MINUTE, "203.0.113.7", "192.0.2.80", 22);
    })
}

/// The lines that a patch adds and takes away.
fn changes(patch: &str) -> Vec<&str> {
    let lines = patch.lines().skip_while(|line| !line.starts_with("--- "));
    let is_change =
        |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---");
    lines.filter(is_change).collect()
}

#[test]
fn an_increment_is_a_patch_that_keeps_the_persons_comments_and_closes_the_gap() {
    let scene = Scene::new();
    let policy = scene.policy("dmz0.toml", POLICY);
    let learned = scene.learn_against(&day(), &policy, None);
    let expected = [
        "ns1 out tcp/8140 to 198.51.100.60",
        "web1 out tcp/5432 to 198.51.100.70",
        "web1 out tcp/8140 to 198.51.100.60",
    ];
    assert_eq!(needs(&learned), expected, "{}", learned.text);
    let taken: Vec<&str> = changes(&learned.text).into_iter().filter(|line| line.starts_with('-')).collect();
    assert!(
        taken.iter().all(|line| line.contains("in = [\"tcp/443\"]") || line.contains("roles = [")),
        "{taken:?}"
    );

    // patch(1) is the reader
    let path = scene.write("learnt.patch", learned.text.as_bytes());
    let file = scene.path("dmz0.toml");
    let status = std::process::Command::new("patch").args([&file, &path]).output().expect("patch");
    assert!(status.status.success(), "{}\n{}", String::from_utf8_lossy(&status.stdout), learned.text);
    let patched = std::fs::read_to_string(&file).expect("a policy");
    for comment in [
        "# My DMZ. Ask me",
        "# since Monday",
        "# the old one is gone",
        "# no http",
        "# everybody",
        "# the proxy",
    ] {
        assert!(patched.contains(comment), "{comment}\n{patched}");
    }
    let policy = scene.policy("dmz0.toml", &patched);
    let again = scene.learn_against(&day(), &policy, None);
    assert_eq!((needs(&again), changes(&again.text)), (Vec::new(), Vec::new()), "{}", again.text);
}

#[test]
fn what_nothing_used_is_taken_out_only_if_the_capture_is_long_enough_to_know() {
    let scene = Scene::new();
    let policy = scene.policy("dmz0.toml", POLICY);
    let mut capture = day();
    capture.keep(|frame| frame[36..38] != 8140_u16.to_be_bytes() && frame[34..36] != 8140_u16.to_be_bytes());
    capture.keep(|frame| frame[36..38] != 5432_u16.to_be_bytes() && frame[34..36] != 5432_u16.to_be_bytes());
    let learned = scene.learn_against(&capture, &policy, Some(Duration::from_secs(3600)));
    assert_eq!(learned.unused, Some(vec!["managed out: tcp/3128 to 198.51.100.50".to_owned()]));
    assert_eq!(
        changes(&learned.text),
        ["-    \"tcp/3128 to 198.51.100.50\", # the proxy"],
        "its comment goes with it, and others stay\n{}",
        learned.text
    );
    let learned = scene.learn_against(&capture, &policy, Some(Duration::from_secs(7 * 86_400)));
    assert_eq!((learned.unused.as_deref(), changes(&learned.text)), (None, Vec::new()));
    assert!(
        learned.notes.iter().any(|note| note.contains("nobody knows what was unused for 7d")),
        "{:?}",
        learned.notes
    );
}

#[test]
fn a_whole_policy_of_known_servers_has_their_names() {
    let scene = Scene::new();
    let policy = scene.policy("dmz0.toml", POLICY);
    let capture = day();
    let learned = scene.learn_with(&capture, |_| ());
    assert!(learned.servers.contains(&"web1".to_owned()) && !learned.servers.contains(&"ns1".to_owned()));
    let path = scene.write("known.pcap", &capture.bytes());
    let (status, out, err) = scene.run(&["learn", "-p", &policy.policy.file, &path]);
    assert_eq!(status, Some(0), "{err}");
    assert!(out.contains("[servers.ns1]") && out.contains("mode = \"observe\""), "{out}");
}
