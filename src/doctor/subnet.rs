//! Other NICs in the DMZ, and where the routing table has the servers.

use ipnet::IpNet;

use super::bypass::name_all;
use super::{Finding, FindingId};
use crate::gate::{Around, Nic, NicKind, ServerRoute};

pub(super) fn judge(around: &Around, routes: &[ServerRoute]) -> Vec<Finding> {
    let Some(own) = around.own_nic() else {
        return Vec::new();
    };
    let mut found: Vec<Finding> = find_second(around, own).into_iter().collect();
    found.extend(judge_routes(around, own, routes));
    found
}

fn find_second(around: &Around, own: &Nic) -> Option<Finding> {
    let ours: Vec<&IpNet> = around
        .nics
        .iter()
        .filter(|nic| around.above.contains(&nic.index))
        .flat_map(|nic| &nic.prefixes)
        .collect();
    let is_second = |nic: &&Nic| {
        let is_other = !around.above.contains(&nic.index) && !around.below.contains(&nic.index);
        let overlaps = || {
            let with = |prefix: &IpNet| ours.iter().any(|own| own.contains(prefix) || prefix.contains(*own));
            nic.prefixes.iter().any(with)
        };
        is_other && nic.kind != NicKind::Loopback && !nic.has_gate && overlaps()
    };
    let first = around.nics.iter().find(is_second)?;
    let names = name_all(around.nics.iter().filter(is_second));
    Some(Finding {
        id: FindingId::SecondNic,
        about: first.name.clone(),
        text: format!("{names} has an address in the subnet of {}, and no gate", own.name),
        remedy: format!("take the DMZ's addresses off {names}, or attach a gate there too"),
    })
}

fn judge_routes(around: &Around, own: &Nic, routes: &[ServerRoute]) -> Option<Finding> {
    let is_here = |route: &&ServerRoute| route.interface.is_some_and(|index| around.above.contains(&index));
    let elsewhere: Vec<(&ServerRoute, u32)> = routes
        .iter()
        .filter(|route| !is_here(route))
        .filter_map(|route| Some((route, route.interface?)))
        .collect();
    let name_of = |index: u32| around.find(index).map_or("another interface", |nic| nic.name.as_str());
    if !routes.is_empty() && !routes.iter().any(|route| is_here(&route)) {
        let place = match elsewhere.first() {
            Some((_, index)) => format!(": they are behind {}", name_of(*index)),
            None if around.outward.contains(&own.index) => {
                ", by which the default route leads out".to_owned()
            }
            None => ": the routing table has no other way to them either".to_owned(),
        };
        return Some(Finding {
            id: FindingId::WrongNic,
            about: own.name.clone(),
            text: format!("no server of the policy is behind {}{place}", own.name),
            remedy: "attach the gate to the interface that the servers are behind, or add their route"
                .to_owned(),
        });
    }
    let (first, index) = elsewhere.first()?;
    let (server, prefix, other) = (&first.server, &first.prefix, name_of(*index));
    let more = match elsewhere.len() {
        1 => String::new(),
        count => format!(" and {} more of the policy's addresses", count - 1),
    };
    Some(Finding {
        id: FindingId::ServersElsewhere,
        about: other.to_owned(),
        text: format!("the routing table has {server} ({prefix}){more} behind {other}"),
        remedy: format!(
            "attach a gate to {other} as well, or correct the route (ip route get {})",
            prefix.addr()
        ),
    })
}
