//! Resolvers whose answers can be forged.

use super::{Finding, FindingId};
use crate::gate::ResolverFacts;

/// Strict: the source's route has to lead back by the same interface. Loose (2) takes whatever has any route.
const STRICT: u8 = 1;

pub(super) fn judge(facts: &ResolverFacts) -> Vec<Finding> {
    let end = if facts.is_permitted { ", as forgeable = true permits" } else { ", so they open nothing" };
    let forgeable = facts.forgeable.iter().map(|(resolver, interface)| Finding {
        id: FindingId::ForgeableResolver,
        about: resolver.to_string(),
        text: format!("answers of the resolver {resolver} come by {interface}, as the internet does{end}"),
        remedy: "run a resolver on this router, and name it alone in [names]".to_owned(),
    });
    let loose = facts.outward.iter().filter(|(_, rp_filter)| *rp_filter != STRICT);
    let loose = loose.map(|(interface, rp_filter)| Finding {
        id: FindingId::RpFilter,
        about: interface.clone(),
        text: format!("{interface} takes packets from outside with any source address (rp_filter is {rp_filter})"),
        remedy: format!(
            "sysctl -w net.ipv4.conf.{interface}.rp_filter=1 where routes are symmetric; elsewhere let the firewall drop \
             your own prefixes there"
        ),
    });
    forgeable.chain(loose).collect()
}
