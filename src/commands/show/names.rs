//! `portcullis show names`: the addresses that names were seen to have.

use super::super::shared::live_policy;
use crate::clock::wall_now;
use crate::gate::{Gate, GatePlace, Grant};
use crate::net::DomainName;
use crate::output::{Output, align};
use crate::policy::{Direction, Policy};

/// Prints the grants that let connections open now.
pub(super) fn show((place, gate): &(GatePlace, Gate), output: &Output) -> anyhow::Result<()> {
    let policy = live_policy(gate, &place.interface)?;
    let now = wall_now();
    let mut grants = gate.grants()?;
    grants.retain(|grant| grant.is_open(now) && opens(grant, &policy));
    output.either(&grants, || {
        if policy.needed_names().is_empty() {
            return "the live policy has no names\n".to_owned();
        }
        if grants.is_empty() {
            return "no name of the policy has an address now\n".to_owned();
        }
        align(&to_table(&grants))
    })
}

/// Whether a need of the live policy has the name, for the server of the grant.
fn opens(grant: &Grant, policy: &Policy) -> bool {
    let servers = policy.servers.iter().filter(|server| grant.is_for(&server.name));
    let mut roles = servers.flat_map(|server| &server.roles).filter_map(|(role, _)| policy.find_role(role));
    let is_around = |name: &DomainName| grant.name.is_within(name);
    roles.any(|role| {
        role.needs_of(Direction::Out)
            .iter()
            .any(|need| need.resolve_names(&policy.sets).iter().any(is_around))
    })
}

fn to_table(grants: &[Grant]) -> Vec<Vec<String>> {
    let heads = ["SERVER", "NAME", "ADDRESS", "FROM", "UNTIL", "LAST USED"];
    let mut table = vec![heads.map(str::to_owned).to_vec()];
    table.extend(grants.iter().map(|grant| {
        vec![
            grant.server.clone().unwrap_or_else(|| "(all)".to_owned()),
            grant.name.to_string(),
            grant.address.to_string(),
            grant.from.name().to_owned(),
            format!("{:.0}", grant.until),
            grant.last_used.map_or("never".to_owned(), |used| format!("{used:.0}")),
        ]
    }));
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::GrantOrigin;

    const POLICY: &str = r#"
[names]
resolvers = ["198.51.100.53"]
[roles.updated]
out = ["tcp/443 to *.mirror.example, deb.vendor.example"]
[roles.idle]
in = ["tcp/80"]
[servers.web1]
addresses = ["192.0.2.10"]
roles = ["updated"]
[servers.web2]
addresses = ["192.0.2.11"]
roles = ["idle"]
"#;

    fn grant(server: Option<&str>, name: &str) -> Grant {
        Grant {
            server: server.map(str::to_owned),
            name: DomainName::from_printed(name),
            address: "203.0.113.80".parse().unwrap(),
            from: GrantOrigin::Answer,
            answered: "2026-11-30T12:00:00Z".parse().unwrap(),
            until: "2026-11-30T12:05:30.2Z".parse().unwrap(),
            last_used: None,
        }
    }

    #[test]
    fn a_grant_opens_while_a_need_of_its_server_has_the_name() {
        let policy = crate::policy::parse(POLICY, "p.toml").unwrap();
        for (server, name, expected) in [
            (Some("web1"), "deb.vendor.example", true),
            (Some("web1"), "*.mirror.example", true),
            // of an earlier policy
            (Some("web1"), "a.mirror.example", true),
            (Some("web1"), "old.vendor.example", false),
            (Some("web2"), "deb.vendor.example", false),
            (Some("gone"), "deb.vendor.example", false),
            (None, "deb.vendor.example", true),
            (None, "old.vendor.example", false),
        ] {
            assert_eq!(opens(&grant(server, name), &policy), expected, "{server:?} {name}");
        }
    }

    #[test]
    fn the_table_says_for_whom_from_where_and_until_when() {
        let table = to_table(&[grant(None, "deb.vendor.example")]);
        let row = ["(all)", "deb.vendor.example", "203.0.113.80", "answer", "2026-11-30T12:05:30Z", "never"];
        assert_eq!(table[1], row);
    }
}
