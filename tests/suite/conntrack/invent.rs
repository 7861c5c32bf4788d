//! Stories by chance: what servers and peers say when all is well, and then what goes wrong with it.

use std::mem;

use super::inventor::Inventor;
use super::mutate::mutate;
use super::policy::{ESP, GRE, NAMED_PEERS, Need};
use super::story::{Event, PLAIN, Port, Side, Story, Talk, What, data, segment};
use crate::support::dmz::ip;
use crate::support::frame::{ACK, FIN, ICMP, ICMPV6, PSH, RST, SCTP, SYN, TCP, UDP};

/// Of a hundred talks, those in which something goes wrong.
const WRONG: usize = 60;

/// A talk and what is said in it.
pub type Scene = (Talk, Vec<Event>);

impl Inventor<'_> {
    /// A few talks at once.
    pub fn invent(&mut self) -> Story {
        let count = self.chance.pick(&[1, 1, 2, 3, 4]);
        let mut story = Story::default();
        let mut lines: Vec<std::vec::IntoIter<Event>> = Vec::new();
        for number in 0..count {
            let (talk, mut events) = self.make_scene();
            events.iter_mut().for_each(|event| event.talk = number);
            story.talks.push(talk);
            lines.push(events.into_iter());
        }
        while !lines.is_empty() {
            let at = self.chance.below(lines.len());
            match lines[at].next() {
                Some(event) => story.events.push(event),
                None => drop(lines.swap_remove(at)),
            }
        }
        story
    }

    fn make_scene(&mut self) -> Scene {
        let (talk, mut events) = match self.chance.below(20) {
            0..7 => self.visit(),
            7..11 => self.call(),
            11..13 => self.ask(),
            13..15 => self.ask_out(),
            15 => self.ping(),
            16 => self.ping_out(),
            17 => self.speak_another_protocol(),
            18 => self.shout(),
            _ => self.knock(),
        };
        if self.chance.percent(WRONG) {
            for _ in 0..self.chance.within(1..4) {
                mutate(self, &talk, &mut events);
            }
        }
        (talk, events)
    }

    // ---- actors ------------------------------------------------------------

    fn pick_family(&mut self) -> bool {
        self.chance.percent(45)
    }

    fn pick_peer(&mut self) -> Option<usize> {
        if self.chance.percent(50) { None } else { Some(self.chance.below(NAMED_PEERS.len())) }
    }

    /// A server and a port of one of its needs, with a peer whom that need names. Or any others.
    pub fn pick_need(&mut self, protocol: u8, v6: bool, outbound: bool) -> (usize, Option<usize>, u16) {
        let server = self.pick_server();
        let policy = self.policy;
        let all = if outbound { &policy.servers[server].openings } else { &policy.servers[server].services };
        let needs: Vec<&Need> = all.iter().filter(|need| need.protocol == protocol).collect();
        if needs.is_empty() || self.chance.percent(18) {
            return (server, self.pick_peer(), self.pick_any_port());
        }
        let need = self.chance.pick(&needs);
        let port = need
            .ports
            .map_or(0, |(first, last)| self.chance.within(usize::from(first)..usize::from(last) + 1) as u16);
        let named: Vec<usize> = (0..NAMED_PEERS.len())
            .filter(|peer| need.permits(protocol, port, ip(NAMED_PEERS[*peer][usize::from(v6)])))
            .collect();
        let peer = match need.peers {
            Some(_) if !named.is_empty() && self.chance.percent(85) => Some(self.chance.pick(&named)),
            _ => self.pick_peer(),
        };
        (server, peer, port)
    }

    fn pick_any_port(&mut self) -> u16 {
        let ports = [21, 22, 25, 53, 80, 123, 443, 514, 1024, 3306, 4444, 5432, 8005, 30005, 31337];
        self.chance.pick(&ports)
    }

    fn pick_client_port(&mut self) -> Port {
        // a peer that asks from a port that servers may open
        if self.chance.percent(8) { Port::Fixed(self.pick_any_port()) } else { Port::Fresh }
    }

    // ---- TCP ---------------------------------------------------------------

    /// A peer opens a connection.
    fn visit(&mut self) -> Scene {
        let v6 = self.pick_family();
        let (server, peer, port) = self.pick_need(TCP, v6, false);
        let talk = Talk {
            v6,
            server,
            peer,
            protocol: TCP,
            server_port: Port::Fixed(port),
            peer_port: self.pick_client_port(),
        };
        // two fixed ports: earlier stories may have used them
        let talk =
            if talk.peer_port == Port::Fresh { talk } else { Talk { server_port: Port::Fresh, ..talk } };
        (talk, self.connect(Side::Peer))
    }

    /// A server opens a connection.
    fn call(&mut self) -> Scene {
        let v6 = self.pick_family();
        let (server, peer, port) = self.pick_need(TCP, v6, true);
        let talk =
            Talk { v6, server, peer, protocol: TCP, server_port: Port::Fresh, peer_port: Port::Fixed(port) };
        (talk, self.connect(Side::Server))
    }

    /// A connection from its handshake to its end, perhaps twice.
    fn connect(&mut self, opener: Side) -> Vec<Event> {
        let mut events = Vec::new();
        let first = self.chance.pick(&[1000, 1000, u32::MAX - 3]);
        self.speak_tcp(opener, first, 5000, &mut events);
        if self.chance.percent(12) {
            // the same ports once more
            let next = self.chance.pick(&[first.wrapping_add(200_000), first, 77]);
            self.speak_tcp(opener, next, 300_000, &mut events);
        }
        events
    }

    fn speak_tcp(&mut self, opener: Side, first: u32, second: u32, events: &mut Vec<Event>) {
        let answerer = opener.other();
        say(events, opener, segment(SYN, first, 0));
        if self.chance.percent(4) {
            // both at once
            say(events, answerer, segment(SYN, second, 0));
        }
        say(events, answerer, segment(SYN | ACK, second, first.wrapping_add(1)));
        say(events, opener, segment(ACK, first.wrapping_add(1), second.wrapping_add(1)));
        let mut numbers = [first.wrapping_add(1), second.wrapping_add(1)];
        for _ in 0..self.chance.below(4) {
            let by = self.chance.below(2);
            let bytes = self.chance.pick(&[1, 20, 100, 1300]);
            self.say_data(events, opener, by, PSH | ACK, bytes, &mut numbers);
        }
        match self.chance.below(10) {
            0..4 => {
                // one closes, then perhaps the other, which may have something left to say
                let by = self.chance.below(2);
                self.say_data(events, opener, by, FIN | ACK, 0, &mut numbers);
                self.say_data(events, opener, 1 - by, ACK, 0, &mut numbers);
                if self.chance.percent(40) {
                    self.say_data(events, opener, 1 - by, PSH | ACK, 40, &mut numbers);
                }
                if self.chance.percent(80) {
                    self.say_data(events, opener, 1 - by, FIN | ACK, 0, &mut numbers);
                    self.say_data(events, opener, by, ACK, 0, &mut numbers);
                }
            }
            4..6 => {
                let by = self.chance.below(2);
                let flags = self.chance.pick(&[RST, RST | ACK]);
                self.say_data(events, opener, by, flags, 0, &mut numbers);
                if self.chance.percent(50) {
                    let by = self.chance.below(2);
                    self.say_data(events, opener, by, ACK, 10, &mut numbers);
                }
            }
            _ => {}
        }
    }

    /// A segment with the right numbers. `by`: 0 is the opener.
    fn say_data(
        &mut self,
        events: &mut Vec<Event>,
        opener: Side,
        by: usize,
        flags: u8,
        bytes: u16,
        numbers: &mut [u32; 2],
    ) {
        let side = if by == 0 { opener } else { opener.other() };
        say(events, side, data(flags, numbers[by], numbers[1 - by], bytes));
        numbers[by] = numbers[by].wrapping_add(u32::from(bytes) + u32::from(flags & FIN != 0));
    }

    // ---- datagrams ---------------------------------------------------------

    /// A peer asks a server.
    fn ask(&mut self) -> Scene {
        let v6 = self.pick_family();
        let (server, peer, port) = self.pick_need(UDP, v6, false);
        let talk =
            Talk { v6, server, peer, protocol: UDP, server_port: Port::Fixed(port), peer_port: Port::Fresh };
        (talk, self.exchange(Side::Peer))
    }

    /// A server asks somebody.
    fn ask_out(&mut self) -> Scene {
        let v6 = self.pick_family();
        let (server, peer, port) = self.pick_need(UDP, v6, true);
        let talk =
            Talk { v6, server, peer, protocol: UDP, server_port: Port::Fresh, peer_port: Port::Fixed(port) };
        (talk, self.exchange(Side::Server))
    }

    fn exchange(&mut self, first: Side) -> Vec<Event> {
        let mut events = Vec::new();
        for _ in 0..self.chance.within(1..3) {
            let (question, answer) = (self.pick_bytes(), self.pick_bytes());
            say(&mut events, first, What::Udp(question, None));
            if self.chance.percent(85) {
                say(&mut events, first.other(), What::Udp(answer, None));
            }
        }
        events
    }

    fn ping(&mut self) -> Scene {
        self.echo(Side::Peer)
    }

    fn ping_out(&mut self) -> Scene {
        self.echo(Side::Server)
    }

    fn echo(&mut self, first: Side) -> Scene {
        let v6 = self.pick_family();
        let protocol = if v6 { ICMPV6 } else { ICMP };
        let (server, peer, _) = self.pick_need(protocol, v6, first == Side::Server);
        let talk = Talk { v6, server, peer, protocol, server_port: Port::Fresh, peer_port: Port::Fresh };
        let (request, reply) = match (v6, self.chance.below(8)) {
            (true, _) => (128, 129),
            (false, 0) => (13, 14),
            (false, 1) => (17, 18),
            (false, _) => (8, 0),
        };
        let mut events = Vec::new();
        for _ in 0..self.chance.within(1..3) {
            let bytes = self.pick_bytes().max(12);
            say(&mut events, first, What::Ping(request, 0, bytes));
            say(&mut events, first.other(), What::Ping(reply, 0, bytes));
        }
        (talk, events)
    }

    /// A protocol without ports, either way.
    fn speak_another_protocol(&mut self) -> Scene {
        let v6 = self.pick_family();
        let protocol = self.chance.pick(&[ESP, ESP, GRE, 4, 41, 89, 112, 253]);
        let first = self.chance.pick(&[Side::Server, Side::Peer]);
        let (server, peer, _) = self.pick_need(protocol, v6, first == Side::Server);
        let (port, protocol) = (Port::Fixed(0), protocol);
        // Whoever is named meets again and again. Where a need permits it, that makes no difference.
        let peer = peer.filter(|peer| {
            let address = ip(NAMED_PEERS[*peer][usize::from(v6)]);
            self.policy.servers[server].may_open(protocol, 0, address)
        });
        let talk = Talk { v6, server, peer, protocol, server_port: port, peer_port: port };
        let mut events = Vec::new();
        say(&mut events, first, What::Other(40));
        say(&mut events, first.other(), What::Other(60));
        say(&mut events, first, What::Other(80));
        (talk, events)
    }

    /// What a server that was taken over tries.
    fn shout(&mut self) -> Scene {
        let v6 = self.pick_family();
        let protocol = self.chance.pick(&[TCP, TCP, UDP, SCTP, if v6 { ICMPV6 } else { ICMP }]);
        let talk = Talk {
            v6,
            server: self.pick_server(),
            peer: self.pick_peer(),
            protocol,
            // from the port of a service, perhaps
            server_port: if self.chance.percent(40) {
                Port::Fixed(self.pick_any_port())
            } else {
                Port::Fresh
            },
            peer_port: Port::Fresh,
        };
        let mut events = Vec::new();
        for _ in 0..self.chance.within(1..4) {
            let what = match protocol {
                TCP => {
                    let flags = self.chance.pick(&[SYN, SYN, ACK, SYN | ACK, FIN | ACK, RST, PSH | ACK, 0]);
                    data(flags, 9000, 7000, self.chance.pick(&[0, 30]))
                }
                UDP => What::Udp(self.pick_bytes(), None),
                SCTP => What::Other(24),
                _ => What::Ping(self.pick_icmp_type(v6), 0, 24),
            };
            say(&mut events, Side::Server, what);
        }
        (talk, events)
    }

    fn pick_icmp_type(&mut self, v6: bool) -> u8 {
        if v6 {
            self.chance.pick(&[128, 129, 130, 133, 134, 135, 136, 137, 143, 139, 140, 200])
        } else {
            self.chance.pick(&[0, 8, 5, 9, 10, 13, 14, 15, 16, 17, 18, 30, 40])
        }
    }

    /// A peer tries ports, and the server refuses.
    fn knock(&mut self) -> Scene {
        let (talk, _) = if self.chance.percent(50) { self.visit() } else { self.ask() };
        let mut events = Vec::new();
        if talk.protocol == TCP {
            say(&mut events, Side::Peer, segment(SYN, 1000, 0));
            say(&mut events, Side::Server, segment(RST | ACK, 0, 1001));
        } else {
            say(&mut events, Side::Peer, What::Udp(20, None));
            let refusal = super::mutate::refuse(&talk);
            say(&mut events, Side::Server, refusal);
        }
        (talk, mem::take(&mut events))
    }
}

/// One more packet.
pub fn say(events: &mut Vec<Event>, from: Side, what: What) {
    events.push(Event { talk: 0, from, what, manner: PLAIN, after_s: 0 });
}
