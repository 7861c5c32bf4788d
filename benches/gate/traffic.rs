//! Kinds of traffic, and what a run sends of each.

use clap::ValueEnum;

/// Kinds of traffic: `enum kind` of `benches/bpf/traffic.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum Kind {
    /// a server's SYNs to one port of random peers
    Worm,
    /// a server's datagrams to any port of random peers
    Scatter,
    /// a server's SYNs to any port of random peers
    RandomPort,
    /// a server's segments in open flows
    Reply,
    /// peers' SYNs, flow by flow
    Opening,
    /// the server's SYN+ACKs, flow by flow
    Answer,
    /// the peers' ACKs of those, flow by flow
    Completion,
    /// SYNs that a server may send
    Outbound,
    /// replies, with worms among them
    Mix,
    /// a server's questions to its resolver, id by id
    Question,
    /// the resolver's answers of four addresses, id by id
    Resolution,
    /// SYNs that a server may send by a name
    Named,
}

impl Kind {
    /// Its name in `enum kind`.
    pub fn symbol(self) -> &'static str {
        match self {
            Kind::Worm => "KIND_WORM",
            Kind::Scatter => "KIND_SCATTER",
            Kind::RandomPort => "KIND_RANDOM_PORT",
            Kind::Reply => "KIND_REPLY",
            Kind::Opening => "KIND_OPENING",
            Kind::Answer => "KIND_ANSWER",
            Kind::Completion => "KIND_COMPLETION",
            Kind::Outbound => "KIND_OUTBOUND",
            Kind::Mix => "KIND_MIX",
            Kind::Question => "KIND_QUESTION",
            Kind::Resolution => "KIND_RESOLUTION",
            Kind::Named => "KIND_NAMED",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    V4,
    V6,
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    pub kind: Kind,
    pub version: Version,
    /// Number of server addresses, at most 65,536.
    pub servers: u32,
    /// Number of flows that replies belong to.
    pub flows: u32,
    /// The first flow, for kinds that go flow by flow.
    pub first: u32,
    /// Destination port of worms.
    pub port: u16,
    /// Port of the service that servers offer.
    pub service: u16,
    /// Destination port that servers may open.
    pub need: u16,
    /// Frames of a worm in each 1024 of a mix.
    pub worms_in_1024: u32,
}

impl Default for Traffic {
    fn default() -> Traffic {
        Traffic {
            kind: Kind::Worm,
            version: Version::V4,
            servers: 1,
            flows: 1,
            first: 0,
            port: 80,
            service: 80,
            need: 587,
            worms_in_1024: 51, // 5 %
        }
    }
}

impl Traffic {
    pub fn of(kind: Kind) -> Traffic {
        Traffic { kind, ..Traffic::default() }
    }

    /// The shortest Ethernet frame, or the shortest that holds the headers.
    pub fn frame_bytes(&self) -> usize {
        match (self.kind, self.version) {
            (Kind::Question, _) => 78,
            (Kind::Resolution, _) => 142,
            (_, Version::V4) => 60,
            (_, Version::V6) => 74,
        }
    }

    /// A frame of the right length and type. The program overwrites the rest.
    pub fn blank_frame(&self) -> Vec<u8> {
        let mut frame = vec![0; self.frame_bytes()];
        let ethertype: u16 = if self.version == Version::V4 { 0x0800 } else { 0x86dd };
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame
    }
}

/// The two MAC addresses of a frame.
#[derive(Clone, Copy, Debug, Default)]
pub struct Macs {
    pub destination: [u8; 6],
    pub source: [u8; 6],
}
