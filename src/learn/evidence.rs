//! Openings by server, service and peer. Memory is bounded by server, and as a whole.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::dns::NameId;
use super::scope::ServerId;
use crate::capture::Timestamp;
use crate::policy::Direction;

/// Services of one server, each with its own row.
const MAX_ROWS_BY_SERVER: usize = 512;
/// Rows at most.
const MAX_ROWS: usize = 16_384;
/// Peers of one row that are remembered: as many as a need may list.
pub(super) const MAX_PEERS_BY_ROW: usize = 64;
/// Peers of all rows.
const MAX_PEERS: usize = 65_536;

/// What one side opens on the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Service {
    pub(super) direction: Direction,
    pub(super) protocol: u8,
    /// A port, the type of an ICMP request, or 0.
    pub(super) port: u16,
}

/// An opening, as it is counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opening {
    pub(super) service: Service,
    pub(super) peer: IpAddr,
    /// The port from which it was opened.
    pub(super) from_port: u16,
    pub(super) time_ns: Timestamp,
    /// Its first packet may be an answer to something before the capture.
    pub(super) is_early: bool,
    /// The name by which the gate would let it pass.
    pub(super) name: NameUse,
}

/// Openings with one peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerEvidence {
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) first_ns: Timestamp,
    pub(super) last_ns: Timestamp,
    pub(super) name: NameUse,
}

/// By which name a server has opened all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameUse {
    /// It has opened nothing yet.
    Unused,
    /// By this one.
    Of(NameId),
    /// By no name, or by several.
    Without,
}

impl NameUse {
    /// One more opening, by a name or without.
    pub(super) fn of(name: Option<NameId>) -> NameUse {
        name.map_or(NameUse::Without, NameUse::Of)
    }

    fn join(self, other: NameUse) -> NameUse {
        match (self, other) {
            (NameUse::Unused, other) => other,
            (known, NameUse::Unused) => known,
            (known, other) if known == other => known,
            _ => NameUse::Without,
        }
    }
}

impl PeerEvidence {
    pub(super) fn merge(&mut self, other: &PeerEvidence) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.name = self.name.join(other.name);
    }
}

/// Peers with their openings, sorted. Most rows have one or two, which a map would give the room of eleven.
#[derive(Clone, Debug, Default)]
pub(super) struct Peers(Vec<(IpAddr, PeerEvidence)>);

impl Peers {
    fn find(&self, peer: &IpAddr) -> Result<usize, usize> {
        self.0.binary_search_by_key(peer, |(address, _)| *address)
    }

    pub(super) fn get(&self, peer: &IpAddr) -> Option<&PeerEvidence> {
        self.0.get(self.find(peer).ok()?).map(|(_, evidence)| evidence)
    }

    fn get_mut(&mut self, peer: &IpAddr) -> Option<&mut PeerEvidence> {
        let at = self.find(peer).ok()?;
        self.0.get_mut(at).map(|(_, evidence)| evidence)
    }

    fn contains(&self, peer: &IpAddr) -> bool {
        self.find(peer).is_ok()
    }

    fn get_or_insert(&mut self, peer: IpAddr, fresh: PeerEvidence) -> &mut PeerEvidence {
        let at = match self.find(&peer) {
            Ok(at) => at,
            Err(at) => {
                if self.0.len() == self.0.capacity() {
                    self.0.reserve_exact(1 + self.0.len() / 2);
                }
                self.0.insert(at, (peer, fresh));
                at
            }
        };
        &mut self.0[at].1
    }

    fn remove(&mut self, peer: &IpAddr) -> Option<PeerEvidence> {
        self.find(peer).ok().map(|at| self.0.remove(at).1)
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.0.iter().map(|(address, _)| *address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &PeerEvidence)> {
        self.0.iter().map(|(address, evidence)| (*address, evidence))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Openings of one service of one server.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) first_ns: Timestamp,
    pub(super) last_ns: Timestamp,
    pub(super) peers: Peers,
    /// Answered openings with peers that found no room.
    pub(super) others: u64,
    /// Unanswered openings with peers that found no room.
    pub(super) others_asked: u64,
    /// The port from which all were opened. `None`: it differs.
    pub(super) from_port: Option<u16>,
    /// All were opened so early that they may be answers.
    pub(super) is_early: bool,
}

impl Row {
    fn new(opening: &Opening) -> Row {
        Row {
            asked: 0,
            answered: 0,
            first_ns: opening.time_ns,
            last_ns: opening.time_ns,
            peers: Peers::default(),
            others: 0,
            others_asked: 0,
            from_port: Some(opening.from_port),
            is_early: true,
        }
    }

    /// Adds the evidence of another address of the same server.
    pub(super) fn merge(&mut self, other: Row) {
        self.asked += other.asked;
        self.answered += other.answered;
        self.first_ns = self.first_ns.min(other.first_ns);
        self.last_ns = self.last_ns.max(other.last_ns);
        self.others += other.others;
        self.others_asked += other.others_asked;
        self.is_early &= other.is_early;
        if self.from_port != other.from_port {
            self.from_port = None;
        }
        for (peer, evidence) in other.peers.0 {
            match self.peers.get_mut(&peer) {
                Some(known) => known.merge(&evidence),
                None => *self.peers.get_or_insert(peer, evidence) = evidence,
            }
        }
    }

    /// Peers that answered, or were answered.
    pub(super) fn answered_peers(&self) -> impl Iterator<Item = (IpAddr, &PeerEvidence)> {
        self.peers.iter().filter(|(_, peer)| peer.answered > 0)
    }
}

/// What one server did.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerEvidence {
    pub(super) rows: BTreeMap<Service, Row>,
    /// Openings of services that found no room.
    pub(super) folded: u64,
}

/// What all servers did.
#[derive(Default)]
pub(super) struct Evidence {
    pub(super) servers: BTreeMap<ServerId, ServerEvidence>,
    rows: usize,
    peers: usize,
}

impl Evidence {
    /// Counts an opening that nobody has answered yet.
    pub(super) fn note_asked(&mut self, server: ServerId, opening: &Opening) {
        self.note(server, opening, false);
    }

    /// Counts an opening that was answered. `was_asked`: it is counted as asked already.
    pub(super) fn note_answered(&mut self, server: ServerId, opening: &Opening, was_asked: bool) {
        self.note(server, opening, true);
        if !was_asked && let Some(row) = self.row_mut(server, opening) {
            row.asked += 1;
            if let Some(peer) = row.peers.get_mut(&opening.peer) {
                peer.asked += 1;
            }
        }
    }

    /// Counts what a gate has counted. Without a peer it is of peers that found no room.
    pub(super) fn add(
        &mut self,
        server: ServerId,
        service: Service,
        peer: Option<IpAddr>,
        counts: PeerEvidence,
        is_early: bool,
    ) {
        let all = self.servers.entry(server).or_default();
        if !all.rows.contains_key(&service) {
            if all.rows.len() >= MAX_ROWS_BY_SERVER || self.rows >= MAX_ROWS {
                all.folded += counts.answered;
                return;
            }
            self.rows += 1;
        }
        let row = all.rows.entry(service).or_insert_with(|| Row {
            asked: 0,
            answered: 0,
            first_ns: counts.first_ns,
            last_ns: counts.last_ns,
            peers: Peers::default(),
            others: 0,
            others_asked: 0,
            from_port: None,
            is_early: true,
        });
        row.asked += counts.asked;
        row.answered += counts.answered;
        row.first_ns = row.first_ns.min(counts.first_ns);
        row.last_ns = row.last_ns.max(counts.last_ns);
        row.is_early &= is_early;
        let is_new = peer.is_some_and(|peer| !row.peers.contains(&peer));
        let has_room = !is_new || (row.peers.len() < MAX_PEERS_BY_ROW && self.peers < MAX_PEERS);
        match peer.filter(|_| has_room) {
            Some(peer) if is_new => {
                *row.peers.get_or_insert(peer, counts) = counts;
                self.peers += 1;
            }
            Some(peer) => row.peers.get_or_insert(peer, counts).merge(&counts),
            None => {
                row.others += counts.answered;
                row.others_asked += counts.asked - counts.answered;
            }
        }
    }

    /// Counts answered openings of services that found no room.
    pub(super) fn fold(&mut self, server: ServerId, answered: u64) {
        self.servers.entry(server).or_default().folded += answered;
    }

    fn row_mut(&mut self, server: ServerId, opening: &Opening) -> Option<&mut Row> {
        self.servers.get_mut(&server)?.rows.get_mut(&opening.service)
    }

    fn note(&mut self, server: ServerId, opening: &Opening, is_answer: bool) {
        let all = self.servers.entry(server).or_default();
        let has_room = all.rows.len() < MAX_ROWS_BY_SERVER && self.rows < MAX_ROWS;
        if !all.rows.contains_key(&opening.service) {
            let finds_room =
                has_room || (is_answer && make_room(&mut all.rows, &mut self.rows, &mut self.peers));
            if !finds_room {
                all.folded += u64::from(is_answer);
                return;
            }
            all.rows.insert(opening.service, Row::new(opening));
            self.rows += 1;
        }
        let Some(row) = all.rows.get_mut(&opening.service) else { return };
        let is_new = !row.peers.contains(&opening.peer);
        if is_new && (row.peers.len() >= MAX_PEERS_BY_ROW || self.peers >= MAX_PEERS) {
            // one that answered is worth more than one that did not
            let silent = row.peers.iter().find(|(_, peer)| peer.answered == 0).map(|(address, _)| address);
            if let Some(silent) = silent.filter(|_| is_answer)
                && let Some(peer) = row.peers.remove(&silent)
            {
                row.others_asked += peer.asked;
                self.peers -= 1;
            }
        }
        let has_room = row.peers.len() < MAX_PEERS_BY_ROW && self.peers < MAX_PEERS;
        if !is_new || has_room {
            self.peers += usize::from(is_new);
            let fresh = PeerEvidence {
                asked: 0,
                answered: 0,
                first_ns: opening.time_ns,
                last_ns: opening.time_ns,
                name: NameUse::Unused,
            };
            let peer = row.peers.get_or_insert(opening.peer, fresh);
            peer.asked += u64::from(!is_answer);
            peer.answered += u64::from(is_answer);
            peer.last_ns = peer.last_ns.max(opening.time_ns);
            peer.name = peer.name.join(opening.name);
        } else if is_answer {
            row.others += 1;
        } else {
            row.others_asked += 1;
        }
        row.asked += u64::from(!is_answer);
        row.answered += u64::from(is_answer);
        row.last_ns = row.last_ns.max(opening.time_ns);
        row.is_early &= opening.is_early;
        if row.from_port != Some(opening.from_port) {
            row.from_port = None;
        }
    }
}

/// Takes away a row that nobody answered.
fn make_room(rows: &mut BTreeMap<Service, Row>, all_rows: &mut usize, all_peers: &mut usize) -> bool {
    let silent = rows.iter().find(|(_, row)| row.answered == 0).map(|(service, _)| *service);
    let Some(row) = silent.and_then(|service| rows.remove(&service)) else { return false };
    *all_rows -= 1;
    *all_peers -= row.peers.len();
    true
}
