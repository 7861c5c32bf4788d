//! The model, held to the words it was written from.

mod answers;
mod flows;
mod fragments;
mod limits;
mod link;
mod neighbours;
mod openings;
mod replies;
mod sources;
mod timeouts;

use portcullis::abi::Reason;
use portcullis::policy::{Policy, parse};

use super::{Model, Outcome, Verdict};
use crate::support::dmz;
use crate::support::frame::{self, ACK, Endpoint, SYN};

pub const SECOND: u64 = 1_000_000_000;

/// Sequence number of every SYN+ACK here.
pub const SERVER_NUMBER: u32 = 0xffff_fffe;

/// A model and its clock.
pub struct TimedModel {
    pub model: Model,
    pub now: u64,
}

pub fn policy(text: &str) -> Policy {
    parse(text, "test.toml").expect("a policy")
}

impl TimedModel {
    /// The usual DMZ, long after the gate was attached.
    pub fn new() -> TimedModel {
        TimedModel::with(dmz::POLICY)
    }

    /// The usual DMZ with one more line in `[policy]`.
    pub fn setting(line: &str) -> TimedModel {
        TimedModel::with(&dmz::POLICY.replacen("[policy]", &format!("[policy]\n{line}"), 1))
    }

    pub fn with(text: &str) -> TimedModel {
        let mut timed = TimedModel { model: Model::new(), now: 1_000_000 * SECOND };
        timed.apply(text);
        timed.wait(100_000);
        timed
    }

    pub fn apply(&mut self, text: &str) {
        self.model.apply(&policy(text), self.now);
    }

    pub fn wait(&mut self, seconds: u64) {
        self.now += seconds * SECOND;
    }

    pub fn sends(&mut self, frame: &[u8]) -> Outcome {
        self.model.from_server(frame, self.now)
    }

    pub fn gets(&mut self, frame: &[u8]) {
        self.model.to_server(frame, self.now);
    }

    /// What becomes of a server's frame, and that verdict and reason agree.
    pub fn why(&mut self, frame: &[u8]) -> Reason {
        let outcome = self.sends(frame);
        let expected = if outcome.reason.drops() { Verdict::Drop } else { Verdict::Pass };
        assert_eq!(outcome.verdict, expected, "{outcome:?}");
        outcome.reason
    }

    /// A peer sends its SYN, the server answers.
    pub fn half_open(&mut self, server: Endpoint, peer: Endpoint) {
        self.gets(&frame::tcp(peer, server, SYN));
        let syn_ack = frame::tcp_numbered(server, peer, SYN | ACK, (SERVER_NUMBER, 1));
        assert_eq!(self.why(&syn_ack), Reason::Reply);
    }

    /// A peer opens a connection to the server.
    pub fn establish(&mut self, server: Endpoint, peer: Endpoint) {
        self.half_open(server, peer);
        let number = SERVER_NUMBER.wrapping_add(1);
        self.gets(&frame::tcp_numbered(peer, server, ACK, (1, number)));
    }
}
