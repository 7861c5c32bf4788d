//! Names as destinations (SPEC 2.2): what servers ask, what they are answered, and what that opens.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portcullis::net::DomainName;
use portcullis::policy::{Policy, Server};

use super::Model;
use super::coverage::Rule as Covered;
use super::dns::{Question, read_query, read_response};
use super::flows::FlowKey;
use super::name_tables::{Asker, Connection, Grant, GrantKey, Names, Query, Stream};
use super::needs::{self, Rule, Subject};
use super::packet::{Frame, Packet, Piece, RST, SYN, Tcp, Transport, UDP, Way, parse};

const SECOND_NS: u64 = 1_000_000_000;
const DNS: u16 = 53;
const QUERY_NS: u64 = 30 * SECOND_NS;
const GRACE_NS: u64 = 30 * SECOND_NS;
const KEEP_NS: u64 = 3600 * SECOND_NS;
const CONNECTION_NS: u64 = 432_000 * SECOND_NS;
/// decided: the use of a grant or connection is noted once a second.
const TOUCH_NS: u64 = SECOND_NS;
/// decided: of what the kernel has put together so many messages are read, and of a server's segment.
const MESSAGES: usize = 16;
const QUERIES: usize = 4;
/// decided: an address has so many names for one server.
const NAMES_OF_ADDRESS: usize = 16;

/// A grant that opens, and the rules that have its name.
pub struct Opened<'p> {
    pub key: GrantKey,
    pub rules: Vec<Rule<'p>>,
}

/// The rules that have protocol, port and name.
fn rules_of<'p>(policy: &Policy, rules: &[Rule<'p>], subject: Subject, name: &DomainName) -> Vec<Rule<'p>> {
    let has_name =
        |rule: &Rule<'_>| rule.need.resolve_names(&policy.sets).iter().any(|other| name.is_within(other));
    needs::having_port(rules, subject).into_iter().filter(has_name).collect()
}

/// The most specific name of the policy that the question is, or is below of.
fn find_name(policy: &Policy, question: &Question) -> Option<DomainName> {
    if question.labels.is_empty() || !question.labels.iter().all(|label| label.is_ascii()) {
        return None;
    }
    let names = policy.needed_names();
    // a dot in a label is no border of labels
    let labels = |name: &DomainName| -> Vec<Vec<u8>> {
        name.domain().split('.').map(|label| label.as_bytes().to_vec()).collect()
    };
    let covers = |name: &&DomainName| {
        let own = labels(name);
        match name.is_wildcard() {
            false => own == question.labels,
            true => question.labels.len() > own.len() && question.labels.ends_with(&own),
        }
    };
    let specific = |name: &&DomainName| (labels(name).len(), !name.is_wildcard());
    names.iter().filter(covers).max_by_key(specific).cloned()
}

/// Whether a need of the server has the name. Of one that forwards: of any server.
fn is_needed(policy: &Policy, server: &Server, name: &DomainName) -> bool {
    let rules = needs::outbound(policy, server);
    let mut names = rules.iter().flat_map(|rule| rule.need.resolve_names(&policy.sets));
    server.forwards || names.any(|other| name.is_within(&other))
}

/// Whether a name may have this address: what no host on the Internet has, no name has (RFC 6890).
fn may_be_granted(policy: &Policy, address: IpAddr) -> bool {
    let longest = |prefixes: &mut dyn Iterator<Item = ipnet::IpNet>| {
        prefixes.filter(|prefix| prefix.contains(&address)).map(|prefix| prefix.prefix_len()).max()
    };
    // decided: in a wider private prefix the well-known one means nothing
    let well_known = "64:ff9b::/96".parse::<ipnet::IpNet>().ok();
    let well_known = well_known.filter(|it| !policy.names.private.iter().any(|private| private.contains(it)));
    let private = longest(&mut policy.names.private.iter());
    let nat64 = longest(&mut policy.names.nat64.iter().chain(well_known));
    match (private, nat64) {
        (Some(private), nat64) if nat64.is_none_or(|length| private >= length) => true,
        (_, Some(length)) => may_be_granted(policy, IpAddr::V4(embedded(address, length))),
        _ => is_global(address) && needs::find_server(policy, address).is_none(),
    }
}

/// The IPv4 address in one of IPv6 (RFC 6052, 2.2): behind the prefix, without byte 8.
fn embedded(address: IpAddr, length: u8) -> Ipv4Addr {
    let IpAddr::V6(address) = address else { return Ipv4Addr::UNSPECIFIED };
    let octets = address.octets();
    let mut found = [0; 4];
    let from = usize::from(length) / 8;
    let places = (from..16).filter(|at| *at != 8);
    found.iter_mut().zip(places).for_each(|(to, at)| *to = octets[at]);
    Ipv4Addr::from(found)
}

fn is_global(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            !matches!(
                (a, b, c),
                (0 | 10 | 127, ..)
                    | (100, 64..128, _)
                    | (169, 254, _)
                    | (172, 16..32, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (192, 168, _)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
                    | (224.., ..)
            )
        }
        IpAddr::V6(address) => {
            let [a, b, ..] = address.segments();
            // decided: all that IANA keeps for protocols, Teredo among it
            let special = a == 0x2001 && (b < 0x200 || b == 0xdb8);
            a & 0xe000 == 0x2000 && !special && a != 0x2002 && !(a == 0x3fff && b < 0x1000)
        }
    }
}

/// The data of a TCP segment, or of a UDP datagram.
fn data_of(packet: &Packet) -> Option<&[u8]> {
    match &packet.transport {
        Some(Transport::Tcp(tcp)) => packet.payload.get(packet.payload.len() - tcp.data as usize..),
        Some(Transport::Ports { .. }) if packet.protocol == UDP => packet.payload.get(8..),
        _ => None,
    }
}

impl Model {
    /// Tells how interfaces are found, and which resolvers run on the router.
    pub fn set_ways(&mut self, index_of: fn(&str) -> u32, local: &[IpAddr]) {
        self.names.index_of = Some(index_of);
        self.names.local = local.to_vec();
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    /// decided: a server that has gone keeps its open grants and its connections, and nothing else.
    pub(super) fn tidy_names(&mut self, now_ns: u64) {
        let Some(policy) = &self.policy else { return };
        let stays = |server: &str| policy.find_server(server).is_some();
        self.names.queries.retain(|(asker, _), _| stays(&asker.server));
        self.names.streams.retain(|asker, _| stays(&asker.server));
        self.names.grants.retain(|(server, ..), grant| {
            server.as_deref().is_none_or(stays) || grant.open_until_ns > now_ns
        });
    }

    // ---- what opens --------------------------------------------------------

    fn is_open(&self, policy: &Policy, grant: &Grant, now_ns: u64) -> bool {
        let cap_ns = u64::from(policy.names.ttl.cap_s) * SECOND_NS + GRACE_NS;
        now_ns < grant.open_until_ns && now_ns < grant.answered_ns + cap_ns
    }

    /// Grants of a server for an address, then those that all servers have, each in the order in which they were
    /// made. decided: common ones count while a server of the policy forwards.
    fn list_grants(&self, policy: &Policy, server: &str, peer: IpAddr) -> Vec<(&GrantKey, &Grant)> {
        let common = policy.servers.iter().any(|server| server.forwards);
        let owners = [Some(Some(server.to_owned())), Some(None).filter(|_: &Option<String>| common)];
        let of_owner = |owner: Option<String>| {
            let mut grants: Vec<_> = self
                .names
                .grants
                .iter()
                .filter(|((of, address, _), _)| *of == owner && *address == peer)
                .collect();
            grants.sort_by_key(|(_, grant)| grant.number);
            grants
        };
        owners.into_iter().flatten().flat_map(of_owner).collect()
    }

    /// The grant by which the server may open this. decided: the first one with a need without a limit, else
    /// the last one; a server's own before common ones.
    pub fn find_grant<'p>(
        &self,
        policy: &'p Policy,
        server: &str,
        outbound: &[Rule<'p>],
        subject: Subject,
        now_ns: u64,
    ) -> Option<Opened<'p>> {
        let mut found: Option<Opened<'p>> = None;
        for (key, grant) in self.list_grants(policy, server, subject.peer) {
            // the server's own are looked through
            if key.0.is_none() && found.as_ref().is_some_and(|found| found.key.0.is_some()) {
                break;
            }
            let rules = rules_of(policy, outbound, subject, &key.2);
            if !self.is_open(policy, grant, now_ns) || rules.is_empty() {
                continue;
            }
            let unlimited = has_unlimited(&rules);
            found = Some(Opened { key: key.clone(), rules });
            if unlimited {
                break;
            }
        }
        found
    }

    /// The rules that carry a segment of a connection whose SYN a grant has let pass.
    pub fn find_carrying<'p>(
        &self,
        policy: &'p Policy,
        server: &str,
        outbound: &[Rule<'p>],
        subject: Subject,
        key: &FlowKey,
        now_ns: u64,
    ) -> Vec<Rule<'p>> {
        let connection = self.names.connections.get(key);
        connection
            .filter(|row| row.server == server && now_ns - row.last_ns <= CONNECTION_NS)
            .map_or_else(Vec::new, |row| rules_of(policy, outbound, subject, &row.name))
    }

    /// Whether a datagram comes from where the server may ask by a name. decided: also when the grant is over.
    pub(super) fn comes_from_named(&self, policy: &Policy, server: &Server, asked: Subject) -> bool {
        let outbound = needs::outbound(policy, server);
        self.list_grants(policy, &server.name, asked.peer)
            .iter()
            .any(|(key, _)| !rules_of(policy, &outbound, asked, &key.2).is_empty())
    }

    /// An opening passes by a grant.
    pub(super) fn use_grant(&mut self, key: &GrantKey, server: &str, flow: Option<&FlowKey>, now_ns: u64) {
        let owner = (Some(server.to_owned()), key.1, key.2.clone());
        let cap_ns = self.policy.as_ref().map_or(0, |policy| u64::from(policy.names.ttl.cap_s)) * SECOND_NS;
        let is_open = |grant: &&mut Grant| {
            now_ns < grant.open_until_ns && now_ns < grant.answered_ns + cap_ns + GRACE_NS
        };
        // decided: of two of a name that are open, the server's own
        let used = match self.names.grants.get_mut(&owner).filter(is_open) {
            Some(grant) => Some(grant),
            None => self.names.grants.get_mut(&(None, key.1, key.2.clone())).filter(is_open),
        };
        if let Some(grant) = used.filter(|grant| now_ns - grant.used_ns.min(now_ns) >= TOUCH_NS) {
            grant.used_ns = now_ns;
            grant.open_until_ns = grant.open_until_ns.max(now_ns + KEEP_NS);
        }
        if let Some(flow) = flow {
            let row = Connection { server: server.to_owned(), name: key.2.clone(), last_ns: now_ns };
            self.names.connections.insert(*flow, row);
        }
    }

    /// Whatever carries a segment keeps its connection.
    pub(super) fn touch_connection(&mut self, flow: &FlowKey, now_ns: u64) {
        if let Some(row) = self.names.connections.get_mut(flow)
            && now_ns - row.last_ns > TOUCH_NS
        {
            row.last_ns = now_ns;
        }
    }

    // ---- what is asked -----------------------------------------------------

    /// A packet of a server that passes by a need, or in a connection by one: perhaps it asks a resolver.
    pub(super) fn note_queries(&mut self, packet: &Packet, now_ns: u64) {
        let Some(policy) = self.policy.take() else { return };
        if packet.piece == Piece::Whole
            && packet.destination_port() == DNS
            && policy.resolvers().contains(&packet.destination)
            && let Some(server) = needs::find_server(&policy, packet.source)
            && let Some(data) = data_of(packet)
        {
            let asker = Asker {
                server: server.name.clone(),
                resolver: packet.destination,
                port: packet.source_port().unwrap_or(0),
            };
            match &packet.transport {
                Some(Transport::Tcp(tcp)) if !tcp.has(SYN) => {
                    for message in list_messages(data) {
                        self.note_query(&policy, server, &asker, message, now_ns);
                    }
                }
                Some(Transport::Ports { .. }) => self.note_query(&policy, server, &asker, data, now_ns),
                _ => {}
            }
        }
        self.policy = Some(policy);
    }

    fn note_query(&mut self, policy: &Policy, server: &Server, asker: &Asker, bytes: &[u8], now_ns: u64) {
        if let Some((id, question)) = read_query(bytes)
            && let Some(name) = find_name(policy, &question)
            && is_needed(policy, server, &name)
        {
            self.coverage.meet(Covered::QueryNoted);
            self.names.queries.insert((asker.clone(), id), Query { question, asked_ns: now_ns });
        }
    }

    // ---- what is answered --------------------------------------------------

    /// A frame on its way to a server: perhaps a resolver answers. `together`: the bytes of each datagram, where
    /// the kernel has put several into one frame.
    pub fn hear_resolver(&mut self, frame: &[u8], interface: u32, together: usize, now_ns: u64) {
        let Some(policy) = self.policy.take() else { return };
        if let Frame::Packet(packet) = parse(frame, Way::ToServer) {
            self.hear_answer(&policy, &packet, interface, together, now_ns);
        }
        self.policy = Some(policy);
    }

    fn hear_answer(
        &mut self,
        policy: &Policy,
        packet: &Packet,
        interface: u32,
        together: usize,
        now_ns: u64,
    ) {
        let from = packet.source_port();
        if from != Some(DNS) || !policy.resolvers().contains(&packet.source) {
            return;
        }
        let (Some(server), Some(data)) = (needs::find_server(policy, packet.destination), data_of(packet))
        else {
            return;
        };
        if !self.came_right(policy, packet.source, interface) {
            self.coverage.meet(Covered::AnswerByWrongWay);
            return;
        }
        let asker =
            Asker { server: server.name.clone(), resolver: packet.source, port: packet.destination_port() };
        match &packet.transport {
            Some(Transport::Tcp(tcp)) if packet.piece == Piece::Whole => {
                self.hear_segment_of_resolver(policy, server, asker, tcp, data, now_ns);
            }
            Some(Transport::Ports { .. }) => {
                let length = usize::from(super::packet::u16_at(&packet.payload, 4).unwrap_or(0));
                let own = if packet.piece == Piece::Whole { length.saturating_sub(8) } else { data.len() };
                let data = &data[..own.min(data.len())];
                let each = if together == 0 { data.len().max(1) } else { together };
                for message in data.chunks(each).take(MESSAGES) {
                    self.hear_message(policy, server, &asker, message, now_ns);
                }
            }
            _ => {}
        }
    }

    fn came_right(&self, policy: &Policy, resolver: IpAddr, interface: u32) -> bool {
        if interface == 0 {
            return self.names.local.contains(&resolver);
        }
        let index_of = self.names.index_of.unwrap_or(|_| 0);
        policy.names.from.0.iter().any(|name| index_of(name) == interface)
    }

    /// Messages begin where the one before ended, from the resolver's SYN+ACK on.
    fn hear_segment_of_resolver(
        &mut self,
        policy: &Policy,
        server: &Server,
        asker: Asker,
        tcp: &Tcp,
        data: &[u8],
        now_ns: u64,
    ) {
        if tcp.has(SYN) {
            let known = self.names.streams.get(&asker).is_some_and(|stream| stream.first == tcp.sequence);
            if tcp.is_syn_ack() && !known {
                let next = tcp.sequence.wrapping_add(1);
                self.names.streams.insert(asker, Stream { first: tcp.sequence, next, lost: false });
            }
            return;
        }
        if data.is_empty() || tcp.has(RST) {
            return;
        }
        for _ in 0..MESSAGES {
            let Some(stream) = self.names.streams.get_mut(&asker).filter(|stream| !stream.lost) else {
                return;
            };
            let skip = stream.next.wrapping_sub(tcp.sequence).cast_signed();
            let Some(rest) = usize::try_from(skip).ok().and_then(|skip| data.get(skip..)) else { return };
            let (length, message) = match rest {
                [] => return,
                [high, low, message @ ..] if !message.is_empty() => {
                    (usize::from(u16::from_be_bytes([*high, *low])), message)
                }
                // decided: then it isn't known any more where messages begin
                _ => {
                    stream.lost = true;
                    self.coverage.meet(Covered::StreamLost);
                    return;
                }
            };
            stream.next = stream.next.wrapping_add(2 + length as u32);
            self.hear_message(policy, server, &asker, &message[..length.min(message.len())], now_ns);
        }
    }

    fn hear_message(&mut self, policy: &Policy, server: &Server, asker: &Asker, bytes: &[u8], now_ns: u64) {
        let Some(response) = read_response(bytes) else { return };
        let Some(question) = &response.question else { return };
        let Some(name) = find_name(policy, question).filter(|name| is_needed(policy, server, name)) else {
            return;
        };
        let key = (asker.clone(), response.id);
        let known = self.names.queries.get(&key).filter(|query| now_ns - query.asked_ns <= QUERY_NS);
        if known.is_none_or(|query| query.question != *question) {
            self.coverage.meet(Covered::AnswerToNobody);
            return;
        }
        // once
        self.names.queries.remove(&key);
        let owner = (!server.forwards).then(|| server.name.clone());
        for record in response.addresses() {
            if let IpAddr::V6(address) = record.address
                && is_mapped(address)
            {
                continue;
            }
            if !may_be_granted(policy, record.address) {
                self.coverage.meet(Covered::Rebinding);
                continue;
            }
            self.coverage.meet(Covered::Granted);
            let ttl = policy.names.ttl;
            // RFC 2181, 8
            let seconds = if record.ttl >> 31 == 1 { 0 } else { record.ttl };
            let seconds = seconds.max(ttl.floor_s).min(ttl.cap_s);
            let until_ns = now_ns + u64::from(seconds) * SECOND_NS + GRACE_NS;
            self.grant((owner.clone(), record.address, name.clone()), until_ns, now_ns);
        }
    }

    /// decided: an answer never makes a grant's time shorter.
    fn grant(&mut self, key: GrantKey, until_ns: u64, now_ns: u64) {
        let others = self.names.grants.keys().filter(|other| (&other.0, other.1) == (&key.0, key.1)).count();
        if let Some(grant) = self.names.grants.get_mut(&key) {
            grant.answered_ns = now_ns;
            grant.open_until_ns = grant.open_until_ns.max(until_ns);
        } else if others < NAMES_OF_ADDRESS {
            self.names.made += 1;
            let number = self.names.made;
            self.names
                .grants
                .insert(key, Grant { answered_ns: now_ns, open_until_ns: until_ns, used_ns: 0, number });
        }
    }
}

/// decided: no host has it, in whatever `private` it lies.
fn is_mapped(address: Ipv6Addr) -> bool {
    address.to_ipv4_mapped().is_some()
}

pub fn has_unlimited(rules: &[Rule<'_>]) -> bool {
    rules.iter().any(|rule| rule.need.limit.is_none())
}

/// What may be messages in a segment of a server. decided: its beginning, for the length may have come before;
/// and what stands behind lengths, of which the last may go on in later segments. A server may note what it
/// likes.
fn list_messages(data: &[u8]) -> Vec<&[u8]> {
    let mut messages = vec![data];
    let mut rest = data;
    for _ in 0..QUERIES {
        let [high, low, message @ ..] = rest else { break };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((message, after)) = message.split_at_checked(length) else {
            messages.push(message);
            break;
        };
        messages.push(message);
        rest = after;
    }
    messages
}
