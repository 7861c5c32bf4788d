//! DNS names as destinations: where they may stand, and what is refused.

use super::super::{Detail, Direction, Questions, describe, find_doubts, parse_need, summarize};
use super::{complaints, diff, help, read};
use crate::net::DomainName;

/// A policy whose `out` needs stand in line 2. `more` follows.
fn with_needs(needs: &str, more: &str) -> String {
    format!(
        "[roles.r]\nout = [{needs}]\n[servers.s]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n[names]\n\
         resolvers = [\"198.51.100.53\"]\n{more}"
    )
}

#[test]
fn a_name_stands_in_a_need_and_in_a_set() {
    let sets = "[sets]\nmirrors = [\"*.Mirror.example\", \"192.0.2.80\"]\n";
    let needs = "\"udp/53 to 198.51.100.53\", \"tcp/443 to @mirrors, DEB.vendor.example, 192.0.2.9\"";
    let policy = read(&with_needs(needs, sets));
    let need = &policy.roles[0].outbound[1];
    assert_eq!(need.to_string(), "tcp/443 to 192.0.2.9, @mirrors, deb.vendor.example");
    let names: Vec<String> = need.resolve_names(&policy.sets).iter().map(DomainName::to_string).collect();
    assert_eq!(names, ["deb.vendor.example", "*.mirror.example"]);
    assert_eq!(need.resolve_peers(&policy.sets).len(), 2);
}

#[test]
fn a_name_of_a_server_is_the_server_and_is_doubted() {
    let text = with_needs("\"tcp/443 to a.b.example\"", "").replace("servers.s", "servers.\"a.b.example\"");
    let policy = read(&text);
    assert!(policy.needed_names().is_empty());
    let doubts: Vec<String> = find_doubts(&policy).iter().map(|doubt| doubt.message.clone()).collect();
    assert!(
        doubts.contains(&"`a.b.example` is a server of this policy, and could be a DNS name too".to_owned())
    );
}

#[test]
fn what_is_no_name_to_trust_is_refused_with_what_to_write() {
    for (name, complaint, remedy) in [
        ("*.co.uk", "anybody can have a name below `co.uk`", "name the domain of the one whom you trust"),
        (
            "*.github.io",
            "anybody can have a name below `github.io`",
            "name the domain of the one whom you trust",
        ),
        (
            "b\u{fc}cher.example",
            "`b\u{fc}cher.example` is not ASCII",
            "write `xn--bcher-kva.example`, as it is asked for",
        ),
        ("a..example", "a label of `a..example` is empty", "remove the second dot"),
        (
            "a.*.example",
            "the `*` of `a.*.example` stands at the wrong place",
            "write `*.` and a domain: it has all names below that domain",
        ),
    ] {
        let text = with_needs(&format!("\"tcp/443 to {name}\""), "");
        assert_eq!(complaints(&text), [format!("2:20: {complaint}")], "{name}");
        assert_eq!(help(&text), remedy, "{name}");
    }
    let text = with_needs("\"tcp/443 to mailhost\"", "");
    assert_eq!(complaints(&text), ["2:20: no server is called `mailhost`"]);
}

#[test]
fn a_name_opens_and_lets_nobody_in() {
    for (role, complaint) in [
        ("in = [\"tcp/80 from a.b.example\"]", "`a.b.example` is a name, and `in` can't have one"),
        ("quiet = [\"tcp/80 to a.b.example\"]", "`a.b.example` is a name, and `quiet` can't have one"),
        ("in = [\"tcp/80 from @names\"]", "set `names` has names, and `in` can't"),
    ] {
        let text = with_needs("\"tcp/25\"", "[sets]\nnames = [\"a.b.example\"]\n")
            .replace("out = [\"tcp/25\"]", role);
        let found = complaints(&text);
        assert!(found.len() == 1 && found[0].ends_with(complaint), "{found:?}");
    }
}

#[test]
fn a_name_needs_resolvers_and_a_tracker() {
    let text = with_needs("\"tcp/443 to a.b.example\"", "");
    assert_eq!(read(&text).needed_names().len(), 1);
    let found = complaints(&text.replace("resolvers = [\"198.51.100.53\"]\n", ""));
    assert_eq!(
        found,
        ["2:9: this need has a name, and there are no resolvers whose answers say its addresses"]
    );
    let found = complaints(&format!("[policy]\ntracking = \"service\"\n{text}"));
    assert_eq!(found, ["4:9: this need has a name, and with tracking = \"service\" no answer is seen"]);
    let found = complaints(&with_needs("\"tcp/443 to a.b.example sport 20\"", ""));
    assert_eq!(found, ["2:9: a need with a name can't have a `sport`"]);
}

#[test]
fn the_keys_of_names_are_checked() {
    for (line, complaint) in [
        ("resolvers = [\"192.0.2.0/24\"]", "a resolver has an address, and `192.0.2.0/24` is a prefix"),
        ("resolvers = [\"@nobody\"]", "no set is called `nobody`"),
        ("from = [\"eth0/1\"]", "`eth0/1` can't be the name of an interface"),
        ("ttl = [300]", "`ttl` must be two numbers: the seconds at least, and at most"),
        ("ttl = [400, 300]", "`ttl` must be two numbers: the seconds at least, and at most"),
        (
            "nat64 = [\"2001:db8::/33\"]",
            "`2001:db8::/33` is no prefix of NAT64: these are IPv6, with 32, 40, 48, 56, 64 or 96 bits",
        ),
        ("private = [\"10.0.0.1/8\"]", "`10.0.0.1/8` has host bits set"),
        ("resolve = 1", "`resolve` must be true or false, not a number"),
    ] {
        let text = with_needs("\"udp/53\"", "").replace("resolvers = [\"198.51.100.53\"]", line);
        let found = complaints(&text);
        assert!(found.len() == 1 && found[0].ends_with(complaint), "{line}: {found:?}");
    }
}

#[test]
fn a_resolver_that_nobody_may_ask_and_a_forgeable_one_are_doubted() {
    let messages = |text: &str| -> Vec<String> {
        find_doubts(&read(text)).iter().map(|doubt| doubt.message.clone()).collect()
    };
    let text = with_needs("\"tcp/443 to a.b.example\"", "forgeable = true\n");
    let found = messages(&text);
    assert!(
        found.iter().any(|message| message == "no server may ask the resolver 198.51.100.53"),
        "{found:?}"
    );
    assert!(found.iter().any(|message| message.contains("forged answer")), "{found:?}");
    let text = with_needs("\"tcp/443 to a.b.example\", \"udp/53 to 198.51.100.53\"", "");
    let found = messages(&text);
    assert!(!found.iter().any(|message| message.contains("resolver")), "{found:?}");
}

/// Line and column of each, and what it says.
#[test]
fn each_mistake_and_each_doubt_about_names_has_its_place() {
    let placed = |text: &str| -> Vec<String> {
        let doubts = find_doubts(&read(text));
        doubts.iter().map(|doubt| format!("{}:{}: {}", doubt.line, doubt.column, doubt.message)).collect()
    };
    let text = with_needs("\"tcp/443 to a.b.example\"", "forgeable = true\n");
    let found = placed(&text);
    let has =
        |found: &[String], line: &str| assert!(found.iter().any(|known| known == line), "{line}: {found:#?}");
    has(&found, "7:15: no server may ask the resolver 198.51.100.53");
    has(&found, "8:13: with forgeable = true an accomplice outside can open any address by a forged answer");
    // of a set, at the set's name
    let sets = "[sets]\ndns = [\"198.51.100.53\", \"198.51.100.54\"]\n";
    let text = with_needs("\"tcp/443 to a.b.example\", \"udp/53 to 198.51.100.54\"", sets)
        .replace("resolvers = [\"198.51.100.53\"]", "resolvers = [\"@dns\"]");
    has(&placed(&text), "7:15: no server may ask the resolver 198.51.100.53");
    let text = with_needs("\"tcp/443 to a.b.example\"", "").replace("servers.s", "servers.\"a.b.example\"");
    has(&placed(&text), "2:9: `a.b.example` is a server of this policy, and could be a DNS name too");

    for (member, mistake) in [
        ("*.co.uk", "anybody can have a name below `co.uk`"),
        ("b\u{fc}cher.example", "`b\u{fc}cher.example` is not ASCII"),
        ("a.*.example", "the `*` of `a.*.example` stands at the wrong place"),
    ] {
        let text = with_needs("\"tcp/25\"", &format!("[sets]\nm = [\"192.0.2.1\", \"{member}\"]\n"));
        assert_eq!(complaints(&text), [format!("9:20: {mistake}")]);
    }
    // one label is no name: neither in a need nor in a set
    assert_eq!(
        complaints(&with_needs("\"tcp/443 to mailhost\"", "")),
        ["2:20: no server is called `mailhost`"]
    );
    let found = complaints(&with_needs("\"tcp/25\"", "[sets]\nm = [\"mailhost\"]\n"));
    assert!(found.len() == 1 && found[0].starts_with("9:7: `mailhost` "), "{found:?}");
    for (line, place) in [
        ("in = [\"tcp/80 from a.b.example\"]", "2:20: "),
        ("in = [\"tcp/80 from 192.0.2.9, a.b.example\"]", "2:31: "),
        ("quiet = [\"tcp/80 to a.b.example\"]", "2:21: "),
    ] {
        let found = complaints(&with_needs("\"tcp/25\"", "").replace("out = [\"tcp/25\"]", line));
        assert!(found.len() == 1 && found[0].starts_with(place), "{line}: {found:?}");
    }
}

#[test]
fn a_need_that_is_not_in_a_policy_has_no_name() {
    let policy = read(&with_needs("\"tcp/443 to @mirrors\"", "[sets]\nmirrors = [\"a.b.example\"]\n"));
    for need in ["tcp/443 to c.d.example", "tcp/443 to @mirrors"] {
        let refused = parse_need(need, Direction::Out, &policy).unwrap_err().to_string();
        assert!(refused.contains("a need that is not in the policy can't have a name"), "{refused}");
    }
}

/// A policy of one server, whose role may ask for names alone.
fn with_strict_role(needs: &str, more: &str) -> String {
    with_needs(needs, more).replacen("[servers", "dns = \"named\"\n[servers", 1)
}

#[test]
fn what_a_role_may_ask_is_a_word_and_needs_resolvers() {
    let policy = read(&with_strict_role("\"udp/53 to 198.51.100.53\"", ""));
    assert_eq!(policy.questions_of(&policy.servers[0]), Questions::Named);
    let any = read(&with_needs("\"udp/53\"", ""));
    assert_eq!(any.questions_of(&any.servers[0]), Questions::Any);
    let text = with_strict_role("\"udp/53\"", "").replace("\"named\"", "\"name\"");
    assert_eq!(complaints(&text), ["3:8: `dns` can't be `name`"]);
    assert_eq!(help(&text), "did you mean `named`?");
    let text = with_strict_role("\"udp/53\"", "").replace("resolvers = [\"198.51.100.53\"]", "");
    assert_eq!(complaints(&text), ["3:8: `dns` is about resolvers, and this policy has none"]);
}

#[test]
fn the_strictest_role_of_a_server_wins_and_the_difference_and_the_summary_say_so() {
    let strict = with_strict_role("\"udp/53 to 198.51.100.53\"", "[roles.any]\ndns = \"any\"\n");
    let both = strict.replace("roles = [\"r\"]", "roles = [\"any\", \"r\"]");
    let policy = read(&both);
    assert_eq!(policy.questions_of(&policy.servers[0]), Questions::Named);
    let lenient = read(&both.replace("\"named\"", "\"any\""));
    let changes: Vec<String> = diff(&lenient, &policy).iter().map(ToString::to_string).collect();
    assert_eq!(changes, ["~ s dns any -> named"]);
    assert!(describe(&policy, Detail::Brief).contains("asks     names of the policy alone"));
    assert!(!describe(&lenient, Detail::Brief).contains("asks"));
    let json = serde_json::to_value(summarize(&policy)).unwrap();
    assert_eq!(json["servers"][0]["dns"], "named");
}

#[test]
fn what_leads_around_a_strict_role_and_what_makes_it_useless_is_doubted() {
    let messages = |text: &str| -> Vec<String> {
        find_doubts(&read(text)).iter().map(|doubt| doubt.message.clone()).collect()
    };
    let has = |needs: &str, words: &str| {
        messages(&with_strict_role(needs, "")).iter().any(|message| message.contains(words))
    };
    let name = "\"tcp/443 to a.b.example\"";
    let around = "may ask others than the resolvers";
    assert!(has("\"udp/53 to 198.51.100.53\"", "every question is dropped"));
    assert!(!has(&format!("{name}, \"udp/53 to 198.51.100.53\""), "question"));
    assert!(!has(&format!("{name}, \"udp/53 to 198.51.100.53\""), around));
    for need in
        ["udp/53", "tcp/53", "udp", "udp/50-60 to 198.51.100.53, 198.51.100.54", "udp/53 to 198.51.100.0/24"]
    {
        assert!(has(&format!("{name}, \"{need}\""), around), "{need}");
    }
    // a role without it may ask whom it likes
    assert!(!messages(&with_needs(name, "")).iter().any(|message| message.contains(around)));
    let link = "[policy]\nlink_services = [\"udp/53\"]\n";
    let text = with_strict_role(name, link)
        .replace("roles = [\"r\"]", "roles = [\"r\"]\nmac = \"02:00:00:00:00:10\"");
    assert!(
        messages(&text).iter().any(|message| message.contains("link-local address")),
        "{:?}",
        messages(&text)
    );
}
