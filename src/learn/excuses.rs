//! What looks like trouble, and what excuses it.
//!
//! The alarm engine sees each opening as if no policy permitted anything. So what servers do by their role looks like
//! trouble to it, and these have an excuse:
//!
//! - a *callback* is no trouble if the destination answered and the service is common (but not ssh), or if half of the
//!   servers call the same destination;
//! - a *fetch* is none if a DNS answer in the same traffic named the destination, or if other servers fetch there too;
//! - a *spread* is none at a port by which servers of a kind ask each other, if this server offers that service itself and
//!   nine in ten answered.
//!
//! A server with trouble that has no excuse counts as taken over. What it alone opens is not proposed, and what it alone
//! offers only if it is common and was there before the trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::everyday;
use super::evidence::{Row, Service};
use super::hosts::Host;
use super::judge::Judge;
use super::seen::Seen;
use crate::alarm::Kind;
use crate::net::{TCP, UDP};
use crate::policy::Direction;

/// Servers alike, of which what one does alone is not proposed.
pub(super) const MIN_ALIKE: usize = 3;

impl Judge<'_, '_> {
    pub(super) fn is_taken_over(&self, number: usize) -> bool {
        let Some(host) = self.hosts.get(number) else { return false };
        if host.troubles.is_scan {
            return true;
        }
        let addresses: Vec<IpAddr> = host.addresses.iter().map(IpNet::addr).collect();
        if self.seen.forged.keys().any(|(forger, _)| addresses.contains(forger)) {
            return true;
        }
        host.troubles.by_service.iter().any(|((protocol, port), kinds)| {
            let service = Service { direction: Direction::Out, protocol: *protocol, port: *port };
            let Some(row) = host.rows.get(&service) else { return false };
            kinds.iter().any(|(kind, contacted)| match kind {
                Kind::Spread => !self.excuses_spread(host, &service, row),
                Kind::Callback => {
                    let peers: Vec<IpAddr> = match contacted {
                        Some(peer) => vec![*peer],
                        None => row.peers.addresses().collect(),
                    };
                    peers.iter().any(|peer| !self.excuses_callback(&service, row, *peer))
                }
                Kind::Scan | Kind::Backdoor | Kind::Spoof | Kind::Question => true,
                Kind::Fetch
                | Kind::Stray
                | Kind::Attempt
                | Kind::Burst
                | Kind::Gate
                | Kind::Rebinding
                | Kind::ForgedAnswer => false,
            })
        })
    }

    pub(super) fn excuses_spread(&self, host: &Host, service: &Service, row: &Row) -> bool {
        let offered = Service { direction: Direction::In, ..*service };
        // who asks by UDP asks again by TCP, and offers one of both
        let other = Service { protocol: if service.protocol == TCP { UDP } else { TCP }, ..offered };
        let offers =
            [offered, other].iter().any(|service| host.rows.get(service).is_some_and(|row| row.answered > 0));
        everyday::is_among_servers(service.protocol, service.port)
            && offers
            && row.answered * 10 >= row.asked * 9
    }

    pub(super) fn excuses_callback(&self, service: &Service, row: &Row, peer: IpAddr) -> bool {
        let Some(evidence) = row.peers.get(&peer) else { return false };
        let is_answered = evidence.answered * 10 >= evidence.asked * 9 || Seen::needs_no_answer(service);
        let sharers = self.shared.peers.get(&(*service, peer)).map_or(0, BTreeSet::len);
        let is_common =
            everyday::find_role(service.protocol, service.port).is_some() && service.port != everyday::SSH;
        is_answered && (is_common || (sharers >= 2 && sharers * 2 >= self.hosts.len()))
    }

    pub(super) fn excuses_fetch(&self, service: &Service, number: usize, peer: IpAddr) -> bool {
        self.seen.names.find(peer).is_some() || self.is_shared_with_clean(service, number, peer)
    }

    /// Whether a server that nobody took over does the same.
    pub(super) fn is_shared_with_clean(&self, service: &Service, number: usize, peer: IpAddr) -> bool {
        let sharers = self.shared.peers.get(&(*service, peer)).into_iter().flatten();
        sharers.into_iter().any(|other| *other != number && !self.taken_over.contains(other))
    }

    /// For each server those that offer the same services, counting services that at least two offer, apart from
    /// those by which all servers are administered.
    pub(super) fn find_alike(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut by_offer: BTreeMap<BTreeSet<Service>, BTreeSet<usize>> = BTreeMap::new();
        for number in 0..self.hosts.len() {
            let offer: BTreeSet<Service> = self
                .shared
                .services
                .iter()
                .filter(|(service, servers)| {
                    service.direction == Direction::In
                        && !everyday::is_for_administration(service.protocol, service.port)
                        && servers.len() >= 2
                        && servers.contains(&number)
                })
                .map(|(service, _)| *service)
                .collect();
            by_offer.entry(offer).or_default().insert(number);
        }
        let mut alike = BTreeMap::new();
        for (offer, servers) in by_offer {
            if offer.is_empty() || servers.len() < MIN_ALIKE {
                continue;
            }
            for server in &servers {
                alike.insert(*server, servers.clone());
            }
        }
        alike
    }
}
