//! `only`: nothing else than what a test accepts may be open. The tables say what is, and a packet proves it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{Ipv4Net, Ipv6Net};

use super::cells::{Ports, cut, find_all_rows, pick_of};
use super::outcome::{Decided, Expectation, Failure, FailureKind, TestOutcome};
use super::packets::{Judged, Packet};
use super::runner::{Runner, Subject};
use super::surplus::{Accepted, Question, Surplus, list_surplus};
use crate::gate::{GateError, Verdict};
use crate::net::{DomainName, TCP, find_icmp_answer, is_icmp};
use crate::policy::{Direction, Families, Need, Peer, PolicyTest};

/// Areas of one need that are printed.
const SHOWN_AREAS: usize = 4;

impl<'p> Runner<'p> {
    /// Looks for what is open beyond `accept`, first in the tables, then by a packet.
    pub(super) fn check_only(
        &self,
        subject: &Subject<'p>,
        test: &PolicyTest,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        // names alone accept no address
        let has_addresses =
            |need: &&Need| need.peers.is_empty() || !need.resolve_peers(&self.policy.sets).is_empty();
        let accepted: Vec<Accepted> = test
            .accept
            .iter()
            .filter(has_addresses)
            .map(|need| Accepted {
                protocol: need.protocol,
                ports: need.ports.clone(),
                peers: need.resolve_peers(&self.policy.sets),
                sport: need.sport.clone(),
            })
            .collect();
        // of one server, so one profile
        let Some(row) = subject.hosts.iter().find_map(|host| host.row) else {
            return self.check_only_unknown(subject, test, outcome);
        };
        let has = |is_family: fn(&IpAddr) -> bool| subject.hosts.iter().any(|host| is_family(&host.address));
        let surplus = list_surplus(
            self.tables,
            &Question {
                profile: row.profile,
                direction: if subject.services_for.is_some() { Direction::In } else { Direction::Out },
                families: Families { v4: has(IpAddr::is_ipv4), v6: has(IpAddr::is_ipv6) },
                peers: subject.services_for.as_ref().and_then(|peers| peers.as_deref()),
                accepted: &accepted,
            },
        );
        let mut found: BTreeMap<(u32, u32), Failure> = BTreeMap::new();
        for surplus in surplus {
            self.note_surplus(subject, test, &surplus, &mut found, outcome)?;
        }
        outcome.failures.extend(found.into_values());
        if subject.services_for.is_none() {
            self.check_only_names(subject, test, row.profile, outcome)?;
        }
        Ok(())
    }

    /// The same for names: those that the tables have, unless the test accepts them or what is around them.
    fn check_only_names(
        &self,
        subject: &Subject<'p>,
        test: &PolicyTest,
        profile: u32,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        let names = &self.tables.destinations;
        for row in find_all_rows(self.tables, profile) {
            let of_set = names.peers.iter().filter(|peer| peer.set == row.outbound.set && peer.set != 0);
            for peer in of_set {
                let Some(name) = names.names.get(peer.name as usize) else {
                    continue;
                };
                let accepts = |need: &&Need| {
                    need.protocol == row.proto
                        && need.sport.is_none()
                        && (need.peers.is_empty()
                            || need
                                .resolve_names(&self.policy.sets)
                                .iter()
                                .any(|wider| name.is_within(wider)))
                };
                let accepted: Vec<&Need> = test.accept.iter().filter(accepts).collect();
                let left = cut(&row.ports, accepted.iter().map(|need| need.ports.clone()))
                    .into_iter()
                    .filter(|ports| !accepted.iter().any(|need| need.ports.contains(ports.start())));
                for ports in left {
                    self.note_open_name(subject, test, (row.proto, ports), name, outcome)?;
                }
            }
        }
        Ok(())
    }

    /// Asks the programs whether a name opens these ports, and notes it if so.
    fn note_open_name(
        &self,
        subject: &Subject<'p>,
        test: &PolicyTest,
        (protocol, ports): (u8, Ports),
        name: &DomainName,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        let need = Need {
            direction: Direction::Out,
            protocol,
            ports: ports.clone(),
            peers: vec![Peer::Name(name.clone())],
            sport: None,
            limit: None,
            place: self.policy.settings.mode.place.unwrap_or_default(),
        };
        for host in &subject.hosts {
            for address in self.plant(host, &need)? {
                let judged =
                    self.judge(subject, Packet::new(host.address, address, protocol, *ports.end()))?;
                outcome.packets += 1;
                if judged.passes() {
                    let mut failure = self.begin_only_failure(subject, test, need.to_string());
                    self.note_judged(&judged, subject, false, &mut failure);
                    outcome.failures.push(failure);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The same for an address of no server: to it all is open, or nothing.
    fn check_only_unknown(
        &self,
        subject: &Subject<'_>,
        test: &PolicyTest,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        for host in &subject.hosts {
            let area =
                if host.address.is_ipv4() { Ipv4Net::default().into() } else { Ipv6Net::default().into() };
            let [peer, ..] = pick_of(&area);
            let judged = self.judge(subject, Packet::new(host.address, peer, TCP, 0))?;
            outcome.packets += 1;
            if judged.passes() {
                let mut failure = self.begin_only_failure(subject, test, "everything".to_owned());
                self.note_judged(&judged, subject, false, &mut failure);
                let place = self.policy.settings.unknown_sources.place;
                failure.decided = place.map(|place| Decided {
                    source: self.policy.locate(&place),
                    need: Some(format!(
                        "unknown_sources = \"{}\"",
                        self.policy.settings.unknown_sources.value
                    )),
                    role: None,
                });
                outcome.failures.push(failure);
            }
        }
        Ok(())
    }

    fn begin_only_failure(&self, subject: &Subject<'_>, test: &PolicyTest, need: String) -> Failure {
        Failure {
            subject: subject.name.clone(),
            kind: FailureKind::Only,
            need,
            source: format!("{}:{}", self.policy.locate(&test.place), test.place.column),
            packet: None,
            expected: Expectation { verdict: Verdict::Drop, reason: None },
            verdict: None,
            reason: None,
            decided: None,
            more: 0,
            note: None,
        }
    }

    /// Asks the programs about something that is open by the tables, and notes it by the need that opens it.
    fn note_surplus(
        &self,
        subject: &Subject<'_>,
        test: &PolicyTest,
        surplus: &Surplus,
        found: &mut BTreeMap<(u32, u32), Failure>,
        outcome: &mut TestOutcome,
    ) -> Result<(), GateError> {
        let is_service = subject.services_for.is_some();
        let Some(place) = self.tables.rules.get(surplus.rule as usize).map(|rule| (rule.line, rule.column))
        else {
            return Ok(());
        };
        let services: Vec<Ports> = match is_icmp(surplus.protocol) {
            true => surplus.ports.clone().map(|kind| kind..=kind).collect(),
            false => vec![surplus.ports.clone()],
        };
        for ports in services {
            let is_asked = !is_service
                || !is_icmp(surplus.protocol)
                || find_icmp_answer(surplus.protocol, *ports.start()).is_some();
            if !is_asked {
                continue;
            }
            let Some(judged) = self.find_open(subject, surplus, &ports, outcome)? else {
                continue;
            };
            match found.get_mut(&place) {
                Some(failure) => failure.more += 1,
                None => {
                    let need = self.show_surplus(surplus, ports, is_service);
                    let mut failure = self.begin_only_failure(subject, test, need);
                    self.note_judged(&judged, subject, surplus.sport.is_some(), &mut failure);
                    found.insert(place, failure);
                }
            }
        }
        Ok(())
    }

    /// A packet that passes, among those that stand for what is open by the tables.
    fn find_open(
        &self,
        subject: &Subject<'_>,
        surplus: &Surplus,
        ports: &Ports,
        outcome: &mut TestOutcome,
    ) -> Result<Option<Judged>, GateError> {
        // one peer may be a server itself that must not open this, and the next one none
        let peers: Vec<IpAddr> = surplus.areas.iter().take(SHOWN_AREAS).flat_map(pick_of).collect();
        for host in &subject.hosts {
            let is_peer = |peer: &&IpAddr| peer.is_ipv4() == host.address.is_ipv4() && **peer != host.address;
            for peer in peers.iter().filter(is_peer) {
                let (source, destination) = match subject.services_for {
                    Some(_) => (*peer, host.address),
                    None => (host.address, *peer),
                };
                let mut packet = Packet::new(source, destination, surplus.protocol, *ports.end());
                if let Some(sport) = &surplus.sport {
                    packet.client_port = *sport.end();
                }
                let judged = self.judge(subject, packet)?;
                outcome.packets += 1;
                if judged.passes() {
                    return Ok(Some(judged));
                }
            }
        }
        Ok(None)
    }

    /// The need that would permit what is open.
    fn show_surplus(&self, surplus: &Surplus, ports: Ports, is_service: bool) -> String {
        let shown = if surplus.is_everybody {
            &[]
        } else {
            surplus.areas.get(..SHOWN_AREAS).unwrap_or(&surplus.areas)
        };
        let need = Need {
            direction: if is_service { Direction::In } else { Direction::Out },
            protocol: surplus.protocol,
            ports,
            peers: shown.iter().map(|area| Peer::Prefix(*area)).collect(),
            sport: surplus.sport.clone(),
            limit: None,
            place: self.policy.settings.mode.place.unwrap_or_default(),
        };
        match surplus.areas.len().saturating_sub(SHOWN_AREAS) {
            more if more > 0 && !surplus.is_everybody => format!("{need} and {more} more prefixes"),
            _ => need.to_string(),
        }
    }
}
