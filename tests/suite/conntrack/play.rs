//! Plays stories through both routers, packet by packet, and says of each whether it came out.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::policy::{NAMED_PEERS, Policy};
use super::story::{Port, Story, Talk, has_ports};
use super::wire::{Addresses, Arrival, Ends, Sent};
use super::world::{Judge, Worlds};
use crate::support::dmz::{ip, v4, v6};

/// Ports that no need names.
const FRESH_PORTS: std::ops::Range<u16> = 32_768..61_000;
/// An IPv4 id each. The last ones are for the story that is being played.
const IDENTITIES: u16 = 64_000;
/// Peers that no need names, of each family.
const FRESH_PEERS: usize = 360;
/// In the DMZ, and no server.
const UNKNOWN: [IpAddr; 2] = [v4(192, 0, 2, 77), v6(0x2001_0db8_0001_0000, 0x77)];
/// How much longer than it says a pause may last.
const PAUSE_SLACK: Duration = Duration::from_secs(15);

/// Whether a packet came out, by judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    pub gate: bool,
    pub conntrack: bool,
}

/// A story that is being played, or has been.
pub struct Playing {
    pub story: Story,
    ends: Vec<Ends>,
    datagrams: Vec<(usize, usize, u16)>,
    sent: Vec<Sent>,
    arrivals: [Vec<Arrival>; 2],
    /// When the last packet was sent.
    last: Instant,
    /// A pause was longer than it says, by far: a machine that stood still. The rest was not played.
    pub overslept: bool,
}

impl Playing {
    /// Of each packet that was played.
    pub fn fates(&self) -> Vec<Fate> {
        let is_among = |judge: usize, sent: &Sent| sent.is_among(&self.arrivals[judge]);
        self.sent.iter().map(|sent| Fate { gate: is_among(0, sent), conntrack: is_among(1, sent) }).collect()
    }

    pub fn ends_of(&self, talk: usize) -> Ends {
        self.ends[talk]
    }

    pub fn is_over(&self) -> bool {
        self.overslept || self.sent.len() == self.story.events.len()
    }

    /// When it goes on.
    pub fn due(&self) -> Instant {
        let pause = self.story.events.get(self.sent.len()).map_or(0, |event| event.after_s);
        self.last + Duration::from_secs(pause)
    }
}

/// Both routers under one policy, and what is still unused of ports and the like.
pub struct Stage {
    pub policy: Policy,
    pub worlds: Worlds,
    next_port: u16,
    next_identity: u16,
    next_peer: usize,
    /// Packets that were sent to both.
    pub packets: u64,
}

impl Stage {
    pub fn new(policy: Policy) -> Stage {
        Stage::of_two(policy.clone(), &policy, &policy)
    }

    /// With a policy of its own for each judge: what stories and explanations go by is another matter.
    pub fn of_two(policy: Policy, gate: &Policy, conntrack: &Policy) -> Stage {
        let worlds = Worlds::new(gate, conntrack);
        let (next_port, next_identity) = (FRESH_PORTS.start, 1);
        Stage { policy, worlds, next_port, next_identity, next_peer: 0, packets: 0 }
    }

    /// Makes new routers if one more story might use something twice.
    pub fn renew(&mut self, story: &Story) {
        let events = story.events.len() as u16;
        let talks = 2 * story.talks.len() as u16;
        let portless = story.talks.iter().filter(|talk| !talk.is_icmp() && !has_ports(talk.protocol)).count();
        if self.next_port + talks >= FRESH_PORTS.end
            || self.next_identity + events >= IDENTITIES
            || self.next_peer + portless >= FRESH_PEERS
        {
            self.start_over();
        }
    }

    /// New routers.
    pub fn start_over(&mut self) {
        *self = Stage { packets: self.packets, ..Stage::new(self.policy.clone()) };
    }

    /// Gives a story its addresses and ports.
    pub fn begin(&mut self, story: Story) -> Playing {
        let ends = story.talks.iter().map(|talk| self.give_ends(talk)).collect();
        Playing {
            story,
            ends,
            datagrams: Vec::new(),
            sent: Vec::new(),
            arrivals: [Vec::new(), Vec::new()],
            last: Instant::now(),
            overslept: false,
        }
    }

    fn give_ends(&mut self, talk: &Talk) -> Ends {
        let peer = match talk.peer {
            Some(number) => ip(NAMED_PEERS[number][usize::from(talk.v6)]),
            None if has_ports(talk.protocol) || talk.is_icmp() => give_peer(FRESH_PEERS + 3, talk.v6),
            None => {
                self.next_peer += 1;
                give_peer(self.next_peer, talk.v6)
            }
        };
        let server = self.policy.servers[talk.server].home(talk.v6);
        let (server_port, peer_port) = (self.give_port(talk.server_port), self.give_port(talk.peer_port));
        Ends { server: (server, server_port), peer: (peer, peer_port) }
    }

    fn give_port(&mut self, port: Port) -> u16 {
        match port {
            Port::Fixed(port) => port,
            Port::Fresh => {
                self.next_port += 1;
                self.next_port
            }
        }
    }

    /// Plays on, to the next pause or to the end.
    pub fn advance(&mut self, playing: &mut Playing) {
        let begun = Instant::now();
        if begun > playing.due() + PAUSE_SLACK {
            playing.overslept = true;
            return;
        }
        let mut first = true;
        while let Some(event) = playing.story.events.get(playing.sent.len()) {
            if event.after_s > 0 && !std::mem::take(&mut first) {
                return;
            }
            first = false;
            let identity = self.give_identity(
                event.talk,
                event.manner.piece.map(|piece| piece.datagram),
                &mut playing.datagrams,
            );
            let policy = &self.policy;
            let addresses =
                Addresses { servers: &|number, v6| policy.servers[number].home(v6), unknown: UNKNOWN };
            let talk = &playing.story.talks[event.talk];
            let sent = Sent::build(event, talk, &playing.ends[event.talk], identity, &addresses);
            for (judge, arrivals) in [Judge::Gate, Judge::Conntrack].into_iter().zip(&mut playing.arrivals) {
                self.worlds
                    .of(judge)
                    .send(event.from, &sent.frame, |frame| arrivals.extend(Arrival::read(frame)));
            }
            self.packets += 1;
            playing.sent.push(sent);
            playing.last = Instant::now();
        }
    }

    /// One for each packet, but only one for all pieces of a datagram.
    fn give_identity(
        &mut self,
        talk: usize,
        datagram: Option<usize>,
        datagrams: &mut Vec<(usize, usize, u16)>,
    ) -> u16 {
        let known = datagrams.iter().find(|(of, number, _)| *of == talk && Some(*number) == datagram);
        if let Some((_, _, identity)) = known {
            return *identity;
        }
        self.next_identity += 1;
        if let Some(number) = datagram {
            datagrams.push((talk, number, self.next_identity));
        }
        self.next_identity
    }

    /// Plays one story, with its pauses.
    pub fn play(&mut self, story: &Story) -> Playing {
        let mut playing = self.begin(story.clone());
        while !playing.is_over() {
            let now = Instant::now();
            std::thread::sleep(playing.due().saturating_duration_since(now));
            self.advance(&mut playing);
        }
        playing
    }
}

fn give_peer(number: usize, v6_family: bool) -> IpAddr {
    match number {
        _ if v6_family => v6(0x2001_0db8_0077_0000, number as u64),
        0..180 => v4(198, 51, 100, 60 + number as u8),
        _ => v4(203, 0, 113, 60 + (number - 180) as u8),
    }
}
