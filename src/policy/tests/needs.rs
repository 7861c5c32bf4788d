//! The language of needs, and its canonical form.

use super::{Direction, Need, Policy, parse_need, read};

fn policy() -> Policy {
    read(
        "[sets]\nhosts = [\"198.51.100.20\", \"203.0.113.0/24\"]\n[servers.s]\naddresses = [\"192.0.2.1\"]\n",
    )
}

fn need(text: &str, direction: Direction) -> Need {
    parse_need(text, direction, &policy()).unwrap_or_else(|errors| panic!("{errors}"))
}

#[test]
fn a_need_prints_in_canonical_form() {
    for (text, canonical) in [
        ("tcp/80", "tcp/80"),
        ("6/http", "tcp/80"),
        ("tcp", "tcp"),
        ("tcp/0-65535", "tcp"),
        ("tcp/80-80", "tcp/80"),
        ("udp/137-138", "udp/137-138"),
        ("sctp/diameter", "sctp/3868"),
        ("icmp/8", "icmp/echo-request"),
        ("1/ping", "icmp/echo-request"),
        ("icmpv6/ping", "icmpv6/echo-request"),
        ("icmp/99", "icmp/99"),
        ("icmp", "icmp"),
        ("2", "igmp"),
        ("89", "ospf"),
        ("112", "vrrp"),
        ("vrrp to 224.0.0.18", "vrrp to 224.0.0.18"),
        ("88", "88"),
        ("tcp/acr-nema", "tcp/104"),
        ("255", "255"),
        (
            "tcp/25   to 2001:db8::1,198.51.100.0/24 , @hosts limit 20/s",
            "tcp/25 to 198.51.100.0/24, 2001:db8::1, @hosts limit 20/s",
        ),
        ("tcp/25 to 198.51.100.1/32,198.51.100.1", "tcp/25 to 198.51.100.1"),
        ("udp/53 limit 600/m", "udp/53 limit 600/m"),
        ("gre to @hosts", "gre to @hosts"),
    ] {
        assert_eq!(need(text, Direction::Out).to_string(), canonical);
    }
    assert_eq!(need("tcp/ssh from @hosts", Direction::In).to_string(), "tcp/22 from @hosts");
    assert_eq!(need("udp/mdns to 224.0.0.251", Direction::Quiet).to_string(), "udp/5353 to 224.0.0.251");
}

#[test]
fn what_a_need_prints_means_the_same_when_read_again() {
    for protocol in 0..=255u8 {
        for selection in ["", "/7", "/13"] {
            for peers in ["", " to 192.0.2.0/24, 2001:db8::/32", " to @hosts"] {
                let text = format!("{protocol}{selection}{peers} limit 5/m");
                let Ok(first) = parse_need(&text, Direction::Out, &policy()) else {
                    assert!(!selection.is_empty(), "{text}");
                    continue;
                };
                let again = need(&first.to_string(), Direction::Out);
                assert_eq!(
                    (again.protocol, &again.ports, &again.peers, again.limit),
                    (first.protocol, &first.ports, &first.peers, first.limit)
                );
            }
        }
    }
}

#[test]
fn peers_resolve_to_the_members_of_their_sets() {
    let need = need("tcp/25 to 192.0.2.1, @hosts, 198.51.100.20", Direction::Out);
    let peers: Vec<String> = need.resolve_peers(&policy().sets).iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["192.0.2.1/32", "198.51.100.20/32", "203.0.113.0/24"]);
}

#[test]
fn a_need_without_ports_has_the_whole_range_of_its_protocol() {
    assert_eq!(need("tcp", Direction::In).ports, 0..=65535);
    assert_eq!(need("icmp", Direction::In).ports, 0..=255);
    assert_eq!(need("esp", Direction::In).ports, 0..=0);
}

#[test]
fn a_need_on_the_command_line_is_refused_with_its_columns() {
    let errors = parse_need("tcp/99999 to @host", Direction::Out, &policy()).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "need:1:5: port 99999 is over 65535
    tcp/99999 to @host
        ^^^^^
need:1:14: no set is called `host`
    tcp/99999 to @host
                 ^^^^^
    help: did you mean `@hosts`?"
    );
}
