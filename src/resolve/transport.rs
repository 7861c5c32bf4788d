//! One question to one resolver: over UDP from a new port with a random id, and over TCP if the answer is cut.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use super::message::{Answer, Kind, is_answer, read_answer, write_question};

/// More than any datagram without EDNS has.
const DATAGRAM_BYTES: usize = 4096;

/// Asks. `retry`: until when a datagram is waited for. `deadline`: until when all of it may take.
pub(super) fn ask(
    resolver: SocketAddr,
    host: &str,
    kind: Kind,
    retry: Instant,
    deadline: Instant,
) -> Result<Answer, String> {
    let question = write_question(draw_id().map_err(describe)?, host, kind)?;
    let answer = read_answer(&ask_by_datagram(resolver, &question, retry).map_err(describe)?)?;
    if !answer.is_cut {
        return Ok(answer);
    }
    read_answer(&ask_by_stream(resolver, &question, deadline).map_err(describe)?)
}

#[expect(clippy::needless_pass_by_value, reason = "it stands where a closure for map_err does")]
fn describe(error: io::Error) -> String {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => "it does not answer".to_owned(),
        _ => error.to_string(),
    }
}

fn draw_id() -> io::Result<u16> {
    let mut bytes = [0; 2];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u16::from_ne_bytes(bytes))
}

/// How long is left. An error: nothing.
fn find_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

fn ask_by_datagram(resolver: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let any: IpAddr = match resolver {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // the kernel then takes datagrams of this resolver alone, and says if nobody listens there
    socket.connect(resolver)?;
    socket.send(question)?;
    let mut bytes = vec![0; DATAGRAM_BYTES];
    loop {
        socket.set_read_timeout(Some(find_left(deadline)?))?;
        let length = match socket.recv(&mut bytes) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            length => length?,
        };
        if let Some(message) = bytes.get(..length).filter(|message| is_answer(message, question)) {
            return Ok(message.to_vec());
        }
    }
}

fn ask_by_stream(resolver: SocketAddr, question: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&resolver, find_left(deadline)?)?;
    stream.set_write_timeout(Some(find_left(deadline)?))?;
    let length = u16::try_from(question.len()).map_err(|_| io::Error::from(ErrorKind::InvalidInput))?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    let mut length = [0; 2];
    read_exact(&mut stream, &mut length, deadline)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exact(&mut stream, &mut message, deadline)?;
    match is_answer(&message, question) {
        true => Ok(message),
        false => Err(io::Error::new(ErrorKind::InvalidData, "it answered another question")),
    }
}

/// A byte now and then does not move the deadline.
fn read_exact(stream: &mut TcpStream, mut room: &mut [u8], deadline: Instant) -> io::Result<()> {
    while !room.is_empty() {
        stream.set_read_timeout(Some(find_left(deadline)?))?;
        match stream.read(room) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => room = room.get_mut(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
