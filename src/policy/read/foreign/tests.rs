//! What needs of other tools are answered with.

use std::collections::BTreeMap;

use super::super::grammar::read_plain_need;
use super::super::peer_names::PeerNames;
use super::need::advise_on_need;
use crate::policy::diagnostic::Source;
use crate::policy::model::{Direction, Need, Set};

fn read(text: &str, direction: Direction) -> Option<Need> {
    let sets: BTreeMap<String, Set> = BTreeMap::new();
    read_plain_need(
        text,
        direction,
        &PeerNames::new(&sets, &[]),
        Source::new("need", "").place(&(0..0)),
        &mut |_| {},
    )
}

fn help_for(text: &str, direction: Direction) -> String {
    assert!(read(text, direction).is_none(), "{text} is a need");
    advise_on_need(text, direction, |need| read(need, direction).is_some()).unwrap_or_default()
}

#[test]
fn needs_of_every_manner_are_translated() {
    for (text, help) in [
        ("80/tcp", "write `tcp/80`"),
        ("https/tcp", "write `tcp/https`"),
        ("6000:6063/tcp", "write `tcp/6000-6063`"),
        ("tcp/30000:30100", "write `tcp/30000-30100`"),
        ("tcp/30000..30100", "write `tcp/30000-30100`"),
        ("tcp/1024-", "write `tcp/1024-65535`"),
        ("tcp/>1023", "write `tcp/1024-65535`"),
        ("tcp/*", "write `tcp`"),
        ("tcp/any", "write `tcp`"),
        ("tcp:80", "write `tcp/80`"),
        ("tcp 80", "write `tcp/80`"),
        ("TCP/80", "write `tcp/80`"),
        ("tcp/80,443", "write one need for each: `tcp/80`, `tcp/443`"),
        ("tcp/{80,443}", "write one need for each: `tcp/80`, `tcp/443`"),
        ("tcp+udp/53", "write one need for each: `tcp/53`, `udp/53`"),
        ("tcp,udp/53", "write one need for each: `tcp/53`, `udp/53`"),
        ("tcp/udp/53", "write one need for each: `tcp/53`, `udp/53`"),
        ("any/53", "write one need for each: `tcp/53`, `udp/53`"),
        ("443", "write one need for each: `tcp/443`, `udp/443`"),
        ("tcp dport 80", "write `tcp/80`"),
        ("tcp dport { 80, 443 } accept", "write one need for each: `tcp/80`, `tcp/443`"),
        ("ip daddr 198.51.100.9 tcp dport 443 accept", "write `tcp/443 to 198.51.100.9`"),
        ("ip6 daddr 2001:db8::1 udp dport 53", "write `udp/53 to 2001:db8::1`"),
        ("-p tcp --dport 25 -j ACCEPT", "write `tcp/25`"),
        ("-A FORWARD -p tcp -m tcp -d 198.51.100.9 --dport 25 -j ACCEPT", "write `tcp/25 to 198.51.100.9`"),
        ("-p tcp -m multiport --dports 80,443", "write one need for each: `tcp/80`, `tcp/443`"),
        ("allow 80/tcp", "write `tcp/80`"),
        ("allow out to 198.51.100.9 port 443 proto tcp", "write `tcp/443 to 198.51.100.9`"),
        ("pass out quick proto tcp to any port 443 keep state", "write `tcp/443`"),
        ("tcp/443 to any", "write `tcp/443`"),
        ("tcp/443 to 198.51.100.1-198.51.100.3", "write `tcp/443 to 198.51.100.1, 198.51.100.2/31`"),
        ("tcp/443 to [2001:db8::1]", "write `tcp/443 to 2001:db8::1`"),
        ("tcp to 198.51.100.9:443", "write `tcp/443 to 198.51.100.9`"),
        ("https://198.51.100.9/", "write `tcp/https to 198.51.100.9`"),
        ("https://198.51.100.9:8443/x?y", "write `tcp/8443 to 198.51.100.9`"),
        ("tcp://198.51.100.9:5140", "write `tcp/5140 to 198.51.100.9`"),
        ("icmp6/echo-request", "write `icmpv6/echo-request`"),
        ("icmp type echo-request", "write `icmp/echo-request`"),
        ("ipv6-icmp", "write `icmpv6`"),
        ("ping", "write `icmp/echo-request`"),
        ("tcp/25 limit rate 20/second", "write `tcp/25 limit 20/s`"),
    ] {
        assert_eq!(help_for(text, Direction::Out), help, "{text}");
    }
}

#[test]
fn the_peers_of_a_service_are_those_it_comes_from() {
    assert_eq!(
        help_for("allow from 203.0.113.0/24 to any port 22 proto tcp", Direction::In),
        "write `tcp/22 from 203.0.113.0/24`"
    );
    assert_eq!(help_for("tcp/22 from any", Direction::In), "write `tcp/22`");
}

#[test]
fn what_a_need_can_not_say_gets_its_reason() {
    assert!(help_for("tcp/443 to !10.0.0.0/8", Direction::Out).contains("can't exclude"));
    assert!(help_for("ip daddr != 198.51.100.0/24 tcp dport 443", Direction::Out).contains("can't exclude"));
    assert!(help_for("deny 23/tcp", Direction::In).contains("what is permitted"));
    assert!(help_for("tcp dport 23 drop", Direction::In).contains("what is permitted"));
}

#[test]
fn a_mere_typo_is_left_to_the_reader_of_needs() {
    for text in ["tpc/80", "tcp/htps", "tcp/70000", "tcp/443 too 198.51.100.9", "", "tcp/", "gre/47", "dns2"]
    {
        assert_eq!(
            advise_on_need(text, Direction::Out, |need| read(need, Direction::Out).is_some()),
            None,
            "{text}"
        );
    }
}
