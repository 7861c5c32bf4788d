//! Which addresses a name may have. The tables of a slot decide, as they do in the programs: what is asked here is
//! what `may_be_granted` of `bpf/name_learn.h` asks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::abi::{address, name_range, prefix_key, server, to_address};
use crate::gate::Gate;
use crate::gate::error::GateError;
use crate::gate::typed_map::TypedMap;

/// The tables of one policy.
pub(in crate::gate) struct GrantRules<'g> {
    gate: &'g Gate,
    ranges: TypedMap<prefix_key, u32>,
    hosts: TypedMap<address, server>,
    prefixes: TypedMap<prefix_key, server>,
}

impl Gate {
    /// The rules of a slot's policy.
    pub(in crate::gate) fn grant_rules(&self, slot: u32) -> Result<GrantRules<'_>, GateError> {
        Ok(GrantRules {
            gate: self,
            ranges: self.maps.name_ranges.open_inner(slot)?,
            hosts: self.maps.hosts.open_inner(slot)?,
            prefixes: self.maps.prefixes.open_inner(slot)?,
        })
    }

    /// Whether a name of the live policy may have an address.
    ///
    /// # Errors
    /// When the kernel refuses to read, or there is no policy.
    pub fn may_be_granted(&self, ip: IpAddr) -> Result<bool, GateError> {
        match self.live_slot()? {
            Some(slot) => self.grant_rules(slot)?.may_have(ip),
            None => Ok(false),
        }
    }
}

impl GrantRules<'_> {
    /// Whether a name may have this address.
    pub(in crate::gate) fn may_have(&self, ip: IpAddr) -> Result<bool, GateError> {
        // as `step_record`: no host has one that is IPv4 in IPv6
        if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
            return Ok(false);
        }
        let mut key = to_key(ip);
        let mut range = self.ranges.get(&key)?.unwrap_or(0);
        if range & 0xff == name_range::NAME_RANGE_NAT64.0
            && let IpAddr::V6(outer) = ip
        {
            key = to_key(extract_ipv4(outer, range >> 8 & 0xff).into());
            range = self.ranges.get(&key)?.unwrap_or(0);
        }
        if range == name_range::NAME_RANGE_PRIVATE.0 {
            return Ok(true);
        }
        Ok(range == 0
            && self.gate.maps.own_networks.get(&key)?.is_none()
            && self.hosts.get(&key.address)?.is_none()
            && self.prefixes.get(&key)?.is_none())
    }
}

fn to_key(ip: IpAddr) -> prefix_key {
    prefix_key { prefix_bits: 128, address: to_address(ip) }
}

/// The IPv4 address in one with a prefix of NAT64 of so many bits (RFC 6052, 2.2). Bits 64 to 71 are left out.
fn extract_ipv4(outer: Ipv6Addr, bits: u32) -> Ipv4Addr {
    let octets = outer.octets();
    let first = (bits / 8) as usize;
    let mut embedded = octets.iter().enumerate().skip(first).filter(|(index, _)| *index != 8 || first == 12);
    let mut next = || embedded.next().map_or(0, |(_, octet)| *octet);
    Ipv4Addr::new(next(), next(), next(), next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_6052_have_their_address() {
        for (outer, bits) in [
            ("2001:db8:c000:221::", 32),
            ("2001:db8:1c0:2:21::", 40),
            ("2001:db8:122:c000:2:2100::", 48),
            ("2001:db8:122:3c0:0:221::", 56),
            ("2001:db8:122:344:c0:2:2100::", 64),
            ("2001:db8:122:344::192.0.2.33", 96),
        ] {
            assert_eq!(extract_ipv4(outer.parse().unwrap(), bits).to_string(), "192.0.2.33", "{outer}");
        }
    }
}
