//! What is proposed, and what is not and why: server by server, and service by service.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::everyday;
use super::evidence::{MAX_PEERS_BY_ROW, PeerEvidence, Row, Service};
use super::hosts::{Host, count_odd_ports, is_odd, list_hosts};
use super::named::{Named, Proposal, leave_unreachable_names, split_named};
use super::prefixes::join_peers;
use super::scope::Servers;
use super::seen::Seen;
use super::shared::{Shared, list_kinds};
use super::wording::{show_evidence, show_need, show_service};
use crate::alarm::Kind;
use crate::capture::Timestamp;
use crate::net::{IGMP, TCP, UDP};
use crate::policy::Direction;

/// A service with more peers than this, from several networks, is proposed for every peer.
const MAX_LISTED_CALLERS: usize = 16;
/// Those who log in are few.
const MAX_ADMINISTRATORS: usize = 8;
/// Unnamed ports of one server and protocol beyond which they look like ports by chance.
const MAX_ODD_PORTS: usize = 32;
/// What is not proposed of one server is listed up to here, and of all.
const MAX_REFUSALS_BY_HOST: usize = 64;
const MAX_REFUSALS: usize = 4096;
const S: u64 = 1_000_000_000;

/// What is not proposed.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) host: usize,
    pub(super) service: Service,
    /// The need that would permit it.
    pub(super) need: String,
    pub(super) why: String,
    pub(super) evidence: String,
    /// Openings that were answered.
    pub(super) answered: u64,
    /// A policy must never permit it, and a test may say so.
    pub(super) is_trouble: bool,
}

/// All that was found.
pub(super) struct Outcome<'a> {
    pub(super) seen: Seen<'a>,
    pub(super) hosts: Vec<Host>,
    pub(super) proposals: Vec<Proposal>,
    pub(super) refusals: Vec<Refusal>,
    /// Those who log in, with their evidence.
    pub(super) management: Vec<(Service, Vec<IpNet>, String)>,
    pub(super) notes: Vec<String>,
}

/// Decides about everything that was seen.
pub(super) fn judge<'a>(
    mut seen: Seen<'a>,
    servers: &Servers<'_>,
    aggregate: bool,
    uses_names: bool,
) -> Outcome<'a> {
    let (hosts, routers) = list_hosts(&mut seen, servers);
    let mut notes: Vec<String> = routers
        .iter()
        .map(|router| format!("{router} sends with the router's MAC, so it is no server"))
        .collect();
    for ((forger, address), packets) in &seen.forged {
        notes.push(format!(
            "spoof: {packets} packets of {address} came from the MAC of {forger}. They are no evidence"
        ));
    }
    let length_ns = seen.last_ns.saturating_sub(seen.first_ns.unwrap_or(seen.last_ns));
    let mut judge = Judge {
        shared: Shared::of(&hosts),
        last_tenth_ns: seen.last_ns - length_ns / 10,
        is_long: length_ns >= 60 * S,
        seen: &seen,
        hosts: &hosts,
        taken_over: BTreeSet::new(),
        alike: BTreeMap::new(),
        aggregate,
        uses_names,
        proposals: Vec::new(),
        refusals: Vec::new(),
        logins: BTreeMap::new(),
    };
    judge.taken_over = (0..hosts.len()).filter(|host| judge.is_taken_over(*host)).collect();
    judge.alike = judge.find_alike();
    let mut unlisted = 0;
    for (number, host) in hosts.iter().enumerate() {
        let before = judge.refusals.len();
        judge.judge_host(number, host);
        unlisted += judge.shorten_refusals(before);
    }
    let management = judge.judge_logins();
    let Judge { mut proposals, refusals, taken_over, .. } = judge;
    leave_unreachable_names(&mut proposals, &hosts, &seen);
    if unlisted > 0 {
        notes.push(format!("{unlisted} more services that are not proposed found no room in the list"));
    }
    for number in taken_over {
        if let Some(host) = hosts.get(number) {
            notes.push(format!(
                "{} had a part in {}: look at it before anything else",
                host.name,
                list_kinds(host)
            ));
        }
    }
    Outcome { seen, hosts, proposals, refusals, management, notes }
}

/// Decides server by server.
pub(super) struct Judge<'s, 'a> {
    pub(super) seen: &'s Seen<'a>,
    pub(super) hosts: &'s [Host],
    pub(super) shared: Shared,
    pub(super) taken_over: BTreeSet<usize>,
    /// For each server those that offer the same, itself included.
    pub(super) alike: BTreeMap<usize, BTreeSet<usize>>,
    pub(super) last_tenth_ns: Timestamp,
    /// So long that what may be an answer to something before it would have come again.
    pub(super) is_long: bool,
    pub(super) aggregate: bool,
    /// Destinations become names where every opening passes by them.
    pub(super) uses_names: bool,
    pub(super) proposals: Vec<Proposal>,
    pub(super) refusals: Vec<Refusal>,
    /// Those who log in, by service: host, peer, evidence.
    pub(super) logins: BTreeMap<Service, Vec<(usize, IpAddr, PeerEvidence)>>,
}

impl Judge<'_, '_> {
    /// Leaves those refusals of a server that matter most, and returns how many more there were.
    fn shorten_refusals(&mut self, from: usize) -> usize {
        let mut refusals = self.refusals.split_off(from.min(self.refusals.len()));
        let room = MAX_REFUSALS.saturating_sub(self.refusals.len()).min(MAX_REFUSALS_BY_HOST);
        let more = refusals.len().saturating_sub(room);
        if more > 0 {
            refusals.sort_by_key(|refusal| std::cmp::Reverse((refusal.is_trouble, refusal.answered)));
            refusals.truncate(room);
        }
        self.refusals.append(&mut refusals);
        more
    }

    fn judge_host(&mut self, number: usize, host: &Host) {
        let odd = count_odd_ports(host);
        for (service, row) in &host.rows {
            let is_odd = is_odd(service);
            if is_odd
                && odd.get(&(service.direction, service.protocol)).is_some_and(|count| *count > MAX_ODD_PORTS)
            {
                continue;
            }
            self.judge_row(number, host, service, row);
        }
        for ((direction, protocol), count) in odd {
            if count <= MAX_ODD_PORTS {
                continue;
            }
            let ports: Vec<(&Service, &Row)> = host
                .rows
                .iter()
                .filter(|(service, _)| (service.direction, service.protocol) == (direction, protocol))
                .filter(|(service, _)| is_odd(service))
                .collect();
            let (Some((first, row)), Some((last, _))) = (ports.first(), ports.last()) else { continue };
            let why = format!(
                "{count} ports from {} to {} look like ports by chance, as those of passive FTP. Write the range that \
                 is configured",
                first.port, last.port
            );
            let evidence = show_evidence(row, &[], &self.seen.names);
            let need = format!("{}-{}", show_service(first), last.port);
            self.refusals.push(Refusal {
                host: number,
                service: **first,
                need,
                why,
                evidence,
                answered: row.answered,
                is_trouble: false,
            });
        }
    }

    fn judge_row(&mut self, number: usize, host: &Host, service: &Service, row: &Row) {
        let is_one_way = Seen::needs_no_answer(service);
        if self.judge_chatter(number, service, row) {
            return;
        }
        if row.answered == 0 && !is_one_way {
            let what = match self.seen.is_one_way() && service.protocol != TCP {
                true => "only one direction was captured, so nobody knows whether it was answered",
                false => "nobody answered",
            };
            self.refuse_with_trouble(number, host, service, row, what);
            return;
        }
        if let Some(why) = self.find_objection(number, host, service, row) {
            self.refuse(number, service, row, &[], &why, self.is_trouble(number, host, service));
            return;
        }
        let peers: Vec<(IpAddr, PeerEvidence)> = row
            .peers
            .iter()
            .filter(|(_, peer)| peer.answered > 0 || is_one_way)
            .map(|(address, peer)| (address, *peer))
            .collect();
        if service.direction == Direction::In
            && (service.protocol, service.port) == (TCP, everyday::SSH)
            && row.others == 0
        {
            let logins = peers.iter().map(|(peer, evidence)| (number, *peer, *evidence));
            self.logins.entry(*service).or_default().extend(logins);
            return;
        }
        match service.direction {
            Direction::In => self.judge_callers(number, service, row, peers),
            Direction::Out | Direction::Quiet => self.judge_destinations(number, host, service, row, peers),
        }
    }

    /// What goes to everybody on the link becomes `quiet`.
    fn judge_chatter(&mut self, number: usize, service: &Service, row: &Row) -> bool {
        let is_chatter = service.direction == Direction::Out
            && matches!(service.protocol, UDP | IGMP)
            && row.peers.addresses().all(|peer| self.seen.scope.is_for_all(peer))
            && !row.peers.is_empty();
        if is_chatter {
            let quiet = Service { direction: Direction::Quiet, ..*service };
            self.proposals.push(Proposal {
                host: number,
                service: quiet,
                peers: row.peers.addresses().map(IpNet::from).collect(),
                named: Vec::new(),
                evidence: show_evidence(row, &[], &self.seen.names),
                remark: None,
            });
        }
        is_chatter
    }

    fn judge_callers(
        &mut self,
        number: usize,
        service: &Service,
        row: &Row,
        peers: Vec<(IpAddr, PeerEvidence)>,
    ) {
        let networks: BTreeSet<_> = peers.iter().map(|(peer, _)| everyday::network_of(*peer)).collect();
        let is_many = peers.len() > MAX_LISTED_CALLERS || row.others > 0;
        let role = everyday::find_role(service.protocol, service.port);
        let is_inner = matches!(
            role,
            Some("db" | "ssh" | "files" | "monitored" | "directory" | "configured" | "backup")
        );
        if is_many && networks.len() >= 2 {
            if is_inner {
                let why = "more peers use it than a service of this kind should have: name those who need it";
                self.refuse(number, service, row, &[], why, false);
                return;
            }
            let count = if row.others > 0 {
                format!("more than {MAX_PEERS_BY_ROW}")
            } else {
                peers.len().to_string()
            };
            let remark =
                format!("open to every peer, because {count} were seen from {} networks", networks.len());
            self.propose(number, service, row, (Vec::new(), Vec::new(), peers), Some(remark));
            return;
        }
        if row.others > 0 {
            let why = format!("more than {MAX_PEERS_BY_ROW} peers of one network use it: write its prefix");
            self.refuse(number, service, row, &[], &why, false);
            return;
        }
        let (late, peers): (Vec<_>, Vec<_>) = peers.into_iter().partition(|(_, evidence)| {
            evidence.first_ns >= self.last_tenth_ns && self.last_tenth_ns > self.seen.first_ns.unwrap_or(0)
        });
        if !late.is_empty() {
            self.refuse(
                number,
                service,
                row,
                &late,
                "these peers began in the last tenth of the time",
                false,
            );
        }
        self.propose_peers(number, service, row, peers, None);
    }

    fn judge_destinations(
        &mut self,
        number: usize,
        host: &Host,
        service: &Service,
        row: &Row,
        peers: Vec<(IpAddr, PeerEvidence)>,
    ) {
        let is_excused = self.excuses_spread(host, service, row);
        let kinds = host.troubles.by_service.get(&(service.protocol, service.port));
        let is_spread = kinds.into_iter().flatten().any(|(kind, _)| *kind == Kind::Spread) && !is_excused;
        if row.others > 0 && !is_spread {
            let hint = match is_excused {
                true => ". It offers the service itself: if it is to ask everybody, write this",
                false => "",
            };
            let why = format!("more than {MAX_PEERS_BY_ROW} destinations, too many to list{hint}");
            self.refuse(number, service, row, &[], &why, false);
            return;
        }
        let mut kept = Vec::new();
        let mut objections: BTreeMap<String, Vec<(IpAddr, PeerEvidence)>> = BTreeMap::new();
        for (peer, evidence) in peers {
            match self.find_peer_objection(number, host, service, row, (peer, &evidence)) {
                Some(why) => objections.entry(why).or_default().push((peer, evidence)),
                None => kept.push((peer, evidence)),
            }
        }
        for (why, peers) in objections {
            let is_trouble = self.taken_over.contains(&number);
            self.refuse(number, service, row, &peers, &why, is_trouble);
        }
        if !Seen::needs_no_answer(service) {
            let silent = row.peers.iter().filter(|(_, evidence)| evidence.answered == 0);
            let silent: Vec<_> = silent.map(|(peer, evidence)| (peer, *evidence)).collect();
            if !silent.is_empty() {
                self.refuse(number, service, row, &silent, "nobody answered there", false);
            }
        }
        let remark = (is_excused && kept.len() > 1).then(|| {
            format!(
                "it offers the service itself: if it is to ask everybody, write \"{}\"",
                show_service(service)
            )
        });
        self.propose_peers(number, service, row, kept, remark);
    }

    fn propose_peers(
        &mut self,
        number: usize,
        service: &Service,
        row: &Row,
        peers: Vec<(IpAddr, PeerEvidence)>,
        remark: Option<String>,
    ) {
        if peers.is_empty() {
            return;
        }
        let (named, addressed) = match (self.uses_names, service.direction) {
            (true, Direction::Out) => split_named(&peers, &self.seen.names),
            _ => (Vec::new(), peers.iter().map(|(peer, _)| *peer).collect()),
        };
        let (prefixes, joined) = match self.aggregate {
            true => join_peers(addressed.into_iter()),
            false => (addressed.into_iter().map(IpNet::from).collect(), None),
        };
        let remark = match (remark, joined) {
            (Some(remark), Some(joined)) => Some(format!("{remark}; {joined}")),
            (remark, joined) => remark.or(joined),
        };
        self.propose(number, service, row, (prefixes, named, peers), remark);
    }

    fn propose(
        &mut self,
        host: usize,
        service: &Service,
        row: &Row,
        (prefixes, named, peers): (Vec<IpNet>, Vec<Named>, Vec<(IpAddr, PeerEvidence)>),
        remark: Option<String>,
    ) {
        let evidence = match prefixes.is_empty() && named.is_empty() {
            true => show_evidence(row, &[], &self.seen.names),
            false => show_evidence(row, &peers, &self.seen.names),
        };
        self.proposals.push(Proposal { host, service: *service, peers: prefixes, named, evidence, remark });
    }

    fn refuse_with_trouble(&mut self, number: usize, host: &Host, service: &Service, row: &Row, what: &str) {
        let kinds = host.troubles.by_service.get(&(service.protocol, service.port));
        let kinds: BTreeSet<&str> = kinds.into_iter().flatten().map(|(kind, _)| kind.name()).collect();
        let why = match kinds.is_empty() {
            true => what.to_owned(),
            false => format!("{}: {what}", kinds.into_iter().collect::<Vec<_>>().join(", ")),
        };
        self.refuse(number, service, row, &[], &why, self.is_trouble(number, host, service));
    }

    fn refuse(
        &mut self,
        host: usize,
        service: &Service,
        row: &Row,
        peers: &[(IpAddr, PeerEvidence)],
        why: &str,
        is_trouble: bool,
    ) {
        let listed: Vec<IpNet> = match peers.is_empty() {
            true if row.others == 0 => row.peers.addresses().map(IpNet::from).collect(),
            true => Vec::new(),
            false => peers.iter().map(|(peer, _)| IpNet::from(*peer)).collect(),
        };
        // an attempt at everything would make a line of thousands of letters
        let is_silent = row.answered == 0
            || (!peers.is_empty() && peers.iter().all(|(_, evidence)| evidence.answered == 0));
        let listed = if listed.len() > MAX_LISTED_CALLERS && is_silent { Vec::new() } else { listed };
        self.refusals.push(Refusal {
            host,
            service: *service,
            need: show_need(service, &listed),
            why: why.to_owned(),
            evidence: show_evidence(row, peers, &self.seen.names),
            answered: row.answered,
            is_trouble,
        });
    }

    /// Those who log in by ssh become `management` if they are few.
    fn judge_logins(&mut self) -> Vec<(Service, Vec<IpNet>, String)> {
        let mut management = Vec::new();
        for (service, logins) in std::mem::take(&mut self.logins) {
            let mut by_peer: BTreeMap<IpAddr, PeerEvidence> = BTreeMap::new();
            let mut refused = Vec::new();
            for (host, peer, evidence) in logins {
                let is_late = evidence.first_ns >= self.last_tenth_ns
                    && self.last_tenth_ns > self.seen.first_ns.unwrap_or(0);
                let is_doubtful =
                    self.taken_over.contains(&host) && !self.is_shared_with_clean(&service, host, peer);
                if is_late || is_doubtful {
                    let why = match is_late {
                        true => "this peer began to log in in the last tenth of the time",
                        false => "this peer logs in only where the server had a part in trouble",
                    };
                    refused.push((host, peer, evidence, why));
                    continue;
                }
                by_peer.entry(peer).and_modify(|known| known.merge(&evidence)).or_insert(evidence);
            }
            let hosts = self.hosts;
            for (host, peer, evidence, why) in refused {
                let is_kept = by_peer.contains_key(&peer);
                if let Some(row) =
                    hosts.get(host).and_then(|host| host.rows.get(&service)).filter(|_| !is_kept)
                {
                    self.refuse(host, &service, row, &[(peer, evidence)], why, false);
                }
            }
            if by_peer.is_empty() {
                continue;
            }
            let peers: Vec<(IpAddr, PeerEvidence)> = by_peer.into_iter().collect();
            let row = hosts.iter().find_map(|host| host.rows.get(&service));
            let Some(row) = row else { continue };
            if peers.len() > MAX_ADMINISTRATORS {
                let first = (0..hosts.len())
                    .find(|host| hosts.get(*host).is_some_and(|host| host.rows.contains_key(&service)));
                let why = "so many peers logged in that guesses at passwords are among them: name the administrators";
                self.refuse(first.unwrap_or(0), &service, row, &peers, why, false);
                continue;
            }
            let evidence = show_evidence(row, &peers, &self.seen.names);
            management.push((service, peers.iter().map(|(peer, _)| IpNet::from(*peer)).collect(), evidence));
        }
        management
    }
}
