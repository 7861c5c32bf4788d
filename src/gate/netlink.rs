//! Lists of the kernel about the network (rtnetlink(7)).

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::Socket;

/// Bytes for one answer of the kernel: it sends at most 32 KiB at once (net/netlink/af_netlink.c).
const ANSWER_BYTES: usize = 64 << 10;

/// Asks the kernel for a list, and shows each of its messages.
pub(super) fn dump(
    socket: &Socket,
    question: RouteNetlinkMessage,
    show: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    converse(socket, question, NLM_F_DUMP, show)
}

/// Asks the kernel for one thing, or has it do one, and shows its answer. `flags` beside that of a request.
pub(super) fn request(
    socket: &Socket,
    question: RouteNetlinkMessage,
    flags: u16,
    show: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    converse(socket, question, flags, show)
}

fn converse(
    socket: &Socket,
    question: RouteNetlinkMessage,
    flags: u16,
    mut show: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    send(socket, question, NLM_F_REQUEST | flags)?;
    let mut answer = Vec::with_capacity(ANSWER_BYTES);
    loop {
        answer.clear();
        socket.recv(&mut answer, 0)?;
        let mut rest = answer.as_slice();
        while !rest.is_empty() {
            let message = read(rest)?;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                // an error without a number says that it is done
                NetlinkPayload::Error(error) => {
                    return error.code.map_or(Ok(()), |_| Err(error.to_io()));
                }
                NetlinkPayload::InnerMessage(message) => show(message),
                _ => {}
            }
            if message.header.flags & NLM_F_MULTIPART == 0 {
                return Ok(());
            }
            // messages begin at multiples of four bytes
            let length = (message.header.length as usize).next_multiple_of(4).max(4);
            rest = rest.get(length..).unwrap_or_default();
        }
    }
}

fn send(socket: &Socket, question: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut question = NetlinkMessage::new(header, NetlinkPayload::from(question));
    question.finalize();
    let mut bytes = vec![0; question.buffer_len()];
    question.serialize(&mut bytes);
    socket.send(&bytes, 0).map(drop)
}

fn read(bytes: &[u8]) -> io::Result<NetlinkMessage<RouteNetlinkMessage>> {
    NetlinkMessage::deserialize(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}
