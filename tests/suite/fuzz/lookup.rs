//! What servers ask resolvers, what they are answered, and what they do with it.

use std::net::IpAddr;

use super::conversation::Talk;
use super::event::Event;
use super::mutation::{MOST_TO_SERVER, mutate};
use super::setting::{ASKED, LOCAL_RESOLVER, NEEDED, RESOLVERS, WAY_IFINDEX, pick_client_port, pick_server};
use crate::support::dmz::ip;
use crate::support::dns::{A, AAAA, CNAME, Message, NS, Record, TO_QUESTION, TXT, wire};
use crate::support::frame::{
    ACK, Endpoint, FIN, ICMP, ICMPV6, PSH, RST, SYN, TCP, UDP, ethernet, fragment, icmp_message, octets,
    packet, tcp_header, udp_datagram,
};

/// Addresses that later connections come back to.
const MEMORY: usize = 8;
const PTR: u16 = 12;
const DS: u16 = 43;

impl Talk {
    /// A server asks a resolver, is answered, and uses the answer. Any step may go wrong.
    pub(super) fn look_up(&mut self) {
        let v6 = self.chance.percent(25);
        let server = pick_server(&mut self.chance, v6);
        let resolvers: Vec<IpAddr> =
            RESOLVERS.iter().map(|text| ip(text)).filter(|address| address.is_ipv6() == v6).collect();
        let resolver = self.chance.pick(&resolvers);
        let asker = (server, pick_client_port(&mut self.chance));
        let mut queries = vec![self.make_query(v6)];
        if self.chance.percent(40) {
            // the other family, as glibc asks
            let first = &queries[0];
            let kind = if first.kind == A { AAAA } else { A };
            let second = Message { id: first.id.wrapping_add(1), kind, ..first.clone() };
            queries.push(second);
        }
        match self.chance.below(10) {
            0..3 => self.ask_by_stream(asker, (resolver, 53), &queries),
            _ => self.ask_by_datagrams(asker, (resolver, 53), &queries),
        }
        for _ in 0..self.chance.within(1..7) {
            // what a server that forwards is answered opens for others as well
            let user = if self.chance.percent(25) { pick_server(&mut self.chance, v6) } else { server };
            self.use_answer(user);
            if self.chance.percent(15) {
                self.wait();
            }
        }
    }

    fn make_query(&mut self, v6: bool) -> Message {
        // names of needs more often than what only a role with dns = "named" tells apart
        let name = if self.chance.percent(60) { self.chance.pick(&NEEDED) } else { self.chance.pick(&ASKED) };
        // a host that has both families calls by either, but here each address is a server's
        let (own, other) = if v6 { (AAAA, A) } else { (A, AAAA) };
        let kind = self.chance.pick(&[own, own, own, own, own, own, other, TXT, NS, PTR, DS]);
        let id = if self.chance.percent(70) { 7 } else { self.chance.next() as u16 };
        let mut query = Message::query(id, name, kind);
        if self.chance.percent(30) {
            let at = self.chance.below(query.name.len());
            query.name[at] = query.name[at].to_ascii_uppercase();
        }
        if self.chance.percent(5) {
            query.name = wire(&format!("{name}.search.example"));
        }
        if self.chance.percent(30) {
            query = query.with_edns();
        }
        if self.chance.percent(4) {
            query.flags ^= 1 << self.chance.below(16);
        }
        query
    }

    fn make_address(&mut self, kind: u16) -> Record {
        let odd = self.chance.percent(8);
        let (kind, address) = match (kind, odd) {
            (AAAA, false) => (AAAA, format!("2001:db8:50::{}", self.chance.pick(&["50", "51", "80", "81"]))),
            (AAAA, true) => {
                let odd = ["2001:db8:64::cb00:7150", "64:ff9b::cb00:7133", "2001:db8:64::a00:1", "fe80::1"];
                (AAAA, self.chance.pick(&odd).to_owned())
            }
            (_, false) => (A, format!("203.0.113.{}", self.chance.pick(&["50", "51", "80", "81"]))),
            (_, true) => (A, self.chance.pick(&["192.0.2.10", "198.51.100.7", "127.0.0.1"]).to_owned()),
        };
        let ttl = self.chance.pick(&[0, 5, 60, 300, 3600, 86_400, 600_000, u32::MAX]);
        let address = ip(&address);
        // the last ones stand behind
        self.named.push(address);
        if self.named.len() > MEMORY {
            let _ = self.named.remove(0);
        }
        let mut record = Record::new(TO_QUESTION, kind, ttl, &octets(address));
        match self.chance.below(40) {
            0 => drop(record.data.pop()),
            1 => record.class = 3,
            2 => record.owner = wire("cdn.other.example"),
            3 => record.owner = vec![1, b'x', 0xc0, 12],
            4 => record.owner = vec![0x80, 0],
            5 => record.kind = AAAA,
            6 => record.data = [&[0; 10][..], &[0xff, 0xff, 203, 0, 113, 80]].concat(),
            _ => {}
        }
        record
    }

    fn make_answer(&mut self, query: &Message) -> Message {
        let mut records = Vec::new();
        if self.chance.percent(25) {
            records.push(Record::new(TO_QUESTION, CNAME, 60, &wire("cdn.other.example")));
        }
        let most = if self.chance.percent(5) { 40 } else { 4 };
        for _ in 0..self.chance.below(most) {
            records.push(self.make_address(query.kind));
        }
        let mut answer = query.answer(&records);
        answer.additionals.clear();
        match self.chance.below(24) {
            0 => answer.id ^= 1,
            1 => answer.flags |= 3,
            2 => answer.flags |= 0x0200,
            3 => answer.flags &= 0x7fff,
            4 => answer.name = wire(self.chance.pick(&ASKED)),
            5 => answer.kind ^= 29,
            6 => answer.name = vec![0xc0, 12],
            7 => answer.name = answer.name.to_ascii_uppercase(),
            _ => {}
        }
        if self.chance.percent(20) {
            answer.authorities.push(Record::new(TO_QUESTION, NS, 60, &wire("ns.other.example")));
            answer.authorities.push(Record::address(ip("203.0.113.51"), 60));
            answer.additionals.push(Record::address(ip("203.0.113.81"), 60));
        }
        answer
    }

    /// A frame of a resolver, mostly by the right way.
    fn arrive_from_resolver(&mut self, packet: &[u8], together: u16) {
        let is_local = packet.get(12..16) == Some(&octets(LOCAL_RESOLVER)[..]);
        let frame = ethernet(packet);
        let frame = if self.chance.percent(10) { mutate(&mut self.chance, &frame) } else { frame };
        let frame = frame[..frame.len().min(MOST_TO_SERVER)].to_vec();
        let event = match self.chance.below(24) {
            0 => Event::Back(frame, false),
            1 => Event::Via(frame, 2, together),
            2 => Event::To(frame),
            _ if is_local => Event::To(frame),
            _ => Event::Via(frame, WAY_IFINDEX, together),
        };
        self.events.push(event);
        if self.chance.percent(5)
            && let Some(last) = self.events.last()
        {
            self.events.push(last.clone());
        }
    }

    fn ask_by_datagrams(&mut self, asker: Endpoint, resolver: Endpoint, queries: &[Message]) {
        for query in queries {
            if self.chance.percent(95) {
                let datagram = udp_datagram(asker, resolver, &query.bytes());
                self.leave(packet(asker.0, resolver.0, UDP, &datagram));
            }
        }
        if self.chance.percent(8) {
            self.wait();
        }
        let to = (asker.0, if self.chance.percent(4) { 40001 } else { asker.1 });
        let answers: Vec<Vec<u8>> = queries.iter().map(|query| self.make_answer(query).bytes()).collect();
        if answers.len() == 2 && self.chance.percent(30) {
            // the kernel has put them together: each but the last is as long
            let mut both = answers.concat();
            let each =
                if self.chance.percent(90) { answers[0].len() } else { self.chance.within(1..both.len()) };
            both.truncate(self.chance.pick(&[both.len(), both.len(), both.len() - 1]));
            let datagram = udp_datagram(resolver, to, &both);
            return self.arrive_from_resolver(&packet(resolver.0, to.0, UDP, &datagram), each as u16);
        }
        for mut answer in answers {
            if self.chance.percent(6) {
                answer.truncate(self.chance.below(answer.len()));
            }
            let datagram = udp_datagram(resolver, to, &answer);
            if self.chance.percent(8) && datagram.len() > 64 {
                let cut = datagram.len() / 2 / 8 * 8;
                let id = 77;
                let first = fragment(resolver.0, to.0, UDP, (id, 0, true), &datagram[..cut]);
                let later = fragment(resolver.0, to.0, UDP, (id, cut as u16 / 8, false), &datagram[cut..]);
                self.arrive_in_piece(first);
                self.arrive_in_piece(later);
            } else {
                self.arrive_from_resolver(&packet(resolver.0, to.0, UDP, &datagram), 0);
            }
        }
    }

    /// A frame with a fragment.
    fn arrive_in_piece(&mut self, frame: Vec<u8>) {
        self.events.push(Event::Via(frame, WAY_IFINDEX, 0));
    }

    fn ask_by_stream(&mut self, asker: Endpoint, resolver: Endpoint, queries: &[Message]) {
        let first = if self.chance.percent(20) { u32::MAX - 20 } else { 9000 };
        let syn = self.segment(asker, resolver, SYN, (1, 0), 0);
        self.leave(syn);
        if self.chance.percent(92) {
            let accepted = tcp_header(resolver, asker, SYN | ACK, (first, 2));
            self.arrive_from_resolver(&packet(resolver.0, asker.0, TCP, &accepted), 0);
        }
        let asked: Vec<u8> = queries.iter().flat_map(Message::prefixed).collect();
        let cut = match self.chance.below(10) {
            0 => 2,
            1 => self.chance.below(asked.len()),
            _ => asked.len(),
        };
        let mut at = 2;
        for part in [&asked[..cut], &asked[cut..]].into_iter().filter(|part| !part.is_empty()) {
            let mut segment = tcp_header(asker, resolver, ACK | PSH, (at, 1));
            segment.extend_from_slice(part);
            at += part.len() as u32;
            self.leave(packet(asker.0, resolver.0, TCP, &segment));
        }
        let mut answered: Vec<u8> = Vec::new();
        for query in queries {
            answered.extend(self.make_answer(query).prefixed());
        }
        let mut parts: Vec<(usize, usize)> = vec![(0, answered.len())];
        if self.chance.percent(40) {
            let cut = match self.chance.below(4) {
                0 => self.chance.within(1..4),
                1 => answered.len() / queries.len(),
                _ => self.chance.within(1..answered.len()),
            };
            parts = vec![(0, cut.min(answered.len())), (cut.min(answered.len()), answered.len())];
            match self.chance.below(6) {
                0 => parts.swap(0, 1),
                1 => parts.insert(1, parts[0]),
                2 => drop(parts.remove(0)),
                _ => {}
            }
        }
        for (from, to) in parts {
            let number = first.wrapping_add(1 + from as u32);
            let flags = self.chance.pick(&[ACK | PSH, ACK | PSH, ACK | PSH, ACK | PSH, FIN | ACK, RST | ACK]);
            let mut segment = tcp_header(resolver, asker, flags, (number, 2));
            segment.extend_from_slice(&answered[from..to]);
            self.arrive_from_resolver(&packet(resolver.0, asker.0, TCP, &segment), 0);
        }
    }

    /// A server opens something to an address that it was answered, or sends without having opened.
    fn use_answer(&mut self, server: IpAddr) {
        let mut peers: Vec<IpAddr> = self
            .named
            .iter()
            .rev()
            .take(3)
            .copied()
            .filter(|peer| peer.is_ipv4() == server.is_ipv4())
            .collect();
        if peers.is_empty() {
            peers.push(if server.is_ipv4() { ip("203.0.113.80") } else { ip("2001:db8:50::80") });
        }
        let peer = self.chance.pick(&peers);
        let own = (server, self.chance.pick(&[40000, 51000]));
        match self.chance.below(12) {
            0 => self.complain_about_named(own, peer),
            1..4 => {
                let to = (peer, 123);
                self.leave(packet(server, peer, UDP, &udp_datagram(own, to, &[7; 48])));
                if self.chance.percent(60) {
                    self.arrive(packet(peer, server, UDP, &udp_datagram(to, own, &[8; 48])));
                }
                if self.chance.percent(30) {
                    self.leave(packet(server, peer, UDP, &udp_datagram(own, to, &[7; 48])));
                }
            }
            _ => {
                let to = (peer, self.chance.pick(&[443, 443, 443, 443, 443, 80]));
                if self.chance.percent(75) {
                    let syn = self.segment(own, to, SYN, (1, 0), 0);
                    self.leave(syn);
                }
                if self.chance.percent(50) {
                    let accepted = self.segment(to, own, SYN | ACK, (9000, 2), 0);
                    self.arrive(accepted);
                }
                for _ in 0..self.chance.below(3) {
                    let flags = self.chance.pick(&[ACK, ACK | PSH, FIN | ACK, RST, SYN | ACK]);
                    let segment = self.segment(own, to, flags, (2, 9001), 0);
                    self.leave(segment);
                    if self.chance.percent(10) {
                        self.wait();
                    }
                }
            }
        }
    }

    /// A server complains about what a named peer has sent.
    fn complain_about_named(&mut self, own: Endpoint, peer: IpAddr) {
        let (protocol, port) = self.chance.pick(&[(TCP, 443), (UDP, 123)]);
        let quoted = match protocol {
            TCP => self.segment((peer, port), own, ACK, (9001, 2), 0),
            _ => packet(peer, own.0, UDP, &udp_datagram((peer, port), own, &[8; 48])),
        };
        let (kind, protocol) = if own.0.is_ipv4() { (3, ICMP) } else { (1, ICMPV6) };
        let error = icmp_message(own.0, peer, (kind, 3), [0; 4], &quoted);
        self.leave(packet(own.0, peer, protocol, &error));
    }
}
