//! What servers and peers say to each other, and what else is on the link: events by chance, most
//! of them well-formed and in an order that makes sense.

use std::net::IpAddr;

use super::event::{Event, Known, KnownState, Whom};
use super::mutation::{LEAST, MOST_TO_SERVER, ip_offset, mutate, noise, version};
use super::policies::SERVERS;
use super::setting::{
    PROTOCOLS, ROUTER_MACS, ROUTERS, SERVER_MACS, pick_client_port, pick_odd, pick_peer, pick_port,
    pick_server, pick_service,
};
use crate::support::chance::Chance;
use crate::support::dmz::ip;
use crate::support::frame::{
    ACK, DCCP, Endpoint, FIN, HOP_BY_HOP, ICMP, ICMPV6, IGMP, IP, Ipv6, PSH, RST, SCTP, SYN, TCP, UDP,
    ethernet, fragment, icmp_message, link_frame, octets, packet, patched, tcp_header, udp_datagram,
};

/// Frames that later events come back to.
const MEMORY: usize = 24;
/// So many frames of a hundred are tampered with.
const MUTATED: usize = 18;

/// Invents events.
pub struct Talk {
    pub(super) chance: Chance,
    /// The last IP packets, both ways.
    heard: Vec<Vec<u8>>,
    pub(super) events: Vec<Event>,
    /// Addresses that were said to have names.
    pub(super) named: Vec<IpAddr>,
}

impl Talk {
    pub fn new(chance: Chance) -> Talk {
        Talk { chance, heard: Vec::new(), events: Vec::new(), named: Vec::new() }
    }

    pub fn chance(&mut self) -> &mut Chance {
        &mut self.chance
    }

    /// One sequence of events.
    pub fn invent(&mut self) -> Vec<Event> {
        for _ in 0..self.chance.within(1..10) {
            self.converse();
            if self.chance.percent(7) {
                self.wait();
            }
        }
        let mut events = std::mem::take(&mut self.events);
        // two conversations at once
        if self.chance.percent(15) {
            for _ in 0..events.len() / 2 {
                let at = self.chance.below(events.len().max(2) - 1);
                if at + 1 < events.len() {
                    events.swap(at, at + 1);
                }
            }
        }
        events
    }

    /// What was said before, once more: for after something has changed.
    pub fn say_again(&mut self) -> Vec<Event> {
        for _ in 0..16 {
            self.repeat();
        }
        std::mem::take(&mut self.events)
    }

    /// Datagrams in pieces, and something that happens between a first piece and the others.
    pub fn send_across(&mut self, order: Event) -> Vec<Event> {
        let mut later = Vec::new();
        for id in 10..16 {
            let (server, peer) = self.pick_pair();
            let to = (peer, pick_service(&mut self.chance));
            let datagram = udp_datagram((server, 40000), to, &[5; 24]);
            self.events.push(Event::From(fragment(server, peer, UDP, (id, 0, true), &datagram[..16])));
            later.push(Event::From(fragment(server, peer, UDP, (id, 2, false), &datagram[16..])));
        }
        let mut events = std::mem::take(&mut self.events);
        events.push(order);
        events.extend(later);
        events
    }

    pub(super) fn wait(&mut self) {
        let seconds = self.chance.pick(&[
            0, 1, 2, 5, 9, 10, 15, 29, 30, 31, 45, 59, 60, 61, 90, 119, 120, 121, 300, 500, 599, 600, 601,
            1300,
        ]);
        let seconds =
            if self.chance.percent(3) { self.chance.pick(&[431_998, 432_000, 90_000]) } else { seconds };
        self.events.push(Event::Wait(seconds));
    }

    fn converse(&mut self) {
        if self.chance.below(250) == 0 {
            return self.ask_from_everywhere();
        }
        match self.chance.below(62) {
            0..10 => self.shake_hands(),
            10..14 => self.call_out(),
            14..19 => self.ask_by_datagram(),
            19..22 => self.ping(),
            22..25 => self.complain(),
            25..28 => self.send_in_pieces(),
            28..30 => self.talk_to_the_link(),
            30..32 => self.speak_another_protocol(),
            32..34 => self.say_anything(),
            34..36 => self.repeat(),
            36 => self.find_an_address(),
            37 => self.make_noise(),
            38 => self.shout_out(),
            39 => self.ask_in_pieces(),
            40 => self.answer_late(),
            41 => self.ask_crookedly(),
            42 => self.send_too_much(),
            43 => self.tell_a_mac(),
            44 => self.advertise_a_router(),
            45 => self.ask_the_link(),
            46 => self.answer_from_quarantine(),
            47 => self.write_over_headers(),
            48 => self.cross_syns(),
            49 => self.shake_hands(),
            50..54 => self.come_from_another_router(),
            _ => self.look_up(),
        }
    }

    // ---- frames ------------------------------------------------------------

    pub(super) fn leave(&mut self, packet: Vec<u8>) {
        self.hear(&packet);
        let mut frame = ethernet(&packet);
        if self.chance.percent(8) {
            let mac = self.chance.pick(&SERVER_MACS);
            frame[6..12].copy_from_slice(&mac);
        }
        self.send_frame(frame, true);
    }

    pub(super) fn arrive(&mut self, packet: Vec<u8>) {
        self.hear(&packet);
        self.send_frame(ethernet(&packet), false);
    }

    fn send_frame(&mut self, frame: Vec<u8>, from: bool) {
        let mut frame = if self.chance.percent(MUTATED) { mutate(&mut self.chance, &frame) } else { frame };
        if frame.len() < LEAST {
            frame.resize(LEAST, 0);
        }
        if from && self.chance.percent(4) {
            let mac = self.pick_mac();
            frame[..6].copy_from_slice(&mac);
        }
        if from {
            self.events.push(Event::From(frame));
        } else {
            frame.truncate(MOST_TO_SERVER);
            self.events.push(match self.chance.below(25) {
                0 => Event::Back(frame, false),
                1 => Event::Back(frame, true),
                _ => Event::To(frame),
            });
        }
        // the network duplicates
        if self.chance.percent(4)
            && let Some(last) = self.events.last()
        {
            self.events.push(last.clone());
        }
    }

    fn hear(&mut self, packet: &[u8]) {
        if self.heard.len() >= MEMORY {
            let at = self.chance.below(MEMORY);
            self.heard.swap_remove(at);
        }
        self.heard.push(packet.to_vec());
    }

    /// A server and a peer of one family.
    fn pick_pair(&mut self) -> (IpAddr, IpAddr) {
        let v6 = self.chance.percent(45);
        (pick_server(&mut self.chance, v6), pick_peer(&mut self.chance, v6))
    }

    pub(super) fn segment(
        &mut self,
        from: Endpoint,
        to: Endpoint,
        flags: u8,
        numbers: (u32, u32),
        data: usize,
    ) -> Vec<u8> {
        let mut segment = tcp_header(from, to, flags, numbers);
        segment.extend(std::iter::repeat_n(0x64, data));
        packet(from.0, to.0, TCP, &segment)
    }

    // ---- TCP ---------------------------------------------------------------

    /// A peer opens a connection to a server, and it goes on for a while. Any step may be missing.
    fn shake_hands(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_service(&mut self.chance));
        let peer = (peer, pick_client_port(&mut self.chance));
        let (mine, mut theirs) = (1000_u32, 5000_u32);
        if self.chance.percent(10) {
            theirs = u32::MAX - self.chance.below(3) as u32;
        }
        if self.chance.percent(92) {
            let packet = self.segment(peer, server, SYN, (mine, 0), 0);
            self.arrive(packet);
        }
        if self.chance.percent(8) {
            // split handshake, simultaneous open
            let flags = self.chance.pick(&[ACK, SYN, SYN | ACK]);
            let packet = self.segment(server, peer, flags, (theirs, mine + 1), 0);
            self.leave(packet);
        }
        let mut early = 0;
        if self.chance.percent(85) {
            let data = if self.chance.percent(8) { 16 } else { 0 };
            let packet = self.segment(server, peer, SYN | ACK, (theirs, mine + 1), data);
            self.leave(packet);
            early += data as u32;
        }
        if self.chance.percent(10) {
            // sent again, perhaps with another number (SYN cookies)
            theirs = theirs.wrapping_add(self.chance.pick(&[0, 7000, 7000, 1]));
            let packet = self.segment(server, peer, SYN | ACK, (theirs, mine + 1), 0);
            self.leave(packet);
            early = 0;
        }
        if self.chance.percent(10) {
            let packet = self.segment(server, peer, ACK, (theirs.wrapping_add(1), mine + 1), 24);
            self.leave(packet);
            early += 24;
        }
        if self.chance.percent(88) {
            let right = theirs.wrapping_add(1);
            let acknowledged = match self.chance.below(20) {
                0 => right.wrapping_add(1),
                1 => right.wrapping_sub(1),
                2 => right.wrapping_sub(2),
                3 => self.chance.next() as u32,
                4 => right.wrapping_add(early),
                5 => right.wrapping_add(early + 1),
                6 => 5001,
                _ => right,
            };
            let flags = match self.chance.below(20) {
                0 => ACK | RST,
                1 => ACK | FIN,
                2 => RST,
                3 => ACK | PSH,
                _ => ACK,
            };
            let data = if self.chance.percent(20) { 10 } else { 0 };
            let packet = self.segment(peer, server, flags, (mine + 1, acknowledged), data);
            self.arrive(packet);
        }
        self.go_on(server, peer);
    }

    /// Segments of a connection, both ways.
    fn go_on(&mut self, server: Endpoint, peer: Endpoint) {
        for _ in 0..self.chance.below(6) {
            let flags = match self.chance.below(14) {
                0 => FIN | ACK,
                1 => RST,
                2 => RST | ACK,
                3 => SYN,
                4 => SYN | ACK,
                _ => ACK | PSH,
            };
            let numbers = (self.chance.pick(&[5001, 1001, 6000]), self.chance.pick(&[1001, 5001, 5010]));
            let data = self.chance.pick(&[0, 0, 1, 100]);
            if self.chance.percent(60) {
                let packet = self.segment(server, peer, flags, numbers, data);
                self.leave(packet);
            } else {
                let packet = self.segment(peer, server, flags, numbers, data);
                self.arrive(packet);
            }
            if self.chance.percent(12) {
                self.wait();
            }
        }
    }

    /// A server opens a connection.
    fn call_out(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_client_port(&mut self.chance));
        let peer = (peer, pick_service(&mut self.chance));
        for _ in 0..self.chance.pick(&[1, 1, 1, 2, 4]) {
            let packet = self.segment(server, peer, SYN, (1, 0), 0);
            self.leave(packet);
        }
        if self.chance.percent(50) {
            let flags = self.chance.pick(&[SYN | ACK, SYN | ACK, RST | ACK]);
            let packet = self.segment(peer, server, flags, (9000, 2), 0);
            self.arrive(packet);
            let flags = self.chance.pick(&[ACK, ACK | PSH, FIN | ACK, RST, SYN | ACK]);
            let packet = self.segment(server, peer, flags, (2, 9001), 0);
            self.leave(packet);
        }
    }

    /// Both ends open the same connection at once, or a listener's answer looks as if they did.
    fn cross_syns(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_client_port(&mut self.chance));
        let peer = (peer, pick_service(&mut self.chance));
        let mut steps = [(true, SYN), (false, SYN)];
        if self.chance.percent(40) {
            steps.swap(0, 1);
        }
        for (from, flags) in steps {
            if self.chance.percent(10) {
                continue;
            }
            if self.chance.percent(5) {
                self.wait();
            }
            let (from, to, leaves) = if from { (server, peer, true) } else { (peer, server, false) };
            let packet = self.segment(from, to, flags, (7000, 0), 0);
            if leaves { self.leave(packet) } else { self.arrive(packet) }
        }
        if self.chance.percent(15) {
            self.events.push(Event::Quarantine(Whom::Addresses(server.0.into()), Some(5)));
        }
        if self.chance.percent(20) {
            self.wait();
        }
        for flags in [SYN | ACK, ACK] {
            let packet = self.segment(server, peer, flags, (7000, 7001), 0);
            self.leave(packet);
        }
    }

    /// A flow goes on that another router let be opened, or that conntrack knows otherwise.
    fn come_from_another_router(&mut self) {
        for _ in 0..self.chance.within(1..4) {
            self.go_on_from_another_router();
        }
    }

    fn go_on_from_another_router(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_service(&mut self.chance));
        let peer = (peer, pick_client_port(&mut self.chance));
        let tcp = self.chance.percent(60);
        if self.chance.percent(15) {
            self.shake_hands();
        }
        if self.chance.percent(10) {
            self.events.push(Event::Takeover(10));
        }
        if self.chance.percent(90) {
            let state = match self.chance.below(10) {
                at @ 1..6 => KnownState::ALL[at].0,
                _ => KnownState::Answered,
            };
            self.events.push(Event::Conntrack(Known { tcp, server, peer, state }));
        }
        for _ in 0..self.chance.within(1..4) {
            let packet = match tcp {
                true => {
                    let flags = self.chance.pick(&[ACK, ACK, ACK | PSH, FIN | ACK, RST, SYN | ACK, SYN]);
                    self.segment(server, peer, flags, (5001, 1001), 1)
                }
                false => self.datagram(server, peer),
            };
            self.leave(packet);
            if self.chance.percent(15) {
                self.wait();
            }
        }
        if tcp {
            self.go_on(server, peer);
        }
    }

    // ---- datagrams -----------------------------------------------------------

    fn datagram(&mut self, from: Endpoint, to: Endpoint) -> Vec<u8> {
        if self.chance.percent(12) {
            let mut chunk = Vec::new();
            chunk.extend_from_slice(&from.1.to_be_bytes());
            chunk.extend_from_slice(&to.1.to_be_bytes());
            chunk.extend_from_slice(&[0; 12]);
            // DATA, INIT, INIT ACK, HEARTBEAT, ABORT, SHUTDOWN COMPLETE
            chunk[12] = self.chance.pick(&[0, 1, 1, 2, 2, 4, 6, 14]);
            return packet(from.0, to.0, SCTP, &chunk);
        }
        let count = self.chance.below(40);
        let data = self.chance.bytes(count);
        packet(from.0, to.0, UDP, &udp_datagram(from, to, &data))
    }

    fn ask_by_datagram(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_service(&mut self.chance));
        let peer =
            (peer, if self.chance.percent(20) { server.1 } else { pick_client_port(&mut self.chance) });
        for _ in 0..self.chance.within(1..5) {
            if self.chance.percent(45) {
                let datagram = self.datagram(peer, server);
                self.arrive(datagram);
            } else {
                let datagram = self.datagram(server, peer);
                self.leave(datagram);
            }
            if self.chance.percent(15) {
                self.wait();
            }
        }
    }

    /// A server sends to a service of somebody.
    fn shout_out(&mut self) {
        let (server, peer) = self.pick_pair();
        let from = (server, pick_client_port(&mut self.chance));
        for _ in 0..self.chance.within(1..5) {
            let to = (peer, pick_service(&mut self.chance));
            let datagram = self.datagram(from, to);
            self.leave(datagram);
        }
        if self.chance.percent(40) {
            let datagram = self.datagram((peer, 53), from);
            self.arrive(datagram);
        }
    }

    // ---- ICMP ----------------------------------------------------------------

    fn message(&mut self, from: IpAddr, to: IpAddr, kind: u8, id: u16) -> Vec<u8> {
        let [high, low] = id.to_be_bytes();
        let protocol = if from.is_ipv4() { ICMP } else { ICMPV6 };
        packet(from, to, protocol, &icmp_message(from, to, (kind, 0), [high, low, 0, 1], b"ping"))
    }

    fn ping(&mut self) {
        let (server, peer) = self.pick_pair();
        let id = self.chance.pick(&[1, 2, 0]);
        let pairs: &[(u8, u8)] = if server.is_ipv4() {
            &[(8, 0), (8, 0), (8, 0), (13, 14), (15, 16), (17, 18), (42, 43)]
        } else {
            &[(128, 129), (128, 129), (139, 140), (160, 161)]
        };
        let (request, reply) = self.chance.pick(pairs);
        if self.chance.percent(70) {
            if self.chance.percent(85) {
                let message = self.message(peer, server, request, id);
                self.arrive(message);
            }
            if self.chance.percent(10) {
                self.wait();
            }
            let id = if self.chance.percent(90) { id } else { id ^ 1 };
            let message = self.message(server, peer, reply, id);
            self.leave(message);
        } else {
            let message = self.message(server, peer, request, id);
            self.leave(message);
            let message = self.message(peer, server, reply, id);
            self.arrive(message);
        }
    }

    /// An ICMP error about something that was heard.
    fn complain(&mut self) {
        if self.heard.is_empty() {
            return self.ping();
        }
        let at = self.chance.below(self.heard.len());
        let mut quoted = self.heard[at].clone();
        let length = self.chance.pick(&[28, 48, 60, 100, 2000]);
        quoted.truncate(length);
        if self.chance.percent(10) {
            let at = self.chance.below(quoted.len());
            quoted[at] ^= 1 << self.chance.below(8);
        }
        let Some((from, to)) = addresses_of(&quoted) else { return };
        // who complains is nearly always whom the packet went to
        let complainer =
            if self.chance.percent(85) { to } else { pick_server(&mut self.chance, to.is_ipv6()) };
        let kind = match from {
            IpAddr::V4(_) => self.chance.pick(&[3, 3, 3, 4, 11, 12, 5]),
            IpAddr::V6(_) => self.chance.pick(&[1, 1, 2, 3, 4, 5, 127]),
        };
        let protocol = if from.is_ipv4() { ICMP } else { ICMPV6 };
        let code = self.chance.below(5) as u8;
        let message = icmp_message(complainer, from, (kind, code), [0; 4], &quoted);
        let error = packet(complainer, from, protocol, &message);
        if self.chance.percent(85) { self.leave(error) } else { self.arrive(error) }
    }

    // ---- fragments -------------------------------------------------------------

    fn send_in_pieces(&mut self) {
        let (server, peer) = self.pick_pair();
        let (protocol, payload) = self.make_payload(server, peer);
        let id = self.chance.pick(&[1_u16, 2, 3, 0]);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < payload.len() {
            let units = self.chance.pick(&[1, 1, 2, 3, 4, 8]);
            let end = (at + units * 8).min(payload.len());
            pieces.push(((at / 8) as u16, end < payload.len(), payload[at..end].to_vec()));
            at = end;
        }
        if self.chance.percent(20) {
            pieces.reverse();
        }
        if self.chance.percent(15) && !pieces.is_empty() {
            let gone = self.chance.below(pieces.len());
            pieces.remove(gone);
        }
        if self.chance.percent(10)
            && let Some(first) = pieces.first().cloned()
        {
            pieces.push(first);
        }
        let outward = self.chance.percent(85);
        for (offset, more, bytes) in pieces {
            let protocol = if self.chance.percent(4) { self.chance.pick(&PROTOCOLS) } else { protocol };
            let frame = fragment(server, peer, protocol, (id, offset, more), &bytes);
            self.hear(&frame[IP..]);
            self.send_frame(frame, outward);
            if self.chance.percent(3) {
                self.wait();
            }
        }
    }

    /// What a datagram that is sent in pieces has in it.
    fn make_payload(&mut self, server: IpAddr, peer: IpAddr) -> (u8, Vec<u8>) {
        let outward = self.chance.percent(50);
        let (a, b) = (pick_service(&mut self.chance), pick_client_port(&mut self.chance));
        let (from, to) = if outward { ((server, b), (peer, a)) } else { ((server, a), (peer, b)) };
        match self.chance.below(8) {
            0 | 1 => {
                let flags = self.chance.pick(&[SYN, ACK, SYN | ACK, RST]);
                let mut segment = tcp_header(from, to, flags, (5000, 1001));
                segment.extend_from_slice(&[7; 30]);
                (TCP, segment)
            }
            2 => {
                let protocol = if server.is_ipv4() { ICMP } else { ICMPV6 };
                let kind = if server.is_ipv4() {
                    self.chance.pick(&[0, 8, 3])
                } else {
                    self.chance.pick(&[128, 129, 1, 135])
                };
                (protocol, icmp_message(server, peer, (kind, 0), [0, 1, 0, 1], &[9; 40]))
            }
            3 => (self.chance.pick(&PROTOCOLS), vec![3; 40]),
            _ => (UDP, udp_datagram(from, to, &[5; 50])),
        }
    }

    /// A peer's question or opening, in pieces of any length, to a server that answers.
    fn ask_in_pieces(&mut self) {
        let (server, peer) = self.pick_pair();
        let (server, peer) =
            ((server, pick_service(&mut self.chance)), (peer, pick_client_port(&mut self.chance)));
        let tcp = self.chance.percent(50);
        let payload = if tcp {
            let mut segment = tcp_header(peer, server, SYN, (1000, 0));
            segment.extend_from_slice(&[7; 30]);
            segment
        } else {
            udp_datagram(peer, server, &[5; 50])
        };
        let protocol = if tcp { TCP } else { UDP };
        let id = self.chance.pick(&[1_u16, 2, 3, 0]);
        let first = self.chance.pick(&[8, 8, 16, 24, 25, 2, 4, 45]).min(payload.len());
        let pieces = [(0, true, &payload[..first]), (first.div_ceil(8) as u16, false, &payload[first..])];
        for (offset, more, bytes) in pieces {
            let frame = fragment(peer.0, server.0, protocol, (id, offset, more), bytes);
            if self.chance.percent(90) {
                self.hear(&frame[IP..]);
                self.send_frame(frame, false);
            }
        }
        self.answer(server, peer, tcp);
    }

    fn answer(&mut self, server: Endpoint, peer: Endpoint, tcp: bool) {
        let packet = if tcp {
            self.segment(server, peer, SYN | ACK, (5000, 1001), 0)
        } else {
            self.datagram(server, peer)
        };
        self.leave(packet);
    }

    /// A server answers when the flow has long ended.
    fn answer_late(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_service(&mut self.chance));
        let peer = (peer, pick_client_port(&mut self.chance));
        if self.chance.percent(80) {
            let question = self.datagram(peer, server);
            self.arrive(question);
        }
        let ping = self.chance.percent(25);
        if ping {
            let request = if peer.0.is_ipv4() { 8 } else { 128 };
            let request = self.message(peer.0, server.0, request, 3);
            self.arrive(request);
        }
        let seconds = self.chance.pick(&[31, 33, 121, 590, 650, 1100, 1210]);
        self.events.push(Event::Wait(seconds));
        let answer = self.datagram(server, peer);
        self.leave(answer);
        if ping {
            let reply = self.message(server.0, peer.0, if peer.0.is_ipv4() { 0 } else { 129 }, 3);
            self.leave(reply);
        }
    }

    /// A flood in the names of many, that fills the memory of peers where it is small; then answers to
    /// some who have asked, and to some who have not.
    fn ask_from_everywhere(&mut self) {
        let (server, peer) = self.pick_pair();
        let server = (server, pick_service(&mut self.chance));
        let port = pick_client_port(&mut self.chance);
        for number in 0..self.chance.pick(&[8, 20, 40]) {
            let asker = match peer {
                IpAddr::V4(_) => ip(&format!("203.0.113.{}", 100 + number)),
                IpAddr::V6(_) => ip(&format!("2001:db8:50::{:x}", 0x100 + number)),
            };
            let datagram = udp_datagram((asker, port), server, &[5; 8]);
            self.events.push(Event::To(ethernet(&packet(asker, server.0, UDP, &datagram))));
        }
        for _ in 0..4 {
            let peer = (pick_peer(&mut self.chance, peer.is_ipv6()), port);
            let answer = self.datagram(server, peer);
            self.leave(answer);
        }
    }

    /// An opening that the filter would call broken, and a host may take.
    fn ask_crookedly(&mut self) {
        let (server, peer) = self.pick_pair();
        let (server, peer) =
            ((server, pick_service(&mut self.chance)), (peer, pick_client_port(&mut self.chance)));
        let tcp = self.chance.percent(40);
        let (protocol, payload) = if tcp {
            let flags =
                self.chance.pick(&[SYN | FIN, SYN, SYN | RST, SYN | RST, SYN | RST | ACK, SYN | 0xc0]);
            (TCP, tcp_header(peer, server, flags, (1000, 0)))
        } else {
            let mut datagram = udp_datagram(peer, server, &[5; 20]);
            datagram[5] = self.chance.pick(&[0, 7, 28, 200]);
            (UDP, datagram)
        };
        if peer.0.is_ipv6() {
            let mut question = Ipv6::new(peer.0, server.0, protocol, &payload);
            for _ in 0..self.chance.pick(&[0, 1, 9, 12, 30]) {
                let kind = self.chance.pick(&[HOP_BY_HOP, 60, 60, 60]);
                question = question.extension(kind, &[0, 1, 4, 0, 0, 0, 0]);
            }
            self.arrive(question.packet());
        } else {
            self.arrive(packet(peer.0, server.0, protocol, &payload));
        }
        self.answer(server, peer, tcp);
    }

    /// More later fragments than any datagram has.
    fn send_too_much(&mut self) {
        let (server, peer) = self.pick_pair();
        let id = self.chance.pick(&[1_u16, 2, 3, 0]);
        let to = (peer, pick_service(&mut self.chance));
        let datagram = udp_datagram((server, 40000), to, &[5; 56]);
        self.send_frame(fragment(server, peer, UDP, (id, 0, true), &datagram), true);
        let length = self.chance.pick(&[8000, 8192, 4096, 8736]);
        let copies = 65_535 / length + self.chance.pick(&[0, 1, 2]);
        let last = self.chance.pick(&[7, 8, 2815, 65_535 % length, 65_535 % length + 1]);
        for length in std::iter::repeat_n(length, copies).chain([last]) {
            let frame = fragment(server, peer, UDP, (id, 8, false), &vec![3; length]);
            self.events.push(Event::From(frame));
        }
    }

    /// Behind the fragment header there may be more than ports, and a later fragment may begin within it.
    fn write_over_headers(&mut self) {
        let server = pick_server(&mut self.chance, true);
        let peer = pick_peer(&mut self.chance, true);
        let to = (peer, pick_service(&mut self.chance));
        let count = self.chance.pick(&[0, 1, 2]);
        let options = [60, 0, 1, 4, 0, 0, 0, 0].repeat(count);
        let mut payload = options;
        if let Some(last) = payload.len().checked_sub(8) {
            payload[last] = UDP;
        }
        payload.extend(udp_datagram((server, 40000), to, &[5; 8]));
        let protocol = if count == 0 { UDP } else { 60 };
        let id = self.chance.pick(&[1_u16, 2, 3]);
        self.events.push(Event::From(fragment(server, peer, protocol, (id, 0, true), &payload)));
        for offset in [1, 2, 3, 4] {
            let protocol = if self.chance.percent(90) { protocol } else { UDP };
            let frame = fragment(server, peer, protocol, (id, offset, false), &[3; 8]);
            self.events.push(Event::From(frame));
        }
    }

    // ---- the rest ---------------------------------------------------------------

    /// A MAC that a host of the link may have, the router, a pair of routers, or a group.
    fn pick_mac(&mut self) -> [u8; 6] {
        let virtual_router = [0, 0, 0x5e, 0, self.chance.pick(&[0, 1, 2, 3]), 7];
        let server = self.chance.pick(&SERVER_MACS);
        let router = self.chance.pick(&ROUTER_MACS);
        self.chance.pick(&[
            server,
            server,
            server,
            router,
            virtual_router,
            [2, 0, 0, 0, 0, 1],
            [0xff; 6],
            [0x33; 6],
        ])
    }

    /// VRRP of a router, or of somebody who says so, and what else may come from there.
    fn advertise_a_router(&mut self) {
        let server = pick_server(&mut self.chance, true);
        let from = match self.chance.below(4) {
            0 => server,
            1 => pick_odd(&mut self.chance, true),
            _ => ip(self.chance.pick(&ROUTERS)),
        };
        let group = if from.is_ipv4() { "224.0.0.18" } else { "ff02::12" };
        let to = match self.chance.below(4) {
            0 => pick_peer(&mut self.chance, from.is_ipv6()),
            _ => ip(group),
        };
        let packet = match self.chance.below(6) {
            0 => {
                let kind = if from.is_ipv4() { [5, 9] } else { [134, 137] };
                let kind = self.chance.pick(&kind);
                self.message(from, to, kind, 1)
            }
            1 => self.datagram((from, 40000), (to, 53)),
            _ => {
                let hop_limit = if self.chance.percent(85) { 255 } else { self.chance.pick(&[1, 64, 254]) };
                let packet = packet(from, to, 112, &[0x31, 10, 100, 1, 0, 100, 0, 0, 192, 0, 2, 1]);
                patched(&packet, if from.is_ipv4() { 8 } else { 7 }, &[hop_limit])
            }
        };
        self.hear(&packet);
        let mut frame = ethernet(&packet);
        let mac = if self.chance.percent(80) { self.chance.pick(&ROUTER_MACS) } else { self.pick_mac() };
        frame[6..12].copy_from_slice(&mac);
        self.send_frame(frame, true);
    }

    /// A server asks the router from its link-local address.
    fn ask_the_link(&mut self) {
        let from = ip(self.chance.pick(&["fe80::10", "fe80::10", "fe80::10", "febf::1", "fec0::1", "::"]));
        let to = match self.chance.below(6) {
            0 => pick_odd(&mut self.chance, true),
            1 => pick_peer(&mut self.chance, true),
            _ => ip(self.chance.pick(&["fe80::1", "ff02::fb", "ff01::1"])),
        };
        let (from, to) = ((from, pick_client_port(&mut self.chance)), (to, pick_service(&mut self.chance)));
        let packet = match self.chance.below(8) {
            0 => self.message(from.0, to.0, 128, 1),
            1..3 => {
                let flags = self.chance.pick(&[SYN, SYN, ACK, RST]);
                self.segment(from, to, flags, (1, 1), 0)
            }
            _ => self.datagram(from, to),
        };
        self.hear(&packet);
        let mut frame = ethernet(&packet);
        let mac = self.chance.pick(&SERVER_MACS);
        frame[6..12].copy_from_slice(&mac);
        // whosever MAC it is
        if self.chance.percent(20) {
            let servers = SERVERS.map(|name| Whom::Server(name.to_owned()));
            self.events.extend(servers.clone().map(|server| Event::Quarantine(server, Some(5))));
            self.send_frame(frame.clone(), true);
            self.events.extend(servers.map(Event::Release));
        }
        self.send_frame(frame, true);
    }

    /// A server is cut off in the midst of its answers: resets and errors too.
    fn answer_from_quarantine(&mut self) {
        let (server, peer) = self.pick_pair();
        let ends = ((server, pick_service(&mut self.chance)), (peer, pick_client_port(&mut self.chance)));
        self.events.push(Event::Quarantine(Whom::Addresses(server.into()), Some(5)));
        for _ in 0..self.chance.within(1..5) {
            let packet = match self.chance.below(6) {
                0 => self.datagram(ends.0, ends.1),
                1 => {
                    let kind = if server.is_ipv4() {
                        self.chance.pick(&[0, 3, 11])
                    } else {
                        self.chance.pick(&[129, 1, 3])
                    };
                    self.message(server, peer, kind, 1)
                }
                2 => self.segment((server, 40000), ends.1, RST | ACK, (1, 1), 0),
                _ => {
                    let flags = self.chance.pick(&[ACK, RST, RST | ACK, SYN | ACK, SYN, FIN | ACK]);
                    self.segment(ends.0, ends.1, flags, (1, 1), 0)
                }
            };
            self.leave(packet);
        }
        if self.chance.percent(60) {
            self.events.push(Event::Release(Whom::Addresses(server.into())));
        }
    }

    /// A host of the link asks by ARP, which tells its MAC.
    fn tell_a_mac(&mut self) {
        let mut frame = link_frame(self.chance.pick(&[0x0806, 0x0806, 0x88cc]), &[0; 46]);
        let mac = self.pick_mac();
        frame[6..12].copy_from_slice(&mac);
        self.send_frame(frame, true);
    }

    /// Neighbour discovery and MLD.
    fn talk_to_the_link(&mut self) {
        let from = match self.chance.below(4) {
            0 => pick_odd(&mut self.chance, true),
            1 => ip("fe80::10"),
            _ => pick_server(&mut self.chance, true),
        };
        let to = match self.chance.below(4) {
            0 => pick_server(&mut self.chance, true),
            1 => pick_peer(&mut self.chance, true),
            _ => pick_odd(&mut self.chance, true),
        };
        let kind = self.chance.pick(&[130, 131, 132, 133, 134, 135, 136, 137, 143, 135, 136]);
        let listener = matches!(kind, 130..=132 | 143);
        let right = if listener { 1 } else { 255 };
        let hop_limit =
            if self.chance.percent(85) { right } else { self.chance.pick(&[0, 1, 2, 64, 254, 255]) };
        let message = icmp_message(from, to, (kind, 0), [0; 4], &[0xfe; 20]);
        let packet = Ipv6::new(from, to, ICMPV6, &message).hop_limit(hop_limit);
        let packet = if listener { packet.extension(HOP_BY_HOP, &[0, 5, 2, 0, 0, 1, 0]) } else { packet };
        if self.chance.percent(90) { self.leave(packet.packet()) } else { self.arrive(packet.packet()) }
    }

    /// A DHCP client.
    fn find_an_address(&mut self) {
        let v6 = self.chance.percent(50);
        let from = if self.chance.percent(50) {
            pick_odd(&mut self.chance, v6)
        } else {
            pick_server(&mut self.chance, v6)
        };
        let to = if self.chance.percent(70) {
            pick_odd(&mut self.chance, v6)
        } else {
            pick_peer(&mut self.chance, v6)
        };
        let (client, server) = if v6 { (546, 547) } else { (68, 67) };
        let client = if self.chance.percent(90) { client } else { pick_port(&mut self.chance) };
        let server = if self.chance.percent(90) { server } else { pick_port(&mut self.chance) };
        let datagram = udp_datagram((from, client), (to, server), &[1; 30]);
        if self.chance.percent(30) {
            // a lease by unicast, which is to be renewed
            let lease = udp_datagram((to, server), (from, client), &[1; 30]);
            self.arrive(packet(to, from, UDP, &lease));
        }
        if self.chance.percent(10) {
            // by broadcast, or to an address of the link
            let link = ip(if v6 { "fe80::10" } else { "255.255.255.255" });
            let lease = udp_datagram((to, server), (link, client), &[1; 30]);
            self.arrive(packet(to, link, UDP, &lease));
        }
        self.leave(packet(from, to, UDP, &datagram));
        if self.chance.percent(10) {
            // so many have leased that all count
            for _ in 0..6 {
                let lessor = pick_peer(&mut self.chance, v6);
                let lease = udp_datagram((lessor, server), (from, client), &[1; 30]);
                self.arrive(packet(lessor, from, UDP, &lease));
            }
            self.leave(packet(from, to, UDP, &datagram));
        }
    }

    fn speak_another_protocol(&mut self) {
        let (server, peer) = self.pick_pair();
        let protocol =
            if self.chance.percent(85) { self.chance.pick(&PROTOCOLS) } else { self.chance.byte() };
        let count = self.chance.within(1..40);
        let payload = self.chance.bytes(count);
        if self.chance.percent(40) {
            self.arrive(packet(peer, server, protocol, &payload));
        }
        self.leave(packet(server, peer, protocol, &payload));
        match self.chance.below(6) {
            0 => self.associate(server, peer),
            1 if server.is_ipv4() => self.report_a_group(server, peer),
            _ => {}
        }
    }

    /// SCTP or DCCP, of which the types of packets matter.
    fn associate(&mut self, server: IpAddr, peer: IpAddr) {
        let dccp = self.chance.percent(40);
        let ends = [pick_service(&mut self.chance), pick_client_port(&mut self.chance)];
        let say = |talk: &mut Talk, arrives: bool, kind: u8| {
            let ports = if arrives { [ends[1], ends[0]] } else { ends };
            let mut header: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
            header.resize(20, 0);
            header[if dccp { 8 } else { 12 }] = if dccp { kind << 1 | 1 } else { kind };
            let protocol = if dccp { DCCP } else { SCTP };
            match arrives {
                true => talk.arrive(packet(peer, server, protocol, &header)),
                false => talk.leave(packet(server, peer, protocol, &header)),
            }
        };
        let (asks, answers) = if dccp { (0, [1, 7, 1, 3]) } else { (1, [2, 6, 14, 0]) };
        if self.chance.percent(20) {
            say(self, false, asks);
        }
        if self.chance.percent(80) {
            say(self, true, asks);
        }
        let answer = self.chance.pick(&answers);
        say(self, false, answer);
    }

    /// What a host answers to a question about its groups.
    fn report_a_group(&mut self, server: IpAddr, peer: IpAddr) {
        let group = self.chance.pick(&["224.0.0.22", "239.255.255.250", "224.0.0.251"]);
        let to = if self.chance.percent(80) { ip(group) } else { peer };
        let kind = self.chance.pick(&[0x11, 0x12, 0x16, 0x17, 0x22, 0x22]);
        let mut report = packet(server, to, IGMP, &[kind, 0, 0, 0, 0, 0, 0, 0]);
        if self.chance.percent(80) {
            report[8] = 1;
        }
        if self.chance.percent(40) {
            self.events.push(Event::Quarantine(Whom::Addresses(server.into()), Some(5)));
        }
        self.leave(report);
    }

    /// A packet between any two, of any sort.
    fn say_anything(&mut self) {
        let v6 = self.chance.percent(50);
        let any = |chance: &mut Chance| match chance.below(4) {
            0 => pick_odd(chance, v6),
            1 => pick_peer(chance, v6),
            _ => pick_server(chance, v6),
        };
        let (from, to) = (any(&mut self.chance), any(&mut self.chance));
        let (from, to) = ((from, pick_port(&mut self.chance)), (to, pick_port(&mut self.chance)));
        let sent = match self.chance.below(4) {
            0 => self.datagram(from, to),
            1 => {
                let kind = self.chance.byte();
                self.message(from.0, to.0, kind, 1)
            }
            _ => {
                let flags = self.chance.byte();
                self.segment(from, to, flags, (1, 1), 0)
            }
        };
        if self.chance.percent(75) { self.leave(sent) } else { self.arrive(sent) }
    }

    /// Something that was heard before, either way.
    fn repeat(&mut self) {
        if self.heard.is_empty() {
            return;
        }
        let at = self.chance.below(self.heard.len());
        let frame = ethernet(&self.heard[at]);
        let from = self.chance.percent(70);
        self.send_frame(frame, from);
    }

    /// What is no IP, and what is nothing.
    fn make_noise(&mut self) {
        let frame = if self.chance.percent(50) {
            noise(&mut self.chance)
        } else {
            let kind = self
                .chance
                .pick(&[0x0806, 0x88cc, 0x888e, 0x8809, 0x0026, 0x05ff, 0x0600, 0x9000, 0x8847, 0x8863]);
            let count = self.chance.below(60);
            link_frame(kind, &self.chance.bytes(count))
        };
        let from = self.chance.percent(80);
        self.send_frame(frame, from);
    }
}

/// Source and destination of an IP packet.
fn addresses_of(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let frame = ethernet(packet);
    let at = ip_offset(&frame);
    match version(&frame) {
        4 => {
            let octets: [u8; 8] = frame.get(at + 12..at + 20)?.try_into().ok()?;
            let (from, to) = octets.split_at(4);
            let of = |bytes: &[u8]| <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from);
            Some((of(from)?, of(to)?))
        }
        6 => {
            let of = |at: usize| {
                frame.get(at..at + 16).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok()).map(IpAddr::from)
            };
            Some((of(at + 8)?, of(at + 24)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::dmz::{V4, V6};

    #[test]
    fn the_addresses_of_a_packet_are_read_back() {
        for family in [V4, V6] {
            let packet = packet(family.web, family.peer, 50, &[0; 8]);
            assert_eq!(addresses_of(&packet), Some((family.web, family.peer)));
            assert_eq!(octets(family.web).len(), if family.web.is_ipv4() { 4 } else { 16 });
        }
    }
}
