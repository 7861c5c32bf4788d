//! DNS messages: a question, and its answer. The crate simple-dns reads and writes them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use simple_dns::rdata::RData;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, TYPE};

use crate::net::DomainName;

const HEADER_BYTES: usize = 12;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Srv,
}

/// What an answer section has of what was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Each with its time to live.
    pub(super) addresses: Vec<(IpAddr, u32)>,
    /// Hosts of a service.
    pub(super) targets: Vec<String>,
    /// It did not fit into a datagram.
    pub(super) is_cut: bool,
}

/// A question on the wire.
pub(super) fn write_question(id: u16, host: &str, kind: Kind) -> Result<Vec<u8>, String> {
    let kind = match kind {
        Kind::A => TYPE::A,
        Kind::Aaaa => TYPE::AAAA,
        Kind::Srv => TYPE::SRV,
    };
    let refused = |error: simple_dns::SimpleDnsError| format!("it can't be asked for: {error}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(host).map_err(refused)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(refused)
}

/// Whether a message is the answer to a question, whatever it says. Others are somebody's try.
pub(super) fn is_answer(message: &[u8], question: &[u8]) -> bool {
    let (Some(head), Some(rest)) = (message.get(..HEADER_BYTES), message.get(HEADER_BYTES..question.len()))
    else {
        return false;
    };
    let flags = u16::from_be_bytes([head[2], head[3]]);
    // QR, opcode 0
    head[..2] == question[..2]
        && flags & 0xf800 == 0x8000
        && head[4..6] == question[4..6]
        && rest.eq_ignore_ascii_case(&question[HEADER_BYTES..])
}

/// Reads an answer. No such name, or nothing of this kind, is an answer without content.
pub(super) fn read_answer(message: &[u8]) -> Result<Answer, String> {
    // a cut one may end in the middle of a record
    if message.get(2).is_some_and(|flags| flags & 2 != 0) {
        return Ok(Answer { is_cut: true, ..Answer::default() });
    }
    let packet = Packet::parse(message).map_err(|error| format!("its answer can't be read: {error}"))?;
    match packet.rcode() {
        RCODE::NoError | RCODE::NameError => {}
        code => return Err(format!("it answered {code:?}")),
    }
    let mut answer = Answer::default();
    for record in packet.answers.iter().filter(|record| record.class == CLASS::IN && !record.cache_flush) {
        match &record.rdata {
            RData::A(a) => answer.addresses.push((Ipv4Addr::from(a.address).into(), record.ttl)),
            RData::AAAA(a) => answer.addresses.push((Ipv6Addr::from(a.address).into(), record.ttl)),
            // as a policy's names; what is none has no address for us
            RData::SRV(srv) => {
                answer
                    .targets
                    .extend(DomainName::parse(&srv.target.to_string()).ok().map(|name| name.to_string()));
            }
            _ => {}
        }
    }
    Ok(answer)
}
