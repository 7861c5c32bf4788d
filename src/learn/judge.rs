//! What is proposed, and what is not and why.
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
use super::evidence::{MAX_PEERS_BY_ROW, PeerEvidence, Row, Service};
use super::hosts::{Host, list_hosts};
use super::scope::Servers;
use super::watch::Seen;
use super::wording::{show_evidence, show_need, show_service};
use crate::alarm::Kind;
use crate::capture::Timestamp;
use crate::net::{IGMP, TCP, UDP};
use crate::policy::Direction;

/// A service with more peers than this, from several networks, is proposed for every peer.
const MAX_LISTED_CALLERS: usize = 16;
/// Servers alike, of which what one does alone is not proposed.
const MIN_ALIKE: usize = 3;
/// Those who log in are few.
const MAX_ADMINISTRATORS: usize = 8;
/// Unnamed ports of one server and protocol beyond which they look like ports by chance.
const MAX_ODD_PORTS: usize = 32;
/// So few peers in a network are not joined.
const MIN_JOINED: usize = 4;
/// The widest prefixes that are proposed.
const WIDEST_V4: u8 = 24;
const WIDEST_V6: u8 = 56;
const S: u64 = 1_000_000_000;

/// A need that is proposed for one server.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) host: usize,
    pub(super) service: Service,
    /// Empty: every peer.
    pub(super) peers: Vec<IpNet>,
    pub(super) evidence: String,
    /// What a person should know of it.
    pub(super) remark: Option<String>,
}

/// What is not proposed.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) host: usize,
    pub(super) service: Service,
    /// The need that would permit it.
    pub(super) need: String,
    pub(super) why: String,
    pub(super) evidence: String,
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
pub(super) fn judge<'a>(mut seen: Seen<'a>, servers: &Servers<'_>, aggregate: bool) -> Outcome<'a> {
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
        proposals: Vec::new(),
        refusals: Vec::new(),
        logins: BTreeMap::new(),
    };
    judge.taken_over = (0..hosts.len()).filter(|host| judge.is_taken_over(*host)).collect();
    judge.alike = judge.find_alike();
    for (number, host) in hosts.iter().enumerate() {
        judge.judge_host(number, host);
    }
    let management = judge.judge_logins();
    let Judge { proposals, refusals, taken_over, .. } = judge;
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

fn list_kinds(host: &Host) -> String {
    let mut kinds: BTreeSet<&str> =
        host.troubles.by_service.values().flatten().map(|(kind, _)| kind.name()).collect();
    if host.troubles.is_scan {
        kinds.insert(Kind::Scan.name());
    }
    kinds.into_iter().collect::<Vec<_>>().join(", ")
}

/// Who has what in common.
struct Shared {
    /// Servers by service and destination.
    peers: BTreeMap<(Service, IpAddr), BTreeSet<usize>>,
    /// Servers by service.
    services: BTreeMap<Service, BTreeSet<usize>>,
}

impl Shared {
    fn of(hosts: &[Host]) -> Shared {
        let mut shared = Shared { peers: BTreeMap::new(), services: BTreeMap::new() };
        for (number, host) in hosts.iter().enumerate() {
            for (service, row) in &host.rows {
                let is_one_way = Seen::needs_no_answer(service);
                if row.answered == 0 && !is_one_way {
                    continue;
                }
                shared.services.entry(*service).or_default().insert(number);
                for (peer, evidence) in &row.peers {
                    if evidence.answered > 0 || is_one_way {
                        shared.peers.entry((*service, *peer)).or_default().insert(number);
                    }
                }
            }
        }
        shared
    }
}

struct Judge<'s, 'a> {
    seen: &'s Seen<'a>,
    hosts: &'s [Host],
    shared: Shared,
    taken_over: BTreeSet<usize>,
    /// For each server those that offer the same, itself included.
    alike: BTreeMap<usize, BTreeSet<usize>>,
    last_tenth_ns: Timestamp,
    /// So long that what may be an answer to something before it would have come again.
    is_long: bool,
    aggregate: bool,
    proposals: Vec<Proposal>,
    refusals: Vec<Refusal>,
    /// Those who log in, by service: host, peer, evidence.
    logins: BTreeMap<Service, Vec<(usize, IpAddr, PeerEvidence)>>,
}

impl Judge<'_, '_> {
    fn is_taken_over(&self, number: usize) -> bool {
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
                        None => row.peers.keys().copied().collect(),
                    };
                    peers.iter().any(|peer| !self.excuses_callback(&service, row, *peer))
                }
                Kind::Scan | Kind::Backdoor | Kind::Spoof => true,
                Kind::Fetch | Kind::Stray | Kind::Attempt | Kind::Burst | Kind::Gate => false,
            })
        })
    }

    fn excuses_spread(&self, host: &Host, service: &Service, row: &Row) -> bool {
        let offered = Service { direction: Direction::In, ..*service };
        // who asks by UDP asks again by TCP, and offers one of both
        let other = Service { protocol: if service.protocol == TCP { UDP } else { TCP }, ..offered };
        let offers =
            [offered, other].iter().any(|service| host.rows.get(service).is_some_and(|row| row.answered > 0));
        everyday::is_among_servers(service.protocol, service.port)
            && offers
            && row.answered * 10 >= row.asked * 9
    }

    fn excuses_callback(&self, service: &Service, row: &Row, peer: IpAddr) -> bool {
        let Some(evidence) = row.peers.get(&peer) else { return false };
        let is_answered = evidence.answered * 10 >= evidence.asked * 9 || Seen::needs_no_answer(service);
        let sharers = self.shared.peers.get(&(*service, peer)).map_or(0, BTreeSet::len);
        let is_common =
            everyday::find_role(service.protocol, service.port).is_some() && service.port != everyday::SSH;
        is_answered && (is_common || (sharers >= 2 && sharers * 2 >= self.hosts.len()))
    }

    fn excuses_fetch(&self, service: &Service, number: usize, peer: IpAddr) -> bool {
        self.seen.names.find(peer).is_some() || self.is_shared_with_clean(service, number, peer)
    }

    /// Whether a server that nobody took over does the same.
    fn is_shared_with_clean(&self, service: &Service, number: usize, peer: IpAddr) -> bool {
        let sharers = self.shared.peers.get(&(*service, peer)).into_iter().flatten();
        sharers.into_iter().any(|other| *other != number && !self.taken_over.contains(other))
    }

    /// For each server those that offer the same services, counting services that at least two offer.
    fn find_alike(&self) -> BTreeMap<usize, BTreeSet<usize>> {
        let mut by_offer: BTreeMap<BTreeSet<Service>, BTreeSet<usize>> = BTreeMap::new();
        for number in 0..self.hosts.len() {
            let offer: BTreeSet<Service> = self
                .shared
                .services
                .iter()
                .filter(|(service, servers)| {
                    service.direction == Direction::In && servers.len() >= 2 && servers.contains(&number)
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
            .map(|(address, peer)| (*address, *peer))
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
            && row.peers.keys().all(|peer| self.seen.scope.is_for_all(*peer))
            && !row.peers.is_empty();
        if is_chatter {
            let quiet = Service { direction: Direction::Quiet, ..*service };
            self.proposals.push(Proposal {
                host: number,
                service: quiet,
                peers: row.peers.keys().map(|peer| IpNet::from(*peer)).collect(),
                evidence: show_evidence(row, &[], &self.seen.names),
                remark: None,
            });
        }
        is_chatter
    }

    /// Why nothing of a row is proposed. `None`: there is no reason.
    fn find_objection(&self, number: usize, host: &Host, service: &Service, row: &Row) -> Option<String> {
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

    fn is_odd_one_out(&self, number: usize, service: &Service) -> bool {
        let Some(alike) = self.alike.get(&number) else { return false };
        self.shared.services.get(service).is_some_and(|servers| servers.intersection(alike).count() == 1)
    }

    /// Whether something listens that should not.
    fn find_backdoor(&self, number: usize, host: &Host, service: &Service, row: &Row) -> Option<String> {
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
            (true, true) if was_before || callers >= MIN_JOINED => None,
            (true, _) => Some(format!(
                "backdoor? {} had a part in {}, and it alone offers this",
                host.name,
                list_kinds(host)
            )),
            (false, true) => None,
            (false, false) if callers >= MIN_JOINED => None,
            (false, false) => Some(format!(
                "backdoor? the port is of no common service, only {} offers it, and it has {callers} caller{}",
                host.name,
                if callers == 1 { "" } else { "s" }
            )),
        }
    }

    /// Whether the alarm engine objects.
    fn find_trouble(&self, host: &Host, service: &Service) -> Option<String> {
        let kinds = host.troubles.by_service.get(&(service.protocol, service.port));
        let is_scan = kinds.is_some_and(|kinds| kinds.iter().any(|(kind, _)| *kind == Kind::Scan));
        if is_scan {
            return Some("scan: it tried many ports".to_owned());
        }
        None
    }

    fn is_trouble(&self, number: usize, host: &Host, service: &Service) -> bool {
        self.taken_over.contains(&number)
            && (service.direction == Direction::In
                || host.troubles.by_service.contains_key(&(service.protocol, service.port)))
    }

    /// Why one destination is not proposed.
    fn find_peer_objection(
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
    fn is_odd_destination(&self, number: usize, service: &Service, peer: IpAddr) -> bool {
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
            self.propose(number, service, row, (Vec::new(), peers), Some(remark));
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
        let (prefixes, joined) = match self.aggregate {
            true => join_peers(peers.iter().map(|(peer, _)| *peer)),
            false => (peers.iter().map(|(peer, _)| IpNet::from(*peer)).collect(), None),
        };
        let remark = match (remark, joined) {
            (Some(remark), Some(joined)) => Some(format!("{remark}; {joined}")),
            (remark, joined) => remark.or(joined),
        };
        self.propose(number, service, row, (prefixes, peers), remark);
    }

    fn propose(
        &mut self,
        host: usize,
        service: &Service,
        row: &Row,
        (prefixes, peers): (Vec<IpNet>, Vec<(IpAddr, PeerEvidence)>),
        remark: Option<String>,
    ) {
        let evidence = match prefixes.is_empty() {
            true => show_evidence(row, &[], &self.seen.names),
            false => show_evidence(row, &peers, &self.seen.names),
        };
        self.proposals.push(Proposal { host, service: *service, peers: prefixes, evidence, remark });
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
            true if row.others == 0 => row.peers.keys().map(|peer| IpNet::from(*peer)).collect(),
            true => Vec::new(),
            false => peers.iter().map(|(peer, _)| IpNet::from(*peer)).collect(),
        };
        // an attempt at everything would make a line of thousands of letters
        let listed = if listed.len() > MAX_LISTED_CALLERS && row.answered == 0 { Vec::new() } else { listed };
        self.refusals.push(Refusal {
            host,
            service: *service,
            need: show_need(service, &listed),
            why: why.to_owned(),
            evidence: show_evidence(row, peers, &self.seen.names),
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

fn is_odd(service: &Service) -> bool {
    matches!(service.protocol, TCP | UDP)
        && service.port >= 1024
        && everyday::find_role(service.protocol, service.port).is_none()
}

/// Unnamed ports that were answered, by direction and protocol.
fn count_odd_ports(host: &Host) -> BTreeMap<(Direction, u8), usize> {
    let mut odd = BTreeMap::new();
    for service in host.rows.keys().filter(|service| is_odd(service)) {
        *odd.entry((service.direction, service.protocol)).or_default() += 1;
    }
    odd
}

/// Peers that are close together as prefixes, each no wider than it must be.
fn join_peers(peers: impl Iterator<Item = IpAddr>) -> (Vec<IpNet>, Option<String>) {
    let mut networks: BTreeMap<IpNet, Vec<IpAddr>> = BTreeMap::new();
    for peer in peers {
        let widest = if peer.is_ipv4() { WIDEST_V4 } else { WIDEST_V6 };
        let network = IpNet::new(peer, widest).map_or_else(|_| IpNet::from(peer), |network| network.trunc());
        networks.entry(network).or_default().push(peer);
    }
    let (mut prefixes, mut remarks) = (Vec::new(), Vec::new());
    for peers in networks.into_values() {
        if peers.len() < MIN_JOINED {
            prefixes.extend(peers.into_iter().map(IpNet::from));
            continue;
        }
        let prefix = cover(&peers);
        let bits = prefix.max_prefix_len() - prefix.prefix_len();
        let all = match bits {
            0..=31 => (1_u64 << bits).to_string(),
            bits => format!("2^{bits}"),
        };
        remarks.push(format!("{prefix}: seen {} of {all}", peers.len()));
        prefixes.push(prefix);
    }
    prefixes.sort_unstable();
    (prefixes, (!remarks.is_empty()).then(|| remarks.join(", ")))
}

/// The longest prefix that holds all these addresses of one family.
fn cover(peers: &[IpAddr]) -> IpNet {
    let first = peers.first().copied().unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED));
    let longest = IpNet::from(first);
    let mut around = std::iter::once(longest).chain(crate::net::list_around(longest));
    around.find(|prefix| peers.iter().all(|peer| prefix.contains(peer))).unwrap_or(longest)
}
