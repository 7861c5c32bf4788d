//! Names in tests: each stands for an address that the server was answered for it. And what a name may open although
//! a test denies it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::outcome::TestOutcome;
use super::packets::Sender;
use super::runner::{Runner, Subject};
use crate::abi::name_range;
use crate::gate::GateError;
use crate::net::DomainName;
use crate::policy::{Direction, Need};

/// The number of a name that no need of the policy has. Nobody can be answered an address for it.
const NO_NAME: u32 = 0x00ff_ffff;

/// An address that stands for those of a name. No host has it: the first is of class E, and the second lies beyond
/// the global unicast addresses.
fn stand_in(number: u32, v4: bool) -> IpAddr {
    let number = number.saturating_add(1).min(NO_NAME);
    match v4 {
        true => Ipv4Addr::from(0xf000_0000 | number).into(),
        false => Ipv6Addr::from(0x4000_u128 << 112 | u128::from(number)).into(),
    }
}

/// The number that an address stands for.
fn number_of(address: IpAddr) -> Option<u32> {
    let number = match address {
        IpAddr::V4(address) => u32::from(address).checked_sub(0xf000_0001)?,
        IpAddr::V6(address) => u32::try_from(u128::from(address).checked_sub((0x4000 << 112) | 1)?).ok()?,
    };
    (number < NO_NAME).then_some(number)
}

impl Runner<'_> {
    /// Answers a server an address for each name of a need, in the family of the sender, and returns these.
    pub(super) fn plant(&self, host: &Sender<'_>, need: &Need) -> Result<Vec<IpAddr>, GateError> {
        let mut addresses = Vec::new();
        for name in need.resolve_names(&self.policy.sets) {
            let number = self.find_name(&name);
            let address = stand_in(number.unwrap_or(NO_NAME), host.address.is_ipv4());
            let server = host.row.and_then(|row| self.policy.servers.get(row.server));
            let known = number.and_then(|number| self.tables.destinations.names.get(number as usize));
            if let (Some(server), Some(known)) = (server, known) {
                self.gate().plant_grant(&server.name, known, address)?;
            }
            addresses.push(address);
        }
        Ok(addresses)
    }

    /// The name of the policy by which an answer for this one counts: the most specific.
    fn find_name(&self, name: &DomainName) -> Option<u32> {
        let names = (0..).zip(&self.tables.destinations.names);
        let around = names.filter(|(_, known)| name.is_within(known));
        let closest = around.max_by_key(|(_, known)| (known.domain().len(), !known.is_wildcard()));
        closest.map(|(number, _)| number)
    }

    /// What an address of a failure stands for, in words.
    pub(super) fn describe_stand_in(&self, address: IpAddr) -> Option<String> {
        let number = number_of(address)?;
        Some(match self.tables.destinations.names.get(number as usize) {
            Some(name) => format!("{address} stands for an address that the server was answered for {name}"),
            None => format!("{address} stands for an address of a name that no need of the policy has"),
        })
    }

    /// Says that a need that must be dropped passes where a name gives the server such an address.
    pub(super) fn note_openers(&self, subject: &Subject<'_>, need: &Need, outcome: &mut TestOutcome) {
        let peers = need.resolve_peers(&self.policy.sets);
        let is_out = need.direction == Direction::Out && subject.services_for.is_none();
        let may_have = peers.is_empty() || peers.iter().any(|peer| self.may_be_granted(peer));
        if !is_out || !may_have || !need.resolve_names(&self.policy.sets).is_empty() {
            return;
        }
        let servers = subject.hosts.iter().filter_map(|host| self.policy.servers.get(host.row?.server));
        let roles = servers.take(1).flat_map(|server| &server.roles);
        let needs = roles
            .filter_map(|(role, _)| self.policy.find_role(role))
            .flat_map(|role| role.needs_of(Direction::Out));
        let overlaps = |other: &&Need| {
            other.protocol == need.protocol
                && other.ports.start() <= need.ports.end()
                && need.ports.start() <= other.ports.end()
                && !other.resolve_names(&self.policy.sets).is_empty()
        };
        outcome.notes.extend(needs.filter(overlaps).map(|other| {
            format!(
                "{}:{}: `{need}` is denied to {} unless a name gives it the address: {} has `{other}`",
                self.policy.locate(&need.place),
                need.place.column,
                subject.name,
                self.policy.locate(&other.place)
            )
        }));
    }

    /// Whether a name may have addresses of a prefix.
    fn may_be_granted(&self, prefix: &IpNet) -> bool {
        if self.tables.find_server(prefix.addr()).is_some_and(|row| row.prefix.contains(prefix)) {
            return false;
        }
        let ranges = self.tables.destinations.ranges.iter();
        let around = ranges.filter(|(range, _)| range.contains(prefix));
        let closest = around.max_by_key(|(range, _)| range.prefix_len());
        closest.is_none_or(|(_, range)| range & 0xff != name_range::NAME_RANGE_REFUSED.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_for_one_name() {
        for number in [0, 1, 65_535, NO_NAME - 1] {
            for v4 in [true, false] {
                let address = stand_in(number, v4);
                assert_eq!(address.is_ipv4(), v4);
                assert_eq!(number_of(address), Some(number).filter(|number| *number < NO_NAME), "{address}");
            }
        }
        for address in ["239.255.255.255", "240.0.0.0", "198.51.100.1", "2001:db8::1", "4000::"] {
            assert_eq!(number_of(address.parse().unwrap()), None, "{address}");
        }
    }
}
