//! What the suite is made of: classes of evasion, each with rows that are played against a gate.

use std::net::IpAddr;

use portcullis::abi::Reason;
use portcullis::gate::Verdict;

use crate::support::dmz::{FAMILIES, Family, POLICY};
use crate::support::frame::{ACK, Endpoint, SERVER_MAC, SYN, tcp_numbered};
use crate::support::test_gate::TestGate;

/// One idea of how to get past a gate.
pub struct Class {
    pub name: &'static str,
    /// The test that plays it.
    pub test: &'static str,
    pub rows: fn() -> Vec<Row>,
}

/// One kind of frame and what becomes of it.
pub struct Row {
    pub frame: String,
    pub families: &'static str,
    pub scripts: Vec<Script>,
}

/// What happens before the frame, and the frame. Each begins with a gate that knows no flow.
#[derive(Clone, Default)]
pub struct Script(Vec<Step>);

#[derive(Clone)]
enum Step {
    /// Another policy is live from here on.
    Under(String),
    /// A server is in quarantine from here on.
    Quarantined(&'static str),
    /// An address is in quarantine from here on, with the MAC of the servers.
    CutOff(IpAddr),
    /// Goes to a server.
    Comes(Vec<u8>),
    /// Goes to a server, and came to this machine by an interface.
    ComesBy(Vec<u8>, u32),
    /// Comes from one, and must pass or be dropped for this reason.
    Leaves(Vec<u8>, Verdict, Reason),
}

impl Script {
    pub fn under(mut self, policy: String) -> Script {
        self.0.push(Step::Under(policy));
        self
    }

    pub fn quarantined(mut self, server: &'static str) -> Script {
        self.0.push(Step::Quarantined(server));
        self
    }

    pub fn cut_off(mut self, address: IpAddr) -> Script {
        self.0.push(Step::CutOff(address));
        self
    }

    pub fn comes(mut self, frame: Vec<u8>) -> Script {
        self.0.push(Step::Comes(frame));
        self
    }

    pub fn comes_by(mut self, frame: Vec<u8>, interface: u32) -> Script {
        self.0.push(Step::ComesBy(frame, interface));
        self
    }

    pub fn passes(mut self, frame: Vec<u8>, reason: Reason) -> Script {
        self.0.push(Step::Leaves(frame, Verdict::Pass, reason));
        self
    }

    pub fn drops(mut self, frame: Vec<u8>, reason: Reason) -> Script {
        self.0.push(Step::Leaves(frame, Verdict::Drop, reason));
        self
    }

    /// A peer opens a connection to a server.
    pub fn handshake(self, server: Endpoint, peer: Endpoint) -> Script {
        self.comes(tcp_numbered(peer, server, SYN, (1000, 0)))
            .passes(tcp_numbered(server, peer, SYN | ACK, (5000, 1001)), Reason::Reply)
            .comes(tcp_numbered(peer, server, ACK, (1001, 5001)))
    }

    /// What becomes of its last frame.
    fn outcome(&self) -> (Verdict, Reason) {
        match self.0.last() {
            Some(Step::Leaves(_, verdict, reason)) => (*verdict, *reason),
            _ => panic!("a script ends with a frame that leaves"),
        }
    }

    fn play(&self, gate: &TestGate) {
        gate.forget_flows();
        for step in &self.0 {
            match step {
                Step::Under(policy) => gate.swap(policy),
                Step::Quarantined(server) => gate.quarantine(server, None).expect("a quarantine"),
                Step::CutOff(address) => {
                    gate.quarantine_address(*address, Some(SERVER_MAC), None).expect("a quarantine");
                }
                Step::Comes(frame) => gate.to_server(frame),
                Step::ComesBy(frame, interface) => gate.to_server_from(frame, *interface),
                Step::Leaves(frame, Verdict::Pass, reason) => gate.passes(frame, *reason),
                Step::Leaves(frame, _, reason) => _ = gate.drops(frame, *reason),
            }
        }
        // in reverse: a name that the policy lacks has nothing to release
        for step in self.0.iter().rev() {
            match step {
                Step::Under(_) => gate.swap(POLICY),
                Step::Quarantined(server) => _ = gate.release(server).expect("a release"),
                Step::CutOff(address) => _ = gate.release_addresses((*address).into()).expect("a release"),
                Step::Comes(_) | Step::ComesBy(..) | Step::Leaves(..) => {}
            }
        }
    }
}

pub fn passes(frame: Vec<u8>, reason: Reason) -> Script {
    Script::default().passes(frame, reason)
}

pub fn drops(frame: Vec<u8>, reason: Reason) -> Script {
    Script::default().drops(frame, reason)
}

impl Row {
    pub fn both(frame: impl Into<String>, script: impl Fn(Family) -> Script) -> Row {
        Row { frame: frame.into(), families: "4, 6", scripts: FAMILIES.map(script).into() }
    }

    /// One row of many frames.
    pub fn both_many(frame: impl Into<String>, scripts: impl Fn(Family) -> Vec<Script>) -> Row {
        Row { frame: frame.into(), families: "4, 6", scripts: FAMILIES.map(scripts).concat() }
    }

    pub fn v4(frame: impl Into<String>, script: Script) -> Row {
        Row::many(frame, "4", vec![script])
    }

    pub fn v6(frame: impl Into<String>, script: Script) -> Row {
        Row::many(frame, "6", vec![script])
    }

    /// A frame that is not IP.
    pub fn link(frame: impl Into<String>, script: Script) -> Row {
        Row::many(frame, "", vec![script])
    }

    pub fn many(frame: impl Into<String>, families: &'static str, scripts: Vec<Script>) -> Row {
        Row { frame: frame.into(), families, scripts }
    }

    /// What becomes of the frame, in every script the same.
    #[track_caller]
    pub fn outcome(&self) -> (Verdict, Reason) {
        let first = self.scripts[0].outcome();
        assert!(self.scripts.iter().all(|script| script.outcome() == first), "{}: two outcomes", self.frame);
        first
    }
}

/// Plays every row of a class. A class shows both: what gets stopped, and what looks like it and
/// is in order.
#[track_caller]
pub fn play(class: &Class) {
    let rows = (class.rows)();
    for verdict in [Verdict::Pass, Verdict::Drop] {
        assert!(rows.iter().any(|row| row.outcome().0 == verdict), "{}: no {verdict:?}", class.name);
    }
    let gate = TestGate::dmz();
    for row in rows {
        println!("{}: {}", class.name, row.frame); // shown when what follows fails
        row.scripts.iter().for_each(|script| script.play(&gate));
    }
}

/// The classes of a module: a test for each, and the list of them.
macro_rules! classes {
    ($($test:ident: $name:literal, $rows:path;)*) => {
        pub const CLASSES: &[super::table::Class] = &[$(super::table::Class {
            name: $name,
            test: concat!(module_path!(), "::", stringify!($test)),
            rows: $rows,
        }),*];
        $(#[test]
        fn $test() {
            let test = concat!("::", stringify!($test));
            let class = CLASSES.iter().find(|class| class.test.ends_with(test)).expect("the class");
            super::table::play(class);
        })*
    };
}
pub(super) use classes;

/// The web server's port and one of a peer.
pub fn web(family: Family) -> (Endpoint, Endpoint) {
    family.visit()
}

/// What the name server may ask: anybody's port 53.
pub fn question(family: Family) -> (Endpoint, Endpoint) {
    ((family.ns, 40_000), (family.peer, 53))
}

/// What it may not: any other port.
pub fn forbidden(family: Family) -> (Endpoint, Endpoint) {
    ((family.ns, 40_000), (family.peer, 445))
}
