//! The clauses of needs: servers as peers, and the server's own port.

use std::net::IpAddr;

use super::{BASE, Detail, complaints, describe, diff, help, read};

/// A policy in which `web1` (192.0.2.10) and `db1` have each other's name in a need; the needs are in line 4.
fn pair(needs: &str) -> String {
    format!(
        "[sets]\nbastion = [\"203.0.113.7\"]\n[roles.web]\n{needs}\n[roles.db]\nin = [\"tcp/5432 from web1\"]\n\
         [servers.web1]\naddresses = [\"192.0.2.10\", \"2001:db8:1::10\"]\nroles = [\"web\"]\n\
         [servers.db1]\naddresses = [\"192.0.2.20\", \"192.0.2.64/26\"]\nroles = [\"db\"]\n"
    )
}

fn out(need: &str) -> String {
    pair(&format!("out = [\"{need}\"]"))
}

fn changes(old: &str, new: &str) -> Vec<String> {
    diff(&read(old), &read(new)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_servers_name_stands_for_its_addresses() {
    let policy = read(&out("tcp/5432 to db1, 198.51.100.1, @bastion"));
    let need = &policy.roles[0].outbound[0];
    assert_eq!(need.to_string(), "tcp/5432 to 198.51.100.1, @bastion, db1");
    let peers: Vec<String> = need.resolve_peers(&policy.sets).iter().map(ToString::to_string).collect();
    assert_eq!(peers, ["192.0.2.20/32", "192.0.2.64/26", "198.51.100.1/32", "203.0.113.7/32"]);
    let back = &policy.roles[1].inbound[0];
    assert_eq!(back.to_string(), "tcp/5432 from web1");
    assert_eq!(back.resolve_peers(&policy.sets).len(), 2, "IPv4 and IPv6");
    assert!(describe(&policy, Detail::Full).contains("accepts  tcp/5432 from web1\n"));
}

#[test]
fn a_servers_name_leaves_out_what_another_server_has_within_its_prefix() {
    let text = out("tcp/5432 to db1") + "[servers.own]\naddresses = [\"192.0.2.66\"]\nroles = [\"db\"]\n";
    let peers = read(&text).roles[0].outbound[0].resolve_peers(&Default::default());
    let holds =
        |address: &str| peers.iter().any(|prefix| prefix.contains(&address.parse::<IpAddr>().unwrap()));
    assert!(!holds("192.0.2.66"), "it is another server's");
    for address in ["192.0.2.20", "192.0.2.64", "192.0.2.65", "192.0.2.67", "192.0.2.127"] {
        assert!(holds(address), "{address}");
    }
}

#[test]
fn a_servers_name_may_stand_in_the_management_and_in_quiet_needs() {
    let policy = read(&format!(
        "{BASE}[policy]\nmanagement = [\"tcp/22 from web1\"]\n[roles.q]\nquiet = [\"udp/9 to web1\"]\n"
    ));
    assert_eq!(policy.settings.management[0].resolve_peers(&policy.sets).len(), 1);
    assert_eq!(policy.roles[1].quiet[0].to_string(), "udp/9 to web1");
}

#[test]
fn an_unknown_server_is_refused_at_its_place_with_what_was_meant() {
    let text = out("tcp/5432 to 198.51.100.1, bd1");
    assert_eq!(complaints(&text), ["4:35: no server is called `bd1`"]);
    assert_eq!(help(&text), "did you mean `db1`?");
    let text = out("tcp/5432 to www.example.org");
    let complaint = "4:9: this need has a name, and there are no resolvers whose answers say its addresses";
    assert_eq!(complaints(&text), [complaint]);
    assert_eq!(complaints(&out("tcp/5432 to bastion")), ["4:21: `bastion` is not an address"]);
    assert_eq!(help(&out("tcp/5432 to bastion")), "write `@bastion`: the name of a set has an `@` before it");
    assert_eq!(complaints(&out("tcp/5432 to @db1")), ["4:21: no set is called `db1`"]);
}

#[test]
fn an_address_goes_before_a_server_that_is_called_like_it() {
    let policy = read(
        "[servers.\"198.51.100.1\"]\naddresses = [\"192.0.2.1\"]\nroles = [\"r\"]\n[roles.r]\nout = [\"tcp to 198.51.100.1\"]\n",
    );
    let peers = policy.roles[0].outbound[0].resolve_peers(&policy.sets);
    assert_eq!(peers, ["198.51.100.1/32".parse().unwrap()]);
}

#[test]
fn a_new_address_of_a_server_is_a_difference_and_its_name_alone_is_none() {
    let text = out("tcp/5432 to db1");
    let moved = text.replace("192.0.2.20", "192.0.2.21");
    assert_eq!(
        changes(&text, &moved),
        ["+ db1 has address 192.0.2.21", "- db1 no longer has address 192.0.2.20"]
    );
    let spelt = text.replace("to db1", "to 192.0.2.20, 192.0.2.64/26");
    assert!(spelt != text && changes(&text, &spelt).is_empty());
}

#[test]
fn sport_prints_in_canonical_form() {
    for (text, canonical) in [
        ("tcp/1024-65535 sport 20", "tcp/1024-65535 sport 20"),
        ("tcp/1024-65535  sport  ftp-data", "tcp/1024-65535 sport 20"),
        ("udp sport 600-1023", "udp sport 600-1023"),
        ("sctp/7 sport 7-7", "sctp/7 sport 7"),
        ("tcp/25 to db1 sport 20 limit 5/s", "tcp/25 to db1 sport 20 limit 5/s"),
        ("tcp/25 sport 0-65535", "tcp/25"),
    ] {
        assert_eq!(read(&out(text)).roles[0].outbound[0].to_string(), canonical);
    }
}

#[test]
fn sport_is_refused_where_it_makes_no_sense() {
    let not_out = |direction: &str| {
        format!("`sport` is the port from which a server opens, so it belongs to `out`, not to `{direction}`")
    };
    assert_eq!(complaints(&pair("in = [\"tcp/80 sport 20\"]")), [format!("4:15: {}", not_out("in"))]);
    assert_eq!(complaints(&pair("quiet = [\"tcp/80 sport 20\"]")), [format!("4:18: {}", not_out("quiet"))]);
    assert_eq!(complaints(&out("icmp sport 20")), ["4:14: protocol `icmp` has no ports"]);
    assert_eq!(complaints(&out("gre to db1 sport 20")), ["4:20: protocol `gre` has no ports"]);
    assert_eq!(complaints(&out("tcp/80 sport")), ["4:21: a port is missing here"]);
    assert_eq!(complaints(&out("tcp/80 sport 65536")), ["4:22: port 65536 is over 65535"]);
    assert_eq!(complaints(&out("tcp/80 sport 30-20")), ["4:22: the range `30-20` runs backwards"]);
    assert_eq!(complaints(&out("tcp/80 limit 5/s sport 20")), ["4:26: `sport` is not expected here"]);
    assert_eq!(
        help(&out("tcp/80 limit 5/s sport 20")),
        "write `sport` once, behind the peers and before `limit`"
    );
    assert_eq!(complaints(&out("tcp/80 sport 20 to db1")), ["4:25: `to` is not expected here"]);
}

#[test]
fn a_sport_is_a_difference() {
    let (without, with) = (out("tcp/80"), out("tcp/80 sport 20"));
    assert_eq!(
        changes(&without, &with),
        ["+ web1 may open tcp/80 sport 20", "- web1 may no longer open tcp/80"]
    );
    let split = pair("out = [\"tcp/80 sport 20\", \"tcp/81 sport 20\"]");
    assert!(changes(&out("tcp/80-81 sport 20"), &split).is_empty());
}
