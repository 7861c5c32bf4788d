//! The flows that peers opened, as the two ends move them on.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::packet::{
    ACK, FIN, ICMP, ICMPV6, IcmpKind, Packet, RST, SYN, TCP, Tcp, Transport, UDP, icmp_kind,
};

pub const FIN_SERVER: u32 = 1;
pub const FIN_PEER: u32 = 2;
pub const RST_SERVER: u32 = 4;
pub const ANSWERED: u32 = 16;
pub const PICKED_UP: u32 = 32;
pub const REVOKED: u32 = 64;

const SECOND_NS: u64 = 1_000_000_000;

/// Where a flow is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    Established,
    HalfOpen,
    Datagrams,
    IcmpQueries,
    Unlisted,
}

/// A flow by its ends. ICMP: the server's port is the identifier, the peer's the type of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowKey {
    pub server: IpAddr,
    pub peer: IpAddr,
    pub protocol: u8,
    pub server_port: u16,
    pub peer_port: u16,
}

/// What is known of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowState {
    /// When it was last heard of (half-open and unlisted: opened).
    pub last_ns: u64,
    pub flags: u32,
    /// The policy that last found its service permitted; 0 for what is unlisted.
    pub generation: u32,
}

/// A handshake that the peer has not finished.
#[derive(Clone, Debug)]
pub struct HalfOpen {
    pub opened_ns: u64,
    pub generation: u32,
    /// Sequence numbers of the last two distinct SYN+ACKs, the latest first.
    syn_acks: Vec<u32>,
    /// Where what the server has sent after the latest of them ends.
    end: u32,
}

/// What an answer has changed of a flow without a handshake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answered {
    /// Its time was written.
    pub written: bool,
    /// It had no answer before.
    pub first: bool,
}

#[derive(Default)]
pub struct Flows {
    pub established: BTreeMap<FlowKey, FlowState>,
    pub half_open: BTreeMap<FlowKey, HalfOpen>,
    pub datagrams: BTreeMap<FlowKey, FlowState>,
    pub icmp_queries: BTreeMap<FlowKey, FlowState>,
    pub unlisted: BTreeMap<FlowKey, u64>,
    /// What servers began to open, by the server's name and as if the peer had opened it.
    pub own_openings: BTreeMap<(String, FlowKey), u64>,
}

/// The flow that a packet of the server would answer in, and the port of the service that it answers
/// from; none for what is no answer by its nature.
pub fn answered_flow(packet: &Packet) -> Option<(FlowKey, u16)> {
    let (server_port, peer_port, service) = match packet.transport.as_ref()? {
        Transport::Tcp(tcp) => (tcp.source, tcp.destination, tcp.source),
        Transport::Ports { source, destination } => (*source, *destination, *source),
        Transport::Icmp(icmp) => match icmp_kind(packet.source.is_ipv6(), icmp.kind) {
            IcmpKind::Reply(request) => (icmp.identifier, u16::from(request), u16::from(request)),
            _ => return None,
        },
        Transport::Portless => (0, 0, 0),
    };
    let key = FlowKey {
        server: packet.source,
        peer: packet.destination,
        protocol: packet.protocol,
        server_port,
        peer_port,
    };
    Some((key, service))
}

/// Writes a time stamp, at most once a second, and tells whether.
fn refresh(last_ns: &mut u64, now_ns: u64) -> bool {
    let is_due = now_ns - *last_ns >= SECOND_NS;
    if is_due {
        *last_ns = now_ns;
    }
    is_due
}

fn established_lives(flow: &FlowState, now_ns: u64) -> bool {
    if flow.flags & REVOKED != 0 {
        return false;
    }
    let seconds = if flow.flags & RST_SERVER != 0 {
        10
    } else if flow.flags & (FIN_SERVER | PICKED_UP) != 0 {
        120
    } else {
        432_000
    };
    now_ns - flow.last_ns <= seconds * SECOND_NS
}

fn datagrams_live(key: &FlowKey, flow: &FlowState, now_ns: u64) -> bool {
    if flow.flags & REVOKED != 0 {
        return false;
    }
    let seconds = match key.protocol {
        UDP if flow.flags & ANSWERED != 0 => 120,
        UDP => 30,
        ICMP | ICMPV6 => 30,
        _ => 600,
    };
    now_ns - flow.last_ns <= seconds * SECOND_NS
}

impl Flows {
    fn lives_established(&self, key: &FlowKey, now_ns: u64) -> bool {
        self.established.get(key).is_some_and(|flow| established_lives(flow, now_ns))
    }

    /// Whether the flow lives, or is known to be over. decided: a revoked one is known for five days after its last
    /// packet, any other TCP flow for ten minutes, and not if that was before a takeover.
    pub fn is_known(&self, key: &FlowKey, now_ns: u64, takeover_ns: Option<u64>) -> bool {
        let table = if key.protocol == TCP { &self.established } else { &self.datagrams };
        let is_over = |flow: &FlowState| {
            let age = now_ns - flow.last_ns;
            if flow.flags & REVOKED != 0 {
                return age <= 432_000 * SECOND_NS;
            }
            key.protocol == TCP
                && age <= 600 * SECOND_NS
                && takeover_ns.is_none_or(|takeover_ns| flow.last_ns > takeover_ns)
        };
        self.find(key, now_ns).is_some() || table.get(key).is_some_and(is_over)
    }

    /// Another router has let it be opened.
    pub fn hand_over(&mut self, key: &FlowKey, tcp: Option<&Tcp>, generation: u32, now_ns: u64) {
        let (table, flags) = match tcp {
            Some(tcp) => (&mut self.established, server_flags(tcp)),
            None => (&mut self.datagrams, ANSWERED),
        };
        table.insert(*key, FlowState { last_ns: now_ns, flags, generation });
    }

    /// Whether no SYN+ACK of a half-open flow was seen.
    pub fn is_unanswered(&self, key: &FlowKey) -> bool {
        self.half_open.get(key).is_some_and(|flow| flow.syn_acks.is_empty())
    }

    fn lives_half_open(&self, key: &FlowKey, now_ns: u64) -> bool {
        self.half_open.get(key).is_some_and(|flow| now_ns - flow.opened_ns <= 60 * SECOND_NS)
    }

    fn lives_unlisted(&self, key: &FlowKey, now_ns: u64) -> bool {
        let seconds = if key.protocol == TCP { 60 } else { 120 };
        self.unlisted.get(key).is_some_and(|opened_ns| now_ns - opened_ns <= seconds * SECOND_NS)
    }

    /// Whether the server itself has begun to open this, so that a peer's SYN can only cross its own.
    pub fn is_own(&self, server: &str, key: &FlowKey, now_ns: u64) -> bool {
        let opened = self.own_openings.get(&(server.to_owned(), *key));
        opened.is_some_and(|opened_ns| now_ns - opened_ns <= 120 * SECOND_NS)
    }

    /// The table that holds a live flow to answer in. decided: where a peer opens the same four numbers
    /// again while the old flow lives, all is of the old one until the handshake is finished.
    pub fn find(&self, key: &FlowKey, now_ns: u64) -> Option<Table> {
        match key.protocol {
            TCP => {
                if self.lives_established(key, now_ns) {
                    Some(Table::Established)
                } else if self.lives_half_open(key, now_ns) {
                    Some(Table::HalfOpen)
                } else {
                    None
                }
            }
            ICMP | ICMPV6 => self
                .icmp_queries
                .get(key)
                .is_some_and(|flow| datagrams_live(key, flow, now_ns))
                .then_some(Table::IcmpQueries),
            _ => self
                .datagrams
                .get(key)
                .is_some_and(|flow| datagrams_live(key, flow, now_ns))
                .then_some(Table::Datagrams),
        }
    }

    /// Whether a peer is known to have opened this, though it was no service of his. decided: a flow whose service a
    /// trial has revoked reveals no listener. After a swap it would be gone, and the answer in no flow.
    pub fn is_opened(&self, key: &FlowKey, now_ns: u64) -> bool {
        self.lives_unlisted(key, now_ns)
    }

    /// The server answers in a flow that [`Flows::find`] found.
    pub fn answer(
        &mut self,
        table: Table,
        key: &FlowKey,
        tcp: Option<&Tcp>,
        generation: u32,
        now_ns: u64,
    ) -> Answered {
        match (table, tcp) {
            (Table::Established, Some(tcp)) => {
                if let Some(flow) = self.established.get_mut(key) {
                    refresh(&mut flow.last_ns, now_ns);
                    flow.flags |= server_flags(tcp);
                    flow.generation = generation;
                }
                // .. but a SYN+ACK is the new handshake's
                if tcp.is_syn_ack()
                    && let Some(flow) = self.half_open.get_mut(key)
                {
                    flow.note_syn_ack(tcp);
                }
            }
            (Table::HalfOpen, Some(tcp)) => {
                if let Some(flow) = self.half_open.get_mut(key) {
                    flow.generation = generation;
                    if tcp.is_syn_ack() {
                        flow.note_syn_ack(tcp);
                    }
                    flow.note_data(tcp);
                }
            }
            (Table::Datagrams | Table::IcmpQueries, _) => {
                let flows =
                    if table == Table::Datagrams { &mut self.datagrams } else { &mut self.icmp_queries };
                if let Some(flow) = flows.get_mut(key) {
                    // decided: whatever its protocol, though only UDP's timeout asks for it.
                    let first = flow.flags & ANSWERED == 0;
                    flow.flags |= ANSWERED;
                    flow.generation = generation;
                    return Answered { first, written: refresh(&mut flow.last_ns, now_ns) };
                }
            }
            _ => {}
        }
        Answered::default()
    }

    /// Takes a flow over that was open before the gate was attached.
    pub fn pick_up(&mut self, key: &FlowKey, tcp: &Tcp, generation: u32, now_ns: u64) {
        let flags = PICKED_UP | server_flags(tcp);
        self.established.insert(*key, FlowState { last_ns: now_ns, flags, generation });
    }

    /// A peer's bare SYN to a service. Sent again, it keeps what is known of the SYN+ACK.
    pub fn open_half(&mut self, key: FlowKey, generation: u32, now_ns: u64) {
        if self.lives_half_open(&key, now_ns) {
            if let Some(flow) = self.half_open.get_mut(&key) {
                // decided: it counts as opened again.
                flow.opened_ns = now_ns;
                flow.generation = generation;
            }
        } else {
            let flow = HalfOpen { opened_ns: now_ns, generation, syn_acks: Vec::new(), end: 0 };
            self.half_open.insert(key, flow);
        }
    }

    /// Any other segment of the peer: it may finish a handshake, or belong to an established flow. Tells whether it
    /// has finished one.
    pub fn hear_peer(&mut self, key: &FlowKey, tcp: &Tcp, now_ns: u64) -> bool {
        let fin = if tcp.has(FIN) { FIN_PEER } else { 0 };
        if self.lives_half_open(key, now_ns)
            && let Some(flow) = self.half_open.get(key)
            && flow.is_acknowledged_by(tcp)
        {
            let established = FlowState { last_ns: now_ns, flags: fin, generation: flow.generation };
            self.half_open.remove(key);
            self.established.insert(*key, established);
            return true;
        }
        // A reset may be forged. decided: nor is it the peer being heard, so a picked-up flow stays so.
        if tcp.has(RST) {
            return false;
        }
        let Some(flow) = self.established.get_mut(key) else { return false };
        if established_lives(flow, now_ns) {
            flow.flags &= !PICKED_UP;
        }
        flow.flags |= fin;
        if established_lives(flow, now_ns) {
            refresh(&mut flow.last_ns, now_ns);
        }
        false
    }

    /// Ends the flows whose service is none any more. With `handover` they stay as known to be over.
    pub fn end_revoked(&mut self, handover: bool, permits: impl Fn(&FlowKey) -> bool) {
        self.half_open.retain(|key, _| permits(key));
        self.icmp_queries.retain(|key, _| permits(key));
        for table in [&mut self.established, &mut self.datagrams] {
            table.retain(|key, flow| {
                let permitted = permits(key);
                if handover && !permitted {
                    flow.flags |= REVOKED;
                }
                permitted || handover
            });
        }
    }

    /// A peer's datagram, query or packet of another protocol, to a service.
    /// Tells whether its time was written. decided: as the policy was just asked, the flow's generation is the
    /// live one.
    pub fn open_datagrams(&mut self, key: FlowKey, generation: u32, now_ns: u64) -> bool {
        let icmp = key.protocol == ICMP || key.protocol == ICMPV6;
        let flows = if icmp { &mut self.icmp_queries } else { &mut self.datagrams };
        match flows.get_mut(&key) {
            Some(flow) if datagrams_live(&key, flow, now_ns) => {
                flow.generation = generation;
                refresh(&mut flow.last_ns, now_ns)
            }
            _ => {
                flows.insert(key, FlowState { last_ns: now_ns, flags: 0, generation });
                true
            }
        }
    }

    /// A peer's opening of what is no service of his.
    pub fn open_unlisted(&mut self, key: FlowKey, now_ns: u64) {
        self.unlisted.insert(key, now_ns);
    }

    /// A server's bare SYN.
    pub fn open_own(&mut self, server: &str, key: FlowKey, now_ns: u64) {
        // decided: once a second
        let opened_ns = self.own_openings.entry((server.to_owned(), key)).or_insert(now_ns);
        if now_ns - *opened_ns >= SECOND_NS {
            *opened_ns = now_ns;
        }
    }

    /// Everything the tables hold, dead flows too.
    pub fn list(&self) -> BTreeMap<(Table, FlowKey), FlowState> {
        let mut all = BTreeMap::new();
        for (table, flows) in [
            (Table::Established, &self.established),
            (Table::Datagrams, &self.datagrams),
            (Table::IcmpQueries, &self.icmp_queries),
        ] {
            all.extend(flows.iter().map(|(key, flow)| ((table, *key), *flow)));
        }
        for (key, flow) in &self.half_open {
            let state = FlowState { last_ns: flow.opened_ns, flags: 0, generation: flow.generation };
            all.insert((Table::HalfOpen, *key), state);
        }
        for (key, opened_ns) in &self.unlisted {
            let state = FlowState { last_ns: *opened_ns, flags: 0, generation: 0 };
            all.insert((Table::Unlisted, *key), state);
        }
        all
    }
}

fn server_flags(tcp: &Tcp) -> u32 {
    (if tcp.has(FIN) { FIN_SERVER } else { 0 }) | (if tcp.has(RST) { RST_SERVER } else { 0 })
}

impl HalfOpen {
    /// The server answers the peer's SYN.
    fn note_syn_ack(&mut self, tcp: &Tcp) {
        if self.syn_acks.first() != Some(&tcp.sequence) {
            self.syn_acks.retain(|known| *known != tcp.sequence);
            self.syn_acks.insert(0, tcp.sequence);
            self.syn_acks.truncate(2);
            self.end = sequence_end(tcp);
        }
    }

    /// The server sends something before the peer has finished the handshake. decided: data within the
    /// SYN+ACK itself (RFC 7413) may be acknowledged too; a reset without an ACK says nothing.
    fn note_data(&mut self, tcp: &Tcp) {
        // what ends before is older
        let further = sequence_end(tcp).wrapping_sub(self.end).cast_signed();
        if !self.syn_acks.is_empty() && tcp.has(ACK) && further > 0 {
            self.end = sequence_end(tcp);
        }
    }

    fn is_acknowledged_by(&self, tcp: &Tcp) -> bool {
        if !tcp.has(ACK) || tcp.has(RST) {
            return false;
        }
        let latest = self.syn_acks.first().is_some_and(|sequence| {
            let said = tcp.acknowledgment.wrapping_sub(*sequence);
            said > 0 && said <= self.end.wrapping_sub(*sequence)
        });
        // decided: of the one before only itself, and of the latest always itself
        latest || self.syn_acks.iter().skip(1).any(|sequence| tcp.acknowledgment == sequence.wrapping_add(1))
    }
}

/// What the acknowledgment of a segment would say.
fn sequence_end(tcp: &Tcp) -> u32 {
    tcp.sequence.wrapping_add(tcp.data).wrapping_add(u32::from(tcp.has(SYN)) + u32::from(tcp.has(FIN)))
}
