//! The ways by which the answers of resolvers come, as the routing table has them. The daemon follows it.
//!
//! A way that leads to the world outside is none: an accomplice there who knows id and port of a question could
//! answer in the resolver's name.

use std::collections::BTreeSet;
use std::net::IpAddr;

use libbpf_rs::MapFlags;
use netlink_packet_route::route::RouteFlags;
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::net::if_::{if_indextoname, if_nametoindex};

use super::Gate;
use super::error::GateError;
use super::routes::{find_outward_interfaces, find_route};
use crate::abi::{address, layout, resolver, resolver_flag, to_address};
use crate::policy::NameSources;

/// The index of `lo`, by which a machine reaches its own addresses.
const LOOPBACK: u32 = 1;
const MOST: usize = layout::RESOLVER_INTERFACES_MAX.0 as usize;

/// The resolvers of a policy, with the interfaces by which their answers may come.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) rows: Vec<(address, resolver)>,
    /// Those that can be forged from outside: the resolver, and the interface.
    forgeable: Vec<(IpAddr, u32)>,
    is_permitted: bool,
    /// Nobody could be asked, for example because there is no free descriptor.
    is_unread: bool,
    /// Resolvers by whose ways no answer comes.
    unreached: Vec<IpAddr>,
    /// Names of interfaces that are not there.
    unknown: Vec<String>,
}

impl Ways {
    /// What is wrong with them, a sentence each.
    pub(super) fn describe(&self) -> Vec<String> {
        let unknown = self
            .unknown
            .iter()
            .map(|name| format!("no interface is called {name}, so no answer of a resolver comes by it"));
        let end = match self.is_permitted {
            true => "as forgeable = true permits; run a resolver on the router, and name it alone",
            false => "so such answers open nothing; run a resolver on the router, and name it alone",
        };
        let forgeable = self.forgeable.iter().map(|(resolver, interface)| {
            format!(
                "answers of the resolver {resolver} can be forged from outside, by {}, {end}",
                show(*interface)
            )
        });
        let forged: BTreeSet<IpAddr> = self.forgeable.iter().map(|(resolver, _)| *resolver).collect();
        let unreached = self.unreached.iter().filter(|resolver| !forged.contains(resolver)).map(|resolver| {
            format!("no route leads to the resolver {resolver}, so its answers open nothing; the daemon looks again")
        });
        unknown.chain(forgeable).chain(unreached).collect()
    }
}

fn show(interface: u32) -> String {
    let name = if_indextoname(interface).ok().and_then(|name| name.into_string().ok());
    // nix takes an interface that is gone for one without a name
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| format!("interface {interface}"))
}

/// Looks the ways up.
pub(super) fn find_ways(sources: &NameSources) -> Ways {
    // where nothing has a name, an answer opens nothing
    let is_permitted = sources.forgeable || sources.names.is_empty();
    let mut ways = Ways { is_permitted, ..Ways::default() };
    if sources.resolvers.is_empty() {
        return ways;
    }
    let mut given = BTreeSet::new();
    for interface in &sources.interfaces {
        match if_nametoindex(interface.as_str()) {
            Ok(index) => given.extend([index]),
            Err(_) => ways.unknown.push(interface.clone()),
        }
    }
    let socket = Socket::new(NETLINK_ROUTE).ok();
    ways.is_unread = socket.is_none();
    let outward = socket.as_ref().map(find_outward_interfaces).unwrap_or_default();
    for resolver in &sources.resolvers {
        // what can't be looked up is as what is not there
        let route = socket
            .as_ref()
            .and_then(|socket| find_route(socket, *resolver, RouteFlags::empty()).ok().flatten());
        let routed = route.map(|route| route.interface);
        ways.add(*resolver, routed, &given, !sources.interfaces.is_empty(), &outward);
    }
    if sources.names.is_empty() {
        ways = Ways { rows: ways.rows, is_unread: ways.is_unread, ..Ways::default() };
    }
    ways
}

impl Ways {
    /// `routed`: the interface of its route. `given`: those that the policy names, if it names any.
    fn add(
        &mut self,
        to: IpAddr,
        routed: Option<u32>,
        given: &BTreeSet<u32>,
        is_given: bool,
        outward: &BTreeSet<u32>,
    ) {
        let mut row = resolver::default();
        let mut interfaces = given.clone();
        if routed == Some(LOOPBACK) {
            row.flags = resolver_flag::RESOLVER_LOCAL.0;
        } else if !is_given {
            interfaces.extend(routed);
        }
        let forged: Vec<u32> = interfaces.intersection(outward).copied().collect();
        self.forgeable.extend(forged.iter().map(|interface| (to, *interface)));
        if !self.is_permitted {
            interfaces.retain(|interface| !outward.contains(interface));
        }
        if row.flags == 0 && interfaces.is_empty() {
            self.unreached.push(to);
        }
        row.interface.iter_mut().zip(interfaces.iter().take(MOST)).for_each(|(to, from)| *to = *from);
        self.rows.push((to_address(to), row));
    }
}

/// Refuses resolvers whose answers can be forged from outside, unless the policy permits them.
pub(super) fn refuse_forgeable(sources: &NameSources) -> Result<(), GateError> {
    let ways = find_ways(sources);
    match ways.forgeable.first().filter(|_| !ways.is_permitted) {
        None => Ok(()),
        Some((resolver, interface)) => Err(GateError::Other {
            what: format!(
                "an accomplice outside can forge the answers of the resolver {resolver}, for they come by {} as the \
                 internet does",
                show(*interface)
            ),
            why: "with them a server opens any address\n\
                  help: run a resolver on this router and name it alone in [names]; forgeable = true takes the risk"
                .to_owned(),
        }),
    }
}

impl Gate {
    /// Notes the ways of the resolvers in the live policy as they are now, and returns what is wrong with them, a
    /// sentence each. `sources` and `generation` are of the policy that the caller knows: if another one is live by
    /// now, nothing is written.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub fn follow_routes(&self, sources: &NameSources, generation: u64) -> Result<Vec<String>, GateError> {
        let ways = find_ways(sources);
        if ways.is_unread {
            // what a moment has without descriptors must not close what names open
            let sentence = "the ways to the resolvers could not be looked up, so those of before count; the daemon \
                            looks again";
            return Ok(vec![sentence.to_owned()]);
        }
        let Some(slot) = self.live_slot()?.filter(|_| !ways.rows.is_empty()) else {
            return Ok(ways.describe());
        };
        let table = self.maps.resolvers.open_inner(slot)?;
        // after it was opened: so the table is that of this policy
        if self.live_settings()?.is_none_or(|live| live.generation != generation) {
            return Ok(Vec::new());
        }
        for (key, row) in &ways.rows {
            let known = table.get(key)?;
            if known.is_some_and(|known| known.flags != row.flags || known.interface != row.interface) {
                table.put(key, row, MapFlags::EXIST)?;
            }
        }
        Ok(ways.describe())
    }

    /// Lets the answers of the live policy's resolvers count by whichever way they come: a capture does not say it.
    ///
    /// # Errors
    /// When the kernel refuses to read or write.
    pub(super) fn take_answers_by_any_way(&self) -> Result<(), GateError> {
        let Some(slot) = self.live_slot()? else {
            return Ok(());
        };
        let table = self.maps.resolvers.open_inner(slot)?;
        // a test run has no interface, or the loopback's
        let mut row = resolver { flags: resolver_flag::RESOLVER_LOCAL.0, ..resolver::default() };
        row.interface.iter_mut().take(1).for_each(|first| *first = LOOPBACK);
        for (key, _) in table.entries()? {
            table.put(&key, &row, MapFlags::EXIST)?;
        }
        Ok(())
    }

    /// What keeps names of the live policy from opening what they should, a sentence each.
    ///
    /// # Errors
    /// When the kernel refuses to read.
    pub fn list_name_troubles(&self) -> Result<Vec<String>, GateError> {
        let sources = self.live_policy()?.map(|policy| policy.name_sources()).unwrap_or_default();
        let mut troubles = find_ways(&sources).describe();
        troubles.extend(self.describe_unknown_names(&sources)?);
        Ok(troubles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: u32 = 2;
    const INNER: u32 = 3;
    const OTHER: u32 = 4;

    fn way(routed: Option<u32>, given: Option<&[u32]>, forgeable: bool) -> (resolver, Ways) {
        let mut ways = Ways { is_permitted: forgeable, ..Ways::default() };
        let interfaces = given.unwrap_or_default().iter().copied().collect();
        ways.add(
            "198.51.100.53".parse().unwrap(),
            routed,
            &interfaces,
            given.is_some(),
            &BTreeSet::from([WAN]),
        );
        (ways.rows[0].1, ways)
    }

    #[test]
    fn answers_come_by_the_way_to_the_resolver_and_of_a_local_one_by_none() {
        for (routed, given, local, interfaces) in [
            (Some(INNER), None, false, vec![INNER]),
            (Some(LOOPBACK), None, true, vec![]),
            (None, None, false, vec![]),
            (Some(WAN), Some(&[INNER, OTHER][..]), false, vec![INNER, OTHER]),
            (Some(LOOPBACK), Some(&[INNER][..]), true, vec![INNER]),
        ] {
            let (row, ways) = way(routed, given, false);
            assert_eq!(row.flags == resolver_flag::RESOLVER_LOCAL.0, local);
            let set: Vec<u32> = row.interface.iter().copied().filter(|index| *index != 0).collect();
            assert_eq!(set, interfaces);
            assert!(ways.forgeable.is_empty());
            assert_eq!(ways.describe().is_empty(), local || !interfaces.is_empty());
        }
    }

    #[test]
    fn a_way_that_leads_outside_is_none_unless_the_policy_says_so() {
        for (given, rest) in [(None, 0), (Some(&[WAN, INNER][..]), INNER)] {
            let (row, ways) = way(Some(WAN), given, false);
            assert_eq!((row.interface[0], row.interface[1]), (rest, 0));
            assert_eq!(ways.forgeable.len(), 1);
            assert!(ways.describe()[0].contains("open nothing"), "{:?}", ways.describe());
            let (row, ways) = way(Some(WAN), given, true);
            assert_eq!(row.interface[0], WAN);
            assert!(ways.describe()[0].contains("forgeable = true"), "{:?}", ways.describe());
        }
    }
}
