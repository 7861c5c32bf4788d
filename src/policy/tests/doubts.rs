//! Doubts: `check` warns of what nobody can have meant, and of nothing else.

use super::{BASE, Detail, describe, find_doubts, read};

const MANAGEMENT: &str = "[policy]\nmanagement = [\"tcp/22 from 203.0.113.7\"]\n";

/// The doubts as `LINE: message`.
fn doubts(text: &str) -> Vec<String> {
    find_doubts(&read(text)).iter().map(|doubt| format!("{}: {}", doubt.line, doubt.message)).collect()
}

/// A policy whose only role has these needs, in line 4.
fn with_needs(needs: &str) -> String {
    format!(
        "{MANAGEMENT}[roles.web]\n{needs}\n[servers.web1]\naddresses = [\"192.0.2.10\"]\nroles = [\"web\"]\n\
         [sets]\npeers = [\"198.51.100.0/24\"]\n[servers.web2]\naddresses = [\"192.0.2.11\"]\nroles = [\"other\"]\n\
         [roles.other]\nout = [\"tcp/9 to @peers\"]\n"
    )
}

#[test]
fn a_policy_that_is_meant_raises_no_doubt() {
    for needs in [
        "in = [\"tcp/80\", \"tcp/443\"]",
        "in = [\"tcp/80\"]\nout = [\"tcp/80\"]",
        "out = [\"udp/53 to 198.51.100.1\", \"udp/53 to 198.51.100.2\"]",
        // a rate of its own for one of the peers
        "out = [\"tcp/25 limit 20/s\", \"tcp/25 to 198.51.100.1\"]",
        "out = [\"tcp/25 limit 20/s\", \"tcp/25 limit 5/s\"]",
        "out = [\"tcp/20-30 sport 1000-2000\", \"tcp/25\"]",
    ] {
        assert_eq!(doubts(&with_needs(needs)), Vec::<String>::new(), "{needs}");
    }
}

#[test]
fn roles_and_sets_that_nobody_has_are_doubted() {
    let text = format!("{MANAGEMENT}{BASE}[roles.mail]\nin = [\"tcp/25\"]\n");
    assert_eq!(doubts(&text), ["4: no need names the set `@bastion`", "10: no server has the role `mail`"]);
}

#[test]
fn a_need_that_a_wider_one_has_is_doubted() {
    for (needs, doubt) in [
        ("in = [\"tcp\", \"tcp/80\"]", "4: `tcp/80` changes nothing: `tcp` in line 4 has it"),
        ("in = [\"tcp/80\", \"tcp/80\"]", "4: `tcp/80` changes nothing: `tcp/80` in line 4 has it"),
        (
            "out = [\"udp/53 to 198.51.100.1\", \"udp/53 to @peers\"]",
            "4: `udp/53 to 198.51.100.1` changes nothing: `udp/53 to @peers` in line 4 has it",
        ),
        (
            "out = [\"tcp/25 limit 20/s\", \"tcp/25\"]",
            "4: `tcp/25 limit 20/s` changes nothing: `tcp/25` in line 4 has it",
        ),
        (
            "out = [\"tcp/25 sport 20\", \"tcp/20-30\"]",
            "4: `tcp/25 sport 20` changes nothing: `tcp/20-30` in line 4 has it",
        ),
    ] {
        assert_eq!(doubts(&with_needs(needs)), [doubt], "{needs}");
    }
}

#[test]
fn a_policy_without_management_and_a_server_without_needs_are_doubted() {
    let text = "[roles.web]\nquiet = [\"udp/5353\"]\n[servers.web1]\naddresses = [\"192.0.2.10\"]\nroles = [\"web\"]\n\
                [servers.web2]\naddresses = [\"192.0.2.11\"]\n";
    let doubts = doubts(text);
    assert_eq!(doubts.len(), 3, "{doubts:#?}");
    assert!(doubts[0].starts_with("1: there is no `management`"), "{doubts:#?}");
    assert!(doubts[1].starts_with("3: `web1` can talk to nobody"), "{doubts:#?}");
    assert!(doubts[2].starts_with("6: `web2` can talk to nobody"), "{doubts:#?}");
}

#[test]
fn sixty_servers_of_two_kinds_fit_a_screen_and_each_is_there_when_asked_for() {
    let mut text = format!("{MANAGEMENT}[roles.web]\nin = [\"tcp/80\"]\n[roles.dns]\nin = [\"udp/53\"]\n");
    for number in 1..=60 {
        let role = if number % 10 == 0 { "dns" } else { "web" };
        text.push_str(&format!(
            "[servers.host{number}]\naddresses = [\"192.0.2.{number}\"]\nroles = [\"{role}\"]\n"
        ));
    }
    let policy = read(&text);
    let brief = describe(&policy, Detail::Brief);
    assert!(brief.lines().count() <= 24, "{brief}");
    assert!(
        brief.contains("host1, host2, host3, host4, host5, host6 and 48 more\n  roles    web"),
        "{brief}"
    );
    assert!(brief.contains("host10, host20, host30, host40, host50, host60\n  roles    dns"), "{brief}");
    let full = describe(&policy, Detail::Full);
    assert!((1..=60).all(|number| full.contains(&format!("\nhost{number}  192.0.2.{number}\n"))), "{full}");
}

#[test]
fn servers_that_differ_in_more_than_their_addresses_are_described_apart() {
    let text = format!(
        "{MANAGEMENT}[roles.web]\nin = [\"tcp/80\"]\n\
         [servers.a]\naddresses = [\"192.0.2.1\"]\nroles = [\"web\"]\n\
         [servers.b]\naddresses = [\"192.0.2.2\"]\nroles = [\"web\"]\nmode = \"observe\"\n\
         [servers.c]\naddresses = [\"192.0.2.3\"]\nroles = [\"web\"]\nvlan = 7\n\
         [servers.d]\naddresses = [\"192.0.2.4\"]\nroles = [\"web\"]\n"
    );
    let brief = describe(&read(&text), Detail::Brief);
    for heading in ["\na, d\n", "\nb  192.0.2.2  mode observe\n", "\nc  192.0.2.3  vlan 7\n"] {
        assert!(brief.contains(heading), "{heading}: {brief}");
    }
}
