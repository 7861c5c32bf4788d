//! Why a service or a destination is not proposed.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::everyday;
use super::evidence::{PeerEvidence, Row, Service};
use super::excuses::MIN_ALIKE;
use super::hosts::Host;
use super::judge::Judge;
use super::shared::list_kinds;
use crate::alarm::Kind;
use crate::net::{TCP, UDP};
use crate::policy::Direction;

/// So many callers, each by itself, say that a service is meant for others.
const MIN_CALLERS: usize = 4;

impl Judge<'_, '_> {
    /// Why nothing of a row is proposed. `None`: there is no reason.
    pub(super) fn find_objection(
        &self,
        number: usize,
        host: &Host,
        service: &Service,
        row: &Row,
    ) -> Option<String> {
        if service.protocol != TCP && row.is_early && self.is_long {
            return Some(
                "seen only in the first 30 s of the capture: it may be an answer to something before it"
                    .to_owned(),
            );
        }
        if row.first_ns >= self.last_tenth_ns && self.last_tenth_ns > self.seen.first_ns.unwrap_or(0) {
            return Some("it began in the last tenth of the time".to_owned());
        }
        if self.is_odd_one_out(number, service) {
            let alike = self.alike.get(&number).map_or(0, BTreeSet::len);
            return Some(format!("of {alike} servers that offer the same, only {} does this", host.name));
        }
        match service.direction {
            Direction::In => self.find_backdoor(number, host, service, row),
            Direction::Out => self.find_trouble(host, service),
            Direction::Quiet => None,
        }
    }

    pub(super) fn is_odd_one_out(&self, number: usize, service: &Service) -> bool {
        let Some(alike) = self.alike.get(&number) else { return false };
        self.shared.services.get(service).is_some_and(|servers| servers.intersection(alike).count() == 1)
    }

    /// Whether something listens that should not.
    pub(super) fn find_backdoor(
        &self,
        number: usize,
        host: &Host,
        service: &Service,
        row: &Row,
    ) -> Option<String> {
        let is_common = everyday::find_role(service.protocol, service.port).is_some()
            || !matches!(service.protocol, TCP | UDP);
        let is_taken_over = self.taken_over.contains(&number);
        let is_offered_by_others = self.shared.services.get(service).is_some_and(|servers| {
            servers.iter().any(|other| *other != number && !self.taken_over.contains(other))
        });
        let callers = row.answered_peers().count();
        if is_offered_by_others {
            return None;
        }
        let was_before = host.troubles.first_ns.is_none_or(|trouble| row.first_ns < trouble);
        match (is_taken_over, is_common) {
            (true, true) if was_before || callers >= MIN_CALLERS => None,
            (true, _) => Some(format!(
                "backdoor? {} had a part in {}, and it alone offers this",
                host.name,
                list_kinds(host)
            )),
            (false, true) => None,
            (false, false) if callers >= MIN_CALLERS => None,
            (false, false) => Some(format!(
                "backdoor? the port is of no common service, only {} offers it, and it has {callers} caller{}",
                host.name,
                if callers == 1 { "" } else { "s" }
            )),
        }
    }

    /// Whether the alarm engine objects.
    pub(super) fn find_trouble(&self, host: &Host, service: &Service) -> Option<String> {
        let kinds = host.troubles.by_service.get(&(service.protocol, service.port));
        let is_scan = kinds.is_some_and(|kinds| kinds.iter().any(|(kind, _)| *kind == Kind::Scan));
        if is_scan {
            return Some("scan: it tried many ports".to_owned());
        }
        None
    }

    pub(super) fn is_trouble(&self, number: usize, host: &Host, service: &Service) -> bool {
        self.taken_over.contains(&number)
            && (service.direction == Direction::In
                || host.troubles.by_service.contains_key(&(service.protocol, service.port)))
    }

    /// Why one destination is not proposed.
    pub(super) fn find_peer_objection(
        &self,
        number: usize,
        host: &Host,
        service: &Service,
        row: &Row,
        (peer, evidence): (IpAddr, &PeerEvidence),
    ) -> Option<String> {
        let kinds = host.troubles.by_service.get(&(service.protocol, service.port));
        let has = |wanted: Kind| {
            kinds.into_iter().flatten().any(|(kind, at)| *kind == wanted && at.is_none_or(|at| at == peer))
        };
        let is_spread = kinds.into_iter().flatten().any(|(kind, _)| *kind == Kind::Spread);
        if is_spread
            && !self.excuses_spread(host, service, row)
            && !self.is_shared_with_clean(service, number, peer)
        {
            return Some(format!(
                "spread: it went to many destinations in a short time, {} of {} answered",
                row.answered, row.asked
            ));
        }
        if has(Kind::Callback) && !self.excuses_callback(service, row, peer) {
            return Some(format!(
                "callback: it called this destination again and again, {} of {} answered",
                evidence.answered, evidence.asked
            ));
        }
        if has(Kind::Fetch) && !self.excuses_fetch(service, number, peer) {
            return Some("fetch: a download from a destination that no DNS answer named, and from which no other server \
                         downloads"
                .to_owned());
        }
        if self.taken_over.contains(&number) && !self.is_shared_with_clean(service, number, peer) {
            return Some(format!("{} had a part in {}, and it alone does this", host.name, list_kinds(host)));
        }
        if evidence.first_ns >= self.last_tenth_ns && self.last_tenth_ns > self.seen.first_ns.unwrap_or(0) {
            return Some("this destination began in the last tenth of the time".to_owned());
        }
        self.is_odd_destination(number, service, peer).then(|| {
            format!(
                "the servers that offer the same share their destinations, and only {} has this one",
                host.name
            )
        })
    }

    /// Whether the others that are alike share their destinations, and this one is nobody else's.
    pub(super) fn is_odd_destination(&self, number: usize, service: &Service, peer: IpAddr) -> bool {
        let Some(alike) = self.alike.get(&number) else { return false };
        let sharers = |peer: IpAddr| {
            self.shared.peers.get(&(*service, peer)).map_or(0, |servers| servers.intersection(alike).count())
        };
        if sharers(peer) != 1 {
            return false;
        }
        let others =
            alike.iter().filter(|other| **other != number).filter_map(|other| self.hosts.get(*other));
        let rows: Vec<&Row> = others.filter_map(|host| host.rows.get(service)).collect();
        rows.len() + 1 >= MIN_ALIKE
            && rows.iter().all(|row| row.answered_peers().all(|(peer, _)| sharers(peer) >= 2))
    }
}
