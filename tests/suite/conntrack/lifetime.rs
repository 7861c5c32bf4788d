//! How long both judges keep a flow that rests, as their documents say.

use super::answers::is_before;
use super::case::Case;
use super::story::{Event, Side, What};
use crate::support::frame::{ACK, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP};

impl Case<'_> {
    fn pause_s(&self) -> u64 {
        self.pauses_s().max().unwrap_or(0)
    }

    /// Whether the pause has ended the flow for conntrack, but not for the gate.
    pub fn lives_at_gate_alone(&self) -> bool {
        (self.conntrack_lifetime_s()..self.gate_lifetime_s()).contains(&self.pause_s())
    }

    /// The other way round.
    pub fn lives_at_conntrack_alone(&self) -> bool {
        (self.gate_lifetime_s()..self.conntrack_lifetime_s()).contains(&self.pause_s())
    }

    /// The place of the first packet after the pause.
    fn pause_at(&self) -> usize {
        self.before().find(|(_, event)| event.after_s > 0).map_or(usize::MAX, |(at, _)| at)
    }

    /// docs/verdicts.md, "How the direction of a flow is known".
    fn gate_lifetime_s(&self) -> u64 {
        let until = self.pause_at();
        let events: Vec<&Event> =
            self.before().filter(|(at, _)| *at < until).map(|(_, event)| event).collect();
        match self.talk().protocol {
            UDP if events.iter().any(|event| event.from == Side::Server) => 120,
            UDP | ICMP | ICMPV6 => 30,
            TCP => {
                let has = |side: Side, flag: u8| {
                    events.iter().any(|event| event.from == side && has_flag(event, flag))
                };
                let established = has(Side::Server, SYN) && has(Side::Peer, ACK);
                match () {
                    () if !established => 60,
                    () if has(Side::Server, RST) => 10,
                    () if has(Side::Server, FIN) => 120,
                    () => 432_000,
                }
            }
            _ => 600,
        }
    }

    /// net.netfilter.nf_conntrack_*_timeout*
    fn conntrack_lifetime_s(&self) -> u64 {
        match self.talk().protocol {
            // longer only if it was in use for two seconds
            UDP | ICMP | ICMPV6 => 30,
            TCP => match find_state(
                self.read_before().filter(|(at, _)| *at < self.pause_at()).map(|(_, event)| event),
            ) {
                State::SynSent | State::FinWait | State::TimeWait => 120,
                State::SynReceived | State::CloseWait => 60,
                State::Established => 432_000,
                State::LastAck => 30,
                State::Close => 10,
            },
            _ => 600,
        }
    }
}

/// Of nf_conntrack_proto_tcp.c.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    SynSent,
    SynReceived,
    Established,
    FinWait,
    CloseWait,
    LastAck,
    TimeWait,
    Close,
}

/// The state to which well-behaved segments lead.
fn find_state<'e>(events: impl Iterator<Item = &'e Event>) -> State {
    let mut state = State::SynSent;
    let mut acknowledged = [None; 2];
    for event in events {
        let What::Tcp(segment) = event.what else {
            continue;
        };
        let side = usize::from(event.from == Side::Peer);
        let is_old = acknowledged[1 - side].is_some_and(|number| is_before(segment.sequence, number));
        state = match state {
            _ if segment.flags & RST != 0 => {
                if is_old {
                    state
                } else {
                    State::Close
                }
            }
            _ if segment.flags & (SYN | ACK) == SYN | ACK => State::SynReceived,
            _ if segment.flags & SYN != 0 => State::SynSent,
            State::FinWait | State::CloseWait if segment.flags & FIN != 0 => State::LastAck,
            _ if segment.flags & FIN != 0 => State::FinWait,
            State::SynSent | State::SynReceived | State::Established => State::Established,
            State::FinWait | State::CloseWait => State::CloseWait,
            State::LastAck | State::TimeWait => State::TimeWait,
            State::Close => State::Close,
        };
        if segment.flags & ACK != 0 {
            acknowledged[side] = Some(segment.acknowledgment);
        }
    }
    state
}

fn has_flag(event: &Event, flag: u8) -> bool {
    matches!(event.what, What::Tcp(segment) if segment.flags & flag != 0)
}
